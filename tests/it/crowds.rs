//! Many connections at once, and few that do harm: storms, slowness, missing descriptors, the end.
//!
//! Whatever a crowd does, somebody beside it goes on hearing every change.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::harness::admin::Environment;
use crate::harness::wire::{ASKS, Wire, flags_request, stream_request};
use crate::harness::{ADMIN_TOKEN, Gateway, eventually, http};

/// Longest time from a change to its ping that a crowd may cause. It is long because all tests share
/// two cores; starvation would last for ever.
const PROMPT: Duration = Duration::from_secs(10);

/// Lets this process and those that it starts open thousands of sockets; many systems begin with
/// 1024.
fn raise_descriptor_limit() {
    let process = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &process, "--nofile=8192:"]).status();
    assert!(raised.unwrap().success(), "8192 descriptors are needed: see `ulimit -Hn`");
}

/// Opens `count` streams, each with its first event read.
async fn crowd(gateway: &Gateway, client_key: &str, count: usize) -> Vec<Wire> {
    let mut wires = Vec::with_capacity(count);
    for _ in 0..count {
        let mut wire = Wire::open(gateway, client_key, ASKS).await;
        assert!(wire.next_revision().await.is_some());
        wires.push(wire);
    }
    wires
}

/// The newest revision that a subscriber has heard of.
#[derive(Clone, Default)]
struct Heard(Arc<AtomicU64>);

impl Heard {
    /// Reads `wire` to its clean end on a task of its own. When revisions go back it stops, and
    /// `reaches` panics.
    fn follow(&self, mut wire: Wire) {
        let heard = self.clone();
        tokio::spawn(async move {
            while let Some(revision) = wire.next_revision().await {
                let before = heard.0.swap(revision, Ordering::SeqCst);
                assert!(revision >= before, "{revision} after {before}");
            }
        });
    }

    async fn reaches(&self, revision: u64) {
        eventually("a subscriber hears of the newest revision", async || {
            (self.0.load(Ordering::SeqCst) >= revision).then_some(())
        })
        .await;
    }
}

/// One change that `subscriber` must hear of promptly.
async fn change(gateway: &Gateway, environment: &Environment, subscriber: &mut Wire, step: u64) {
    let revision = gateway.admin().set_value(environment, "limit", step).await;
    let told = timeout(PROMPT, subscriber.reaches(revision)).await;
    assert!(told.is_ok(), "no word of revision {revision} within {PROMPT:?}");
}

/// Opens a stream and resets it at one of the points where it could be caught: with its request on
/// the way, in the middle of the request, with the head read, with the first event read.
async fn reset_at(gateway: &Gateway, client_key: &str, point: usize) -> Wire {
    let mut wire = Wire::connect(gateway.public()).await;
    let request = stream_request(client_key, ASKS);
    match point % 4 {
        0 => wire.send(request).await,
        1 => wire.send(&request[..40]).await,
        point => {
            wire.send(request).await;
            wire.read_stream_head().await;
            if point == 3 {
                assert!(wire.next_revision().await.is_some());
            }
        }
    }
    wire
}

/// A load balancer that restarts, or a site that is closed in a thousand tabs at once.
#[tokio::test]
async fn a_storm_of_resets_leaves_nothing_behind() {
    const STREAMS: usize = 500;
    raise_descriptor_limit();
    let gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    let mut subscriber = crowd(&gateway, &environment.client_key, 1).await.pop().unwrap();
    change(&gateway, &environment, &mut subscriber, 0).await;
    let before = gateway.open_descriptors();
    for round in 1..=4 {
        let mut wires = Vec::with_capacity(STREAMS);
        for point in 0..STREAMS {
            wires.push(reset_at(&gateway, &environment.client_key, point).await);
        }
        change(&gateway, &environment, &mut subscriber, 2 * round).await;
        wires.into_iter().for_each(Wire::reset);
        change(&gateway, &environment, &mut subscriber, 2 * round + 1).await;
    }
    gateway.metric_becomes("flagcast_streams_open", &[], 1).await;
    gateway.metric_becomes("flagcast_connections_open", &["listener=\"public\""], 1).await;
    eventually("the descriptors of those who left are closed", async || {
        let now = gateway.open_descriptors();
        // Some are of the store and of the operators' listener: they come and go.
        (now <= before + 10).then_some(())
    })
    .await;
    change(&gateway, &environment, &mut subscriber, 99).await;
    assert_eq!(gateway.admin().open_streams(&environment).await, 1);
}

/// A gateway whose pings have 20 kB: a few hundred fill every buffer between it and a client that
/// does not read.
async fn with_large_pings(grace_seconds: u64) -> (Gateway, Environment) {
    let public_url = format!("http://flags.example/{}", "x".repeat(20_000));
    let gateway = Gateway::builder()
        .set("server.public_url", public_url.as_str())
        .set("server.grace_seconds", grace_seconds)
        .set("stream.echo_seconds", 0)
        .start()
        .await;
    let environment = gateway.shop().await;
    (gateway, environment)
}

