# frozen_string_literal: true

# The receiver: what an app asks for flags, and what it mounts for the gateway.

require_relative "endpoint"
require_relative "fetcher"
require_relative "gateway"
require_relative "held"
require_relative "keeper"
require_relative "options"

module Flagcast
  # Flags in memory. Every method may be called from any thread, and from any process: after a fork the
  # first call starts the threads of the new process.
  class Receiver
    NOTHING = {}.freeze
    private_constant :NOTHING

    # Takes the options of Flagcast::Options. The flags that were kept are there when it returns; the newest
    # are on their way.
    def initialize(**options)
      @options = Options.new(**options)
      @logger = @options.logger
      @listeners = [].freeze
      @held = Held.new(@options.clock) { |_set, from| swapped(from) }
      @endpoint = Endpoint.new(@options, @held)
      @starting = Mutex.new
      @pid = Process.pid
      @keeper = keeper
      @keeper&.load
      start
    end

    # Whether a flag is on; `default` when it is not known.
    def enabled?(key, default = false)
      flag = flags[key.to_s]
      flag ? flag.enabled : default
    end

    # The value of a flag, on or off; `default` when it has none or is not known.
    def value(key, default = nil)
      value = flags[key.to_s]&.value
      value.nil? ? default : value
    end

    # All flags by key: each has `enabled` and `value`. Empty while none are known.
    def flags
      set = current
      set ? set.flags : NOTHING
    end

    # The revision of the flags, nil while none are known.
    def revision
      current&.revision
    end

    # When that revision was made, in seconds since the epoch.
    def updated_at
      current&.updated_at
    end

    # Whether flags are known, from the gateway or from the store.
    def ready?
      !current.nil?
    end

    # Waits until flags are known, for `timeout` seconds at most, and says whether they are.
    def wait_ready(timeout = 5)
      current
      @held.wait(-Float::INFINITY, timeout)
    end

    # Calls the block with the receiver after each change, on a thread of its own. Returns what ends that.
    def on_change(&listener)
      raise ArgumentError, "`on_change` needs a block" unless listener

      @starting.synchronize { @listeners = [*@listeners, listener].freeze }
      lambda do
        @starting.synchronize { @listeners = @listeners.reject { |one| one.equal?(listener) }.freeze }
      end
    end

    # Answers a delivery: the Rack app.
    def call(env)
      current
      @endpoint.call(env, @fetcher)
    end

    # Starts what works in the background, if it does not run in this process. Nobody has to call it; after
    # a fork it saves the first request the wait.
    def start
      @starting.synchronize do
        next if @is_closed || @fetcher&.alive?

        follow_fork unless @pid == Process.pid
        @keeper&.start
        @fetcher = Fetcher.new(@options, @held, Gateway.new(@options)).start
      end
      self
    end

    # Ends what works in the background. The flags stay as they are.
    def close
      @starting.synchronize do
        next if @is_closed

        @is_closed = true
        @fetcher.stop(0.1) if @fetcher.alive?
        @keeper&.stop(1) if @keeper&.alive?
        @keeper&.finish
      end
    end

    def inspect
      "#<Flagcast::Receiver url=#{@options.url} client_key=#{@options.client_key} " \
        "revision=#{@held.set&.revision.inspect}>"
    end
    alias to_s inspect

    private

    # What is held. In a forked process the threads are gone, and nobody but us would notice.
    def current
      @fetcher.alive? || @is_closed || start
      @held.set
    end

    def keeper
      Keeper.new(@options, @held) if @options.store
    end

    # A delivery reaches one process of several.
    def follow_fork
      @pid = Process.pid
      @keeper = keeper
      return if @options.store.respond_to?(:stamp)

      @logger.warn("this app has several processes and no file that they share, so all but one learn of a " \
                   "change only by polling: give the receiver `store: \"path\"`")
    end

    # The flags have changed. Nothing here may stop what they came by.
    def swapped(from)
      @keeper&.keep if from == :gateway
      @listeners.each do |listener|
        listener.call(self)
      rescue StandardError => e
        @logger.error("a listener failed: #{e.class}: #{e.message}")
      end
    end
  end
end
