//! Scripts and programs of `tests/sdk`: one command a line, one answer to each.
//!
//! Each drives one published client, or Chromium. What it reports between its answers stays to be
//! read by `lines`.

use std::process::Command;

use serde_json::{Value, json};

use super::admin::Environment;
use super::eventually;
use super::process::Process;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A running script or program.
pub(crate) struct Driver {
    name: String,
    process: Process,
    commands: usize,
    /// Whether it knows of changes only when it is told to read again.
    pub(crate) polls: bool,
    /// What it said of itself when it was ready.
    pub(crate) about: Value,
}

/// Where a Flagsmith SDK for servers evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evaluation {
    /// The gateway does.
    Remote,
    /// The SDK does, with the environment document.
    Local,
}

impl Evaluation {
    fn word(self) -> &'static str {
        match self {
            Self::Remote => "remote",
            Self::Local => "local",
        }
    }
}

/// The languages whose clients for servers are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Node,
    Python,
    Rust,
}

impl Language {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Node, Self::Python, Self::Rust];
}

impl Driver {
    /// Starts `command` and waits until it takes commands; `name` is for messages.
    pub(crate) async fn start(name: &str, command: Command) -> Self {
        let process = Process::spawn(name, command);
        let name = name.to_owned();
        let mut driver = Self { name, process, commands: 0, polls: false, about: Value::Null };
        driver.about = driver.reports("ready", 1).await;
        driver
    }

    /// The Flagsmith SDK for servers of a language, with the server key.
    pub(crate) async fn flagsmith(
        language: Language,
        evaluation: Evaluation,
        gateway: &str,
        environment: &Environment,
    ) -> Self {
        let mut command = match language {
            Language::Node => node("flagsmith_node.js"),
            Language::Python => python("flagsmith_python.py"),
            Language::Rust => rust("flagsmith"),
        };
        command.args([evaluation.word(), gateway, &environment.server_key]);
        let name = format!("flagsmith for {language:?}, {}", evaluation.word());
        let mut driver = Self::start(&name, command).await;
        // Only Python's has real-time updates.
        driver.polls = evaluation == Evaluation::Local && language != Language::Python;
        driver
    }

    /// The Flagsmith SDK for browsers, with the client key.
    pub(crate) async fn flagsmith_js(gateway: &str, environment: &Environment) -> Self {
        let mut command = node("flagsmith_identity.js");
        command.args([gateway, &environment.client_key]);
        Self::start("@flagsmith/flagsmith", command).await
    }

    /// OpenFeature's provider for servers of a language.
    pub(crate) async fn openfeature(language: Language, gateway: &str, key: &str) -> Self {
        let mut command = match language {
            Language::Node => node("openfeature-server/openfeature_server.js"),
            Language::Python => python("openfeature_python.py"),
            Language::Rust => rust("openfeature"),
        };
        command.args([gateway, key]);
        Self::start(&format!("OpenFeature for {language:?}"), command).await
    }

    /// OpenFeature's provider for the web: in `node`, or in a page of `chromium`.
    pub(crate) async fn openfeature_web(place: &str) -> Self {
        let mut command = node("openfeature_web.js");
        command.arg(place);
        Self::start(&format!("OpenFeature for the web in {place}"), command).await
    }

    /// Chromium with one of its scripts.
    pub(crate) async fn chromium(script: &str) -> Self {
        Self::start("browser", node(script)).await
    }

    /// Gives a command and returns its answer.
    pub(crate) async fn obey(&mut self, command: &Value) -> Value {
        self.process.tell(&command.to_string());
        self.commands += 1;
        self.reports("done", self.commands).await["answer"].take()
    }

    /// What each of `users` gets, from a Flagsmith SDK for servers.
    pub(crate) async fn evaluate(&mut self, users: &[Value]) -> Vec<Value> {
        let command = json!({"do": "evaluate", "users": users});
        let Value::Array(answers) = self.obey(&command).await else {
            panic!("{} answers with a list", self.name)
        };
        answers
    }

    /// The lines with this `event` so far.
    pub(crate) fn lines(&self, event: &str) -> impl Iterator<Item = Value> {
        self.process.stdout.json().filter(move |line| line["event"] == event)
    }

    /// Waits until `count` lines with this `event` were printed, and returns the last of them.
    async fn reports(&self, event: &str, count: usize) -> Value {
        let what = format!("{} reports {event:?}", self.name);
        eventually(&what, async || {
            let failed = self.lines("failed").next();
            assert!(failed.is_none(), "{}: {}", self.name, failed.unwrap()["message"]);
            assert!(!self.process.has_ended(), "{} has ended", self.name);
            self.lines(event).nth(count - 1)
        })
        .await
    }
}

/// A script of `tests/sdk` for Node.
pub(crate) fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(format!("{ROOT}/tests/sdk/{script}"));
    command
}

/// A script of `tests/sdk` for Python, with the packages of `requirements.txt`.
pub(crate) fn python(script: &str) -> Command {
    let mut command = Command::new(format!("{ROOT}/target/test-venv/bin/python"));
    command.arg(format!("{ROOT}/tests/sdk/{script}"));
    command
}

/// A script of `tests/sdk` for Ruby, with Debian's gems.
pub(crate) fn ruby(script: &str) -> Command {
    let mut command = Command::new("ruby");
    command.arg(format!("{ROOT}/tests/sdk/{script}"));
    command
}

/// The program of `tests/sdk/rust`.
fn rust(client: &str) -> Command {
    let mut command = Command::new(format!("{ROOT}/target/test-rust/debug/flagcast-sdk-tests"));
    command.arg(client);
    command
}
