//! The receiver for Rust, whose example must be built first.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::stories;
use super::world::Language;
use crate::harness::process::Process;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAM: &str = "flagcast-receiver-app";

/// Building the app, if a run of this test program alone did not.
const BUILD: Duration = Duration::from_mins(5);

/// The program, built as `cargo test --workspace` builds it.
pub(super) async fn program() -> &'static Path {
    static PROGRAM_PATH: OnceCell<PathBuf> = OnceCell::const_new();
    PROGRAM_PATH.get_or_init(build).await
}

async fn build() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--workspace", "--locked", "--example", PROGRAM]).current_dir(ROOT);
    // What cargo has told this process of its package would make libraries seem to have changed that
    // look at it when they are built, and this run and the next would build them all again.
    let of_this_run =
        ["CARGO_BIN_", "CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PRIMARY_"];
    for (name, _) in std::env::vars() {
        if of_this_run.iter().any(|prefix| name.starts_with(prefix)) {
            build.env_remove(name);
        }
    }
    let mut build = Process::spawn("cargo", build);
    assert!(build.exited_within(BUILD).await.success(), "{PROGRAM} is built");
    let this = std::env::current_exe().unwrap();
    let directory = this.parent().and_then(Path::parent).unwrap();
    directory.join("examples").join(PROGRAM)
}

#[tokio::test]
async fn a_change_is_applied() {
    stories::a_change_is_applied(Language::Rust).await;
}

#[tokio::test]
async fn neither_needs_the_other() {
    stories::neither_needs_the_other(Language::Rust).await;
}

#[tokio::test]
async fn who_was_away_is_told() {
    stories::who_was_away_is_told(Language::Rust).await;
}

#[tokio::test]
async fn events_and_tests_are_taken() {
    stories::events_and_tests_are_taken(Language::Rust).await;
}

#[tokio::test]
async fn a_rotation_leaves_no_gap() {
    stories::a_rotation_leaves_no_gap(Language::Rust).await;
}
