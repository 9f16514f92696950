# frozen_string_literal: true

# What an app sees: lookups, listeners, options, the end.

require_relative "world"
require "open3"
require "pathname"

class ReceiverTest < WorldTest
  def test_lookups_answer_with_defaults_until_something_is_known
    @gateway.down
    flags = receiver
    assert_equal [false, true, nil, 5], [flags.enabled?("x"), flags.enabled?("x", true), flags.value("x"), flags.value("x", 5)]
    assert_equal [nil, nil, {}, false, false], [flags.revision, flags.updated_at, flags.flags, flags.ready?, wait_in_vain(flags)]
    @gateway.up
    eventually { @clock.step(0.5) || flags.ready? }
  end

  def wait_in_vain(flags)
    waiting = Thread.new { flags.wait_ready(5) }
    eventually { @clock.step(1) || waiting.join(0.01) }
    waiting.value
  end

  def test_lookups_answer_from_memory
    @gateway.change("on" => [true, nil], "off" => [false, "text"], "zero" => [true, 0], "no" => [true, false],
                    "list" => [true, [1, { "a" => "b" }]])
    flags = receiver
    assert flags.wait_ready(5)
    assert flags.enabled?("on", false)
    refute flags.enabled?("off", true)
    assert flags.enabled?(:on)
    assert_equal "text", flags.value("off")
    # Without a value the default counts; other values are themselves.
    assert_equal "default", flags.value("on", "default")
    assert_equal "default", flags.value("none", "default")
    assert_equal [0, false], [flags.value("zero", 7), flags.value("no", true)]
    assert_equal [@gateway.revision, @gateway.updated_at], [flags.revision, flags.updated_at]
    assert_equal [true, nil], flags.flags.fetch("on").to_a
    assert_raises(FrozenError) { flags.flags["on"] = nil }
    assert_raises(FrozenError) { flags.value("list")[1]["a"] << "c" }
    assert_raises(FrozenError) { flags.value("off") << "c" }
    assert_raises(FrozenError) { flags.flags["on"].enabled = false }
  end

  # Nothing is counted or locked, and the network is not asked.
  def test_lookups_cost_next_to_nothing
    flags = ready
    flags.enabled?("dark-mode")
    before = GC.stat(:total_allocated_objects)
    1000.times { flags.enabled?("dark-mode") }
    assert_operator GC.stat(:total_allocated_objects) - before, :<, 100
    flags.instance_variable_get(:@starting).synchronize do
      held = flags.instance_variable_get(:@held).instance_variable_get(:@mutex)
      held.synchronize { refute flags.enabled?("dark-mode") }
    end
    assert_equal 1, @gateway.count
  end

  def test_listeners_hear_of_each_change
    flags = ready
    heard = Queue.new
    flags.on_change { raise "a bad listener" }
    ending = flags.on_change { |one| heard << one.revision }
    deliver(flags, @gateway.change)
    assert_equal 43, heard.pop
    deliver(flags, @gateway.data)
    ending.call
    deliver(flags, @gateway.change)
    assert_empty heard
    assert_match(/a listener failed: RuntimeError: a bad listener/, @log.string)
    assert_raises(ArgumentError) { flags.on_change }
  end

  def test_wrong_options_are_told_at_once
    other = "whsec_#{["k" * 20].pack("m0")}"
    {
      { url: "flags.example.com" } => /`url`/, { url: "ftp://x" } => /`url`/, { url: "" } => /`url`/, { url: nil } => /`url`/,
      { url: "http://u:p@x" } => /`url`/, { url: "http://x?y" } => /`url`/, { url: "http://" } => /`url`/,
      { client_key: "" } => /`client_key`/, { client_key: nil } => /`client_key`/, { client_key: "a/b" } => /`client_key`/,
      { client_key: "ser.abc" } => /`client_key`/,
      { secret: nil } => /`secret`/, { secret: [] } => /`secret`/, { secret: [SECRET, "x"] } => /`secret`/,
      { secret: other } => /24 to 64 bytes/, { secret: "" } => /`secret`/,
      { store: 5 } => /`store`/, { store: "" } => /`store`/,
      { poll_seconds: -1 } => /`poll_seconds`.*0 for never/, { poll_seconds: "5" } => /`poll_seconds`/,
      { poll_seconds: Float::NAN } => /`poll_seconds`/, { open_timeout: 0 } => /`open_timeout`/,
      { read_timeout: nil } => /`read_timeout`/,
    }.each do |wrong, message|
      error = assert_raises(Flagcast::ConfigError, wrong.inspect) { receiver(**wrong) }
      assert_match message, error.message
      refute_includes error.message, other
    end
    assert_raises(ArgumentError) { receiver(unknown: 1) }
    assert_kind_of Flagcast::Receiver, receiver(logger: nil, store: Pathname.new(@copy), url: "#{@gateway.url}//")
  end

  def test_it_shows_itself_without_secrets
    flags = ready
    assert_equal "#<Flagcast::Receiver url=#{@gateway.url} client_key=#{KEY} revision=42>", flags.inspect
    assert_equal flags.inspect, flags.to_s
    assert_equal "#<Flagcast::Options url=#{@gateway.url} client_key=#{KEY}>", Flagcast::Options.new(**options).inspect
  end

  def test_the_end_leaves_no_thread_and_keeps_the_flags
    others = Thread.list
    flags = ready(store: @copy)
    names = (Thread.list - others).map(&:name).compact
    assert_equal ["flagcast fetcher", "flagcast keeper"], names.sort
    assert((Thread.list - others).select(&:name).all? { |one| one.thread_variable_get(:fork_safe) })
    flags.close
    flags.close
    flags.start
    assert_empty Thread.list.map(&:name).compact.grep(/flagcast/)
    @clock.step(1000)
    assert_equal [false, 42], [flags.enabled?("dark-mode"), flags.revision]
    assert_applied 42, deliver(flags)
    assert_refused 503, /closed/, deliver(flags, @gateway.change)
    assert_empty Thread.list.map(&:name).compact.grep(/flagcast/)
  end

  def test_a_listener_may_end_it
    flags = ready(store: @copy)
    flags.on_change(&:close)
    deliver(flags, @gateway.change)
    eventually { Thread.list.map(&:name).compact.grep(/flagcast/).empty? }
    refute_match(/listener failed/, @log.string)
  end

  def test_a_thread_that_died_is_started_again
    flags = ready
    thread = flags.instance_variable_get(:@fetcher).instance_variable_get(:@thread)
    thread.kill.join
    assert_applied 43, deliver(flags, @gateway.change)
  end

  def test_it_keeps_no_process_alive
    script = <<~RUBY
      require "flagcast"
      FLAGS = Flagcast.new(url: #{@gateway.url.inspect}, client_key: #{KEY.inspect}, secret: #{SECRET.inspect},
                           store: #{@copy.inspect})
      puts FLAGS.wait_ready(10)
    RUBY
    library = File.expand_path("../lib", __dir__)
    output, status = Open3.capture2("timeout", "20", "ruby", "-w", "-I", library, "-e", script)
    assert_equal ["true\n", true], [output, status.success?]
  end
end
