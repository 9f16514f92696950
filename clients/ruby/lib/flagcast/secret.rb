# frozen_string_literal: true

# The secret of a webhook, and the signatures that it makes: Standard Webhooks, version `v1`.

require "openssl"

module Flagcast
  # One secret. It shows itself to nobody.
  class Secret
    PREFIX = "whsec_"
    BYTES = (24..64).freeze
    RULE = "it is `whsec_` with the base64 of 24 to 64 bytes, shown once when the webhook is made; " \
           "POST …/webhooks/{id}/secret:rotate makes another"

    # The secret in a text, or nil when there is none.
    def self.parse(text)
      return unless text.is_a?(String) && text.start_with?(PREFIX)

      key = text.delete_prefix(PREFIX).unpack1("m0")
      new(key) if BYTES.cover?(key.bytesize)
    rescue ArgumentError
      nil
    end

    def initialize(key)
      @key = key.freeze
    end

    # The signature of a delivery, 32 bytes.
    def sign(id, timestamp, body)
      OpenSSL::HMAC.digest("SHA256", @key, "#{id}.#{timestamp}.".b << body.b)
    end

    def inspect
      "#<Flagcast::Secret>"
    end
    alias to_s inspect
  end

  # The signatures that came with a delivery.
  module Signatures
    BYTES = 32

    # Whether one in the list of the header, `v1,<base64> v1,<base64>`, was made with one of the secrets.
    # Other versions are passed over. How long it takes says nothing of the secret.
    def self.match?(header, secrets, id, timestamp, body)
      given = header.split(" ").filter_map { |item| decoded(item) }
      expected = secrets.map { |secret| secret.sign(id, timestamp, body) }
      expected.product(given).count { |one, other| OpenSSL.fixed_length_secure_compare(one, other) }.positive?
    end

    def self.decoded(item)
      version, text = item.split(",", 2)
      return unless version == "v1" && text

      bytes = text.unpack1("m0")
      bytes if bytes.bytesize == BYTES
    rescue ArgumentError
      nil
    end
    private_class_method :decoded
  end
end
