//! Parts of a measurement in processes of their own, because a process may open only so many streams.
//!
//! A worker is this program with a hidden subcommand. It reads words from its input, one a line, and answers
//! each with a line.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};

/// What a worker says when it has begun.
pub(super) const READY: &str = "ready";

/// Another process of ours. Dropping it ends it, and what it started with it.
pub(super) struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// Says a word to all before it listens to any.
pub(super) fn ask(workers: &mut [Worker], word: &str) -> anyhow::Result<Vec<String>> {
    for worker in workers.iter_mut() {
        let input = worker.input.as_mut().context("a worker was told to end")?;
        input.write_all(format!("{word}\n").as_bytes()).context("a worker ended")?;
    }
    workers.iter_mut().map(Worker::line).collect()
}

impl Worker {
    /// Starts this program with `arguments` and waits until it is ready.
    pub(super) fn start(arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(this)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a worker")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("a worker's output is not ours")?;
        let mut worker = Self { child, input, output: BufReader::new(output) };
        ensure!(worker.line()? == READY, "a worker did not get ready");
        Ok(worker)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "a worker ended");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Worker {
    /// It ends by itself when its input does.
    fn drop(&mut self) {
        self.input = None;
        if let Err(error) = self.child.wait() {
            eprintln!("cannot end a worker: {error}");
        }
    }
}
