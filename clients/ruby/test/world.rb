# frozen_string_literal: true

# What the tests share: a clock that is moved by hand, a gateway that does as it is told, and deliveries.

$LOAD_PATH.unshift(File.expand_path("../lib", __dir__))
require "fileutils"
require "flagcast"
require "json"
require "logger"
require "minitest/autorun"
require "openssl"
require "rack"
require "socket"
require "stringio"
require "tmpdir"

# Nothing of the machine may come between.
ENV["no_proxy"] = "*"
Thread.report_on_exception = true

# Time that stands still until it is moved; nothing is random.
class SteppedClock
  attr_accessor :now, :monotonic

  # How often each thread has begun to wait, by its name.
  attr_reader :waits

  def initialize
    @now = 1_800_000_000.0
    @monotonic = 0.0
    @waits = Hash.new(0)
  end

  # Who waits looks again all the time, so nobody misses a step.
  def wait(condition, mutex, _seconds)
    @waits[Thread.current.name] += 1
    condition.wait(mutex, 0.005)
  end

  def jitter(seconds)
    seconds
  end

  def step(seconds)
    @now += seconds
    @monotonic += seconds
    nil
  end
end

# A gateway with one environment, as the receiver sees it.
class FakeGateway
  KEY = "npfo95nMwUw8cjHXdHi2hG"

  Request = Struct.new(:path, :rev, :etag, :headers)

  attr_reader :requests, :revision, :updated_at
  # Answers for the next requests: lambdas that take the request and return [status, headers, body], the
  # bytes of a whole answer, or nil for what it would answer by itself.
  attr_reader :script
  # The newest revision that reads know; nil for the newest that there is.
  attr_accessor :read_revision

  def initialize
    @requests = []
    @script = []
    @mutex = Mutex.new
    @gate = Queue.new
    @flags = { "dark-mode" => { enabled: false, value: nil } }
    @revision = 42
    @updated_at = 1_763_790_000.015625
    listen(0)
  end

  def url
    "http://127.0.0.1:#{@port}"
  end

  # Makes a revision, and returns what a delivery says of it.
  def change(flags = {})
    @mutex.synchronize do
      @flags = @flags.merge(flags.to_h { |key, (enabled, value)| [key, { enabled: enabled, value: value }] })
      @revision += 1
      @updated_at += 0.015625
    end
    data
  end

  # What a restore from a backup does: numbers go back, time goes on.
  def restore(revision, flags)
    @mutex.synchronize do
      @revision = revision
      @updated_at += 1000
      @flags = flags.to_h { |key, (enabled, value)| [key, { enabled: enabled, value: value }] }
    end
    data
  end

  def data
    { client_key: KEY, revision: @revision, updated_at: @updated_at, changed: [], project: "web",
      environment: "production", flags_url: "http://192.0.2.1/sdk/v1/environments/#{KEY}/flags?rev=#{@revision}" }
  end

  def flag_set
    { environment: KEY, revision: @revision, updated_at: @updated_at, flags: @flags }
  end

  def count
    @mutex.synchronize { @requests.size }
  end

  # Refuses connections until `up`.
  def down
    @listener.close
    @accepting.join
  end

  def up
    listen(@port)
  end

  def close
    down unless @listener.closed?
  end

  private

  def listen(port)
    @listener = TCPServer.new("127.0.0.1", port)
    @port = @listener.addr[1]
    @accepting = Thread.new { accept(@listener) }
  end

  def accept(listener)
    loop { Thread.new(listener.accept) { |socket| serve(socket) } }
  rescue IOError
    # It was closed.
  end

  def serve(socket)
    head = +""
    head << socket.readpartial(4096) until head.include?("\r\n\r\n")
    request = parse(head)
    scripted = @mutex.synchronize do
      @requests << request
      @script.shift
    end
    answer = scripted&.call(request) || flags(request)
    socket.write(answer.is_a?(String) ? answer : packed(*answer))
  rescue SystemCallError, IOError
    # The receiver has gone away.
  ensure
    socket.close
  end

  def parse(head)
    lines = head.split("\r\n")
    path = lines[0].split[1]
    headers = lines[1..].to_h { |line| line.split(": ", 2) }.transform_keys(&:downcase)
    Request.new(path, path[/rev=(\d+)/, 1]&.to_i, headers["if-none-match"], headers)
  end

  def flags(request)
    @mutex.synchronize do
      known = @read_revision || @revision
      missing = request.path.start_with?("/sdk/v1/environments/#{KEY}/flags") && known >= request.rev.to_i
      return [404, { "cache-control" => "public, max-age=1" }, '{"detail":"not there yet"}'] unless missing

      etag = %(W/"#{KEY}.#{@revision}")
      return [304, { "etag" => etag }, ""] if request.etag == etag

      [200, { "content-type" => "application/json", "etag" => etag }, JSON.generate(flag_set)]
    end
  end

  def packed(status, headers, body)
    lines = headers.map { |name, value| "#{name}: #{value}\r\n" }.join
    "HTTP/1.1 #{status} X\r\n#{lines}content-length: #{body.bytesize}\r\nconnection: close\r\n\r\n#{body}"
  end
