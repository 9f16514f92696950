//! The receiver for Ruby, and with it Puma with several processes, of which a delivery reaches one.

use std::collections::BTreeMap;

use serde_json::json;

use super::stories;
use super::world::{Language, World};
use crate::harness::eventually;

#[tokio::test]
async fn a_change_is_applied() {
    stories::a_change_is_applied(Language::Ruby).await;
}

#[tokio::test]
async fn neither_needs_the_other() {
    stories::neither_needs_the_other(Language::Ruby).await;
}

#[tokio::test]
async fn who_was_away_is_told() {
    stories::who_was_away_is_told(Language::Ruby).await;
}

#[tokio::test]
async fn events_and_tests_are_taken() {
    stories::events_and_tests_are_taken(Language::Ruby).await;
}

#[tokio::test]
async fn a_rotation_leaves_no_gap() {
    stories::a_rotation_leaves_no_gap(Language::Ruby).await;
}

#[tokio::test]
async fn every_process_of_puma_follows() {
    let world = World::create(Language::Ruby, json!({})).await;
    let mut app = world.app_at(world.port, &[("WEB_CONCURRENCY", "3")]).await;
    for on in [true, false] {
        let revision = world.switch(on).await;
        world.applied(revision).await;
        let mut processes = BTreeMap::new();
        eventually("all three processes have it", async || {
            let (process, flag) = app.flag_of_a_process("dark-mode").await;
            processes.insert(process, flag["enabled"] == on && flag["revision"] == revision);
            (processes.len() == 3 && processes.values().all(|has_it| *has_it)).then_some(())
        })
        .await;
    }
    // As service managers do: its workers end with it.
    app.process.signal("TERM");
    app.process.exited().await;
}
