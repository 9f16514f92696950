//! The receiver for Rust, whose example must be built first.

use std::path::{Path, PathBuf};

use tokio::sync::OnceCell;

use super::stories;
use super::world::Language;
use crate::harness::process::{BUILD, Process, cargo};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAM: &str = "flagcast-receiver-app";

/// The program, built as `cargo test --workspace` builds it.
pub(super) async fn program() -> &'static Path {
    static PROGRAM_PATH: OnceCell<PathBuf> = OnceCell::const_new();
    PROGRAM_PATH.get_or_init(build).await
}

async fn build() -> PathBuf {
    let mut build = cargo();
    build.args(["build", "--workspace", "--locked", "--example", PROGRAM]).current_dir(ROOT);
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