end

# Deliveries as the gateway signs them.
module Deliveries
  SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
  OTHER = "whsec_#{["another secret of thirty-two byt"].pack("m0")}"

  def self.body(data, type: "environment.updated")
    JSON.generate(type: type, timestamp: "2026-11-28T08:00:00.015625Z", data: data)
  end

  # One signature, by the words of Standard Webhooks and without the code under test.
  def self.sign(secret, id, timestamp, body)
    key = secret.delete_prefix("whsec_").unpack1("m")
    "v1,#{[OpenSSL::HMAC.digest("SHA256", key, "#{id}.#{timestamp}.#{body}")].pack("m0")}"
  end

  @last = 0

  def self.next_id
    "msg_#{@last += 1}"
  end
end

# One test with a receiver and a gateway.
class WorldTest < Minitest::Test
  # Seconds that something may take which happens within a moment.
  LONG = Float(ENV.fetch("FLAGCAST_TEST_SECONDS", "20"))

  KEY = FakeGateway::KEY
  SECRET = Deliveries::SECRET

  def setup
    @clock = SteppedClock.new
    @gateway = FakeGateway.new
    @folder = Dir.mktmpdir("flagcast-")
    @copy = File.join(@folder, "flags.json")
    @log = StringIO.new
    @receivers = []
  end

  def teardown
    @receivers.each(&:close)
    @gateway.close
    FileUtils.remove_entry(@folder)
  end

  def options(**more)
    { url: @gateway.url, client_key: KEY, secret: SECRET, clock: @clock, logger: Logger.new(@log) }.merge(more)
  end

  def receiver(**more)
    Flagcast.new(**options(**more)).tap { |one| @receivers << one }
  end

  # A receiver that has read the flags.
  def ready(**more)
    receiver(**more).tap { |one| eventually { one.revision == @gateway.revision } }
  end

  # Posts a delivery, through the checks of Rack.
  def deliver(to, data = @gateway.data, body: nil, id: Deliveries.next_id, at: @clock.now.to_i, secret: SECRET,
              signature: nil, type: "environment.updated", more: {})
    body ||= Deliveries.body(data, type: type)
    headers = {
      "HTTP_WEBHOOK_ID" => id, "HTTP_WEBHOOK_TIMESTAMP" => at.to_s,
      "HTTP_WEBHOOK_SIGNATURE" => signature || Deliveries.sign(secret, id, at, body),
      "CONTENT_TYPE" => "application/json",
    }
    Rack::MockRequest.new(Rack::Lint.new(to)).post("/", { input: body }.merge(headers).merge(more).compact)
  end

  # The same on a thread, for answers that wait.
  def delivering(...)
    Thread.new { deliver(...) }
  end

  def assert_applied(revision, response)
    assert_equal 200, response.status, response.body
    assert_equal revision.to_s, response.headers["x-flagcast-applied-revision"]
  end

  def assert_refused(status, pattern, response)
    assert_equal status, response.status, response.body
    assert_match pattern, JSON.parse(response.body).fetch("error")
    assert_equal "application/json", response.headers["content-type"]
  end

  # Waits until a thread has done all that it has to do at this time.
  def settle(name = "flagcast fetcher")
    before = @clock.waits[name]
    eventually("#{name} rests") { @clock.waits[name] >= before + 2 }
  end

  # Waits for a condition. It is long, because tests share the machine; one that passes never waits for it.
  def eventually(what = "it happens", seconds: LONG)
    deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
    until (found = yield)
      flunk("not within #{seconds} s: #{what}\n#{@log.string}") if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
      sleep 0.002
    end
    found
  end

  # Shows that something stays as it is, for a moment.
  def assert_stays(expected)
    30.times do
      found = yield
      assert found == expected, "#{found.inspect} is not #{expected.inspect}"
      sleep 0.002
    end
  end
end
