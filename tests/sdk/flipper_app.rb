# frozen_string_literal: true

# An app with Flipper, as it is with Flipper Cloud in webhook mode: a signed POST makes it read all
# features from the remote side and bring its own copy in line; questions are answered from that copy.
#
# Debian's Flipper decides (gates, memory adapter, synchronizer). It comes without the parts that speak
# HTTP, so those are here, and do what the published ones do, request by request: the adapter of
# `flipper` 1.x and the Rack app of `flipper-cloud`.
#
#   SSL_CERT_FILE=ca.pem ruby flipper_app.rb https://127.0.0.1:8443/flipper TOKEN SECRET

require "flipper"
require "flipper/version"
require "flipper/adapters/memory"
require "flipper/adapters/sync/synchronizer"
require "net/http"
require "openssl"
require "rack"
require "set"
require "uri"
require "webrick"
require_relative "lines"

# The remote side: the requests of Flipper's HTTP adapter, and how it reads the answers.
class Remote
  include Flipper::Adapter

  # An answer other than it must be.
  class Failed < StandardError
    attr_reader :response

    def initialize(response)
      @response = response
      super("Failed with status: #{response.code}")
    end
  end

  attr_reader :statuses

  def initialize(url, token)
    @url = url
    @token = token
    @statuses = []
  end

  # Everything, past all caches or with the tag of what was read before.
  def get_all(cache_bust: true)
    path = "/features?exclude_gate_names=true"
    path += "&_cb=#{Time.now.to_i}" if cache_bust
    response = read(path, cache_bust || @etag.nil? ? {} : { "if-none-match" => @etag })
    return @result if response.is_a?(Net::HTTPNotModified)

    gates = gates_by_key(ok(response))
    @etag = response["etag"]
    @result = gates.to_h { |key, of_key| [key, values(of_key)] }
  end

  def get(feature)
    response = read("/features/#{escape(feature.key)}")
    return default_config if response.is_a?(Net::HTTPNotFound)

    values(JSON.parse(ok(response).body).fetch("gates"))
  end

  def get_multi(features)
    keys = features.map { |feature| escape(feature.key) }.join(",")
    gates = gates_by_key(ok(read("/features?keys=#{keys}&exclude_gate_names=true")))
    features.to_h { |feature| [feature.key, values(gates.fetch(feature.key, []))] }
  end

  # What an app does that switches a feature by itself: the remote side first.
  def write(key)
    uri = URI("#{@url}/features/#{escape(key)}/boolean")
    send_to(uri, Net::HTTP::Post.new(uri, headers), "{}").code.to_i
  end

  # What an app does that counts how often it asks.
  def telemetry
    uri = URI("#{@url}/telemetry")
    response = send_to(uri, Net::HTTP::Post.new(uri, headers), "not read")
    [response.code.to_i, response["telemetry-shutdown"]]
  end

  private

  def read(path, more = {})
    uri = URI("#{@url}#{path}")
    send_to(uri, Net::HTTP::Get.new(uri, headers.merge(more)))
  end

  def headers
    {
      "flipper-cloud-token" => @token,
      "accept-encoding" => "gzip",
      "content-type" => "application/json",
      "accept" => "application/json",
      "user-agent" => "Flipper HTTP Adapter v#{Flipper::VERSION}",
    }
  end

  def send_to(uri, request, body = nil)
    http = Net::HTTP.new(uri.host, uri.port)
    http.use_ssl = uri.scheme == "https"
    http.open_timeout = 2
    http.read_timeout = 5
    http.max_retries = 0
    response = http.request(request, body)
    # Who names an encoding unpacks by hand.
    if response["content-encoding"] == "gzip"
      response.body = Zlib::GzipReader.new(StringIO.new(response.body)).read
    end
    @statuses << response.code.to_i
    response
  end

  def ok(response)
    raise Failed, response unless response.is_a?(Net::HTTPOK)

    response
  end

  def gates_by_key(response)
    JSON.parse(response.body).fetch("features").to_h { |one| [one.fetch("key"), one.fetch("gates")] }
  end

  # Lists become sets, single values text; what is not told stays as it is by default.
  def values(gates)
    gates.each_with_object(default_config) do |gate, result|
      key = gate.fetch("key").to_sym
      next unless result.key?(key)

      value = gate.fetch("value")
      result[key] = result[key].is_a?(Set) ? value.to_set : (value && value.to_s)
    end
  end

  def escape(key)
    URI.encode_www_form_component(key)
  end
end

# The Rack app that Flipper Cloud posts to.
class Webhook
  TOLERANCE = 300

  def initialize(secret, sync)
    @secret = secret
    @sync = sync
  end

  def call(env)
    request = Rack::Request.new(env)
    here = ["", "/"].include?(request.path_info) || request.path_info.match?(%r{\A/webhooks/?\z})
    return answer(404, "{}") unless request.post? && here
    return answer(400, "{}") unless signed?(request.body.read, env["HTTP_FLIPPER_CLOUD_SIGNATURE"])

    sync
  end

  private

  def sync
    @sync.call
    answer(200, JSON.generate(groups: Flipper.group_names.map { |name| { name: name } }))
  rescue StandardError => e
    status = e.is_a?(Remote::Failed) && e.response.code.to_i == 402 ? 402 : 500
    answer(status, "{}", "flipper-cloud-response-error-class" => e.class.name,
                         "flipper-cloud-response-error-message" => e.message)
  end

  # Any of several signatures; only the past is too far away.
  def signed?(body, header)
    parts = header.to_s.split(/,\s*/).map { |part| part.split("=", 2) }
    time = parts.assoc("t")&.last.to_i
    given = parts.select { |name, _| name == "v1" }.map(&:last)
    return false if time.zero? || time < Time.now.to_i - TOLERANCE

    expected = OpenSSL::HMAC.hexdigest("SHA256", @secret, "#{time}.#{body}")
    given.any? { |one| Rack::Utils.secure_compare(expected, one.to_s) }
  end

  def answer(status, body, more = {})
    [status, { "Content-Type" => "application/json" }.merge(more), [body]]
  end
end

url, token, secret = ARGV
remote = Remote.new(url, token)
local = Flipper::Adapters::Memory.new
flipper = Flipper.new(local)
sync = -> { Flipper::Adapters::Sync::Synchronizer.new(local, remote).call }

server = WEBrick::HTTPServer.new(
  BindAddress: "127.0.0.1", Port: 0,
  Logger: WEBrick::Log.new(File::NULL), AccessLog: []
)
server.mount("/_flipper", Rack::Handler::WEBrick, Webhook.new(secret, sync))
Thread.new { server.start }

report(event: "ready", package: "flipper", version: Flipper::VERSION, port: server.config[:Port])
obey_lines do |command|
  feature = flipper[command.fetch("key", "")]
  case command.fetch("do")
  when "sync" then sync.call
  when "features" then flipper.features.to_h { |one| [one.key, one.state] }
  when "enabled" then feature.enabled?(command["actor"] && Flipper::Actor.new(command["actor"]))
  when "count" then (0...command.fetch("of")).count { |n| feature.enabled?(Flipper::Actor.new("user-#{n}")) }
  when "poll" then [remote.get_all(cache_bust: false).keys.sort, remote.statuses.last]
  when "get" then remote.get(feature).transform_values { |value| value.is_a?(Set) ? value.to_a : value }
  when "get_multi" then remote.get_multi(command.fetch("keys").map { |key| flipper[key] })
                              .transform_values { |gates| gates[:boolean] }
  when "write" then remote.write(command.fetch("key"))
  when "telemetry" then remote.telemetry
  else raise "no such command"
  end
end
