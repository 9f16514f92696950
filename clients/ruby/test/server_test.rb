# frozen_string_literal: true

# Real servers: the example with Puma, in one process and in several, and the line that mounts the receiver.

require_relative "world"
require "net/http"
require "open3"
require "sinatra/base"
require "webrick"

class ServerTest < WorldTest
  SERVER = File.expand_path("../example/server.rb", __dir__)

  def setup
    super
    @clock = nil
  end

  def teardown
    stop
    super
  end

  # Starts the example; its port.
  def start(workers: 0, **more)
    environment = {
      "FLAGCAST_URL" => @gateway.url, "FLAGCAST_CLIENT_KEY" => KEY,
      "FLAGCAST_WEBHOOK_SECRET" => "#{Deliveries::OTHER},#{SECRET}", "FLAGCAST_POLL_SECONDS" => "0",
      "FLAGCAST_COPY" => @copy, "WEB_CONCURRENCY" => workers.to_s, "PORT" => "0",
    }.merge(more.transform_keys(&:to_s))
    input, @output, @process = Open3.popen2e(environment, "ruby", SERVER)
    input.close
    @lines = []
    @reading = Thread.new { @output.each_line { |line| @lines << line } }
    line = eventually("the server listens") do
      flunk(@lines.join) unless @process.alive?
      @lines.grep(/\Alistening \d+$/).first
    end
    @port = line.split.last.to_i
  end

  def stop
    return unless @process

    Process.kill(:TERM, @process.pid) if @process.alive?
    @process.join(20) || Process.kill(:KILL, @process.pid)
    @reading.join
    @output.close
    @process = nil
  end

  def flag(key = "dark-mode")
    response = Net::HTTP.get_response("127.0.0.1", "/flags/#{key}", @port)
    [JSON.parse(response.body), response["x-process"]]
  end

  def post(data, id: Deliveries.next_id, at: Time.now.to_i)
    body = Deliveries.body(data)
    headers = { "webhook-id" => id, "webhook-timestamp" => at.to_s, "content-type" => "application/json",
                "webhook-signature" => Deliveries.sign(SECRET, id, at, body) }
    Net::HTTP.post(URI("http://127.0.0.1:#{@port}/flagcast"), body, headers)
  end

  # What each process says, until all of them have answered.
  def said_by_each(count)
    said = {}
    eventually("#{count} processes answer") do
      answer, process = flag
      said[process] = answer
      said.size == count
    end
    said.values
  end

  def test_one_process_with_threads
    start
    eventually { flag[0]["revision"] == 42 }
    assert_equal({ "enabled" => false, "value" => nil, "revision" => 42 }, flag[0])
    response = post(@gateway.change("dark-mode" => [true, "blue"]))
    assert_equal ["200", "43"], [response.code, response["x-flagcast-applied-revision"]]
    assert_equal({ "enabled" => true, "value" => "blue", "revision" => 43 }, flag[0])
    assert_equal "405", Net::HTTP.get_response("127.0.0.1", "/flagcast", @port).code
    assert_equal "200", Net::HTTP.get_response("127.0.0.1", "/health", @port).code
  end

  def test_it_goes_on_without_the_gateway_and_starts_again
    start
    eventually { flag[0]["revision"] == 42 }
    post(@gateway.change("dark-mode" => [true, "blue"]))
    eventually { File.exist?(@copy) && JSON.parse(File.read(@copy))["revision"] == 43 }
    @gateway.down
    assert_equal "blue", flag[0]["value"]
    stop
    start
    assert_equal({ "enabled" => true, "value" => "blue", "revision" => 43 }, flag[0])
  end

  # A delivery reaches one worker; the others follow within about a second.
  def test_all_workers_of_puma_come_to_the_same_flags
    start(workers: 3)
    said_by_each(3)
    3.times do |n|
      revision = 43 + n
      response = post(@gateway.change("dark-mode" => [n.even?, n]))
      assert_equal ["200", revision.to_s], [response.code, response["x-flagcast-applied-revision"]]
      eventually("all are at #{revision}", seconds: 30) { said_by_each(3).all? { |one| one["revision"] == revision } }
    end
    assert_empty @lines.grep(/Detected|WARN|ERROR/)
  end

  def test_a_worker_that_is_replaced_starts_from_the_copy
    start(workers: 2)
    post(@gateway.change("dark-mode" => [true, nil]))
    eventually { File.exist?(@copy) && JSON.parse(File.read(@copy))["revision"] == 43 }
    _, process = flag
    Process.kill(:KILL, process.to_i)
    # Puma looks after its workers every few seconds.
    eventually("another worker answers", seconds: 40) do
      found = (flag rescue next)
      found[0]["enabled"] && found[1] != process
    end
  end

  # The lines of the README, each in its place.
  def test_one_line_mounts_it
    @clock = SteppedClock.new
    flags = ready
    builder = Rack::Builder.new { map("/flagcast") { run flags } }
    sinatra = Class.new(Sinatra::Base) { post("/flagcast") { flags.call(env) } }
    [builder.to_app, sinatra].each do |app|
      body = Deliveries.body(@gateway.change)
      id = Deliveries.next_id
      response = Rack::MockRequest.new(Rack::Lint.new(app)).post(
        "/flagcast", input: body, "HTTP_WEBHOOK_ID" => id, "HTTP_WEBHOOK_TIMESTAMP" => @clock.now.to_i.to_s,
                     "HTTP_WEBHOOK_SIGNATURE" => Deliveries.sign(SECRET, id, @clock.now.to_i, body)
      )
      assert_applied @gateway.revision, response
      assert_includes response.content_type, "application/json"
    end
  end

  def test_webrick_serves_it_too
    flags = Flagcast.new(**options.except(:clock)).tap { |one| @receivers << one }
    server = WEBrick::HTTPServer.new(BindAddress: "127.0.0.1", Port: 0, Logger: WEBrick::Log.new(File::NULL), AccessLog: [])
    server.mount("/", Rack::Handler::WEBrick, flags)
    serving = Thread.new { server.start }
    @port = server.config[:Port]
    response = post(@gateway.change("dark-mode" => [true, nil]))
    assert_equal ["200", "43"], [response.code, response["x-flagcast-applied-revision"]]
    assert flags.enabled?("dark-mode")
  ensure
    server&.shutdown
    serving&.join
  end
end
