//! Nobody reads through a relay anything older than what they have seen.
//!
//! A client hears of a revision at one door (the gateway, a relay, a relay below a relay) and reads there and at
//! all others, whose links are slow, silent, or cut. A read pinned to the newest revision that the client has
//! seen is answered with it or a newer one, or for the moment not at all, at whichever door. A read without a
//! revision is never older than what the same door has shown or told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::harness::admin::Environment;
use crate::harness::link::Link;
use crate::harness::seed::Seed;
use crate::harness::seen::{Budget, Seen, change, revision_of};
use crate::harness::stream::Subscription;
use crate::harness::{Builder, Gateway, http};

const WRITERS: u64 = 2;
const CLIENTS: u64 = 12;

/// Reads in all; the environment may want more.
const READS: usize = 6000;

/// What a client reads behind each ping.
const READS_PER_PING: usize = 15;

/// How long a client waits for a ping before it looks whether all is over.
const PING_WAIT: Duration = Duration::from_millis(200);

/// What a read may get instead of flags that are not there yet.
const NOT_YET: [StatusCode; 2] = [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE];

/// A gateway, two relays, and one below the first, each behind a link to its upstream.
struct World {
    // Before the gateway: they follow it.
    relays: Vec<Gateway>,
    /// With where each leads to.
    links: Vec<(Link, SocketAddr)>,
    gateway: Gateway,
}

impl World {
    async fn start() -> Self {
        let lively = |node: Builder| {
            node.set("stream.heartbeat_seconds", 1)
                .set("stream.echo_seconds", 0)
                .set("limits.requests_per_second", 100_000)
        };
        let gateway = lively(Gateway::builder()).start().await;
        let (mut relays, mut links): (Vec<Gateway>, Vec<_>) = (Vec::new(), Vec::new());
        for above in [None, None, Some(0)] {
            let upstream = above.map_or(gateway.public(), |number: usize| relays[number].public());
            let link = Link::start(upstream).await;
            let relay = lively(Gateway::relay(&format!("http://{}", link.address())));
            relays.push(relay.start().await);
            links.push((link, upstream));
        }
        Self { relays, links, gateway }
    }

    fn doors(&self) -> Vec<SocketAddr> {
        [&self.gateway].into_iter().chain(&self.relays).map(Gateway::public).collect()
    }
}

/// How reads were answered.
#[derive(Debug, Default)]
struct Answered {
    flags: AtomicUsize,
    not_yet: AtomicUsize,
}

/// Listens at its home and reads everywhere.
struct Reader {
    http: Client,
    home: SocketAddr,
    doors: Vec<SocketAddr>,
    environment: Environment,
    /// At any door.
    seen: Seen,
    /// What its home has shown and told.
    seen_at_home: Seen,
    answered: Arc<Answered>,
}

impl Reader {
    async fn follow(mut self, mut rng: StdRng, budget: Arc<Budget>) {
        let mut stream = Subscription::open(self.home, &self.environment.client_key).await;
        while !budget.is_over() {
            // When the reads are over, nothing more is told.
            let Ok(ping) = timeout(PING_WAIT, stream.next_ping()).await else { continue };
            let ping = ping.expect("the stream goes on");
            // It may be of a revision that was read long since: pings are later than reads.
            let (revision, at) = (ping["revision"].as_u64(), ping["updated_at"].as_f64());
            for seen in [&mut self.seen, &mut self.seen_at_home] {
                seen.revision = seen.revision.max(revision.unwrap());
                seen.updated_at = seen.updated_at.max(at.unwrap());
            }
            for _ in 0..READS_PER_PING {
                if !budget.take() {
                    return;
                }
                if rng.random() {
                    self.read_pinned(&mut rng).await;
                } else {
                    self.read_at_home(&mut rng).await;
                }
            }
        }
    }

    async fn read_pinned(&mut self, rng: &mut StdRng) {
        let door = *self.doors.choose(rng).unwrap();
        let Environment { client_key, .. } = &self.environment;
        let revision = self.seen.revision;
        let (what, request) = if rng.random_range(0..4) == 0 {
            let heard = format!("?flagConfigEtag=%22{client_key}.{revision}%22");
            ("an evaluation behind a ping", self.evaluation(door, &heard))
        } else {
            let path = format!("/sdk/v1/environments/{client_key}/flags?rev={revision}");
            ("a pinned read", self.http.get(format!("http://{door}{path}")))
        };
        let what = format!("{what} at {door}");
        let Some((revision, at)) = self.answer(request, &what, true).await else { return };
        self.seen.sees_revision(revision, &what);
        if let Some(at) = at {
            self.seen.sees_instant(at, &what);
        }
        if door == self.home {
            self.seen_at_home.revision = self.seen_at_home.revision.max(revision);
        }
    }

