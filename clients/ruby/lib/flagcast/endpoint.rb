# frozen_string_literal: true

# The Rack app that the gateway posts to.

require "json"
require_relative "delivery"
require_relative "fetcher"
require_relative "replays"

module Flagcast
  # Answers deliveries. It needs nothing of Rack but its shape.
  class Endpoint
    # A delivery is a few hundred bytes; one that names thousands of flags is still shorter.
    BODY_BYTES = 256 * 1024

    # How long an answer may wait for the flags; the gateway gives up after 15 s.
    WAIT_SECONDS = 8

    # After how many seconds the gateway may try again.
    RETRY_SECONDS = 5

    def initialize(options, held)
      @options = options
      @held = held
      @logger = options.logger
      # The time of a delivery may be ahead of ours by as much as it may be behind.
      @replays = Replays.new(options.clock, 2 * Delivery::TOLERANCE)
    end

    # Answers one request; `fetcher` is the one of this process.
    def call(env, fetcher)
      answer(env, fetcher)
    rescue Refused => e
      @logger.warn("a delivery was refused: #{e.message}") unless e.status == 405
      respond(e.status, { error: e.message }, e.headers)
    rescue StandardError => e
      @logger.error("a delivery failed: #{e.class}: #{e.message}")
      respond(500, { error: "the receiver failed; its log says why" })
    end

    private

    def answer(env, fetcher)
      raise Refused.new(405, "deliveries are POSTed", "allow" => "POST") unless env["REQUEST_METHOD"] == "POST"

      body = read(env)
      named = %w[HTTP_WEBHOOK_ID HTTP_WEBHOOK_TIMESTAMP HTTP_WEBHOOK_SIGNATURE].map { |name| env[name] }
      delivery = Delivery.verified(*named, body, @options)
      unless @replays.new?(delivery.id, delivery.timestamp)
        return respond(409, { error: "this delivery came before" }, applied)
      end
      apply(delivery, fetcher)
    end

    def apply(delivery, fetcher)
      unless @held.reaches?(delivery.updated_at)
        raise Refused.new(503, "the receiver was closed") unless fetcher.alive?

        fetcher.want(Fetcher::Target.new(delivery.revision, delivery.updated_at))
        unless @held.wait(delivery.updated_at, WAIT_SECONDS)
          behind = { error: "the flags could not be read yet; the receiver goes on trying" }
          return respond(503, behind, applied.merge("retry-after" => RETRY_SECONDS.to_s))
        end
      end
      respond(200, { revision: @held.set.revision }, applied)
    end

    # The bytes as they came, however far somebody has read them already.
    def read(env)
      too_large = Refused.new(413, "a delivery has at most #{BODY_BYTES} bytes")
      raise too_large if env["CONTENT_LENGTH"].to_i > BODY_BYTES

      input = env["rack.input"]
      return "" if input.nil?

      input.rewind if input.respond_to?(:rewind)
      body = input.read(BODY_BYTES + 1) || ""
      raise too_large if body.bytesize > BODY_BYTES

      body
    end

    # What this process holds, for the gateway to know who is behind.
    def applied
      set = @held.set
      set ? { "x-flagcast-applied-revision" => set.revision.to_s } : {}
    end

    def respond(status, content, headers = {})
      body = "#{JSON.generate(content)}\n"
      own = { "content-type" => "application/json", "content-length" => body.bytesize.to_s,
              "cache-control" => "no-store" }
      [status, own.merge(headers), [body]]
    end
  end
end
