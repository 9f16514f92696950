//! The database is another one than before, and lacks what it had acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use super::{change_at_last, impatient};
use crate::harness::admin::Environment;
use crate::harness::link::Link;
use crate::harness::postgres::{Cluster, url_at};
use crate::harness::wire::{ASKS, Wire};
use crate::harness::{Gateway, eventually, read_json};

/// How far revisions jump.
const JUMP: u64 = 1_000_000;

/// Somebody who reads all the time and never sees a revision that goes back.
struct Watcher {
    stop: Arc<AtomicBool>,
    reading: JoinHandle<u64>,
}

impl Watcher {
    fn start(gateway: &Gateway, environment: &Environment) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let path = format!("/sdk/v1/environments/{}/flags", environment.client_key);
        let url = gateway.url(&path);
        let reading = tokio::spawn(async move {
            let mut last = 0;
            while !stopped.load(Ordering::Relaxed) {
                let revision = read_json(&url).await["revision"].as_u64().unwrap();
                assert!(revision >= last, "{revision} after {last}");
                last = revision;
            }
            last
        });
        Self { stop, reading }
    }

    /// What it has read last.
    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.reading.await.unwrap()
    }
}

/// Two nodes behind a link, with those who read and listen at both.
struct Scene {
    link: Link,
    nodes: Vec<Gateway>,
    environment: Environment,
    watchers: Vec<Watcher>,
    streams: Vec<Wire>,
}

impl Scene {
    async fn set(cluster: &Cluster, url: &str) -> Self {
        let link = Link::start(cluster.address()).await;
        let nodes = impatient().nodes(2, &url_at(url, link.address())).await;
        let environment = nodes[0].shop().await;
        let known = nodes[0].admin().revision(&environment).await;
        let mut streams = Vec::new();
        for node in &nodes {
            // It knows of the environment when the feed has told it.
            let mut stream = Wire::open(node, &environment.client_key, ASKS).await;
            stream.reaches(known).await;
            streams.push(stream);
        }
        let watchers = nodes.iter().map(|node| Watcher::start(node, &environment)).collect();
        Self { link, nodes, environment, watchers, streams }
    }

    /// Makes changes that everybody sees; the last revision.
    async fn change(&mut self, values: impl Iterator<Item = u64>) -> u64 {
        let mut last = 0;
        for value in values {
            last = self.nodes[0].admin().set_value(&self.environment, "limit", value).await;
        }
        for stream in &mut self.streams {
            stream.reaches(last).await;
        }
        last
    }

    /// Everybody ends beyond `lost`, with the value that the new database has; new changes are told.
    async fn goes_on_beyond(mut self, lost: u64, kept_value: u64) {
        for (node, stream) in self.nodes.iter().zip(&mut self.streams) {
            stream.reaches(lost + 1).await;
            let flags = node.flags(&self.environment.client_key).await;
            let revision = flags["revision"].as_u64().unwrap();
            assert!(revision > lost && revision >= JUMP, "{revision} after {lost}");
            assert_eq!(flags["flags"]["limit"]["value"], kept_value);
        }
        let revision = change_at_last(&self.nodes[1], &self.environment, 77).await;
        assert!(revision > lost, "{revision} after {lost}");
        for (node, stream) in self.nodes.iter().zip(&mut self.streams) {
            stream.reaches(revision).await;
            let flags = node.flags(&self.environment.client_key).await;
            assert_eq!(flags["revision"], revision);
            assert_eq!(flags["flags"]["limit"]["value"], 77);
        }
        for watcher in self.watchers {
            assert!(watcher.stop().await > lost);
        }
        let audit = self.nodes[0].admin().list("/audit?action=environment.recovered").await;
        assert_eq!(audit.len(), 1, "two nodes jump once: {audit:?}");
        assert_eq!(audit[0]["environment"], self.environment.key);
    }
}

#[tokio::test]
async fn after_a_failover_that_lost_changes_no_revision_goes_back() {
    let primary = Cluster::start().await;
    let database = primary.create_database().await;
    let mut scene = Scene::set(&primary, &database).await;
    let standby = primary.standby(false).await;
    let kept = scene.change(20..25).await;
    eventually("the standby has it", async || {
        let mut there = crate::harness::store::connect(&url_at(&database, standby.address())).await;
        let newest = sqlx::query_scalar::<_, i64>("SELECT MAX(revision) FROM environments");
        let newest = newest.fetch_one(&mut there).await.unwrap();
        (u64::try_from(newest).unwrap() == kept).then_some(())
    })
    .await;
    standby.stop_following().await;
    let lost = scene.change(30..35).await;
    assert_eq!(lost, kept + 5);

    scene.link.break_down();
    primary.kill().await;
    standby.promote().await;
    let promoted = std::time::Instant::now();
    scene.link.lead_to(standby.address());
    scene.goes_on_beyond(lost, 24).await;
    eprintln!("all is well {:?} after the promotion", promoted.elapsed());
}

/// With a synchronous standby nothing is lost.
#[tokio::test]
async fn after_a_failover_to_a_synchronous_standby_every_change_is_there() {
    let primary = Cluster::start().await;
    let database = primary.create_database().await;
    let mut scene = Scene::set(&primary, &database).await;
    let standby = primary.standby(true).await;
    let last = scene.change(20..30).await;
    primary.kill().await;
    scene.link.break_down();
    standby.promote().await;
    scene.link.lead_to(standby.address());
    scene.goes_on_beyond(last, 29).await;
}

/// The dump is restored into the same server: only its tables tell that they are others.
#[tokio::test]
async fn after_a_restored_dump_no_revision_goes_back() {
    let cluster = Cluster::start().await;
    let database = cluster.create_database().await;
    let mut scene = Scene::set(&cluster, &database).await;
    scene.change(20..25).await;
    let dump = cluster.dump(&database).await;
    let lost = scene.change(30..35).await;
    scene.link.break_down();
    cluster.restore(&database, dump).await;
    scene.link.lead_to(cluster.address());
    scene.goes_on_beyond(lost, 24).await;
}
