//! The network between a relay and its upstream: cut, silent, shared.

use std::time::Duration;

use serde_json::json;

use super::{Scene, link_is, scene};
use crate::harness::link::Link;
use crate::harness::stream::Subscription;
use crate::harness::wire::{ASKS, Wire};
use crate::harness::{Gateway, eventually, eventually_within, read_json, uses_shards};

/// A relay whose way to the gateway can break.
async fn behind_a_link() -> (Link, Scene) {
    let gateway = Gateway::builder().set("stream.heartbeat_seconds", 1).start().await;
    let environment = gateway.shop().await;
    let link = Link::start(gateway.public()).await;
    let relay = Gateway::relay(&format!("http://{}", link.address()));
    // Only the stream tells of changes here.
    let relay = relay.set("relay.poll_seconds", 3600).start().await;
    (link, Scene { relay, gateway, environment })
}

#[tokio::test]
async fn a_cut_is_healed_and_what_changed_meanwhile_is_told() {
    let (link, Scene { relay, gateway, environment }) = behind_a_link().await;
    let mut stream = Subscription::open(relay.public(), &environment.client_key).await;
    stream.next_ping().await.unwrap();
    for on in [true, false] {
        link.break_down();
        link_is(&relay, "away").await;
        let revision = gateway.admin().switch(&environment, "dark-mode", on).await;
        link.lead_to(gateway.public());
        stream.reaches(revision).await;
    }
}

/// A firewall that has forgotten a connection tells nobody: three heartbeats are missing.
#[tokio::test]
async fn a_silent_stream_is_given_up() {
    let (link, Scene { relay, gateway, environment }) = behind_a_link().await;
    let mut stream = Subscription::open(relay.public(), &environment.client_key).await;
    stream.next_ping().await.unwrap();
    link_is(&relay, "live").await;
    link.forget_connections();
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    stream.reaches(revision).await;
    assert_eq!(relay.flags(&environment.client_key).await["revision"], revision);
}

/// The gateway tells its streams at a pace, so the relay hears late, and its clients may know better.
#[tokio::test]
async fn a_read_that_is_ahead_of_the_relay_goes_through() {
    if !uses_shards() {
        return;
    }
    let gateway = Gateway::builder().set("stream.pings_per_second_max", 1).start().await;
    let environment = gateway.shop().await;
    let mut others = Vec::new();
    for _ in 0..30 {
        others.push(Wire::open(&gateway, &environment.client_key, ASKS).await);
    }
    let relay = Gateway::relay(&gateway.url("")).set("relay.poll_seconds", 3600).start().await;
    let mut wire = Wire::open(&relay, &environment.client_key, ASKS).await;
    wire.next_revision().await.unwrap();
    link_is(&relay, "live").await;
    let mut revision = 0;
    for limit in 1..=3 {
        revision = gateway.admin().set_value(&environment, "limit", limit).await;
        let path = format!("/sdk/v1/environments/{}/flags?rev={revision}", environment.client_key);
        let flags = read_json(&relay.url(&path)).await;
        assert_eq!(
            (&flags["revision"], &flags["flags"]["limit"]["value"]),
            (&json!(revision), &json!(limit))
        );
    }
    // Who listens here is told of what was read, without waiting for the gateway's pace.
    wire.reaches(revision).await;
}

/// More streams than a connection of HTTP/2 carries: they must not wait for each other.
#[tokio::test]
async fn many_environments_share_connections() {
    const ENVIRONMENTS: usize = 200;
    let gateway = Gateway::builder()
        .set("limits.requests_per_second", 100_000)
        .set("limits.environments_per_project", 1000)
        .start()
        .await;
    gateway.shop().await;
    let relay = Gateway::relay(&gateway.url("")).set("relay.http2", "always");
    // Streams that wait until their key is known must not end before, on a busy machine.
    let relay = relay.set("stream.short_life_seconds", 3600).start().await;
    let admin = gateway.admin();
    let mut environments = Vec::new();
    for number in 0..ENVIRONMENTS {
        environments.push(admin.create_environment("web", &format!("e{number}")).await);
    }
    let mut streams = Vec::new();
    for environment in &environments {
        streams.push(Wire::open(&relay, &environment.client_key, ASKS).await);
    }
    relay
        .metric_becomes(
            "flagcast_relay_environments",
            &["live"],
            u32::try_from(ENVIRONMENTS).unwrap(),
        )
        .await;
    let open = gateway.metric("flagcast_connections_open", &["public"]).await;
    // Three for streams, and one for questions; ours for the management API.
    assert!(open <= 8.0, "{open} connections for {ENVIRONMENTS} streams");
    for (environment, wire) in environments.iter().zip(&mut streams) {
        let revision = admin.switch(environment, "dark-mode", true).await;
        wire.reaches(revision).await;
    }
    // Never more than one for each.
    let open = gateway.metric("flagcast_streams_open", &[]).await;
    assert!((open - 200.0).abs() < f64::EPSILON, "{open}");
}

/// A relay of a relay keeps every promise that a relay of a gateway does.
#[tokio::test]
async fn relays_chain() {
    let Scene { relay, gateway, environment } = scene(|relay| relay).await;
    let lower = Gateway::relay(&relay.url("")).start().await;
    let mut stream = Subscription::open(lower.public(), &environment.client_key).await;
    let first = gateway.admin().revision(&environment).await;
    assert_eq!(stream.next_ping().await.unwrap()["revision"], first);
    for on in [true, false, true] {
        let revision = gateway.admin().switch(&environment, "dark-mode", on).await;
        stream.reaches(revision).await;
        assert_eq!(lower.flags(&environment.client_key).await["revision"], revision);
    }
    let epoch = |report: &serde_json::Value| report["environments"][0]["epoch"].clone();
    assert_eq!(epoch(&lower.relay_status().await), epoch(&relay.relay_status().await));
    eventually("the gateway has one stream", async || {
        let open = gateway.metric("flagcast_streams_open", &[]).await;
        ((open - 1.0).abs() < f64::EPSILON).then_some(())
    })
    .await;
}

/// What a relay's own stream says is the relay's: a restart of the gateway ends nothing here.
#[tokio::test]
async fn streams_outlive_a_restart_of_the_gateway() {
    let Scene { relay, mut gateway, environment } = scene(|relay| relay).await;
    let mut wire = Wire::open(&relay, &environment.client_key, ASKS).await;
    wire.next_revision().await.unwrap();
    for on in [true, false] {
        gateway.terminate();
        eventually_within(Duration::from_mins(1), "it has ended", async || {
            gateway.exited().await;
            Some(())
        })
        .await;
        gateway.restart().await;
        let revision = gateway.admin().switch(&environment, "dark-mode", on).await;
        wire.reaches(revision).await;
    }
}
