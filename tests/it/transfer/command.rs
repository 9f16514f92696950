//! The program as an operator runs it, on a store of the test's choice.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Settings that every call gets: endpoints of the tests listen on loopback.
const TARGETS: (&str, &str) = ("FLAGCAST_WEBHOOK__ALLOWED_TARGETS", "127.0.0.0/8");

/// The `store.url` of a file.
pub(crate) fn sqlite(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

/// The program with these arguments; not started yet.
pub(crate) fn flagcast(store: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagcast"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLAGCAST_")) {
        command.env_remove(name);
    }
    command.args(arguments).env("FLAGCAST_STORE__URL", store).env(TARGETS.0, TARGETS.1);
    command
}

/// What it answers.
pub(crate) fn run(store: &str, arguments: &[&str]) -> Output {
    flagcast(store, arguments).output().unwrap()
}

/// What it answers when `input` is its standard input.
pub(crate) fn feed(store: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = flagcast(store, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may refuse before it has read everything.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

/// The standard output of a call that succeeded.
pub(crate) fn text(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{complaint}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The complaint of a call that was refused as the caller's mistake.
pub(crate) fn complaint(output: &Output) -> String {
    let complaint = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(64), "{complaint}");
    assert!(output.stdout.is_empty());
    complaint
}

/// The project `web` of a store, with all secrets.
pub(crate) fn exported(store: &str) -> Value {
    let arguments = ["export", "--project", "web", "--with-secrets"];
    serde_json::from_str(&text(&run(store, &arguments))).unwrap()
}

/// Imports a document with these options.
pub(crate) fn import(store: &str, document: &Value, options: &[&str]) -> Output {
    let arguments = [&["import"], options].concat();
    feed(store, &arguments, &document.to_string())
}
