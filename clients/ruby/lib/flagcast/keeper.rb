# frozen_string_literal: true

# Keeps the newest flags in the store of the app, and takes from it what another process has kept: a
# delivery reaches only one of several processes, and the store is how the others hear of it.

require_relative "flag_set"
require_relative "task"

module Flagcast
  # The thread that saves and looks.
  class Keeper
    include Task

    # Seconds between two looks at the store.
    LOOK = 1

    # Seconds until the next try to save.
    RETRY = 10

    def initialize(options, held)
      @store = options.store
      @client_key = options.client_key
      @clock = options.clock
      @logger = options.logger
      @held = held
      @watches = @store.respond_to?(:stamp)
      @warned = []
      @save_at = nil
      @look_at = @clock.monotonic
    end

    # What is kept becomes what is held, if it is newer. Returns nil when nothing is kept, and false when it
    # cannot be used.
    def load
      @stamp = @store.stamp if @watches
      text = @store.load
      return if text.nil?

      set = FlagSet.parse(text, @client_key)
      @held.swap(set, from: :store)
      set
    rescue FlagSet::Malformed => e
      warn_once("the kept flags are not used", e.message)
      false
    rescue StandardError => e
      warn_once("the kept flags cannot be read", "#{e.class}: #{e.message}")
      false
    end

    # Sees to it that what is held is kept soon.
    def keep
      @mutex.synchronize do
        @save_at = @clock.monotonic
        @changed.broadcast
      end
    end

    # Keeps at once what is not kept yet.
    def finish
      save if @save_at
    end

    private

    def next_duty
      return [@save_at, -> { save }] if @save_at && (!@watches || @save_at <= @look_at)

      [(@look_at if @watches), -> { look }]
    end

    # Never over something newer: another process may have been faster.
    def save
      @mutex.synchronize { @save_at = nil }
      kept = load
      set = @held.set
      @store.save(set.to_text) unless set.nil? || (kept && kept.updated_at >= set.updated_at)
      @warned.clear
    rescue StandardError => e
      warn_once("the flags cannot be kept", "#{e.class}: #{e.message}")
      @mutex.synchronize { @save_at ||= @clock.monotonic + RETRY }
    end

    # If another process was slower and kept something older, or somebody took it away, ours is kept again.
    def look
      @mutex.synchronize { @look_at = @clock.monotonic + LOOK }
      return if @store.stamp == @stamp

      kept = load
      # Not over what is of somebody else: two that do that would never end.
      keep if @held.set && (kept.nil? || (kept && kept.updated_at < @held.set.updated_at))
    rescue StandardError => e
      warn_once("the store cannot be looked at", "#{e.class}: #{e.message}")
    end

    # What is wrong with a store is wrong again a second later.
    def warn_once(what, reason)
      @logger.warn("#{what}: #{reason}") unless @warned.include?(what)
      @warned |= [what]
    end
  end
end
