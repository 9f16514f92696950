//! Ends: of streams, of gateways, of a proxy's processes. What was planned looks planned, what was cut looks
//! cut, and nobody is turned away meanwhile.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::timeout;

use super::{Kind, hears, stream_through};
use crate::harness::stream::Subscription;
use crate::harness::wire::ASKS;
use crate::harness::{Gateway, SOON, eventually, http, read_json};

/// An end stays what it was, and the proxy's connection stays good behind it.
async fn a_planned_end_is_clean(kind: Kind) {
    let gateway = Gateway::builder().set("stream.life_seconds", 2).start().await;
    let environment = gateway.shop().await;
    let proxy = kind.start(&gateway).await;
    let mut wire = stream_through(&proxy, &environment.client_key, ASKS).await;
    wire.stream_ends().await;
    assert!(wire.read_flags(&environment.client_key).await > 0, "on the same connection");
}

/// Whether a stream whose gateway dies looks as if it had ended as planned.
async fn a_cut_looks_clean(kind: Kind) -> bool {
    let mut gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let proxy = kind.start(&gateway).await;
    let mut wire = stream_through(&proxy, &environment.client_key, ASKS).await;
    hears(&mut wire, "\"revision\": ").await;
    gateway.kill();
    let clean = wire.ends_cleanly().await;
    gateway.restart().await;
    // The proxy finds the gateway again without help.
    let client = http();
    let flags = format!("/sdk/v1/environments/{}/flags", environment.client_key);
    let url = format!("http://{}{flags}", proxy.address());
    eventually("reads work again", async || {
        let answer = client.get(&url).send().await.ok()?;
        (answer.status() == StatusCode::OK).then_some(())
    })
    .await;
    clean
}

/// Of two gateways one leaves: whoever comes meanwhile is served by the other, at once.
async fn a_gateway_that_leaves_is_not_missed(kind: Kind) {
    let mut leaving = Gateway::builder().set("server.grace_seconds", 8).start().await;
    let environment = leaving.shop().await;
    let store = leaving.store_url();
    let staying = Gateway::builder().set("store.url", store.as_str()).start().await;
    let proxy = kind.start_before_all(&[&leaving, &staying]).await;
    leaving.terminate();
    let url =
        format!("http://{}/sdk/v1/environments/{}/flags", proxy.address(), environment.client_key);
    for _ in 0..30 {
        let mut wire = stream_through(&proxy, &environment.client_key, ASKS).await;
        hears(&mut wire, "\"revision\": ").await;
        read_json(&url).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    leaving.exited().await;
}

/// A reload changes the proxy's processes; open streams go on.
async fn a_reload_ends_no_stream(kind: Kind) {
    let gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    let mut proxy = kind.start(&gateway).await;
    let mut stream = Subscription::open(proxy.address(), &environment.client_key).await;
    stream.next_ping().await.unwrap();
    kind.reload(&mut proxy);
    // It shows on new connections that the old generation is on its way out.
    for step in 0..10 {
        let revision = gateway.admin().set_value(&environment, "limit", 100 + step).await;
        timeout(SOON, stream.reaches(revision)).await.expect("the stream goes on");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn nginx_passes_a_planned_end() {
    a_planned_end_is_clean(Kind::Nginx).await;
}

#[tokio::test]
async fn haproxy_passes_a_planned_end() {
    a_planned_end_is_clean(Kind::Haproxy).await;
}

#[tokio::test]
async fn caddy_passes_a_planned_end() {
    a_planned_end_is_clean(Kind::Caddy).await;
}

#[tokio::test]
async fn nginx_passes_a_cut() {
    assert!(!a_cut_looks_clean(Kind::Nginx).await);
}

#[tokio::test]
async fn haproxy_passes_a_cut() {
    assert!(!a_cut_looks_clean(Kind::Haproxy).await);
}

/// Caddy 2.6 does not pass it on, which is why its file forbids a cache in front. When this fails, that
/// warning can go.
#[tokio::test]
async fn caddy_hides_a_cut() {
    assert!(a_cut_looks_clean(Kind::Caddy).await);
}

#[tokio::test]
async fn nginx_reloads_without_ending_streams() {
    a_reload_ends_no_stream(Kind::Nginx).await;
}

#[tokio::test]
async fn haproxy_reloads_without_ending_streams() {
    a_reload_ends_no_stream(Kind::Haproxy).await;
}

#[tokio::test]
async fn nginx_does_not_miss_a_gateway_that_leaves() {
    a_gateway_that_leaves_is_not_missed(Kind::Nginx).await;
}

#[tokio::test]
async fn haproxy_does_not_miss_a_gateway_that_leaves() {
    a_gateway_that_leaves_is_not_missed(Kind::Haproxy).await;
}

#[tokio::test]
async fn caddy_does_not_miss_a_gateway_that_leaves() {
    a_gateway_that_leaves_is_not_missed(Kind::Caddy).await;
}
