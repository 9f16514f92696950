//! Relays, their gateway and the network between them fail at random and at once, while a crowd listens and
//! reads and flags change; what must hold, holds.
//!
//! - Every client ends on the newest revision, and every door tells the same in the end.
//! - At one door no stream tells of an older revision than one before, and no read is older than one before,
//!   also across restarts of the relay behind it: it comes back with what it has shown, or with more.
//! - A read pinned to a revision is never answered with an older one, at whichever door.
//! - The gateway holds one stream for each relay and environment, not more. Two kinds are forgiven: those of
//!   connections that the network has forgotten, of which a gateway cannot know, and those that have not been
//!   noticed as ended within [`UNNOTICED`].
//! - Every acknowledged change is in the audit once, and no revision is missing.
//!
//! `make chaos` does it for longer and with more clients.

mod faults;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::harness::actors::{self, Shared, compare};
use crate::harness::admin::Environment;
use crate::harness::crowd::{Crowd, Dialect, Tally, crowd_size, raise_descriptor_limit};
use crate::harness::link::Link;
use crate::harness::seed::Seed;
use crate::harness::{Builder, Gateway, eventually, http};

const RELAYS: usize = 3;
const WRITERS: u64 = 2;
/// Clients that wander from door to door and read at all of them.
const WANDERERS: u64 = 6;

/// Clients that stay at their relay; the environment may want more.
const CROWD: usize = 300;

/// How long faults happen; the environment may want more.
const SECONDS: u64 = 15;
const SECONDS_VARIABLE: &str = "FLAGCAST_CHAOS_SECONDS";

/// Relays listen in this dialect; wanderers, who come to the gateway, too, in the other one.
const OF_RELAYS: &str = "dialect=\"ofrep\"";

/// How long an ended stream may go unnoticed by the gateway.
const UNNOTICED: Duration = Duration::from_secs(2);

/// A relay's way to the gateway, and what it does to streams.
struct Way {
    link: Link,
    /// Connections that were forgotten and may still be open at the gateway.
    forgotten: AtomicUsize,
    /// Nothing passes now, not even that a connection has ended.
    is_silent: AtomicBool,
}

struct World {
    // Before the gateway: they follow it.
    relays: Vec<Gateway>,
    ways: Vec<Way>,
    gateway: Gateway,
}

impl World {
    async fn start() -> Self {
        let lively = |node: Builder| {
            node.set("stream.heartbeat_seconds", 1)
                .set("server.grace_seconds", 2)
                .set("limits.requests_per_second", 100_000)
        };
        let gateway = lively(Gateway::builder()).start().await;
        let (mut relays, mut ways) = (Vec::new(), Vec::new());
        for number in 0..RELAYS {
            let link = Link::start(gateway.public()).await;
            // Over HTTP/2 questions share a connection, and die with it.
            let http2 = if number == 0 { "always" } else { "auto" };
            let relay = Gateway::relay(&format!("http://{}", link.address()));
            relays.push(lively(relay).set("relay.http2", http2).start().await);
            ways.push(Way { link, forgotten: AtomicUsize::new(0), is_silent: false.into() });
        }
        Self { relays, ways, gateway }
    }

    fn doors(&self) -> Vec<SocketAddr> {
        self.relays.iter().map(Gateway::public).collect()
    }
}

/// Watches how many streams the gateway holds. Answers with the most.
async fn watch_streams(metrics: &str, ways: &[Way], over: &AtomicBool) -> usize {
    let (http, mut most, mut above_since) = (http(), 0, None);
    while !over.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(50)).await;
        let Ok(answer) = http.get(metrics).send().await else { continue };
        let Ok(text) = answer.text().await else { continue };
        let counts = text.lines().filter(|line| line.starts_with("flagcast_streams_open{"));
        let counts = counts.filter(|line| line.contains(OF_RELAYS));
        let open = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum();
        most = most.max(open);
        let forgotten: usize = ways.iter().map(|way| way.forgotten.load(Ordering::SeqCst)).sum();
        let is_silent = ways.iter().any(|way| way.is_silent.load(Ordering::SeqCst));
        if open <= RELAYS + forgotten || is_silent {
            above_since = None;
        } else {
            let since: &mut Instant = above_since.get_or_insert_with(Instant::now);
            assert!(since.elapsed() < UNNOTICED, "{open} streams, {forgotten} of them forgotten");
        }
    }
    most
}

