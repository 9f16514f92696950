# frozen_string_literal: true

# A delivery of the gateway, and all reasons to refuse one.

require "json"
require_relative "secret"

module Flagcast
  # Why a delivery is refused, in the words of HTTP.
  class Refused < StandardError
    attr_reader :status, :headers

    def initialize(status, message, headers = {})
      @status = status
      @headers = headers
      super(message)
    end
  end

  # What a delivery says, once it is known to come from the gateway.
  class Delivery
    # How far its time may be from ours, in seconds.
    TOLERANCE = 300

    attr_reader :id, :timestamp, :revision, :updated_at

    # Reads a delivery. The signature is of the bytes as they came, so they are looked at first.
    def self.verified(id, timestamp, signature, body, options)
      malformed = "the delivery has no `webhook-id`, `webhook-timestamp` and `webhook-signature` of the gateway"
      good = id.to_s.match?(/\A[!-~]{1,256}\z/) && timestamp.to_s.match?(/\A\d{1,12}\z/) && !signature.to_s.strip.empty?
      raise Refused.new(400, malformed) unless good

      unless Signatures.match?(signature, options.secrets, id, timestamp, body)
        raise Refused.new(401, "no signature fits: is `secret` that of this webhook?")
      end
      check_time(timestamp.to_i, options.clock.now)
      new(id, timestamp, body, options.client_key)
    end

    def self.check_time(timestamp, now)
      off = timestamp - now
      return if off.abs <= TOLERANCE

      word = off.negative? ? "old" : "new"
      raise Refused.new(400, "the delivery is too #{word} by the clock here: check the clocks of gateway and app")
    end
    private_class_method :check_time

    def initialize(id, timestamp, body, client_key)
      @id = id
      @timestamp = timestamp
      data = parse(body)
      of = data["client_key"]
      unless of == client_key
        raise Refused.new(400, "the delivery is of client key `#{of[0, 64].scrub}`, and this receiver has `#{client_key}`")
      end
      @revision = data["revision"]
      @updated_at = data["updated_at"].to_f
    end

    private

    # What it tells of, whatever its type.
    def parse(body)
      json = JSON.parse(body.dup.force_encoding(Encoding::UTF_8))
      data = json["data"] if json.is_a?(Hash)
      known = data.is_a?(Hash) && data["client_key"].is_a?(String) &&
              data["revision"].is_a?(Integer) && !data["revision"].negative? &&
              data["updated_at"].is_a?(Numeric) && data["updated_at"].to_f.finite?
      known ? data : raise(Refused.new(400, "the delivery does not say of which environment and revision it is"))
    rescue JSON::ParserError, EncodingError
      raise Refused.new(400, "the delivery is no JSON")
    end
  end
end
