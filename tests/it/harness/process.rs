//! A child process whose output is kept, line by line, and which never outlives its test.
//!
//! It is ended by its own process id. When the test fails, the end of its output is printed.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::{SOON, eventually_within};

/// How long a program may be built that a test needs, beside other tests.
pub(crate) const BUILD: Duration = Duration::from_mins(5);

/// What cargo tells a test of its own package. Libraries that look at it when they are built would seem
/// to have changed, and a cargo that a test starts would build them all again, in every run.
const OF_THIS_RUN: [&str; 5] =
    ["CARGO_BIN_", "CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PRIMARY_"];

/// A cargo that a test starts.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars() {
        if OF_THIS_RUN.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// What a process has written to one of its outputs so far.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Reads `output` to its end on a thread of its own.
    fn collect(&self, output: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                lines.0.lock().unwrap().push(text);
                line.clear();
            }
        })
    }

    /// All lines so far.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Those lines that are JSON, parsed.
    pub(crate) fn json(&self) -> impl Iterator<Item = Value> {
        self.all().into_iter().filter_map(|line| serde_json::from_str(&line).ok())
    }

    /// The last `count` lines as one text.
    pub(crate) fn tail(&self, count: usize) -> String {
        let lines = self.all();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// A running child process.
pub(crate) struct Process {
    name: String,
    child: Mutex<Child>,
    readers: Vec<JoinHandle<()>>,
    /// Lines of the standard output.
    pub(crate) stdout: Lines,
    /// Lines of the standard error.
    pub(crate) stderr: Lines,
}

impl Process {
    /// Starts `command`; `name` stands before its output when the test fails.
    pub(crate) fn spawn(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Everything is on loopback; a proxy of the machine must not come between.
        command.env("NO_PROXY", "*").env("no_proxy", "*");
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start {command:?}: {error}; `make test-deps` installs what tests need")
        });
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            stdout.collect(child.stdout.take().unwrap()),
            stderr.collect(child.stderr.take().unwrap()),
        ];
        Self { name: name.to_owned(), child: Mutex::new(child), readers, stdout, stderr }
    }

    /// Writes one line to the standard input.
    pub(crate) fn tell(&self, line: &str) {
        let mut child = self.child.lock().unwrap();
        let stdin = child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        stdin.flush().unwrap();
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// Sends the signal called `name`, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.id());
        let status = Command::new("sh").args(["-c", &command]).status().unwrap();
        assert!(status.success(), "{command}");
    }

    /// Whether the process is gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits until the process ends by itself and all its output is kept.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        self.exited_within(SOON).await
    }

    /// The same of a process that has much to do.
    pub(crate) async fn exited_within(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        let check = async || self.child.lock().unwrap().try_wait().unwrap();
        let status = eventually_within(limit, &what, check).await;
        self.drain();
        status
    }

    /// Ends the process at once and keeps the rest of its output.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.lock().unwrap();
        // An error means that it has ended already, which is what is wanted.
        drop(child.kill());
        drop(child.wait());
        drop(child);
        self.drain();
    }

    fn drain(&mut self) {
        for reader in self.readers.drain(..) {
            drop(reader.join());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Not `kill()`: a grandchild may hold the output open, and a drop must not hang on it.
        let child = self.child.get_mut().unwrap();
        drop(child.kill());
        drop(child.wait());
        if std::thread::panicking() {
            let (out, err) = (self.stdout.tail(40), self.stderr.tail(40));
            eprintln!("--- {0} wrote:\n{out}\n--- {0} logged:\n{err}\n---", self.name);
        }
    }
}
