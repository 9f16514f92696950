# frozen_string_literal: true

# Time as the receiver sees it. Tests give another clock, which they move by hand.

module Flagcast
  # The machine's time, in seconds.
  class Clock
    # Seconds since the epoch: what timestamps of deliveries are compared with.
    def now
      Time.now.to_f
    end

    # Seconds that only go on: for everything that waits.
    def monotonic
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end

    # Waits on a condition whose mutex is held, for `seconds` at most, or until it is signalled.
    def wait(condition, mutex, seconds)
      condition.wait(mutex, seconds)
    end

    # `seconds`, up to a fifth shorter or longer, so that a crowd does not come at once.
    def jitter(seconds)
      seconds * (0.8 + 0.4 * rand)
    end
  end
end
