# frozen_string_literal: true

# Reads the flags of an environment from the gateway: one request, one outcome. It never follows what a
# delivery names: only the address that the app has set.

require "json"
require "net/http"
require "openssl"
require "uri"
require "zlib"
require_relative "clock"
require_relative "flag_set"
require_relative "version"

module Flagcast
  # The gateway as a reader sees it.
  class Gateway
    # A read without an outcome. The message says why; no secret is in it.
    class Failed < StandardError; end

    # What a read found: a set with its tag, or `:same` when the set of the tag is still the newest.
    Found = Struct.new(:set, :etag)

    # The gateway does not have the revision yet; it says after how many seconds to ask again.
    Behind = Struct.new(:seconds, :detail)

    # An answer longer than this is not one of ours.
    BODY_BYTES = 64 * 1024 * 1024

    # What can go wrong on the way.
    ERRORS = [SystemCallError, IOError, SocketError, Timeout::Error, OpenSSL::SSL::SSLError,
              Net::ProtocolError, Net::HTTPBadResponse, Net::HTTPHeaderSyntaxError, Zlib::Error].freeze

    def initialize(options)
      @client_key = options.client_key
      @uri = URI("#{options.url}/sdk/v1/environments/#{@client_key}/flags")
      @open_timeout = options.open_timeout
      @read_timeout = options.read_timeout
      @clock = Clock.new
    end

    # Reads a set of at least `revision`, or the newest; with a tag only if there is a newer one.
    # Returns Found, Behind or `:same`; raises Failed.
    def read(revision: nil, etag: nil)
      uri = @uri.dup
      uri.query = "rev=#{revision}" if revision
      request = Net::HTTP::Get.new(uri, { "user-agent" => "Flagcast-Ruby/#{VERSION}" })
      request["if-none-match"] = etag if etag
      response, body = exchange(uri, request)
      outcome(response, body)
    rescue *ERRORS => e
      raise Failed, "#{@uri} cannot be read: #{e.class}: #{e.message}"
    end

    private

    def exchange(uri, request)
      deadline = @clock.monotonic + @open_timeout + @read_timeout
      http = Net::HTTP.new(uri.hostname, uri.port)
      http.use_ssl = uri.is_a?(URI::HTTPS)
      http.open_timeout = @open_timeout
      http.read_timeout = @read_timeout
      http.max_retries = 0
      body = +""
      response = http.start { |open| open.request(request) { |one| collect(one, body, deadline) } }
      [response, body.force_encoding(Encoding::UTF_8)]
    end

    # A body that comes drop by drop, or never ends, must not hold up all that follow.
    def collect(response, body, deadline)
      response.read_body do |part|
        body << part
        raise Failed, "#{@uri} answers with more than #{BODY_BYTES} bytes" if body.bytesize > BODY_BYTES
        raise Failed, "#{@uri} takes too long to answer" if @clock.monotonic > deadline
      end
    end

    def outcome(response, body)
      case response
      when Net::HTTPOK then Found.new(FlagSet.parse(body, @client_key), response["etag"])
      when Net::HTTPNotModified then :same
      when Net::HTTPNotFound then Behind.new(max_age(response), detail(body))
      else raise Failed, "#{@uri} answers #{response.code}#{": #{detail(body)}" if detail(body)}"
      end
    rescue FlagSet::Malformed => e
      raise Failed, "#{@uri} answers with what is no flag set: #{e.message}"
    end

    def max_age(response)
      response["cache-control"].to_s[/max-age=(\d{1,4})/, 1].to_f
    end

    # What the gateway says of an error.
    def detail(body)
      problem = JSON.parse(body)
      problem["detail"] if problem.is_a?(Hash) && problem["detail"].is_a?(String)
    rescue JSON::ParserError, EncodingError
      nil
    end
  end
end
