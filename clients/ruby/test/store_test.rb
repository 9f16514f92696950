# frozen_string_literal: true

# The kept copy: what is started from, what other processes follow, and every way in which it can fail.

require_relative "world"

class StoreTest < WorldTest
  # A store that does as it is told.
  class FakeStore
    attr_accessor :text, :fails, :gate
    attr_reader :saves

    def initialize(text = nil)
      @text = text
      @saves = 0
    end

    def load
      raise IOError, "no store" if @fails

      @text
    end

    def save(text)
      @gate&.pop
      raise IOError, "no store" if @fails

      @saves += 1
      @text = text
    end
  end

  def kept
    JSON.parse(File.read(@copy)) if File.exist?(@copy)
  end

  def copy(revision: 40, updated_at: 1_700_000_000.5, environment: KEY, flags: nil)
    flags ||= { "dark-mode" => { enabled: true, value: "kept" } }
    JSON.generate(environment: environment, revision: revision, updated_at: updated_at, flags: flags)
  end

  def test_each_change_is_kept
    flags = ready(store: @copy)
    eventually { kept }
    assert_equal({ "environment" => KEY, "revision" => 42, "updated_at" => @gateway.updated_at,
                   "flags" => { "dark-mode" => { "enabled" => false, "value" => nil } } }, kept)
    assert_equal 0o100600, File.stat(@copy).mode
    deliver(flags, @gateway.change("dark-mode" => [true, { "a" => [1, "ü"] }]))
    eventually { kept["revision"] == 43 }
    assert_equal({ "a" => [1, "ü"] }, kept["flags"]["dark-mode"]["value"])
    assert_equal [@copy], Dir[File.join(@folder, "*")], "nothing else is left"
  end

  def test_an_app_starts_from_its_copy_while_the_gateway_is_down
    deliver(ready(store: @copy), @gateway.change("dark-mode" => [true, "blue"]))
    eventually { kept && kept["revision"] == 43 }
    @gateway.down
    flags = receiver(store: @copy)
    assert flags.ready?
    assert_equal [true, "blue", 43], [flags.enabled?("dark-mode"), flags.value("dark-mode"), flags.revision]
    assert flags.wait_ready(0)
    @gateway.change("dark-mode" => [false, nil])
    @gateway.up
    eventually { @clock.step(0.5) || !flags.enabled?("dark-mode") }
  end

  def test_a_copy_that_cannot_be_used_is_as_good_as_none
    { "nonsense" => /no JSON/, "" => /no JSON/, "\xff".b => /no JSON/, "[]" => /no JSON object/,
      copy(environment: "other") => /of client key `other`/, copy(revision: "x") => /revision/,
      copy(flags: { "a" => 1 }) => /flag `a`/, copy[0..-5] => /no JSON/ }.each do |text, warning|
      @log.truncate(0)
      File.binwrite(@copy, text)
      @gateway.down
      flags = receiver(store: @copy)
      refute flags.ready?, text
      assert_match warning, @log.string
      @gateway.up
      eventually { @clock.step(0.5) || flags.revision == 42 }
      eventually { kept["revision"] == 42 rescue false }
      flags.close
    end
  end

  def test_a_copy_that_is_newer_than_the_gateway_stays
    File.write(@copy, copy(revision: 90, updated_at: @gateway.updated_at + 5))
    flags = receiver(store: @copy)
    eventually { @gateway.count == 1 }
    assert_stays(90) { flags.revision }
    assert_equal 90, kept["revision"]
  end

  def test_a_file_that_cannot_be_written_harms_nothing
    File.chmod(0o500, @folder)
    path = File.join(@folder, "none", "flags.json")
    flags = ready(store: path)
    eventually { @log.string.include?("cannot be kept") }
    assert_applied 43, deliver(flags, @gateway.change)
    Dir.mkdir(File.dirname(path), 0o700)
    eventually { @clock.step(5) || File.exist?(path) }
    assert_equal 43, JSON.parse(File.read(path))["revision"]
    assert_equal 1, @log.string.scan("cannot be kept").size, "it is said once"
  ensure
    File.chmod(0o700, @folder)
  end

  def test_a_folder_in_the_place_of_the_file_harms_nothing
    Dir.mkdir(@copy)
    flags = ready(store: @copy)
    eventually { @log.string.include?("cannot be kept") }
    assert_applied 43, deliver(flags, @gateway.change)
    eventually("no temporary file is left") { Dir[File.join(@folder, "*")] == [@copy] }
  end

  # A file that is written in place would be seen half by somebody.
  def test_a_reader_of_the_file_sees_the_old_text_or_the_new
    store = Flagcast::FileStore.new(@copy)
    texts = ["a" * 200_000, "b" * 300_000]
    store.save(texts[0])
    writing = Thread.new { 60.times { |n| store.save(texts[n % 2]) } }
    assert_includes texts, File.read(@copy) while writing.alive?
    writing.join
  end

  def test_an_app_may_give_a_store
    store = FakeStore.new(copy)
    @gateway.down
    flags = receiver(store: store)
    assert_equal "kept", flags.value("dark-mode")
    @gateway.up
    eventually { @clock.step(0.5) || store.saves == 1 }
    assert_equal 42, JSON.parse(store.text)["revision"]
  end

  def test_a_store_that_fails_or_hangs_harms_nothing
    store = FakeStore.new
    store.fails = true
    flags = ready(store: store)
    assert_match(/cannot be read: IOError/, @log.string)
    eventually { @log.string.include?("cannot be kept") }
    store.fails = false
    store.gate = Queue.new
    assert_applied 43, deliver(flags, @gateway.change)
    eventually { store.gate.num_waiting == 1 }
    # The newest wins, however many come meanwhile.
    5.times { |n| assert_applied 44 + n, deliver(flags, @gateway.change) }
    store.gate << true << true << true
    eventually { store.text && JSON.parse(store.text)["revision"] == 48 }
    assert_operator store.saves, :<=, 2
  end

  def test_processes_that_share_a_file_follow_each_other
    first, second = Array.new(2) { ready(store: @copy, poll_seconds: 0) }
    eventually { kept && @gateway.count == 2 }
    before = @gateway.count
    assert_applied 43, deliver(first, @gateway.change("dark-mode" => [true, nil]))
    eventually { kept["revision"] == 43 }
    @clock.step(1)
    eventually { second.enabled?("dark-mode") }
    assert_equal before + 1, @gateway.count, "one read for both"
  end

  def test_a_slower_process_takes_nothing_back
    flags = ready(store: @copy, poll_seconds: 0)
    deliver(flags, @gateway.change("dark-mode" => [true, nil]))
    eventually { kept && kept["revision"] == 43 }
    Flagcast::FileStore.new(@copy).save(copy)
    @clock.step(1)
    eventually { kept["revision"] == 43 }
    assert_equal 43, flags.revision
    File.unlink(@copy)
    @clock.step(1)
    eventually { kept && kept["revision"] == 43 }
  end

  def test_a_newer_copy_is_never_written_over
    store = FakeStore.new
    gate = store.gate = Queue.new
    flags = ready(store: store)
    eventually { gate.num_waiting == 1 }
    gate << true
    eventually { store.saves == 1 }
    # Somebody else keeps something newer before ours is kept.
    newer = copy(revision: 60, updated_at: @gateway.updated_at + 100, flags: {})
    store.text = newer
    store.gate = nil
    deliver(flags, @gateway.change)
    eventually { flags.revision == 60 }
    settle("flagcast keeper")
    assert_equal [newer, 1], [store.text, store.saves]
  end

  # Two apps that were given the same file by mistake must not write for ever.
  def test_a_copy_of_another_environment_is_left_alone
    ready(store: @copy)
    eventually { kept }
    foreign = copy(environment: "other")
    Flagcast::FileStore.new(@copy).save(foreign)
    3.times do
      @clock.step(1)
      assert_stays(foreign) { File.read(@copy) }
    end
    assert_equal 1, @log.string.scan("of client key `other`").size
  end

  def test_what_is_not_kept_yet_is_kept_at_the_end
    store = FakeStore.new
    flags = ready(store: store)
    eventually { store.saves == 1 }
    store.fails = true
    deliver(flags, @gateway.change)
    eventually { @log.string.include?("cannot be kept") }
    store.fails = false
    flags.close
    assert_equal 43, JSON.parse(store.text)["revision"]
  end
end
