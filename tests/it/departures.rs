//! How a client leaves its stream, or talks into it: what is noticed, when, and what stays behind.
//!
//! Each test stands for a client or a network; its comment names it.

use std::time::{Duration, Instant};

use crate::harness::Gateway;
use crate::harness::admin::Environment;
use crate::harness::stream::Subscription;
use crate::harness::wire::{ASKS, Wire, flags_request, stream_request};

/// A gateway whose heartbeats come after `heartbeat_seconds` without a change.
async fn with_heartbeat(heartbeat_seconds: u64) -> (Gateway, Environment) {
    let builder = Gateway::builder().set("stream.heartbeat_seconds", heartbeat_seconds);
    let builder = builder.set("stream.short_life_seconds", 1);
    let gateway = builder.set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    (gateway, environment)
}

/// A broken client, or one that takes the stream for a socket of its own: it goes on hearing,
/// and its going is noticed by a heartbeat at the latest.
#[tokio::test]
async fn a_client_that_talks_goes_on_hearing() {
    let (gateway, environment) = with_heartbeat(1).await;
    let key = &environment.client_key;
    let mut requests = flags_request(key, "").repeat(1_000);
    requests.truncate(100_000);
    for (said, on) in [(vec![0; 100_000], true), (requests.into_bytes(), false)] {
        let mut wire = Wire::open(&gateway, key, ASKS).await;
        let known = wire.next_revision().await.unwrap();
        wire.send(said).await;
        gateway.admin().switch(&environment, "dark-mode", on).await;
        assert_eq!(wire.next_revision().await, Some(known + 1));
        assert_eq!(wire.chunk().await.unwrap(), ":\n\n", "and heartbeats");
        drop(wire);
        gateway.metric_becomes("flagcast_streams_open", &[], 0).await;
    }
    gateway.metric_becomes("flagcast_stream_ends_total", &["reason=\"client\""], 2).await;
    gateway.metric_becomes("flagcast_connections_open", &["listener=\"public\""], 0).await;
}

/// What it said is taken for its next request, if for anything: refused, and the connection closed.
#[tokio::test]
async fn garbage_behind_a_stream_is_refused_after_it() {
    let (gateway, environment) = with_heartbeat(15).await;
    let mut wire = Wire::open(&gateway, &environment.client_key, "").await;
    wire.send(vec![0; 100_000]).await;
    assert!(wire.next_revision().await.is_some());
    wire.stream_ends().await;
    let rest = wire.rest().await;
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 4"), "{rest}");
    assert!(rest.matches("HTTP/1.1").count() <= 1, "{rest}");
    gateway.metric_becomes("flagcast_streams_open", &[], 0).await;
    gateway.admin().revision(&environment).await;
}

/// `nc -N` and scripts close their side when they have asked. For a stream that is a goodbye: a
/// laptop that was closed looks the same, and nothing else would tell us.
#[tokio::test]
async fn a_half_closed_client_has_left() {
    let (gateway, environment) = with_heartbeat(15).await;
    let key = &environment.client_key;
    let mut wire = Wire::open(&gateway, key, ASKS).await;
    assert!(wire.next_revision().await.is_some());
    let left = Instant::now();
    wire.half_close().await;
    wire.rest().await;
    gateway.metric_becomes("flagcast_stream_ends_total", &["reason=\"client\""], 1).await;
    gateway.metric_becomes("flagcast_streams_open", &[], 0).await;
    let noticed = left.elapsed();
    assert!(noticed < Duration::from_secs(10), "{noticed:?}: not by the next heartbeat");
    assert_eq!(gateway.admin().open_streams(&environment).await, 0);

    // Before it has an answer: the request and its end come together.
    for _ in 0..20 {
        let mut wire = Wire::connect(gateway.public()).await;
        wire.send(stream_request(key, ASKS)).await;
        wire.half_close().await;
        wire.rest().await;
    }
    gateway.metric_becomes("flagcast_streams_open", &[], 0).await;
    gateway.metric_becomes("flagcast_connections_open", &["listener=\"public\""], 0).await;
}

/// A process that is killed, or a NAT that forgot the connection.
#[tokio::test]
async fn a_reset_client_has_left() {
    let (gateway, environment) = with_heartbeat(15).await;
    let mut wire = Wire::open(&gateway, &environment.client_key, ASKS).await;
    assert!(wire.next_revision().await.is_some());
    assert_eq!(gateway.admin().open_streams(&environment).await, 1);
    let left = Instant::now();
    wire.reset();
    gateway.metric_becomes("flagcast_stream_ends_total", &["reason=\"client\""], 1).await;
    gateway.metric_becomes("flagcast_streams_open", &[], 0).await;
    let noticed = left.elapsed();
    assert!(noticed < Duration::from_secs(10), "{noticed:?}: not by the next heartbeat");
    assert_eq!(gateway.admin().open_streams(&environment).await, 0);
    gateway.metric_becomes("flagcast_connections_open", &["listener=\"public\""], 0).await;
}

/// A program that drops its stream: the library closes the connection, there is no other way.
#[tokio::test]
async fn a_dropped_subscription_leaves_nothing_behind() {
    let (gateway, environment) = with_heartbeat(15).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
        assert!(stream.next_ping().await.is_some());
        streams.push(stream);
    }
    assert_eq!(gateway.admin().open_streams(&environment).await, 5);
    drop(streams);
    gateway.metric_becomes("flagcast_streams_open", &[], 0).await;
    gateway.metric_becomes("flagcast_stream_ends_total", &["reason=\"client\""], 5).await;
    gateway.metric_becomes("flagcast_connections_open", &["listener=\"public\""], 0).await;
    assert_eq!(gateway.admin().open_streams(&environment).await, 0);
}

/// The time for a request's head is not the time of a stream, but it counts again after one: for who
/// says nothing more, and for who has begun a request during the stream.
#[tokio::test]
async fn an_idle_connection_is_closed_after_its_stream_not_during_it() {
    let gateway = Gateway::builder()
        .set("limits.header_seconds", 1)
        .set("stream.short_life_seconds", 4)
        .set("stream.heartbeat_seconds", 60)
        .start()
        .await;
    let environment = gateway.shop().await;
    let began = Instant::now();
    let mut silent = Wire::open(&gateway, &environment.client_key, "").await;
    let mut stuck = Wire::open(&gateway, &environment.client_key, "").await;
    stuck.send("GET /sdk/v1/").await;
    for wire in [&mut silent, &mut stuck] {
        wire.stream_ends().await;
    }
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    for wire in [&mut silent, &mut stuck] {
        let rest = wire.rest().await;
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
    }
}
