//! How fast a change is told, and how fast its readers come: the pace of pings, the spread of reads,
//! and the kill switch that waits for neither. Also clients that take nothing at all.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::admin::Environment;
use crate::harness::wire::{ASKS, Wire};
use crate::harness::{Gateway, eventually, uses_shards};

async fn set_limit(gateway: &Gateway, environment: &Environment, body: &Value) -> u64 {
    let path = format!("{}/flags/limit", environment.path());
    gateway.admin().call(Method::PATCH, &path, Some(body)).await["revision"].as_u64().unwrap()
}

/// A gateway that writes 40 pings a second.
async fn paced() -> Gateway {
    Gateway::builder()
        .set("stream.pings_per_second_max", 40)
        .set("stream.echo_seconds", 0)
        .start()
        .await
}

async fn open(gateway: &Gateway, environment: &Environment, count: usize) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..count {
        let mut wire = Wire::open(gateway, &environment.client_key, ASKS).await;
        wire.next_revision().await.unwrap();
        wires.push(wire);
    }
    wires
}

/// How long it takes until everybody has heard of a change.
async fn time_to_all(
    gateway: &Gateway,
    environment: &Environment,
    wires: &mut [Wire],
    body: Value,
) -> Duration {
    let began = Instant::now();
    let revision = set_limit(gateway, environment, &body).await;
    for wire in wires {
        wire.reaches(revision).await;
    }
    began.elapsed()
}

/// A site whose readers nothing collapses: its clients are told one after the other, so that they
/// come one after the other. Neither a kill switch nor another environment waits for them.
#[tokio::test]
async fn pings_leave_at_their_pace_and_urgent_ones_at_once() {
    if !uses_shards() {
        return;
    }
    let gateway = paced().await;
    let crowded = gateway.shop().await;
    let lonely = gateway.admin().create_environment("web", "lonely").await;
    let mut crowd = open(&gateway, &crowded, 60).await;
    let mut single = open(&gateway, &lonely, 1).await;

    let paced = time_to_all(&gateway, &crowded, &mut crowd, json!({"value": 1})).await;
    assert!(paced > Duration::from_secs(1), "60 pings at 40 a second took {paced:?}");
    let mut beside = Duration::MAX;
    let mut urgent = Duration::MAX;
    for step in 2..5 {
        let crowd_before = set_limit(&gateway, &crowded, &json!({"value": 10 * step})).await;
        let alone = time_to_all(&gateway, &lonely, &mut single, json!({"value": step})).await;
        beside = beside.min(alone);
        // The crowd is still being told of the change before; what is urgent takes all along.
        let body = json!({"value": step, "urgent": true});
        urgent = urgent.min(time_to_all(&gateway, &crowded, &mut crowd, body).await);
        assert!(crowd_before > 0);
    }
    assert!(beside < paced / 2, "another environment waited {beside:?} of {paced:?}");
    assert!(urgent < paced / 2, "a kill switch took {urgent:?}, an ordinary change {paced:?}");
}

/// Who was told of a change before the next one came hears of that, too, although the crowd is not
/// through yet; who was not told is told once, of the newest.
#[tokio::test]
async fn a_change_while_a_crowd_is_told_reaches_all_of_it() {
    if !uses_shards() {
        return;
    }
    let gateway = paced().await;
    let environment = gateway.shop().await;
    let mut crowd = open(&gateway, &environment, 40).await;
    let frames = gateway.metric("flagcast_ping_frames_total", &[]).await;
    let first = set_limit(&gateway, &environment, &json!({"value": 1})).await;
    eventually("some of the crowd are told", async || {
        let told = gateway.metric("flagcast_ping_frames_total", &[]).await - frames;
        (told >= 10.0).then_some(())
    })
    .await;
    let second = set_limit(&gateway, &environment, &json!({"value": 2})).await;
    let mut twice = 0;
    for wire in &mut crowd {
        let mut next = wire.next_revision().await.unwrap();
        if next == first {
            twice += 1;
            next = wire.next_revision().await.unwrap();
        }
        assert_eq!(next, second);
    }
    assert!((10..40).contains(&twice), "{twice} of 40 were told of both");
}

async fn spread_of(wire: &mut Wire, revision: u64) -> Option<u64> {
    loop {
        let event = wire.chunk().await.unwrap();
        let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else {
            continue;
        };
        let facts: Value = serde_json::from_str(data).unwrap();
        if facts["revision"] == revision {
            return facts["spread_ms"].as_u64();
        }
    }
}

