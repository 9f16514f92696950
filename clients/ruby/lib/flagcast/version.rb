# frozen_string_literal: true

# The version of the gem, on its own so that the gemspec can read it.

module Flagcast
  VERSION = "0.1.0"
end
