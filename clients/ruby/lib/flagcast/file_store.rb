# frozen_string_literal: true

# Keeps the last known flags in a file. Processes may share it: each write replaces the file as a whole.

require "securerandom"

module Flagcast
  # A file with a text. Errors are those of the file system; who calls deals with them.
  class FileStore
    def initialize(path)
      @path = File.expand_path(path)
    end

    # The text that was saved last, or nil.
    def load
      File.binread(@path).force_encoding(Encoding::UTF_8)
    rescue Errno::ENOENT
      nil
    end

    # Replaces the text. Whoever reads meanwhile gets the old one or the new one.
    def save(text)
      # In the same folder: a file is only renamed as a whole within one file system.
      temporary = "#{@path}.#{Process.pid}.#{SecureRandom.hex(4)}"
      File.open(temporary, File::WRONLY | File::CREAT | File::EXCL, 0o600) do |file|
        file.write(text)
        file.fsync
      end
      File.rename(temporary, @path)
    rescue SystemCallError
      File.unlink(temporary) if temporary && File.exist?(temporary)
      raise
    end

    # Changes whenever somebody saves; nil when there is nothing. It costs one look at the folder.
    def stamp
      stat = File.stat(@path)
      [stat.ino, stat.size, stat.mtime.to_r]
    rescue Errno::ENOENT
      nil
    end

    def inspect
      "#<Flagcast::FileStore #{@path}>"
    end
  end
end