/// Clients that know `spread_ms` read within it; how long it is comes from how many they are.
#[tokio::test]
async fn reads_are_spread_over_as_long_as_so_many_need() {
    let gateway = Gateway::builder()
        .set("stream.refetches_per_second", 10)
        .set("stream.echo_seconds", 0)
        .start()
        .await;
    let environment = gateway.shop().await;
    let mut wires = open(&gateway, &environment, 5).await;
    let revision = set_limit(&gateway, &environment, &json!({"value": 1})).await;
    for wire in &mut wires {
        assert_eq!(spread_of(wire, revision).await, Some(500), "5 reads at 10 a second");
    }
    let body = json!({"value": 2, "urgent": true});
    let revision = set_limit(&gateway, &environment, &body).await;
    for wire in &mut wires {
        assert_eq!(spread_of(wire, revision).await, None, "a kill switch");
    }
    let path = format!("{}/flags:batch", environment.path());
    let body = json!({"flags": [{"key": "limit", "value": 3}], "urgent": true});
    let revision = gateway.admin().call(Method::POST, &path, Some(&body)).await["revision"].clone();
    for wire in &mut wires {
        assert_eq!(spread_of(wire, revision.as_u64().unwrap()).await, None, "a batch of them");
    }
    let audit = gateway.admin().get("/audit?limit=3").await;
    let urgent: Vec<_> = audit["items"].as_array().unwrap().iter().map(|e| &e["urgent"]).collect();
    assert_eq!(urgent, [true, true, false], "{audit}");
}

/// Few readers need no spread, and the ping keeps the bytes of the contract.
#[tokio::test]
async fn few_readers_are_not_spread() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let mut wires = open(&gateway, &environment, 5).await;
    let revision = set_limit(&gateway, &environment, &json!({"value": 1})).await;
    for wire in &mut wires {
        assert_eq!(spread_of(wire, revision).await, None);
    }
}

/// A client whose window stays shut: it costs the kernel's buffers and the rest of one frame until
/// its time is over.
#[tokio::test]
async fn a_client_that_takes_nothing_is_ended() {
    let public_url = format!("http://flags.example/{}", "x".repeat(20_000));
    let gateway = Gateway::builder()
        .set("server.public_url", public_url.as_str())
        .set("stream.stall_seconds", 2)
        .set("stream.echo_seconds", 0)
        .start()
        .await;
    let environment = gateway.shop().await;
    let stuck = open(&gateway, &environment, 3).await;
    let mut fast = open(&gateway, &environment, 1).await.pop().unwrap();
    let mut step = 0;
    eventually("who takes nothing is ended", async || {
        step += 1;
        let revision = set_limit(&gateway, &environment, &json!({"value": step})).await;
        fast.reaches(revision).await;
        (gateway.metric("flagcast_streams_open", &[]).await < 1.5).then_some(())
    })
    .await;
    if uses_shards() {
        let ends = async |reason| gateway.metric("flagcast_stream_ends_total", &[reason]).await;
        // The kernel may be the first to notice.
        let noticed = ends("reason=\"stalled\"").await + ends("reason=\"timeout\"").await;
        assert!((noticed - 3.0).abs() < f64::EPSILON, "{noticed}");
        gateway.metric_becomes("flagcast_frames_unfinished", &[], 0).await;
        assert!(gateway.metric("flagcast_fan_out_seconds_count", &[]).await >= 1.0);
    }
    gateway.metric_becomes("flagcast_connections_open", &["listener=\"public\""], 1).await;
    drop(stuck);
}

/// A storm of connections is let in at its pace; the others wait in the kernel and are not refused.
#[tokio::test]
async fn a_storm_is_let_in_at_its_pace() {
    let gateway = Gateway::builder().set("limits.accepts_per_second", 50).start().await;
    let environment = gateway.shop().await;
    let began = Instant::now();
    let mut wires = Vec::new();
    for _ in 0..150 {
        let mut wire = Wire::connect(gateway.public()).await;
        wire.send(crate::harness::wire::stream_request(&environment.client_key, ASKS)).await;
        wires.push(wire);
    }
    eventually("the queue in the kernel shows", async || {
        let waiting = gateway.metric("flagcast_accept_queue", &["listener=\"public\""]).await;
        (waiting >= 1.0).then_some(())
    })
    .await;
    for wire in &mut wires {
        wire.read_stream_head().await;
        assert!(wire.next_revision().await.is_some());
    }
    let took = began.elapsed();
    assert!(took > Duration::from_millis(2500), "150 at 50 a second took {took:?}");
}
