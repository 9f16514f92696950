//! Everything fails in turn, at random, while clients change, listen and read; what must hold, holds.
//!
//! - No stream ever tells an older revision than before, no pinned read is of an older one than asked for,
//!   and no client is shown an older state by a node than that node has shown it before, whatever happens
//!   to the node. (A node that is cut off serves what it knows; others may know more. That an older state
//!   is never served while the database answers is what `freshness` shows.)
//! - Every acknowledged change is in the audit once, also when it had to be repeated.
//! - The revisions of the change events have no gap and no double: nothing is lost, so nothing jumps.
//! - Every subscriber ends on the newest revision.
//!
//! `make chaos` does it for ten minutes.

mod faults;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::harness::actors::{self, Shared, compare};
use crate::harness::admin::Admin;
use crate::harness::link::Link;
use crate::harness::postgres::Cluster;
use crate::harness::seed::Seed;
use crate::harness::{ADMIN_TOKEN, Gateway};

const NODES: usize = 3;
const WRITERS: u64 = 3;
const SUBSCRIBERS: u64 = 9;

/// How long faults happen; the environment may want more.
const SECONDS: u64 = 15;
const SECONDS_VARIABLE: &str = "FLAGCAST_CHAOS_SECONDS";

/// Gateways on one cluster, each with a link of its own.
struct World {
    // Before the cluster: they use it.
    nodes: Vec<Gateway>,
    links: Vec<Link>,
    cluster: Cluster,
}

impl World {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        let database = cluster.create_database().await;
        let node = Gateway::builder()
            .set("server.grace_seconds", 2)
            .set("store.busy_timeout_ms", 2000)
            .set("store.check_timeout_ms", 300)
            .set("store.lost_after_seconds", 2)
            .set("limits.requests_per_second", 100_000);
        let (nodes, links) = node.behind_links(NODES, &cluster, &database).await;
        Self { nodes, links, cluster }
    }

    fn doors(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Gateway::public).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_hold_holds_whatever_fails() {
    let seconds = std::env::var(SECONDS_VARIABLE).map_or(SECONDS, |text| text.parse().unwrap());
    let (seed, mut world) = (Seed::draw(), World::start().await);
    let environment = world.nodes[0].shop().await;
    let base = world.nodes[0].admin().revision(&environment).await;
    let shared = Arc::new(Shared::new(world.doors(), environment.clone()));

    let (mut writers, mut subscribers) = (JoinSet::new(), JoinSet::new());
    for writer in 0..WRITERS {
        writers.spawn(actors::write(Arc::clone(&shared), seed.numbers(writer), writer));
    }
    for subscriber in 0..SUBSCRIBERS {
        subscribers.spawn(actors::follow(Arc::clone(&shared), seed.numbers(100 + subscriber)));
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let faults = faults::happen(&mut world, seed.numbers(1000), until).await;

    // Everything is well again: each writer is told what came of its last change.
    shared.calm_down();
    let mut written = Vec::new();
    while let Some(ended) = writers.join_next().await {
        written.extend(ended.unwrap());
    }
    let admin = world.nodes[0].admin();
    let newest = admin.revision(&environment).await;
    shared.ends_at(newest);
    let mut reads = 0;
    while let Some(ended) = subscribers.join_next().await {
        reads += ended.unwrap();
    }
    compare(&admin, &environment, base, &written).await;
    for door in world.doors() {
        let other = Admin::new(format!("http://{door}/admin/v1"), ADMIN_TOKEN);
        assert_eq!(other.revision(&environment).await, newest);
    }
    eprintln!("{} changes and {reads} reads through {faults:?}", written.len());
    assert!(written.len() > faults.len(), "the faults leave no time for changes");
}
