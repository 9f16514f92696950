//! Chromium, driven by a script of `tests/sdk`: one command a line, one answer to each.

use std::process::Command;

use serde_json::Value;

use super::eventually;
use super::process::Process;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk");

/// A running Chromium with its script.
pub(crate) struct Chromium {
    process: Process,
    commands: usize,
}

impl Chromium {
    /// Starts `script` and waits until it takes commands.
    pub(crate) async fn start(script: &str) -> Self {
        let mut command = Command::new("node");
        command.arg(format!("{SCRIPTS}/{script}"));
        let chromium = Self { process: Process::spawn("browser", command), commands: 0 };
        chromium.reports("ready", 1).await;
        chromium
    }

    /// Waits until `count` lines with this `event` were printed, and returns the last of them.
    async fn reports(&self, event: &str, count: usize) -> Value {
        let what = format!("the browser reports {event:?}");
        eventually(&what, async || {
            let failed = self.lines("failed").next();
            assert!(failed.is_none(), "{}", failed.unwrap()["message"].as_str().unwrap());
            assert!(!self.process.has_ended(), "the browser has ended");
            self.lines(event).nth(count - 1)
        })
        .await
    }

    /// Gives a command and returns what the script answers.
    pub(crate) async fn obey(&mut self, command: &Value) -> Value {
        self.process.tell(&command.to_string());
        self.commands += 1;
        self.reports("done", self.commands).await["answer"].take()
    }

    /// The lines with this `event` so far.
    pub(crate) fn lines(&self, event: &str) -> impl Iterator<Item = Value> {
        self.process.stdout.json().filter(move |line| line["event"] == event)
    }
}
