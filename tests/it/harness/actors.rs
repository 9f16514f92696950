//! Those who change and those who follow while everything fails: they live with every failure, as good clients
//! do, and with no broken promise.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eventsource_stream::Eventsource as _;
use futures_util::StreamExt as _;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::admin::{Admin, Environment};
use super::{ADMIN_TOKEN, SOON, http};

/// What may be answered while something fails.
const EXCUSED: [StatusCode; 2] = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];

/// How long a client stays on a stream at most: others have a node for them, too.
const STAY: Duration = Duration::from_secs(5);

/// What all clients know.
pub(crate) struct Shared {
    /// Where they listen and read.
    doors: Vec<SocketAddr>,
    /// Where they make changes.
    admins: Vec<SocketAddr>,
    environment: Environment,
    /// How long a writer rests between two changes, in milliseconds.
    rest: Range<u64>,
    calm: AtomicBool,
    /// The newest revision, once there will be no other.
    end: AtomicU64,
}

impl Shared {
    pub(crate) fn new(doors: Vec<SocketAddr>, environment: Environment) -> Self {
        Self {
            admins: doors.clone(),
            doors,
            environment,
            rest: 5..60,
            calm: AtomicBool::new(false),
            end: AtomicU64::new(u64::MAX),
        }
    }

    /// Changes are made elsewhere than where clients are, and so often.
    pub(crate) fn changed_at(mut self, admins: Vec<SocketAddr>, rest: Range<u64>) -> Self {
        (self.admins, self.rest) = (admins, rest);
        self
    }

    /// No change begins any more.
    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// Nothing comes after this revision.
    pub(crate) fn ends_at(&self, revision: u64) {
        self.end.store(revision, Ordering::SeqCst);
    }

    fn has_ended(&self, revision: u64) -> bool {
        revision >= self.end.load(Ordering::SeqCst)
    }
}

/// A change that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) value: u64,
    pub(crate) revision: u64,
}

/// Makes changes, each with a value that no other has, and repeats each at other nodes until it is told
/// what came of it.
pub(crate) async fn write(shared: Arc<Shared>, mut rng: StdRng, writer: u64) -> Vec<Written> {
    let (http, mut written) = (http(), Vec::new());
    for number in 0.. {
        if shared.is_calm() {
            break;
        }
        let value = 1_000_000 * (writer + 1) + number;
        let (began, mut patience) = (Instant::now(), Duration::ZERO);
        let revision = loop {
            let door = *shared.admins.choose(&mut rng).unwrap();
            // Who is impatient asks another node for what the first one may be doing right now.
            patience += Duration::from_millis(rng.random_range(50..500));
            let asked = change(&http, door, &shared.environment, value);
            if let Ok(Some(revision)) = timeout(patience, asked).await {
                break revision;
            }
            assert!(!shared.is_calm() || began.elapsed() < 2 * SOON, "{value} is not answered");
            sleep(Duration::from_millis(rng.random_range(10..100))).await;
        };
        written.push(Written { value, revision });
        sleep(Duration::from_millis(rng.random_range(shared.rest.clone()))).await;
    }
    written
}

/// Asks for a change; the revision if it was acknowledged.
async fn change(
    http: &Client,
    door: SocketAddr,
    environment: &Environment,
    value: u64,
) -> Option<u64> {
    let url = format!("http://{door}/admin/v1{}/flags/limit", environment.path());
    let request = http.patch(url).bearer_auth(ADMIN_TOKEN).json(&json!({ "value": value }));
    let answer = request.header("idempotency-key", format!("value-{value}")).send().await.ok()?;
    let status = answer.status();
    let body: Value = answer.json().await.ok()?;
    assert!(status.is_success() || EXCUSED.contains(&status), "{status} {body}");
    body["revision"].as_u64().filter(|_| status.is_success())
}

/// What a client has been shown.
#[derive(Default)]
struct Shown {
    newest: u64,
    by_node: BTreeMap<SocketAddr, u64>,
    reads: usize,
}

impl Shown {
    /// A node never goes back.
    fn by(&mut self, door: SocketAddr, revision: u64, how: &str) {
        let before = self.by_node.insert(door, revision).unwrap_or(0);
        assert!(revision >= before, "{how} at {door}: {revision} after {before}");
        self.newest = self.newest.max(revision);
    }
}

