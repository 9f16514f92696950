# frozen_string_literal: true

# A thread of this process that waits for its next duty, does it, and waits again.

module Flagcast
  # What the threads of a receiver have in common. A task is of one process: in a forked one its thread is
  # dead, and a new task takes its place.
  #
  # Who includes it has `next_duty` (called with the mutex; a pair of the time at which something is due, nil
  # for never, and the work as a lambda) and calls `wake` when that changes.
  module Task
    # Seconds until the next try after a fault of our own, which ought not to happen.
    PAUSE = 5

    def start
      @mutex ||= Mutex.new
      @changed ||= ConditionVariable.new
      @thread = Thread.new { run }
      @thread.name = "flagcast #{self.class.name.split("::").last.downcase}"
      # For Puma: a fork loses this thread, and that is taken care of.
      @thread.thread_variable_set(:fork_safe, true)
      self
    end

    # Whether the thread runs in this process.
    def alive?
      @thread.alive?
    end

    # Ends the thread: at once if it waits, after what it does if that takes no longer than `seconds`.
    def stop(seconds)
      @mutex.synchronize do
        @stopping = true
        @changed.broadcast
      end
      return if Thread.current == @thread

      @thread.join(seconds) || @thread.kill.join(1)
    end

    private

    def run
      while (work = await)
        begin
          work.call
        rescue StandardError => e
          @logger.error("#{@thread.name} failed: #{e.class}: #{e.message}")
          @mutex.synchronize { @clock.wait(@changed, @mutex, PAUSE) unless @stopping }
        end
      end
    end

    # The next work when it is due, nil at the end.
    def await
      @mutex.synchronize do
        until @stopping
          at, work = next_duty
          left = at && (at - @clock.monotonic)
          return work if left && left <= 0

          @clock.wait(@changed, @mutex, left)
        end
      end
    end
  end
end
