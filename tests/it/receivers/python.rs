//! The receiver for Python, and with it Flask on gunicorn, where a delivery reaches one process of several.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use super::stories;
use super::world::{Language, World};
use crate::harness::daemon::Daemon;
use crate::harness::eventually;

/// A command of Python with all that an app needs to know.
fn python(world: &World, arguments: &[&str]) -> Command {
    const ROOT: &str = env!("CARGO_MANIFEST_DIR");
    let mut command = Command::new(format!("{ROOT}/target/test-venv/bin/python"));
    command.args(arguments).current_dir(format!("{ROOT}/clients/python"));
    world.tell(&mut command);
    command
}

#[tokio::test]
async fn a_change_is_applied() {
    stories::a_change_is_applied(Language::Python).await;
}

#[tokio::test]
async fn neither_needs_the_other() {
    stories::neither_needs_the_other(Language::Python).await;
}

#[tokio::test]
async fn who_was_away_is_told() {
    stories::who_was_away_is_told(Language::Python).await;
}

#[tokio::test]
async fn events_and_tests_are_taken() {
    stories::events_and_tests_are_taken(Language::Python).await;
}

#[tokio::test]
async fn a_rotation_leaves_no_gap() {
    stories::a_rotation_leaves_no_gap(Language::Python).await;
}

#[tokio::test]
async fn every_process_of_gunicorn_follows() {
    for preload in [true, false] {
        let mut world = World::create(Language::Python, json!({})).await;
        let server = Daemon::start("gunicorn", |_, port| {
            let bind = format!("--bind=127.0.0.1:{port}");
            let mut options = vec!["-m", "gunicorn", &bind, "--workers=3", "--no-control-socket"];
            options.extend(preload.then_some("--preload"));
            options.push("tests.apps.flask_app:app");
            python(&world, &options)
        })
        .await;
        let port = server.address().port();
        let url = format!("http://127.0.0.1:{port}/flagcast");
        world.gateway.admin().patch(&world.endpoint, json!({"url": url})).await;
        world.port = port;

        for on in [true, false] {
            let revision = world.switch(on).await;
            world.applied(revision).await;
            let mut processes = BTreeMap::new();
            eventually("all three processes have it", async || {
                let url = format!("http://127.0.0.1:{port}/page");
                let page: Value = crate::harness::read_json(&url).await;
                processes.insert(page["process"].as_u64().unwrap(), page.clone());
                let current = processes.values().filter(|page| page["revision"] == revision);
                (current.filter(|page| page["enabled"] == on).count() == 3).then_some(())
            })
            .await;
        }
    }
}