/// Follows the environment at one node after the other, and reads at all, to the end. Answers with the
/// number of reads.
pub(crate) async fn follow(shared: Arc<Shared>, mut rng: StdRng) -> usize {
    let (http, mut shown) = (http(), Shown::default());
    let mut calm_since = None;
    while !shared.has_ended(shown.newest) {
        let door = *shared.doors.choose(&mut rng).unwrap();
        listen(&shared, &http, door, &mut shown, &mut rng).await;
        if shared.is_calm() {
            let since: &mut Instant = calm_since.get_or_insert_with(Instant::now);
            assert!(since.elapsed() < 3 * SOON, "still at {}", shown.newest);
        }
        sleep(Duration::from_millis(rng.random_range(50..300))).await;
    }
    // At the end everybody tells the same, whoever is asked; one who had no answer leaves the database
    // alone for a second.
    let deadline = Instant::now() + SOON;
    for door in &shared.doors {
        while read(&http, *door, &shared.environment, None).await != Some(shown.newest) {
            assert!(Instant::now() < deadline, "{door} does not tell {}", shown.newest);
            sleep(Duration::from_millis(50)).await;
        }
    }
    shown.reads
}

/// Holds a stream for a while and reads behind each ping.
async fn listen(
    shared: &Shared,
    http: &Client,
    door: SocketAddr,
    shown: &mut Shown,
    rng: &mut StdRng,
) {
    let key = &shared.environment.client_key;
    let url = format!("http://{door}/sse/environments/{key}/stream");
    let Ok(answer) = http.get(url).header("accept", "text/event-stream").send().await else {
        return;
    };
    assert!(answer.status().is_success() || EXCUSED.contains(&answer.status()));
    let mut events = answer.bytes_stream().eventsource();
    let (leaves, mut told) = (Instant::now() + STAY, 0);
    while Instant::now() < leaves && !shared.has_ended(shown.newest) {
        // A silent stream is left for another one; a broken one ends.
        let next = timeout(STAY / 4, events.next()).await;
        let Ok(next) = next else { continue };
        let Some(Ok(event)) = next else { return };
        let Ok(ping) = serde_json::from_str::<Value>(&event.data) else { continue };
        let Some(revision) = ping["revision"].as_u64() else { continue };
        assert!(revision >= told, "the stream of {door}: {revision} after {told}");
        told = revision;
        shown.newest = shown.newest.max(revision);
        read_around(shared, http, shown, rng).await;
    }
}

/// Reads at any nodes, with a revision and without.
async fn read_around(shared: &Shared, http: &Client, shown: &mut Shown, rng: &mut StdRng) {
    for _ in 0..4 {
        let door = *shared.doors.choose(rng).unwrap();
        let pinned = rng.random::<bool>().then_some(shown.newest);
        let Some(revision) = read(http, door, &shared.environment, pinned).await else { continue };
        shown.reads += 1;
        assert!(revision >= pinned.unwrap_or(0), "{revision} at {door}, pinned to {pinned:?}");
        shown.by(door, revision, "a read");
    }
}

/// The revision of the flags at a node; nothing if it has none to give now.
async fn read(
    http: &Client,
    door: SocketAddr,
    environment: &Environment,
    pinned: Option<u64>,
) -> Option<u64> {
    let pin = pinned.map_or(String::new(), |revision| format!("?rev={revision}"));
    let path = format!("/sdk/v1/environments/{}/flags{pin}", environment.client_key);
    let answer = http.get(format!("http://{door}{path}")).send().await.ok()?;
    let status = answer.status();
    // A node that is cut off does not have a revision that others told of.
    let lacks = status == StatusCode::NOT_FOUND && pinned.is_some();
    let excused = lacks || EXCUSED.contains(&status);
    assert!(status.is_success() || excused, "{status} of {path} at {door}");
    let flags: Value = answer.error_for_status().ok()?.json().await.ok()?;
    Some(flags["revision"].as_u64().unwrap())
}

/// What the writers were told, beside what the audit says.
pub(crate) async fn compare(
    admin: &Admin,
    environment: &Environment,
    base: u64,
    written: &[Written],
) {
    let filter = format!("project={}&environment={}", environment.project, environment.key);
    let mut events = admin.list(&format!("/audit?{filter}&limit=200")).await;
    events.retain(|event| event["revision"].as_u64().is_some_and(|revision| revision > base));
    events.sort_unstable_by_key(|event| event["revision"].as_u64());
    let revisions: Vec<u64> = events.iter().filter_map(|e| e["revision"].as_u64()).collect();
    let newest = admin.revision(environment).await;
    assert_eq!(revisions, (base + 1..=newest).collect::<Vec<_>>(), "no gap and no double");
    let mut by_value = BTreeMap::<u64, Vec<&Value>>::new();
    for event in &events {
        by_value.entry(event["after"]["value"].as_u64().unwrap()).or_default().push(event);
    }
    for Written { value, revision } in written {
        let told = by_value.remove(value).unwrap_or_default();
        assert_eq!(told.len(), 1, "value {value} of revision {revision}: {told:?}");
        assert_eq!(told[0]["revision"], *revision, "value {value}");
    }
    assert!(by_value.is_empty(), "nobody has asked for {by_value:?}");
}
