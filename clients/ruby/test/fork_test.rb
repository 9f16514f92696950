# frozen_string_literal: true

# Processes that fork, as Puma's workers do: each has its own threads, and all come to the same flags.

require_relative "world"

class ForkTest < WorldTest
  # Runs the block in a forked process and returns what it says.
  def in_child
    reader, writer = IO.pipe
    pid = fork do
      reader.close
      said = begin
        yield
      rescue Exception => e # rubocop:disable Lint/RescueException -- the parent is told of everything
        { error: "#{e.class}: #{e.message}" }
      end
      writer.write(JSON.generate(said))
      writer.close
      # No hooks: the child must not run the tests.
      exit!(0)
    end
    writer.close
    said = Thread.new { reader.read }
    flunk("the child hangs") unless said.join(30)
    JSON.parse(said.value)
  ensure
    Process.kill(:KILL, pid) if said && !said.value.end_with?("}", "]")
    Process.wait(pid)
    reader.close
  end

  def until_true(seconds = 20)
    deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
    sleep 0.002 until (found = yield) || Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    found
  end

  def test_a_child_has_the_flags_of_its_parent_and_goes_on_by_itself
    flags = ready(store: @copy)
    eventually { File.exist?(@copy) }
    waiting, told = IO.pipe
    said = Thread.new do
      in_child do
        before = Thread.list.size
        first = flags.revision
        waiting.read(1)
        { before: before, first: first, threads: Thread.list.map(&:name).compact.sort }
      end
    end
    # The child asks whether anything has changed, and is told no.
    eventually { @gateway.count == 2 }
    assert_equal %(W/"#{KEY}.42"), @gateway.requests.last.etag
    told.write("x")
    threads = ["flagcast fetcher", "flagcast keeper"]
    assert_equal({ "before" => 1, "first" => 42, "threads" => threads }, said.value)
  end

  # What was kept between the last look of the parent and the fork is not missed.
  def test_a_child_looks_at_the_file_at_once
    flags = ready(store: @copy, poll_seconds: 0)
    eventually { File.exist?(@copy) }
    settle("flagcast keeper")
    newer = @gateway.flag_set.merge(revision: 60, updated_at: @gateway.updated_at + 100)
    Flagcast::FileStore.new(@copy).save(JSON.generate(newer))
    said = in_child { { first: flags.revision, then: until_true(10) { flags.revision == 60 } } }
    assert_equal({ "first" => 42, "then" => true }, said)
    assert_equal 42, flags.revision
  end

  def test_a_delivery_to_a_child_reaches_the_parent_by_the_file
    flags = ready(store: @copy, poll_seconds: 0)
    eventually { File.exist?(@copy) }
    data = @gateway.change("dark-mode" => [true, nil])
    said = in_child do
      response = deliver(flags, data)
      until_true { JSON.parse(File.read(@copy))["revision"] == 43 }
      { status: response.status, revision: flags.revision }
    end
    assert_equal({ "status" => 200, "revision" => 43 }, said)
    refute flags.enabled?("dark-mode")
    @clock.step(1)
    eventually { flags.enabled?("dark-mode") }
  end

  def test_a_delivery_to_the_parent_reaches_a_child_by_the_file
    flags = ready(store: @copy, poll_seconds: 0)
    eventually { File.exist?(@copy) }
    go_on, told = IO.pipe
    said = Thread.new do
      in_child do
        first = flags.enabled?("dark-mode")
        go_on.read(1)
        @clock.step(1)
        { first: first, then: until_true { flags.enabled?("dark-mode") } }
      end
    end
    eventually { @gateway.count == 2 }
    deliver(flags, @gateway.change("dark-mode" => [true, nil]))
    eventually { JSON.parse(File.read(@copy))["revision"] == 43 }
    told.write("x")
    assert_equal({ "first" => false, "then" => true }, said.value)
  end

  # A fork may happen at any moment: nothing that was locked then may stay locked.
  def test_forks_in_the_midst_of_everything
    flags = ready(store: @copy, poll_seconds: 0)
    stop = false
    busy = Thread.new { deliver(flags, @gateway.change) until stop }
    20.times do
      said = in_child do
        held = flags.revision
        response = deliver(flags, @gateway.data.merge(updated_at: 1.0))
        { held: held, status: response.status, changes: !flags.on_change { nil }.nil? }
      end
      assert_equal [200, true], said.values_at("status", "changes"), said.to_s
      assert_operator said["held"], :>=, 42
    end
  ensure
    stop = true
    busy.join
  end

  def test_several_processes_without_a_file_are_warned
    with, without = ready(store: @copy), ready
    said = in_child do
      with.revision
      before = @log.string.dup
      without.revision
      without.revision
      { before: before.scan("several processes").size, after: @log.string.scan("several processes").size }
    end
    assert_equal({ "before" => 0, "after" => 1 }, said)
  end

  def test_a_receiver_that_was_closed_stays_closed_in_a_child
    flags = ready
    flags.close
    said = in_child { { revision: flags.revision, threads: Thread.list.size } }
    assert_equal({ "revision" => 42, "threads" => 1 }, said)
  end
end
