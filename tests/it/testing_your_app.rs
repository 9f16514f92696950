//! `docs/TESTING-YOUR-APP.md`: its examples are files, and every one of them runs.

use std::path::Path;
use std::process::Command;

use crate::harness::process::{BUILD, Process, cargo};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Runs a command of an example, as its reader would.
async fn run(name: &str, mut command: Command) {
    command.env("FLAGCAST", env!("CARGO_BIN_EXE_flagcast")).current_dir(ROOT);
    let mut process = Process::spawn(name, command);
    // The one in Rust is compiled first.
    let status = process.exited_within(BUILD).await;
    let (said, more) = (process.stdout.tail(60), process.stderr.tail(60));
    assert!(status.success(), "{name}: {status}\n{said}\n{more}");
    let ran = said.contains("pass 3") || said.contains("pass 2") || more.contains("Ran 3 tests");
    assert!(ran || said.contains("1 passed"), "{name}\n{said}\n{more}");
}

#[test]
fn the_document_shows_the_files_that_run() {
    let document =
        std::fs::read_to_string(Path::new(ROOT).join("docs/TESTING-YOUR-APP.md")).unwrap();
    let mut shown = 0;
    for part in document.split("<!-- ").skip(1) {
        let (file, rest) = part.split_once(" -->\n```").unwrap();
        let (_, rest) = rest.split_once('\n').unwrap();
        let (block, _) = rest.split_once("\n```").unwrap();
        let text = std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        assert_eq!(block, text.trim_end(), "{file} in docs/TESTING-YOUR-APP.md");
        shown += 1;
    }
    assert_eq!(shown, 6);
}

#[tokio::test]
async fn the_example_for_python_runs() {
    let mut command = Command::new(format!("{ROOT}/target/test-venv/bin/python"));
    command.arg("tests/sdk/examples/test_flags.py");
    run("python", command).await;
}

#[tokio::test]
async fn the_examples_for_node_and_browser_code_run() {
    for file in ["server.test.mjs", "web.test.mjs"] {
        let mut command = Command::new("node");
        command.args(["--test", &format!("tests/sdk/examples/{file}")]);
        run(file, command).await;
    }
}

#[tokio::test]
async fn the_example_for_rust_runs() {
    let mut command = cargo();
    command.args(["test", "--locked", "--manifest-path", "tests/sdk/rust/Cargo.toml"]);
    command.args(["--target-dir", "target/test-rust", "--test", "flags"]);
    run("cargo test", command).await;
}
