# frozen_string_literal: true

require_relative "lib/flagcast/version"

Gem::Specification.new do |gem|
  gem.name = "flagcast"
  gem.version = Flagcast::VERSION
  gem.summary = "Feature flags in the memory of a Ruby app, told of changes by signed webhooks"
  gem.description = "A Rack app without dependencies that receives the webhooks of a Flagcast gateway, reads the " \
                    "flags and answers from memory, also while the gateway is away."
  gem.authors = ["Flagcast"]
  gem.license = "Apache-2.0"
  gem.required_ruby_version = ">= 3.0"
  gem.files = Dir["lib/**/*.rb", "README.md"]
  gem.metadata = { "rubygems_mfa_required" => "true" }
end