/// So many changes of `with_large_pings` that a client which reads nothing misses some: more bytes
/// than the kernel holds for both sides of a connection.
const MANY_CHANGES: u64 = 500;

/// A laptop that sleeps, a browser tab in the background, a network that has died without a word.
#[tokio::test]
async fn a_slow_client_holds_nobody_up_and_jumps_to_the_newest() {
    let (gateway, environment) = with_large_pings(1).await;
    let key = &environment.client_key;
    let mut slow = crowd(&gateway, key, 3).await;
    let mut fast = crowd(&gateway, key, 2).await;
    for step in 0..MANY_CHANGES {
        let revision = gateway.admin().set_value(&environment, "limit", step).await;
        for wire in &mut fast {
            let told = timeout(PROMPT, wire.reaches(revision)).await;
            assert!(told.is_ok(), "no word of revision {revision} within {PROMPT:?}");
        }
    }
    // One is gone with half an event before it.
    slow.pop().unwrap().reset();
    gateway.metric_becomes("flagcast_streams_open", &[], 4).await;
    let newest = gateway.admin().revision(&environment).await;
    for wire in &mut slow {
        let (mut last, mut told) = (0, 0);
        while last < newest {
            let next = wire.next_revision().await.expect("the stream goes on");
            assert!(next > last, "{next} after {last}");
            (last, told) = (next, told + 1);
        }
        assert!(told < MANY_CHANGES, "it was not slow: it was told all {told}");
    }
    // From now on they are like the others.
    let revision = gateway.admin().set_value(&environment, "limit", MANY_CHANGES).await;
    for wire in slow.iter_mut().chain(&mut fast) {
        assert_eq!(wire.next_revision().await, Some(revision));
    }
}

/// A client that never reads must not keep the gateway from ending.
#[tokio::test]
async fn a_stuck_client_does_not_hold_up_the_end() {
    let (mut gateway, environment) = with_large_pings(4).await;
    let key = &environment.client_key;
    let stuck = crowd(&gateway, key, 1).await;
    let mut fast = crowd(&gateway, key, 1).await.pop().unwrap();
    for step in 0..MANY_CHANGES {
        gateway.admin().set_value(&environment, "limit", step).await;
    }
    let newest = gateway.admin().revision(&environment).await;
    fast.reaches(newest).await;
    let asked = Instant::now();
    gateway.terminate();
    fast.stream_ends().await;
    assert_eq!(gateway.exited().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(4 + 3), "{:?}", asked.elapsed());
    drop(stuck);
}

/// A system that allows few descriptors: streams beyond them are told to come back, and reads still
/// find a connection.
#[tokio::test]
async fn few_descriptors_are_shared_out() {
    let gateway =
        Gateway::builder().descriptors(128).set("stream.refusal_seconds", 1).start().await;
    let environment = gateway.shop().await;
    let key = &environment.client_key;
    // Of 128 half is for the gateway itself, of 64 connections a tenth for reads.
    let mut wires = Vec::new();
    for _ in 0..63 {
        wires.push(Wire::open(&gateway, key, ASKS).await);
    }
    let mut refused = 0;
    for wire in &mut wires {
        let first = timeout(PROMPT, wire.chunk()).await.unwrap().unwrap();
        refused += usize::from(first.starts_with("retry: "));
    }
    assert_eq!(refused, 63 - 58);
    assert_eq!(gateway.metric("flagcast_open_files_limit", &[]).await.to_string(), "128");
    gateway.flags(key).await;
    assert!(!gateway.logged("cannot accept"));
}

/// Descriptors that ran out all the same: the gateway works on with what it has, and takes new
/// connections when old ones go.
#[tokio::test]
async fn without_descriptors_it_serves_those_it_has() {
    raise_descriptor_limit();
    let gateway = Gateway::builder()
        .set("limits.header_seconds", 120)
        .set("stream.echo_seconds", 0)
        .start()
        .await;
    let environment = gateway.shop().await;
    let key = &environment.client_key;
    let mut stream = crowd(&gateway, key, 1).await.pop().unwrap();
    let mut reader = Wire::connect(gateway.public()).await;
    reader.read_flags(key).await;
    let mut writer = Wire::connect(gateway.public()).await;
    let mut operator = Wire::connect(gateway.ops()).await;
    let readyz = "GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut revision = patch(&mut writer, &environment, 0).await;
    stream.reaches(revision).await;

    gateway.limit_descriptors(gateway.open_descriptors() + 100);
    let mut crowd = Vec::new();
    for _ in 0..400 {
        let mut wire = Wire::connect(gateway.public()).await;
        wire.send(stream_request(key, ASKS)).await;
        crowd.push(wire);
    }
    eventually("descriptors run out", async || gateway.logged("cannot accept").then_some(())).await;
    for step in 1..=20 {
        revision = patch(&mut writer, &environment, step).await;
        stream.reaches(revision).await;
        assert_eq!(reader.read_flags(key).await, revision);
        operator.send(readyz).await;
        operator.read_head().await;
        assert!(operator.head.starts_with("http/1.1 200"), "{}", operator.head);
        assert_eq!(operator.until("ok\n").await, "ok\n");
    }

    drop(crowd);
    let mut late = Wire::open(&gateway, key, ASKS).await;
    assert_eq!(late.next_revision().await, Some(revision));
    assert!(http().get(gateway.ops_url("/readyz")).send().await.unwrap().status().is_success());
    gateway.metric_becomes("flagcast_streams_open", &[], 2).await;
    revision = patch(&mut writer, &environment, 99).await;
    stream.reaches(revision).await;
    late.reaches(revision).await;
}

