//! Secrets at rest: sealed by the key of the settings, and useless without it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use sqlx::Row as _;

use super::{Clock, Endpoint, gateway};
use crate::harness::receiver::Receiver;

/// What the store holds of an endpoint's secrets.
async fn stored(clock: &Clock) -> Vec<String> {
    let row = sqlx::query("SELECT secret, headers, previous_secret FROM webhooks")
        .fetch_one(&clock.store)
        .await
        .unwrap();
    let columns = ["secret", "headers", "previous_secret"];
    columns.iter().map(|name| row.get::<Option<String>, _>(name).unwrap_or_default()).collect()
}

fn key(byte: u8) -> String {
    BASE64.encode([byte; 32])
}

#[tokio::test]
async fn a_copy_of_the_store_gives_no_secret_away() {
    let mut gateway = gateway().set("secrets.key", key(1).as_str()).start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let more = json!({"headers": {"authorization": "Bearer very-secret"}});
    let endpoint = Endpoint::create(&gateway, &environment, &receiver.url(), more).await;
    let admin = gateway.admin();
    admin.post(&format!("{}/secret:rotate", endpoint.path), json!({})).await;
    let clock = Clock::of(&gateway).await;
    for column in stored(&clock).await {
        assert!(column.starts_with("sealed:1:"), "{column}");
    }
    assert!(!gateway.logged("plain text"));

    // Another key: nothing can be signed, and nothing is sent unsigned. Flags are served as ever.
    gateway.kill();
    gateway.restart_with("secrets.key", &key(2)).await;
    let revision = admin.switch(&environment, "dark-mode", true).await;
    let state = endpoint.becomes("last_outcome", "unsigned").await;
    assert!(state["last_error"].as_str().unwrap().contains("secrets.key"), "{state}");
    assert_eq!(receiver.count(), 0);
    assert_eq!(gateway.flags(&environment.client_key).await["revision"], revision);

    // The right key again: what waited is told.
    gateway.kill();
    gateway.restart_with("secrets.key", &key(1)).await;
    Clock::of(&gateway).await.next().await;
    let delivery = receiver.told(revision).await;
    assert_eq!(delivery.header("authorization"), "Bearer very-secret");
}

#[tokio::test]
async fn what_was_stored_plain_is_said_and_sealed_when_there_is_a_key() {
    let mut gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    let clock = Clock::of(&gateway).await;
    assert_eq!(stored(&clock).await[0], format!("plain:{}", endpoint.secret));
    gateway.kill();
    gateway.restart().await;
    assert!(gateway.logged("plain text"));
    gateway.kill();
    gateway.restart_with("secrets.key", &key(1)).await;
    assert!(stored(&clock).await[0].starts_with("sealed:1:"));
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    receiver.told(revision).await;
}
