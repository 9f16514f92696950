//! Runs the published Rust clients, unmodified.
//!
//! Usage: `flagcast-sdk-tests flagsmith remote|local BASE_URL SERVER_KEY`
//!    or: `flagcast-sdk-tests openfeature BASE_URL KEY`
//!
//! Reads commands from standard input, one JSON object a line, and answers each with one line:
//! `{"event":"done","answer":…}` or `{"event":"failed","message":"…"}`. The modules tell the
//! commands.

mod flagsmith;
mod openfeature;

use std::io::BufRead as _;

use serde_json::{Value, json};

/// What went wrong, in words.
type Failure = String;

/// Prints one line.
fn report(line: &Value) {
    println!("{line}");
}

/// Reads commands until the input ends.
fn obey_lines(mut obey: impl FnMut(&Value) -> Result<Value, Failure>) {
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("commands are text");
        let command = serde_json::from_str(&line).map_err(|error| error.to_string());
        match command.and_then(|command| obey(&command)) {
            Ok(answer) => report(&json!({"event": "done", "answer": answer})),
            Err(error) => {
                report(&json!({"event": "failed", "message": format!("{line}: {error}")}));
            }
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["flagsmith", mode, base_url, key] => flagsmith::run(mode == "local", base_url, key),
        ["openfeature", base_url, key] => openfeature::run(base_url, key),
        _ => report(&json!({"event": "failed", "message": format!("{arguments:?}?")})),
    }
}
