# frozen_string_literal: true

# How the newest flags are got: behind a delivery, by polling, and when the gateway misbehaves.

require_relative "world"

class ReadsTest < WorldTest
  def revs
    @gateway.requests.map(&:rev)
  end

  def test_a_revision_that_is_not_there_yet_is_asked_for_again
    flags = ready
    data = @gateway.change
    @gateway.read_revision = 42
    waiting = delivering(flags, data)
    eventually { revs == [nil, 43] }
    settle
    # The answer said max-age=1: before that a cache would say the same.
    @clock.step(0.9)
    settle
    assert_equal [nil, 43], revs
    @gateway.read_revision = nil
    @clock.step(0.2)
    eventually { waiting.join(0.01) }
    assert_applied 43, waiting.value
    assert_equal [nil, 43, 43], revs
  end

  # After a restore from a backup revisions count from an earlier one again, and the time goes on.
  def test_the_time_decides_and_not_the_number
    flags = ready
    deliver(flags, @gateway.change("dark-mode" => [true, "before"]))
    data = @gateway.restore(7, "dark-mode" => [false, "after"])
    assert_applied 7, deliver(flags, data)
    assert_equal "after", flags.value("dark-mode")
  end

  def test_an_older_answer_takes_nothing_back
    flags = ready
    old = JSON.generate(@gateway.flag_set)
    data = @gateway.change("dark-mode" => [true, nil])
    assert_applied 43, deliver(flags, data)
    # A higher number of an earlier time: a cache that knows it from before a restore.
    stale = old.sub('"revision":42', '"revision":44')
    @gateway.script << ->(_) { [200, {}, stale] }
    waiting = delivering(flags, @gateway.change("dark-mode" => [true, "newest"]))
    eventually { revs.include?(44) }
    eventually { @clock.step(0.1) || waiting.join(0.01) }
    assert_applied 44, waiting.value
    assert_equal "newest", flags.value("dark-mode")
    # It was asked for by no number then.
    assert_equal [44, nil], revs.last(2)
  end

  def test_a_number_that_never_comes_is_not_asked_for_for_ever
    flags = ready
    data = @gateway.data.merge(revision: 999, updated_at: @gateway.updated_at + 1)
    delivering(flags, data)
    @gateway.restore(50, "dark-mode" => [true, nil])
    eventually { @clock.step(0.2) || flags.revision == 50 }
    assert_equal [999] * 4, revs[1, 4]
    assert_nil revs.last
  end

  def test_deliveries_that_come_together_share_a_read
    flags = ready
    gate = Queue.new
    @gateway.script << ->(_) { gate.pop && nil }
    data = @gateway.change
    waiting = Array.new(8) { delivering(flags, data) }
    eventually { @gateway.count == 2 && waiting.all?(&:stop?) }
    gate << true
    waiting.each { |one| assert_applied 43, one.value }
    assert_equal [nil, 43], revs
  end

  def test_a_newer_delivery_during_a_read_is_applied_too
    flags = ready
    gate = Queue.new
    data = @gateway.change
    answer = [200, {}, JSON.generate(@gateway.flag_set)]
    @gateway.script << ->(_) { gate.pop && answer }
    first = delivering(flags, data)
    eventually { revs.last == 43 }
    second = delivering(flags, @gateway.change("dark-mode" => [true, nil]))
    assert_stays([nil, 43]) { revs }
    gate << true
    assert_applied 44, second.value
    assert_equal 200, first.value.status
    assert_equal [nil, 43, 44], revs
    assert flags.enabled?("dark-mode")
  end

  # The newer one must not wait for what the older one waits for.
  def test_a_newer_delivery_ends_the_wait_of_an_older_one
    flags = ready
    @gateway.read_revision = 42
    delivering(flags, @gateway.change)
    eventually { revs.last == 43 }
    settle
    @gateway.read_revision = nil
    assert_applied 44, deliver(flags, @gateway.change)
  end

  def test_a_newer_delivery_does_not_suffer_from_the_failure_of_an_older_one
    flags = ready
    gate = Queue.new
    @gateway.script << ->(_) { gate.pop && [500, {}, "{}"] }
    delivering(flags, @gateway.change)
    eventually { revs.last == 43 }
    waiting = delivering(flags, @gateway.change)
    # It is told of: the thread that reads will find it.
    eventually { wanted(flags) == 44 }
    gate << true
    assert_applied 44, waiting.value
  end

  def wanted(flags)
    flags.instance_variable_get(:@fetcher).instance_variable_get(:@target)&.revision
  end

  def test_an_older_delivery_behind_a_newer_one_changes_nothing
    flags = ready
    older = @gateway.change
    newer = @gateway.change
    @gateway.read_revision = 42
    waiting = [delivering(flags, newer)]
    eventually { revs.include?(44) }
    waiting << delivering(flags, older)
    settle
    @gateway.read_revision = nil
    eventually { @clock.step(0.1) || waiting.all? { |one| one.join(0.01) } }
    waiting.each { |one| assert_applied 44, one.value }
    refute_includes revs, 43
  end

  def test_a_poll_heals_a_delivery_that_was_lost
    flags = ready(poll_seconds: 300)
    @gateway.change("dark-mode" => [true, nil])
    settle
    @clock.step(299)
    settle
    assert_equal 1, @gateway.count
    @clock.step(1)
    eventually { flags.enabled?("dark-mode") }
    assert_equal %(W/"#{KEY}.42"), @gateway.requests.last.etag
  end

  def test_a_poll_costs_nothing_when_nothing_changed
    flags = ready(poll_seconds: 10)
    3.times do |n|
      settle
      @clock.step(10)
      eventually { @gateway.count == n + 2 }
    end
    settle
    assert_equal [nil, *[%(W/"#{KEY}.42")] * 3], @gateway.requests.map(&:etag)
    assert_equal 42, flags.revision
  end

  # What the gateway named once need not be sent again, wherever it came from.
  def test_a_kept_copy_that_is_the_newest_is_not_sent_twice
    File.write(@copy, JSON.generate(@gateway.flag_set))
    ready(store: @copy, poll_seconds: 10)
    eventually { @gateway.count == 1 }
    settle
    @clock.step(10)
    eventually { @gateway.count == 2 }
    assert_equal [nil, %(W/"#{KEY}.42")], @gateway.requests.map(&:etag)
  end

  def test_a_poll_that_fails_is_tried_again_soon
    flags = ready(poll_seconds: 300)
    @gateway.change("dark-mode" => [true, nil])
    2.times { @gateway.script << ->(_) { [500, {}, "{}"] } }
    settle
    @clock.step(300)
    eventually { @gateway.count == 2 }
    [0.1, 0.3].each do |seconds|
      settle
      @clock.step(seconds)
    end
    eventually { flags.enabled?("dark-mode") }
    settle
    assert_equal 4, @gateway.count
  end

  def test_without_polls_nothing_is_asked
    ready(poll_seconds: 0)
    settle
    @clock.step(1_000_000)
    settle
    assert_equal 1, @gateway.count
  end

  def test_polls_of_a_crowd_do_not_come_together
    clock = Flagcast::Clock.new
    drawn = Array.new(1000) { clock.jitter(300) }
    assert drawn.all? { |seconds| (240..360).cover?(seconds) }
    assert_operator drawn.max - drawn.min, :>, 90
  end

  def test_tries_come_at_growing_intervals_up_to_a_minute
    @gateway.down
    receiver
    waits = []
    eventually do
      @clock.step(0.5)
      waits = @log.string.scan(/next try in ([\d.]+) s/).flatten
      waits.size >= 10
    end
    assert_equal %w[1.0 1.0 2.0 2.0 5.0 10.0 20.0 40.0 60.0 60.0], waits.first(10)
    # What a gateway asks for is heeded, within reason.
    @log.truncate(0)
    @gateway.script << ->(_) { [404, { "cache-control" => "max-age=9999" }, '{"detail":"no such key"}'] }
    @gateway.up
    eventually { @clock.step(1) || @log.string.include?("no such key; next try in 60.0 s") }
  end

  def test_answers_that_are_no_flags_change_nothing
    flags = ready(poll_seconds: 10)
    set = @gateway.flag_set
    [
      [200, {}, "nonsense"], [200, {}, ""], [200, {}, "[]"], [200, {}, "\xff"], [200, {}, "{}"],
      [200, {}, JSON.generate(set.merge(environment: "other"))],
      [200, {}, JSON.generate(set.merge(revision: "43"))],
      [200, {}, JSON.generate(set.merge(updated_at: nil))],
      [200, {}, JSON.generate(set.merge(flags: []))],
      [200, {}, JSON.generate(set.merge(flags: { "dark-mode" => true }))],
      [200, {}, JSON.generate(set.merge(flags: { "dark-mode" => { enabled: "yes" } }))],
      [204, {}, ""], [401, {}, '{"detail":"who?"}'], [500, {}, "x"], [503, {}, "[]"],
      [302, { "location" => "#{@gateway.url}/elsewhere" }, ""],
      "garbage\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", "",
      "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd",
    ].each do |answer|
      before = @gateway.count
      @gateway.script << ->(_) { answer }
      eventually(answer.inspect) { @clock.step(5) || @gateway.count > before }
    end
    @gateway.change("dark-mode" => [true, nil])
    assert_equal 42, flags.revision
    eventually { @clock.step(1) || flags.enabled?("dark-mode") }
    assert(@gateway.requests.none? { |request| request.path == "/elsewhere" })
  end

  def test_an_answer_that_drips_is_given_up
    server = TCPServer.new("127.0.0.1", 0)
    dripping = Thread.new do
      socket = server.accept
      socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
      loop { socket.write(" ") && sleep(0.05) }
    rescue SystemCallError
      nil
    end
    gateway = Flagcast::Gateway.new(Flagcast::Options.new(**options(
      url: "http://127.0.0.1:#{server.addr[1]}", open_timeout: 0.1, read_timeout: 0.3
    )))
    began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    error = assert_raises(Flagcast::Gateway::Failed) { gateway.read }
    assert_match(/too long/, error.message)
    assert_operator Process.clock_gettime(Process::CLOCK_MONOTONIC) - began, :<, 5
  ensure
    server.close
    dripping.kill
  end

  def test_an_answer_without_end_is_given_up
    endless = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n#{" " * (Flagcast::Gateway::BODY_BYTES + 1)}"
    @gateway.script << ->(_) { endless }
    gateway = Flagcast::Gateway.new(Flagcast::Options.new(**options))
    assert_match(/more than/, assert_raises(Flagcast::Gateway::Failed) { gateway.read }.message)
  end

  def test_a_silent_gateway_is_given_up
    server = TCPServer.new("127.0.0.1", 0)
    gateway = Flagcast::Gateway.new(Flagcast::Options.new(**options(
      url: "http://127.0.0.1:#{server.addr[1]}", read_timeout: 0.2
    )))
    assert_match(/ReadTimeout/, assert_raises(Flagcast::Gateway::Failed) { gateway.read }.message)
  ensure
    server.close
  end

  def test_the_address_may_have_a_path_and_answers_are_packed
    packed = lambda do |_request|
      body = Zlib.gzip(JSON.generate(@gateway.flag_set))
      [200, { "content-encoding" => "gzip" }, body]
    end
    @gateway.script << packed
    flags = receiver(url: "#{@gateway.url}/base/")
    eventually { flags.ready? }
    request = @gateway.requests.first
    assert_equal "/base/sdk/v1/environments/#{KEY}/flags", request.path
    assert_match(/gzip/, request.headers["accept-encoding"])
    assert_equal "Flagcast-Ruby/#{Flagcast::VERSION}", request.headers["user-agent"]
  end
end
