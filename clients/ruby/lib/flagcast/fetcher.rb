# frozen_string_literal: true

# Brings what is held up to date: at the start, when a delivery tells of something newer, and now and then
# because a delivery may be lost. One read at a time, however many deliveries wait for it.

require_relative "gateway"
require_relative "task"

module Flagcast
  # The thread that reads.
  class Fetcher
    include Task

    # A state that a delivery told of.
    Target = Struct.new(:revision, :updated_at)

    # Seconds before each further try.
    BACKOFF = [0.1, 0.3, 1, 1, 2, 2, 5, 10, 20, 40].freeze
    LONGEST = 60

    # After so many tries, or an older answer than was told of, the newest is asked for by no number: the
    # number may be one that a restored gateway does not have yet, or that a cache knows from before.
    PINNED_TRIES = 4

    def initialize(options, held, gateway)
      @held = held
      @gateway = gateway
      @clock = options.clock
      @logger = options.logger
      @poll_seconds = options.poll_seconds
      # Whether the gateway has answered in this process.
      @has_read = false
      @failures = 0
      @again_at = @clock.monotonic
    end

    # Sees to it that something at least as new is held soon.
    def want(target)
      @mutex.synchronize do
        unless @target && @target.updated_at >= target.updated_at
          @target = target
          @was_older = false
        end
        @failures = 0
        @again_at = @clock.monotonic
        @changed.broadcast
      end
    end

    private

    def next_duty
      target = wanted
      return [@again_at, -> { read(target) }] if target || !@has_read

      [@poll_at, -> { read(nil) }]
    end

    # What is wanted and not held.
    def wanted
      @target unless @target.nil? || @held.reaches?(@target.updated_at)
    end

    # A newer target that comes during a read is read for at once.
    def read(target)
      is_pinned = target && @failures < PINNED_TRIES && !@was_older
      revision = target.revision if is_pinned
      etag = @held.etag unless is_pinned
      case (answer = @gateway.read(revision: revision, etag: etag))
      when Gateway::Behind then failed(target, answer.detail || "it is not there yet", answer.seconds)
      else
        @held.swap(answer.set, etag: answer.etag) unless answer == :same
        succeeded(target)
      end
    rescue Gateway::Failed => e
      failed(target, e.message)
    end

    def succeeded(target)
      @mutex.synchronize do
        @logger.info("the gateway answers again") if @failures > 1
        @has_read = true
        @poll_at = @clock.monotonic + @clock.jitter(@poll_seconds) if @poll_seconds.positive?
        # An answer, but an older one than was told of.
        @was_older = !target.nil? && target.equal?(wanted)
        @was_older ? again(0) : (@failures = 0)
      end
    end

    def failed(target, reason, at_least = 0)
      @mutex.synchronize do
        # Who was told of something new since then tries at once.
        next if wanted && !wanted.equal?(target)

        wait = again(at_least)
        # Once or twice is no news: a delivery may be faster than the state that it tells of.
        @logger.warn(format("%s; next try in %.1f s", reason, wait)) if @failures > 2
      end
    end

    # Puts the next try off, and says by how many seconds.
    def again(at_least)
      wait = [[@clock.jitter(BACKOFF.fetch(@failures, LONGEST)), at_least].max, LONGEST].min
      @failures += 1
      @again_at = @clock.monotonic + wait
      # A failed poll is over; the next is in its turn.
      @poll_at = @again_at if @poll_at && @poll_at < @again_at
      wait
    end
  end
end