/// Two crowds at the doors of the relays: one in each dialect.
async fn gather(doors: &[SocketAddr], environment: &Environment) -> [Crowd; 2] {
    let clients = crowd_size(CROWD);
    raise_descriptor_limit(clients);
    let mut crowds =
        [Dialect::Flagsmith, Dialect::Ofrep].map(|it| Crowd::new(it, &environment.client_key));
    for crowd in &mut crowds {
        while crowd.len() < clients / 2 {
            crowd.join(doors, (clients / 2 - crowd.len()).min(250));
            crowd.reaches(1).await;
        }
    }
    crowds
}

/// What must not have happened to a crowd.
fn check(tally: &Tally) {
    for (what, count) in [
        ("streams went back", &tally.went_back),
        ("reads were stale", &tally.stale),
        ("streams were misshapen", &tally.misshapen),
    ] {
        assert_eq!(Tally::of(count), 0, "{what}: {tally:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_hold_holds_whatever_fails_between_relays_and_their_gateway() {
    let seconds = std::env::var(SECONDS_VARIABLE).map_or(SECONDS, |text| text.parse().unwrap());
    let (seed, mut world) = (Seed::draw(), World::start().await);
    let environment = world.gateway.shop().await;
    let base = world.gateway.admin().revision(&environment).await;
    for relay in &world.relays {
        relay.flags(&environment.client_key).await;
    }
    let crowds = gather(&world.doors(), &environment).await;
    let mut doors = world.doors();
    doors.push(world.gateway.public());
    let shared = Shared::new(doors, environment.clone());
    let shared = Arc::new(shared.changed_at(vec![world.gateway.public()], 20..400));

    let (mut writers, mut wanderers) = (JoinSet::new(), JoinSet::new());
    for writer in 0..WRITERS {
        writers.spawn(actors::write(Arc::clone(&shared), seed.numbers(writer), writer));
    }
    for wanderer in 0..WANDERERS {
        wanderers.spawn(actors::follow(Arc::clone(&shared), seed.numbers(100 + wanderer)));
    }
    let (metrics, over) = (world.gateway.ops_url("/metrics"), AtomicBool::new(false));
    let until = Instant::now() + Duration::from_secs(seconds);
    let World { relays, ways, gateway } = &mut world;
    let happening = async {
        let faults = faults::happen((relays, gateway), ways, &seed, until).await;
        over.store(true, Ordering::SeqCst);
        faults
    };
    let (faults, most) = tokio::join!(happening, watch_streams(&metrics, ways, &over));

    // Everything is well again: each writer is told what came of its last change.
    shared.calm_down();
    let mut written = Vec::new();
    while let Some(ended) = writers.join_next().await {
        written.extend(ended.unwrap());
    }
    let admin = world.gateway.admin();
    let newest = admin.revision(&environment).await;
    shared.ends_at(newest);
    for crowd in &crowds {
        crowd.reaches(newest).await;
    }
    let mut reads = 0;
    while let Some(ended) = wanderers.join_next().await {
        reads += ended.unwrap();
    }
    for crowd in &crowds {
        check(crowd.tally());
        eprintln!("{} clients: {:?}", crowd.len(), crowd.tally());
    }
    compare(&admin, &environment, base, &written).await;
    // A forgotten connection ends when the network is cut.
    for way in &world.ways {
        way.link.break_down();
        way.link.lead_to(world.gateway.public());
    }
    eventually("the gateway has one stream for each relay", async || {
        let open = world.gateway.metric("flagcast_streams_open", &[OF_RELAYS]).await;
        ((open - 3.0).abs() < f64::EPSILON).then_some(())
    })
    .await;
    eprintln!(
        "{} changes and {reads} wandering reads through {} faults, {most} streams at most: {faults:?}",
        written.len(),
        faults.values().sum::<usize>()
    );
    assert!(written.len() > 10, "the faults leave no time for changes");
}
