# frozen_string_literal: true

# What an app says when it makes a receiver, checked at once: a wrong option must not wait for the first
# delivery to be noticed.

require "logger"
require "uri"
require_relative "clock"
require_relative "file_store"
require_relative "secret"

module Flagcast
  # An option that cannot be used. The message says which, the rule, and what to do.
  class ConfigError < ArgumentError; end

  # The options of a receiver. It never shows a secret.
  class Options
    # url::          where the gateway is; it may have a path
    # client_key::   the client key of the environment
    # secret::       the secret of the webhook, or a list while it is rotated: `whsec_…`
    # store::        where the last known flags are kept: the path of a file, or an object with
    #                `load` (a text or nil) and `save(text)`, maybe `stamp`; nil for nowhere
    # poll_seconds:: how often the gateway is asked without a webhook, ± 20 %; 0 for never
    # open_timeout:: seconds to connect
    # read_timeout:: seconds for a whole answer
    # logger::       what warnings go to; nil for nowhere
    # clock::        another time, for tests
    def initialize(url:, client_key:, secret:, store: nil, poll_seconds: 300, open_timeout: 2,
                   read_timeout: 5, logger: Logger.new($stderr, progname: "flagcast"), clock: Clock.new)
      @url = checked_url(url)
      @client_key = checked_key(client_key)
      @secrets = checked_secrets(secret)
      @store = checked_store(store)
      @poll_seconds = seconds("poll_seconds", poll_seconds, or_zero: true)
      @open_timeout = seconds("open_timeout", open_timeout)
      @read_timeout = seconds("read_timeout", read_timeout)
      @logger = logger || Logger.new(nil)
      @clock = clock
    end

    attr_reader :url, :client_key, :secrets, :store, :poll_seconds, :open_timeout, :read_timeout,
                :logger, :clock

    def inspect
      "#<Flagcast::Options url=#{url} client_key=#{client_key}>"
    end

    private

    def checked_url(url)
      parsed = URI.parse(url.to_s)
      plain = parsed.is_a?(URI::HTTP) && parsed.host && !parsed.query && !parsed.userinfo
      raise URI::InvalidURIError unless plain

      url.to_s.sub(%r{/+\z}, "").freeze
    rescue URI::InvalidURIError
      raise ConfigError, "`url` must be the gateway's address, http:// or https:// without a query or a " \
                         "password, such as https://flags.example.com"
    end

    def checked_key(key)
      return key.dup.freeze if key.is_a?(String) && key.match?(/\A[0-9A-Za-z_-]+\z/)

      raise ConfigError, "`client_key` must be the client key of an environment, letters and digits; the " \
                         "page shows it, and so does GET /admin/v1/projects/…/environments/…"
    end

    def checked_secrets(given)
      list = given.is_a?(Array) ? given : [given]
      raise ConfigError, "`secret` must not be empty: #{Secret::RULE}" if list.empty?

      list.map { |text| Secret.parse(text) or raise ConfigError, "`secret` cannot be read: #{Secret::RULE}" }
    end

    def checked_store(store)
      return store if store.nil? || (store.respond_to?(:load) && store.respond_to?(:save))
      return FileStore.new(store.to_s) if store.respond_to?(:to_path) || (store.is_a?(String) && !store.empty?)

      raise ConfigError, "`store` must be the path of a file, or an object with `load` and `save(text)`"
    end

    def seconds(name, value, or_zero: false)
      good = value.is_a?(Numeric) && value.to_f.finite? && (value.positive? || (or_zero && value.zero?))
      return value.to_f if good

      raise ConfigError, "`#{name}` must be a number of seconds above 0#{", or 0 for never" if or_zero}"
    end
  end
end
