# frozen_string_literal: true

# A small app with flags, for any Rack server: `puma` or `rackup` in this folder, or `ruby server.rb`.
#
# Settings: FLAGCAST_URL, FLAGCAST_CLIENT_KEY, FLAGCAST_WEBHOOK_SECRET (several between commas), and if wanted
# FLAGCAST_COPY (a file) and FLAGCAST_POLL_SECONDS.

$LOAD_PATH.unshift(File.expand_path("../lib", __dir__)) # an app of yours has the gem instead
require "flagcast"
require "json"

FLAGS = Flagcast.new(
  url: ENV.fetch("FLAGCAST_URL"),
  client_key: ENV.fetch("FLAGCAST_CLIENT_KEY"),
  secret: ENV.fetch("FLAGCAST_WEBHOOK_SECRET").split(","),
  store: ENV["FLAGCAST_COPY"],
  poll_seconds: Float(ENV.fetch("FLAGCAST_POLL_SECONDS", "300")),
)

ANSWER = lambda do |content|
  [200, { "content-type" => "application/json", "x-process" => Process.pid.to_s }, ["#{JSON.generate(content)}\n"]]
end

map("/flagcast") { run FLAGS }

map "/flags" do
  run lambda { |env|
    key = env["PATH_INFO"].delete_prefix("/")
    ANSWER.call(enabled: FLAGS.enabled?(key), value: FLAGS.value(key), revision: FLAGS.revision)
  }
end

map("/health") { run ->(_env) { ANSWER.call(status: "ok") } }
