# frozen_string_literal: true

# Remembers deliveries for as long as their signatures are good, so that nobody can send one twice.

module Flagcast
  # The deliveries of the last minutes, of this process.
  class Replays
    # More than a gateway sends in that time; beyond it the oldest are forgotten.
    MOST = 10_000

    def initialize(clock, seconds)
      @clock = clock
      @seconds = seconds
      @mutex = Mutex.new
      # In the order in which they came.
      @seen = {}
    end

    # Whether the delivery is new. The gateway sends one again with the same id and another time.
    def new?(id, timestamp)
      @mutex.synchronize do
        now = @clock.now
        @seen.shift while @seen.size >= MOST || (@seen.any? && @seen.first.last < now - @seconds)
        next false if @seen.key?([id, timestamp])

        @seen[[id, timestamp]] = now
        true
      end
    end

    def size
      @mutex.synchronize { @seen.size }
    end
  end
end
