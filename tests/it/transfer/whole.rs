//! An import that is cut off leaves nothing behind.

use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::command::{exported, flagcast, import, run, sqlite, text};
use super::world::builder;

/// Enough that the store's log grows before the end.
const IDENTITIES: usize = 20_000;

#[tokio::test]
async fn an_import_that_is_killed_leaves_nothing() {
    let from = builder().start().await;
    from.shop().await;
    let mut document = exported(&from.store_url());
    let identities = (0..IDENTITIES).map(|number| {
        json!({ "identifier": format!("user-{number}"), "created_at": "2026-01-01T00:00:00Z",
            "uuid": format!("0f21cde8-63c5-4e50-baca-{number:012}"),
            "traits": { "text": "x".repeat(300), "number": number } })
    });
    document["project"]["environments"][0]["identities"] = identities.collect();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("web.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let path = directory.path().join("b.db");
    let store = sqlite(&path);
    text(&run(&store, &["token", "create", "--name", "x", "--role", "admin"]));

    let log = directory.path().join("b.db-wal");
    let mut child = flagcast(&store, &["import", file.to_str().unwrap()]).spawn().unwrap();
    let started = Instant::now();
    // A log of a megabyte holds rows of the project.
    while std::fs::metadata(&log).map_or(0, |log| log.len()) < 1_000_000 {
        assert!(child.try_wait().unwrap().is_none(), "it was done before it could be killed");
        assert!(started.elapsed() < Duration::from_mins(1), "no row was written");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    let said = run(&store, &["export", "--project", "web"]);
    assert_eq!(said.status.code(), Some(1), "nothing of the project is there");

    let said = text(&import(&store, &document, &[]));
    assert!(said.contains(&format!("identities {IDENTITIES}")), "{said}");
    let again = exported(&store);
    let kept = |of: &serde_json::Value| of["project"]["environments"][0]["identities"].clone();
    assert_eq!(kept(&again), kept(&document));
}
