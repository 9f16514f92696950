# frozen_string_literal: true

# The flags of an environment at one revision, as a whole. It never changes: a newer one takes its place.

require "json"

module Flagcast
  # On or off, and a value or nil.
  Flag = Struct.new(:enabled, :value)

  # A whole flag set.
  class FlagSet
    # A text or an answer that holds none.
    class Malformed < StandardError; end

    attr_reader :client_key, :revision, :updated_at, :flags

    # The set in the JSON of an answer or of a kept copy. Raises Malformed when there is none, or one of
    # another environment.
    def self.parse(text, client_key)
      data = JSON.parse(text)
      raise Malformed, "it is no JSON object" unless data.is_a?(Hash)

      of = data["environment"]
      raise Malformed, "it is of client key `#{of}`, not of `#{client_key}`" unless of == client_key

      new(client_key, data["revision"], data["updated_at"], data["flags"])
    rescue JSON::ParserError, EncodingError => e
      raise Malformed, "it is no JSON: #{e.message[0, 100].scrub}"
    end

    def initialize(client_key, revision, updated_at, flags)
      raise Malformed, "`revision` is no whole number" unless revision.is_a?(Integer) && !revision.negative?
      raise Malformed, "`updated_at` is no number" unless updated_at.is_a?(Numeric) && updated_at.to_f.finite?
      raise Malformed, "`flags` is no object" unless flags.is_a?(Hash)

      @client_key = client_key
      @revision = revision
      @updated_at = updated_at.to_f
      @flags = flags.to_h { |key, flag| [key.freeze, checked(key, flag)] }.freeze
      freeze
    end

    # The set as the text that a store keeps.
    def to_text
      flags = self.flags.transform_values { |flag| { "enabled" => flag.enabled, "value" => flag.value } }
      kept = { "environment" => client_key, "revision" => revision, "updated_at" => updated_at, "flags" => flags }
      "#{JSON.generate(kept)}\n"
    end

    private

    def checked(key, flag)
      is_flag = flag.is_a?(Hash) && [true, false].include?(flag["enabled"])
      raise Malformed, "flag `#{key}` is neither on nor off" unless is_flag

      Flag.new(flag["enabled"], frozen(flag["value"])).freeze
    end

    # Values are handed out as they are, so nobody may change them.
    def frozen(value)
      case value
      when Array then value.each { |item| frozen(item) }
      when Hash then value.each_value { |item| frozen(item) }
      end
      value.freeze
    end
  end
end
