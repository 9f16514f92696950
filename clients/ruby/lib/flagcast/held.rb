# frozen_string_literal: true

# The newest flag set that this process has. Reading it takes no lock.

module Flagcast
  # Holds one set and swaps it for newer ones.
  class Held
    # The set that is held, or nil.
    attr_reader :set

    # The tag by which the gateway knows that set, if it came from there.
    attr_reader :etag

    # `after_swap` is called with each new set and where it came from, `:gateway` or `:store`.
    def initialize(clock, &after_swap)
      @clock = clock
      @after_swap = after_swap
      @mutex = Mutex.new
      @swapped = ConditionVariable.new
    end

    # Takes a set if it is newer, and says whether it was. The time decides: when a gateway is restored from
    # a backup, revisions count from an earlier one again, and the time goes on.
    def swap(set, etag: nil, from: :gateway)
      @mutex.synchronize do
        # What is held came from a store, and the gateway has just named it.
        @etag = etag if etag && @set && @set.updated_at == set.updated_at
        return false if reaches?(set.updated_at)

        @set = set
        @etag = etag
        @swapped.broadcast
      end
      @after_swap.call(set, from)
      true
    end

    # Whether what is held is at least as new.
    def reaches?(updated_at)
      set = @set
      !set.nil? && set.updated_at >= updated_at
    end

    # Waits until something is held that is at least as new, and says whether there is.
    def wait(updated_at, seconds)
      deadline = @clock.monotonic + seconds
      @mutex.synchronize do
        until reaches?(updated_at)
          left = deadline - @clock.monotonic
          return false if left <= 0

          @clock.wait(@swapped, @mutex, left)
        end
      end
      true
    end
  end
end
