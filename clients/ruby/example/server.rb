# frozen_string_literal: true

# Starts config.ru with Puma and says where: `listening <port>`.
#
# PORT is the port, 0 or none for a free one; WEB_CONCURRENCY the number of worker processes, 0 or none for a
# single process with threads.

require "puma"
require "puma/configuration"
require "puma/launcher"

workers = Integer(ENV.fetch("WEB_CONCURRENCY", "0"))
configuration = Puma::Configuration.new do |puma|
  puma.bind "tcp://127.0.0.1:#{ENV.fetch("PORT", "0")}"
  puma.rackup File.expand_path("config.ru", __dir__)
  puma.threads 2, 5
  puma.workers workers
  # The app is loaded once and then forked: the receiver goes on in each worker.
  puma.preload_app! if workers.positive?
end

launcher = Puma::Launcher.new(configuration)
launcher.events.on_booted do
  $stdout.puts "listening #{launcher.connected_ports.first}"
  $stdout.flush
end
launcher.run