/// Changes a flag over a connection that is there already; tells the revision.
async fn patch(wire: &mut Wire, environment: &Environment, value: u64) -> u64 {
    let body = format!("{{\"value\":{value}}}");
    let path = format!("/admin/v1{}/flags/limit", environment.path());
    let request = format!(
        "PATCH {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    wire.send(&request).await;
    let (status, answer) = wire.read_answer().await;
    assert_eq!(status, 200, "{answer}");
    answer["revision"].as_u64().unwrap()
}

/// A deployment: all clients are sent away, cleanly and not in one instant, and requests that wait
/// behind a stream are for the next gateway.
#[tokio::test]
async fn a_crowd_is_sent_away_bit_by_bit() {
    const STREAMS: usize = 300;
    let window = Duration::from_millis(200);
    raise_descriptor_limit();
    let mut gateway = Gateway::builder().set("server.grace_seconds", 4).start().await;
    let environment = gateway.shop().await;
    let key = &environment.client_key;
    let mut wires = crowd(&gateway, key, STREAMS).await;
    for wire in &mut wires[..10] {
        wire.send(flags_request(key, "")).await;
    }
    let asked = Instant::now();
    gateway.terminate();
    let ends = wires.into_iter().map(|mut wire| {
        tokio::spawn(async move {
            let mut last = String::new();
            while let Some(chunk) = wire.chunk().await {
                last = chunk;
            }
            let ended = asked.elapsed();
            assert!(last.starts_with("retry: "), "when to come back: {last:?}");
            assert_eq!(wire.rest().await, "", "nothing is answered any more");
            ended
        })
    });
    let ends = futures_util::future::join_all(ends.collect::<Vec<_>>()).await;
    let mut ends: Vec<Duration> = ends.into_iter().map(Result::unwrap).collect();
    ends.sort();
    for (index, first) in ends.iter().enumerate() {
        let together = ends[index..].iter().take_while(|end| **end < *first + window).count();
        assert!(together <= STREAMS / 2, "{together} within {window:?} of {first:?}");
    }
    assert_eq!(gateway.exited().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(4 + 2), "{:?}", asked.elapsed());
}

/// A site with very many readers beside one with a single one: the single one is not forgotten, and
/// in the end everybody knows the newest.
#[tokio::test]
async fn a_crowd_does_not_starve_a_single_subscriber() {
    const STREAMS: usize = 2_000;
    const ROUNDS: u32 = 10;
    raise_descriptor_limit();
    let gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let crowded = gateway.shop().await;
    let admin = gateway.admin();
    let lonely = admin.create_environment("web", "lonely").await;
    let mut single = crowd(&gateway, &lonely.client_key, 1).await.pop().unwrap();
    let mut everybody = Vec::with_capacity(STREAMS);
    for wire in crowd(&gateway, &crowded.client_key, STREAMS).await {
        let heard = Heard::default();
        heard.follow(wire);
        everybody.push(heard);
    }
    let frames = gateway.metric("flagcast_ping_frames_total", &[]).await;
    let mut newest = 0;
    for step in 0..ROUNDS {
        let (of_crowd, of_single) = tokio::join!(
            admin.set_value(&crowded, "limit", 100 + step),
            admin.set_value(&lonely, "limit", 100 + step),
        );
        let told = timeout(PROMPT, single.reaches(of_single)).await;
        assert!(told.is_ok(), "round {step}: not within {PROMPT:?}");
        newest = of_crowd;
    }
    for heard in &everybody {
        heard.reaches(newest).await;
    }
    let frames = gateway.metric("flagcast_ping_frames_total", &[]).await - frames;
    let all = f64::from(u32::try_from(STREAMS + 1).unwrap()) * f64::from(ROUNDS);
    assert!(frames <= all, "{frames} frames: somebody was told twice");
    gateway.metric_becomes("flagcast_streams_open", &[], 2_001).await;
}