    async fn read_at_home(&mut self, rng: &mut StdRng) {
        let Environment { client_key, server_key, .. } = &self.environment;
        let get = |path: &str| self.http.get(format!("http://{}{path}", self.home));
        let key = "x-environment-key";
        let (what, request) = match rng.random_range(0..5) {
            0 | 1 => ("the flags", get(&format!("/sdk/v1/environments/{client_key}/flags"))),
            2 => ("a list of Flagsmith", get("/api/v1/flags/").header(key, client_key)),
            3 => ("a document", get("/api/v1/environment-document/").header(key, server_key)),
            _ => ("an evaluation", self.evaluation(self.home, "")),
        };
        let what = format!("{what} at home, {}", self.home);
        let (revision, at) = self.answer(request, &what, false).await.expect("an answer");
        self.seen_at_home.sees_revision(revision, &what);
        if let Some(at) = at {
            self.seen_at_home.sees_instant(at, &what);
        }
        self.seen.revision = self.seen.revision.max(revision);
    }

    fn evaluation(&self, door: SocketAddr, query: &str) -> RequestBuilder {
        let url = format!("http://{door}/ofrep/v1/evaluate/flags{query}");
        let request = self.http.post(url).bearer_auth(&self.environment.client_key);
        request.json(&json!({"context": {"targetingKey": "ann"}}))
    }

    /// Revision and time of what is answered; nothing if it may be missing and is.
    async fn answer(
        &self,
        request: RequestBuilder,
        what: &str,
        may_miss: bool,
    ) -> Option<(u64, Option<f64>)> {
        let answer = request.send().await.unwrap();
        if may_miss && NOT_YET.contains(&answer.status()) {
            self.answered.not_yet.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        assert_eq!(answer.status(), 200, "{what}");
        self.answered.flags.fetch_add(1, Ordering::SeqCst);
        let revision = revision_of(&answer);
        let at = answer.headers().get("x-flagsmith-document-updated-at");
        let at = at.map(|at| at.to_str().unwrap().parse().unwrap());
        let body: Value = answer.json().await.unwrap();
        if let Some(of_body) = body["revision"].as_u64() {
            assert_eq!(of_body, revision, "{what}: the tag is of the body");
        }
        Some((revision, at))
    }
}

/// Lets relays hear late, or nothing.
async fn disturb(world: &World, mut rng: StdRng, budget: &Budget) {
    while !budget.is_over() {
        let (link, upstream) = world.links.choose(&mut rng).unwrap();
        let span = Duration::from_millis(rng.random_range(5..500));
        match rng.random_range(0..20) {
            0 => link.forget_connections(),
            1 | 2 => {
                link.break_down();
                sleep(span).await;
                link.lead_to(*upstream);
            }
            3..7 => {
                link.hold_everything(true);
                sleep(span).await;
                link.hold_everything(false);
            }
            _ => {
                link.hold_answers(true);
                sleep(span).await;
                link.hold_answers(false);
            }
        }
        sleep(span).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_through_relays_anything_older_than_what_they_have_seen() {
    let (budget, wanted) = Budget::or_wanted(READS);
    let (seed, world) = (Seed::draw(), World::start().await);
    let environment = world.gateway.shop().await;
    let base = world.gateway.admin().revision(&environment).await;
    for relay in &world.relays {
        relay.flags(&environment.client_key).await;
    }
    let (began, answered) = (Instant::now(), Arc::new(Answered::default()));
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let (admins, rng) = (vec![world.gateway.admin()], seed.numbers(writer));
        tasks.spawn(change(admins, environment.clone(), rng, Arc::clone(&budget)));
    }
    let doors = world.doors();
    for client in 0..CLIENTS {
        let reader = Reader {
            http: http(),
            home: doors[usize::try_from(client).unwrap() % doors.len()],
            doors: doors.clone(),
            environment: environment.clone(),
            seen: Seen::default(),
            seen_at_home: Seen::default(),
            answered: Arc::clone(&answered),
        };
        tasks.spawn(reader.follow(seed.numbers(100 + client), Arc::clone(&budget)));
    }
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    };
    tokio::join!(all, disturb(&world, seed.numbers(1000), &budget));
    let changes = world.gateway.admin().revision(&environment).await - base;
    let took = began.elapsed();
    eprintln!("{wanted} reads and {changes} changes in {took:?}: none went back; {answered:?}");
    let flags = answered.flags.load(Ordering::SeqCst);
    assert!(flags > wanted / 2, "most reads are answered: {answered:?}");
}
