//! Nobody is shown an older state than one they have seen, whichever nodes they ask.
//!
//! A client hears of a revision at one node and reads at others, which may not have heard of it: their
//! links to the database are slow, they are told nothing, and they do not poll. Each read, with a revision
//! or without, must be of the newest state that this client has seen, or of a newer one. The database
//! answers everybody within `store.check_timeout_ms` here; what is served when it does not is the last
//! known state, and `chaos` looks at that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::harness::admin::Environment;
use crate::harness::link::Link;
use crate::harness::postgres::Cluster;
use crate::harness::seed::Seed;
use crate::harness::seen::{Budget, Seen, change, revision_of};
use crate::harness::stream::Subscription;
use crate::harness::{Gateway, http, store};

const NODES: usize = 3;
const WRITERS: u64 = 3;
const CLIENTS: u64 = 12;

/// Reads in all; the environment may want more.
const READS: usize = 15_000;

/// What a client reads behind each ping.
const READS_PER_PING: usize = 25;

/// How long a client waits for a ping before it looks whether all is over.
const PING_WAIT: Duration = Duration::from_millis(200);

/// Gateways on one cluster, each with a link of its own.
struct World {
    // Before the cluster: they use it.
    nodes: Vec<Gateway>,
    links: Vec<Link>,
    cluster: Cluster,
    database: String,
}

impl World {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        let database = cluster.create_database().await;
        let node = Gateway::builder()
            .set("store.poll_ms", 3_600_000)
            .set("store.check_timeout_ms", 20_000)
            .set("limits.requests_per_second", 100_000)
            .set("stream.echo_seconds", 0);
        let (nodes, links) = node.behind_links(NODES, &cluster, &database).await;
        Self { nodes, links, cluster, database }
    }

    fn doors(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Gateway::public).collect()
    }
}

/// Listens at one node and reads at the others.
struct Reader {
    http: Client,
    home: SocketAddr,
    others: Vec<SocketAddr>,
    environment: Environment,
    seen: Seen,
}

impl Reader {
    async fn follow(mut self, mut rng: StdRng, budget: Arc<Budget>) {
        let mut stream = Subscription::open(self.home, &self.environment.client_key).await;
        while !budget.is_over() {
            // When the reads are over, nothing more is told.
            let Ok(ping) = timeout(PING_WAIT, stream.next_ping()).await else { continue };
            let ping = ping.expect("the stream goes on");
            // It may be of a revision that was read long since: pings are later than reads.
            self.seen.revision = self.seen.revision.max(ping["revision"].as_u64().unwrap());
            self.seen.updated_at = self.seen.updated_at.max(ping["updated_at"].as_f64().unwrap());
            for _ in 0..READS_PER_PING {
                if !budget.take() {
                    return;
                }
                self.read(&mut rng).await;
            }
        }
    }

    async fn read(&mut self, rng: &mut StdRng) {
        let door = *self.others.choose(rng).unwrap();
        let Environment { client_key, server_key, .. } = &self.environment;
        let flags = format!("/sdk/v1/environments/{client_key}/flags");
        let get = |path: &str| self.http.get(format!("http://{door}{path}"));
        let key = "x-environment-key";
        let (what, request) = match rng.random_range(0..6) {
            0 => ("a pinned read", get(&format!("{flags}?rev={}", self.seen.revision))),
            1 | 2 => ("an unpinned read", get(&flags)),
            3 => ("a list of Flagsmith", get("/api/v1/flags/").header(key, client_key)),
            4 => ("a document", get("/api/v1/environment-document/").header(key, server_key)),
            _ => ("an evaluation", self.evaluation(door)),
        };
        let what = format!("{what} at {door}");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{what}");
        self.seen.sees_revision(revision_of(&answer), &what);
        let instant = answer.headers().get("x-flagsmith-document-updated-at");
        if let Some(instant) = instant {
            self.seen.sees_instant(instant.to_str().unwrap().parse().unwrap(), &what);
        }
        let body: Value = answer.json().await.unwrap();
        if let Some(revision) = body["revision"].as_u64() {
            assert_eq!(revision, self.seen.revision, "{what}: the tag is of the body");
        }
    }

    fn evaluation(&self, door: SocketAddr) -> RequestBuilder {
        let url = format!("http://{door}/ofrep/v1/evaluate/flags");
        let request = self.http.post(url).bearer_auth(&self.environment.client_key);
        request.json(&json!({"context": {"targetingKey": "ann"}}))
    }
}

/// Lets nodes hear late, or nothing: links hold what the database says, listeners lose their connections,
/// commits are not notified.
async fn disturb(world: &World, mut rng: StdRng, budget: &Budget) {
    let mut session = store::connect(&world.database).await;
    while !budget.is_over() {
        let link = world.links.choose(&mut rng).unwrap();
        let span = Duration::from_millis(rng.random_range(5..150));
        match rng.random_range(0..10) {
            0 => {
                let listeners = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND query LIKE 'LISTEN%'";
                session.execute(listeners).await.unwrap();
            }
            1 | 2 => {
                let verb = if rng.random() { "ENABLE" } else { "DISABLE" };
                let statement =
                    format!("ALTER TABLE change_events {verb} TRIGGER change_events_notify");
                session.execute(AssertSqlSafe(statement)).await.unwrap();
            }
            _ => {
                link.hold_answers(true);
                sleep(span).await;
                link.hold_answers(false);
            }
        }
        sleep(span).await;
    }
    drop(session);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_anything_older_than_what_they_have_seen() {
    let (budget, wanted) = Budget::or_wanted(READS);
    let (seed, world) = (Seed::draw(), World::start().await);
    let environment = world.nodes[0].shop().await;
    let base = world.nodes[0].admin().revision(&environment).await;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let admins = world.nodes.iter().map(Gateway::admin).collect();
        let rng = seed.numbers(writer);
        tasks.spawn(change(admins, environment.clone(), rng, Arc::clone(&budget)));
    }
    for client in 0..CLIENTS {
        let mut others = world.doors();
        let home = others.remove(usize::try_from(client).unwrap() % NODES);
        let environment = environment.clone();
        let reader = Reader { http: http(), home, others, environment, seen: Seen::default() };
        tasks.spawn(reader.follow(seed.numbers(100 + client), Arc::clone(&budget)));
    }
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    };
    tokio::join!(all, disturb(&world, seed.numbers(1000), &budget));
    let changes = world.nodes[0].admin().revision(&environment).await - base;
    eprintln!("{wanted} reads and {changes} changes in {:?}: none went back", began.elapsed());
    for node in &world.nodes {
        // The last known state would be no answer to this question.
        node.metric_becomes("flagcast_reads_unconfirmed_total", &[], 0).await;
    }
    assert!(world.cluster.log().contains("terminating connection"), "nobody was disturbed");
}
