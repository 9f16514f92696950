# frozen_string_literal: true

# What the receiver answers to deliveries, good and bad.

require_relative "world"

class EndpointTest < WorldTest
  def test_a_delivery_brings_the_newest_flags
    flags = ready
    refute flags.enabled?("dark-mode")
    response = deliver(flags, @gateway.change("dark-mode" => [true, "blue"]))
    assert_applied 43, response
    assert_equal({ "revision" => 43 }, JSON.parse(response.body))
    assert_equal [true, "blue", 43], [flags.enabled?("dark-mode"), flags.value("dark-mode"), flags.revision]
    # Never from where a delivery says.
    assert_equal 43, @gateway.requests.last.rev
  end

  def test_every_type_says_the_same
    flags = ready
    %w[flag.updated segment.deleted webhook.test anything].each do |type|
      assert_applied @gateway.revision + 1, deliver(flags, @gateway.change, type: type)
    end
  end

  def test_what_is_held_already_is_answered_at_once
    flags = ready
    before = @gateway.count
    assert_applied 42, deliver(flags)
    assert_applied 42, deliver(flags, @gateway.data.merge(revision: 9, updated_at: 1.0))
    assert_equal before, @gateway.count
  end

  def test_only_posts_are_deliveries
    flags = ready
    %w[GET HEAD PUT DELETE OPTIONS].each do |method|
      response = Rack::MockRequest.new(flags).request(method, "/")
      assert_refused 405, /POST/, response
      assert_equal "POST", response.headers["allow"]
    end
  end

  def test_large_bodies_are_refused
    flags = ready
    large = Deliveries.body(@gateway.data.merge(padding: "x" * 256 * 1024))
    assert_refused 413, /262144/, deliver(flags, body: large)
    # The length may be unknown, or wrong.
    assert_refused 413, /262144/, deliver(flags, body: large, more: { "CONTENT_LENGTH" => "7" })
    # What says that it is too long is not even read.
    env = Rack::MockRequest.env_for("/", method: "POST", "CONTENT_LENGTH" => "262145")
    assert_equal 413, flags.call(env.merge("rack.input" => Object.new))[0]
    fits = Deliveries.body(@gateway.data.merge(padding: "x" * 200 * 1024))
    assert_applied 42, deliver(flags, body: fits)
  end

  def test_missing_or_garbled_headers_are_refused
    flags = ready
    %w[ID TIMESTAMP SIGNATURE].each do |name|
      [nil, "", " "].each do |value|
        response = deliver(flags, more: { "HTTP_WEBHOOK_#{name}" => value })
        assert_refused 400, /webhook-id/, response
      end
    end
    %w[x 1e9 -5 1.5 99999999999999].push("#{@clock.now.to_i}\n").each do |at|
      assert_refused 400, /webhook-timestamp/, deliver(flags, at: at)
    end
    ["a b", "x" * 300, "\u00e9".b].each { |id| assert_refused 400, /webhook-id/, deliver(flags, id: id) }
  end

  def test_what_others_signed_is_refused
    flags = ready
    data = @gateway.change
    body = Deliveries.body(data)
    good = Deliveries.sign(SECRET, "msg_x", @clock.now.to_i, body)
    assert_refused 401, /secret/, deliver(flags, data, secret: Deliveries::OTHER)
    assert_refused 401, /secret/, deliver(flags, body: body.sub("43", "44"), id: "msg_x", signature: good)
    assert_refused 401, /secret/, deliver(flags, body: "#{body} ", id: "msg_x", signature: good)
    assert_refused 401, /secret/, deliver(flags, body: body, id: "msg_y", signature: good)
    assert_refused 401, /secret/, deliver(flags, body: body, id: "msg_x", at: @clock.now.to_i + 1, signature: good)
    assert_refused 401, /secret/, deliver(flags, body: body, id: "msg_x", signature: "nonsense")
    assert_nil deliver(flags, data, secret: Deliveries::OTHER).headers["x-flagcast-applied-revision"]
    assert_equal 42, flags.revision
    assert_applied 43, deliver(flags, body: body, id: "msg_x", signature: good)
  end

  def test_during_a_rotation_either_secret_will_do
    new = Deliveries::OTHER
    flags = ready(secret: [new, SECRET])
    assert_applied 43, deliver(flags, @gateway.change, secret: SECRET)
    assert_applied 44, deliver(flags, @gateway.change, secret: new)
    # The gateway signs with both, and an app may have either.
    [SECRET, new].each do |secret|
      one = ready(secret: secret)
      body = Deliveries.body(@gateway.change)
      both = [new, SECRET].map { |each| Deliveries.sign(each, "both", @clock.now.to_i, body) }.join(" ")
      assert_applied @gateway.revision, deliver(one, body: body, id: "both", signature: both)
    end
  end

  def test_old_and_new_times_are_refused
    flags = ready
    now = @clock.now.to_i
    [-300, 0, 300].each { |off| assert_applied 42, deliver(flags, at: now + off) }
    assert_refused 400, /too old.*clocks/, deliver(flags, at: now - 301)
    assert_refused 400, /too new.*clocks/, deliver(flags, at: now + 301)
  end

  def test_deliveries_of_another_environment_are_refused
    flags = ready
    response = deliver(flags, @gateway.data.merge(client_key: "other", updated_at: 9e9))
    assert_refused 400, /`other`.*`#{KEY}`/, response
    assert_nil response.headers["x-flagcast-applied-revision"]
    assert_equal 1, @gateway.count
  end

  def test_what_is_no_delivery_is_refused
    flags = ready
    ["", "{", "[]", "5", "{}", '{"data":5}', "\xff", "[" * 500].each do |body|
      assert_refused 400, /delivery/, deliver(flags, body: body.b)
    end
    good = @gateway.data
    [{ revision: "42" }, { revision: -1 }, { revision: 1.5 }, { updated_at: "1" }, { updated_at: nil },
     { client_key: nil }].each do |wrong|
      assert_refused 400, /revision|environment/, deliver(flags, good.merge(wrong))
    end
    assert_refused 400, /revision/, deliver(flags, body: Deliveries.body(good).sub(/"updated_at":[\d.]+/, '"updated_at":1e999'))
    assert_equal 42, flags.revision
  end

  def test_the_same_delivery_twice_is_a_replay
    flags = ready
    data = @gateway.change
    assert_applied 43, deliver(flags, data, id: "msg_r")
    response = deliver(flags, data, id: "msg_r")
    assert_refused 409, /before/, response
    assert_equal "43", response.headers["x-flagcast-applied-revision"]
  end

  def test_the_same_id_with_another_time_is_a_retry
    flags = ready
    data = @gateway.change
    assert_applied 43, deliver(flags, data, id: "msg_r")
    before = @gateway.count
    assert_applied 43, deliver(flags, data, id: "msg_r", at: @clock.now.to_i + 5)
    assert_equal before, @gateway.count, "nothing is behind"
  end

  def test_a_forgery_uses_no_delivery_up
    flags = ready
    deliver(flags, id: "msg_f", secret: Deliveries::OTHER)
    assert_applied 42, deliver(flags, id: "msg_f")
  end

  def test_replays_are_remembered_as_long_as_signatures_are_good
    flags = ready
    at = @clock.now.to_i + 300
    assert_applied 42, deliver(flags, id: "msg_l", at: at)
    @clock.step(600)
    assert_refused 409, /before/, deliver(flags, id: "msg_l", at: at)
    @clock.step(1)
    assert_refused 400, /too old/, deliver(flags, id: "msg_l", at: at)
  end

  def test_the_memory_of_replays_is_bounded
    replays = Flagcast::Replays.new(@clock, 600)
    (Flagcast::Replays::MOST + 50).times { |n| assert replays.new?("msg_#{n}", "1") }
    assert_equal Flagcast::Replays::MOST, replays.size
    refute replays.new?("msg_#{Flagcast::Replays::MOST}", "1")
    assert replays.new?("msg_0", "1"), "the oldest are forgotten"
    @clock.step(601)
    assert replays.new?("msg_new", "1")
    assert_equal 1, replays.size
  end

  def test_a_gateway_that_cannot_be_read_is_told_so_and_tried_again
    flags = ready
    data = @gateway.change("dark-mode" => [true, nil])
    @gateway.down
    waiting = delivering(flags, data)
    eventually { @clock.step(0.5) || waiting.join(0.005) }
    response = waiting.value
    assert_refused 503, /goes on trying/, response
    assert_equal ["5", "42"], response.headers.values_at("retry-after", "x-flagcast-applied-revision")
    @gateway.up
    eventually { @clock.step(1) || flags.enabled?("dark-mode") }
    assert_applied 43, deliver(flags, data)
  end

  def test_the_answer_waits_eight_seconds
    flags = ready
    @gateway.down
    waiting = delivering(flags, @gateway.change)
    [0, 4, 3.9].each do |seconds|
      @clock.step(seconds)
      assert_stays(nil) { waiting.join(0.001) }
    end
    @clock.step(0.2)
    eventually { waiting.join(0.01) }
    assert_equal 503, waiting.value.status
  end

  def test_without_any_flags_no_revision_is_told
    @gateway.down
    flags = receiver
    waiting = delivering(flags)
    eventually { @clock.step(1) || waiting.join(0.005) }
    assert_equal 503, waiting.value.status
    assert_nil waiting.value.headers["x-flagcast-applied-revision"]
  end

  def test_the_body_may_have_been_read_before
    flags = ready
    body = Deliveries.body(@gateway.data)
    input = StringIO.new(body)
    input.read
    env = Rack::MockRequest.env_for("/", method: "POST").merge(
      "rack.input" => input, "HTTP_WEBHOOK_ID" => "a", "HTTP_WEBHOOK_TIMESTAMP" => @clock.now.to_i.to_s,
      "HTTP_WEBHOOK_SIGNATURE" => Deliveries.sign(SECRET, "a", @clock.now.to_i, body)
    )
    assert_equal 200, flags.call(env)[0]
    assert_equal 401, flags.call(env.merge("rack.input" => nil))[0]
    # Rack 3 promises neither a body nor that it can be rewound.
    once = Class.new { define_method(:read) { |_length| body.b } }.new
    assert_equal 409, flags.call(env.merge("rack.input" => once))[0]
  end

  def test_a_body_that_breaks_off_is_an_error_of_ours_alone
    flags = ready
    broken = Class.new { define_method(:read) { |_length| raise IOError, "gone" } }.new
    env = Rack::MockRequest.env_for("/", method: "POST").merge("rack.input" => broken)
    status, _headers, body = flags.call(env)
    assert_equal 500, status
    refute_match(/gone/, body.join)
    assert_match(/gone/, @log.string)
  end

  def test_no_secret_is_logged
    flags = ready(secret: [SECRET, Deliveries::OTHER])
    test_secret = [SECRET, Deliveries::OTHER].map { |text| text.delete_prefix("whsec_") }
    deliver(flags, signature: "v1,x")
    @gateway.down
    waiting = delivering(flags, @gateway.change)
    eventually { @clock.step(1) || waiting.join(0.005) }
    text = @log.string + flags.inspect + flags.to_s
    refute_empty @log.string
    test_secret.each { |secret| refute_includes text, secret }
  end
end
