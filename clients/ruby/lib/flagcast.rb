# frozen_string_literal: true

# Feature flags in the memory of a Ruby app, told of changes by signed webhooks.
#
#   FLAGS = Flagcast.new(url: "https://flags.example.com", client_key: "…", secret: "whsec_…")
#   FLAGS.enabled?("dark-mode")
#
# What `new` returns is a Rack app: mount it where the gateway posts to.

require_relative "flagcast/receiver"
require_relative "flagcast/version"

module Flagcast
  # A receiver; see Flagcast::Options for what it takes.
  def self.new(**options)
    Receiver.new(**options)
  end
end
