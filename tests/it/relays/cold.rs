//! A cold start: all relays start at once while the upstream is away. What was last known is there at once, and
//! when the upstream is back it is asked once for each environment and relay, not by all at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep;

use super::taking_up::questions;
use crate::harness::admin::Environment;
use crate::harness::link::Link;
use crate::harness::stream::Subscription;
use crate::harness::wire::{ASKS, Wire};
use crate::harness::{Gateway, eventually, read_json};

const RELAYS: usize = 3;

/// How often a relay dies at a ping.
const DEATHS: u64 = 10;

const ENVIRONMENTS: usize = 100;

/// Environments that change while no relay hears of it.
const CHANGED: usize = 10;

/// How long the upstream stays away once the relays have started.
const AWAY: Duration = Duration::from_secs(5);

/// Questions come spread: within this time, and of all no more than this share.
const WINDOW: Duration = Duration::from_millis(500);
const SHARE_MAX: f64 = 0.5;

/// How long the flags of all environments may take to come from the disk, beside other tests.
const AT_ONCE: Duration = Duration::from_secs(15);

/// Waits until every relay follows all environments.
async fn all_are_live(relays: &[Gateway]) {
    for relay in relays {
        let count = u32::try_from(ENVIRONMENTS).unwrap();
        relay.metric_becomes("flagcast_relay_environments", &["live"], count).await;
    }
}

async fn revision(door: SocketAddr, environment: &Environment) -> u64 {
    let path = format!("/sdk/v1/environments/{}/flags", environment.client_key);
    read_json(&format!("http://{door}{path}")).await["revision"].as_u64().unwrap()
}

/// Reads all environments at a relay that has just started, and opens some streams.
async fn tells_what_was_known(relay: &Gateway, known: &[(Environment, u64)]) {
    let began = Instant::now();
    for (environment, last) in known {
        assert_eq!(revision(relay.public(), environment).await, *last);
    }
    for (environment, last) in known.iter().step_by(10) {
        let mut stream = Subscription::open(relay.public(), &environment.client_key).await;
        assert_eq!(stream.next_ping().await.unwrap()["revision"], *last);
    }
    assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
}

/// Questions that the gateway has answered, by status: with a snapshot, and that there is no other.
async fn asked(gateway: &Gateway) -> (f64, f64) {
    (questions(gateway, 200).await, questions(gateway, 304).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_start_serves_at_once_and_asks_once() {
    let gateway = Gateway::builder()
        .set("limits.requests_per_second", 100_000)
        .set("limits.environments_per_project", 1000)
        .start()
        .await;
    let admin = gateway.admin();
    gateway.shop().await;
    let mut known = Vec::new();
    for number in 0..ENVIRONMENTS {
        let environment = admin.create_environment("web", &format!("e{number}")).await;
        let revision = admin.set_value(&environment, "limit", number as u64).await;
        known.push((environment, revision));
    }
    let keys: Vec<_> = known.iter().map(|(it, _)| it.client_key.as_str()).collect();
    let (keys, mut relays, mut links) = (keys.join(","), Vec::new(), Vec::new());
    for _ in 0..RELAYS {
        let link = Link::start(gateway.public()).await;
        let relay = Gateway::relay(&format!("http://{}", link.address()))
            .set("relay.environments", keys.as_str())
            // Only what the streams say makes them ask.
            .set("relay.poll_seconds", 3600);
        relays.push(relay.start().await);
        links.push(link);
    }
    all_are_live(&relays).await;

    for link in &links {
        link.break_down();
    }
    join_all(relays.iter_mut().map(async |relay| {
        relay.kill();
        relay.restart().await;
    }))
    .await;
    for relay in &relays {
        tells_what_was_known(relay, &known).await;
    }
    let mut newest = known.clone();
    for (environment, revision) in newest.iter_mut().step_by(ENVIRONMENTS / CHANGED) {
        *revision = admin.set_value(environment, "limit", 1000).await;
    }
    sleep(AWAY).await;
    let (full, same) = asked(&gateway).await;
    let mut samples = vec![(Instant::now(), full + same)];
    for link in &links {
        link.lead_to(gateway.public());
    }
    let since = Instant::now();
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    let (all, changed) = ((RELAYS * ENVIRONMENTS) as f64, (RELAYS * CHANGED) as f64);
    eventually("everybody has asked", async || {
        let (full, same) = asked(&gateway).await;
        samples.push((Instant::now(), full + same));
        (full + same >= samples[0].1 + all).then_some(())
    })
    .await;
    let took = since.elapsed();
    all_are_live(&relays).await;
    for relay in &relays {
        for (environment, last) in &newest {
            assert_eq!(revision(relay.public(), environment).await, *last);
        }
    }
    // A second question of somebody would have come by now.
    let (full_after, same_after) = asked(&gateway).await;
    let (full, same) = (full_after - full, same_after - same);
    let most = most_within(&samples, WINDOW);
    eprintln!("{full} new, {same} the same within {took:?}; {most} at most within {WINDOW:?}");
    assert!((full - changed).abs() < 0.5 && (same - (all - changed)).abs() < 0.5, "{full}, {same}");
    assert!(most < SHARE_MAX * all, "{most} of {all} came within {WINDOW:?}");
}

/// A client has the ping in its hands when the relay dies, and its upstream is gone: what the disk tells may not be
/// less.
#[tokio::test]
async fn a_relay_that_dies_at_a_ping_comes_back_with_what_it_told() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let link = Link::start(gateway.public()).await;
    let relay = Gateway::relay(&format!("http://{}", link.address()));
    let mut relay = relay.set("stream.echo_seconds", 0).start().await;
    relay.flags(&environment.client_key).await;
    for round in 0..DEATHS {
        relay.metric_becomes("flagcast_relay_environments", &["live"], 1).await;
        let mut wire = Wire::open(&relay, &environment.client_key, ASKS).await;
        wire.next_revision().await.unwrap();
        let told = gateway.admin().set_value(&environment, "limit", 100 + round).await;
        wire.reaches(told).await;
        relay.kill();
        link.break_down();
        relay.restart().await;
        let mut wire = Wire::open(&relay, &environment.client_key, ASKS).await;
        let first = wire.next_revision().await.unwrap();
        assert!(first >= told, "{first} after {told}, in round {round}");
        assert!(revision(relay.public(), &environment).await >= told);
        link.lead_to(gateway.public());
    }
}

/// The most that a count grew within a time.
fn most_within(samples: &[(Instant, f64)], window: Duration) -> f64 {
    let mut most: f64 = 0.0;
    for (number, (at, count)) in samples.iter().enumerate() {
        let first = samples[..=number].iter().find(|(then, _)| at.duration_since(*then) <= window);
        most = most.max(count - first.map_or(*count, |(_, count)| *count));
    }
    most
}
