//! What must hold for every receiver.

use serde_json::json;

use super::world::{Language, World};
use crate::harness::daemon::free_port;

/// A change reaches the app, also its process to which nothing is delivered, and the gateway knows.
pub(super) async fn a_change_is_applied(language: Language) {
    let world = World::create(language, json!({})).await;
    let app = world.app().await;
    let other = world.app_at(free_port(), &[]).await;
    let begin = world.gateway.admin().revision(&world.environment).await;
    assert_eq!(app.shows(begin, "dark-mode").await["enabled"], false);
    other.shows(begin, "dark-mode").await;

    for on in [true, false, true] {
        let revision = world.switch(on).await;
        assert_eq!(app.shows(revision, "dark-mode").await["enabled"], on);
        world.applied(revision).await;
        // It takes it from the copy.
        assert_eq!(other.shows(revision, "dark-mode").await["enabled"], on);
    }
    let admin = world.gateway.admin();
    let revision = admin.set_value(&world.environment, "banner", "é\"\n🙂").await;
    assert_eq!(app.shows(revision, "banner").await["value"], "é\"\n🙂");
}

/// The app goes on without the gateway, and starts without it from its copy.
pub(super) async fn neither_needs_the_other(language: Language) {
    let mut world = World::create(language, json!({})).await;
    let mut app = world.app().await;
    let revision = world.switch(true).await;
    app.shows(revision, "dark-mode").await;
    world.stored(revision).await;

    world.gateway.kill();
    let known = json!({"enabled": true, "value": null, "revision": revision});
    assert_eq!(app.flag("dark-mode").await, known);
    app.process.kill();
    let app = world.app().await;
    assert_eq!(app.flag("dark-mode").await, known);

    world.gateway.restart().await;
    let revision = world.switch(false).await;
    assert_eq!(app.shows(revision, "dark-mode").await["enabled"], false);
    world.applied(revision).await;
}

/// An app that was away is told what is newest, once.
pub(super) async fn who_was_away_is_told(language: Language) {
    let world = World::create(language, json!({})).await;
    let mut app = world.app().await;
    let revision = world.switch(true).await;
    world.applied(revision).await;

    app.process.kill();
    let mut newest = revision;
    for limit in 1..=10 {
        newest = world.gateway.admin().set_value(&world.environment, "limit", limit).await;
    }
    let app = world.app().await;
    assert_eq!(app.shows(newest, "limit").await["value"], 10);
    world.applied(newest).await;
}

/// Events and tests are taken like states.
pub(super) async fn events_and_tests_are_taken(language: Language) {
    let world = World::create(language, json!({"mode": "events"})).await;
    let app = world.app().await;
    for on in [true, false] {
        let revision = world.switch(on).await;
        assert_eq!(app.shows(revision, "dark-mode").await["enabled"], on);
        world.applied(revision).await;
    }
    let test = format!("{}/test", world.endpoint);
    let how = world.gateway.admin().post(&test, json!({})).await;
    assert_eq!(how["state"], "delivered", "{how}");
}

/// The app has the old secret, then both, then the new one.
pub(super) async fn a_rotation_leaves_no_gap(language: Language) {
    let mut world = World::create(language, json!({})).await;
    let mut app = world.app().await;
    let path = format!("{}/secret:rotate", world.endpoint);
    let rotated = world.gateway.admin().post(&path, json!({"overlap_seconds": 86_400})).await;
    let (old, new) = (world.secret.clone(), rotated["secret"].as_str().unwrap().to_owned());
    assert_ne!(old, new);

    let mut on = false;
    for secrets in [old.clone(), format!("{old},{new}"), new] {
        app.process.kill();
        world.secret = secrets;
        app = world.app().await;
        on = !on;
        let revision = world.switch(on).await;
        assert_eq!(app.shows(revision, "dark-mode").await["enabled"], on);
        world.applied(revision).await;
    }
}
