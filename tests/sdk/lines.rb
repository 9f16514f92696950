# frozen_string_literal: true

# How the Ruby scripts beside this file speak with the tests: one JSON object a line.

require "json"

# Prints one line.
def report(**line)
  $stdout.write("#{JSON.generate(line)}\n")
  $stdout.flush
end

# Reads commands from standard input until it ends, and answers each with one line:
# {"event":"done","answer":…} or {"event":"failed","message":"…"}.
def obey_lines
  $stdin.each_line do |line|
    report(event: "done", answer: yield(JSON.parse(line)))
  rescue StandardError => e
    report(event: "failed", message: "#{line.strip}: #{e.class}: #{e.message}")
  end
  # The end of the input is the end of the test, whatever threads still do.
  exit!(0)
end
