//! A client of our own, outside: subscribes to our public URL through whatever is in front, and measures
//! how long a flip takes to arrive there.
//!
//! Nobody else can tell an operator: clients' clocks differ, and a cache hides its clients. The commit
//! and the arrival are both seen by this process, so their distance is one clock's. It follows the few
//! environments that changed last, behaves like any client (it comes back with a jitter, and reads
//! what a ping names), and what it costs a cache is one client more.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use reqwest::Client;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant as Clock, sleep_until, timeout_at};

use crate::config::{Cdn, ConfigError};
use crate::metrics::{CanaryEnd, CanaryMetrics};
use crate::model::{ClientKey, Revision};
use crate::outbound;
use crate::probe::{End, Events, Item, Options, StreamUrl, Subscriber, Told, What};
use crate::shutdown::Shutdown;

/// Changes that wait to be noted; more are not measured.
const NEWS_MAX: usize = 1024;

/// Changes of one environment that are under way, and arrivals that are remembered.
const UNDER_WAY_MAX: usize = 64;

/// A change that has not arrived by then is missed. Streams end, and clients come back, within seconds.
const MISSED_AFTER: Duration = Duration::from_secs(30);

/// Silence after which a stream counts as dead, until it says how often its heartbeat comes.
const PATIENCE: Duration = Duration::from_secs(45);

/// Heartbeats that may be missing before a stream counts as dead.
const HEARTBEATS_MISSING_MAX: f64 = 3.0;

/// A stream that lasted less is a failure: a cache hands out a recording.
const LASTING: Duration = Duration::from_secs(1);

/// Rest between two streams; doubled for each failure upon the other.
const REST: Duration = Duration::from_secs(1);

/// Longest rest after failures.
const REST_MAX: Duration = Duration::from_secs(30);

/// Time for a read. A ping names what is there already.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A change that was told to subscribers.
#[derive(Clone, Debug)]
pub struct Flip {
    /// Of this environment.
    pub client_key: ClientKey,
    /// The revision that it made.
    pub revision: Revision,
    /// How long ago it was committed.
    pub since_commit: Duration,
}

/// Where the canary learns what was told. Clones lead to the same one; the default leads nowhere.
#[derive(Clone, Debug, Default)]
pub struct Flips {
    sender: Option<mpsc::Sender<(Flip, Instant)>>,
}

/// The canary.
#[derive(Debug)]
pub struct Canary {
    base: String,
    streams_max: usize,
    reader: Client,
    flips: mpsc::Receiver<(Flip, Instant)>,
    metrics: CanaryMetrics,
}

/// A revision, and when it was committed or heard of.
#[derive(Debug)]
struct Seen {
    revision: Revision,
    at: Instant,
}

/// One environment that is followed.
#[derive(Debug)]
struct Follower {
    flips: mpsc::Sender<Seen>,
    task: AbortHandle,
    /// When it changed last.
    changed: Instant,
}

/// What a follower's task needs.
struct Follow {
    subscriber: Subscriber,
    flags_url: String,
    reader: Client,
    flips: mpsc::Receiver<Seen>,
    metrics: CanaryMetrics,
    /// Changes that have not arrived, with the instant of their commit.
    under_way: VecDeque<Seen>,
    /// When each newer revision was heard of: a ping can be faster than the word of its change.
    heard: VecDeque<Seen>,
    /// At most one: a client reads once at a time, and so what is heard meanwhile is not held up.
    reads: JoinSet<()>,
    /// A stream was open once: what is committed from then on counts.
    has_listened: bool,
}

impl Flips {
    /// Notes a change. It never waits.
    pub fn tell(&self, flip: Flip) {
        if let Some(sender) = &self.sender {
            // A canary that is this far behind has said what it has to say.
            drop(sender.try_send((flip, Instant::now())));
        }
    }
}

impl Canary {
    /// Prepares what the settings want; nothing when there is to be no canary. `public_url` is where
    /// clients reach us.
    pub fn new(
        cdn: &Cdn,
        public_url: &str,
        metrics: CanaryMetrics,
    ) -> Result<(Flips, Option<Self>), ConfigError> {
        if !cdn.canary {
            return Ok((Flips::default(), None));
        }
        let reader = outbound::client_for([public_url]).timeout(READ_TIMEOUT).build();
        let reader = reader.map_err(|error| {
            ConfigError::new(format!("cdn.canary cannot use TLS ({error}): turn it off"))
        })?;
        let (sender, flips) = mpsc::channel(NEWS_MAX);
        let base = public_url.to_owned();
        let canary = Self { base, streams_max: cdn.canary_streams, reader, flips, metrics };
        Ok((Flips { sender: Some(sender) }, Some(canary)))
    }

    /// Follows the environments of `first`, which changed last, then those that change, until the
    /// drain: it would only be one more client that a drain has to wait for.
    pub async fn run(mut self, first: Vec<ClientKey>, shutdown: Shutdown) {
        let mut followers = HashMap::new();
        let mut tasks = JoinSet::new();
        for client_key in first.into_iter().take(self.streams_max) {
            self.follow(&client_key, &mut followers, &mut tasks);
        }
        loop {
            let (flip, told) = tokio::select! {
                () = shutdown.drained() => return,
                Some(_) = tasks.join_next() => continue,
                Some(news) = self.flips.recv() => news,
            };
            let Flip { client_key, revision, since_commit } = flip;
            let committed = told.checked_sub(since_commit).unwrap_or(told);
            if !followers.contains_key(&client_key) {
                self.make_room(&mut followers);
                self.follow(&client_key, &mut followers, &mut tasks);
            }
            if let Some(follower) = followers.get_mut(&client_key) {
                follower.changed = told;
                drop(follower.flips.try_send(Seen { revision, at: committed }));
            }
        }
    }

    /// Lets go of the environment that has not changed for longest, if there are as many as may be.
    fn make_room(&self, followers: &mut HashMap<ClientKey, Follower>) {
        while followers.len() >= self.streams_max {
            let oldest = followers.iter().min_by_key(|(_, follower)| follower.changed);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            if let Some(follower) = followers.remove(&oldest) {
                follower.task.abort();
            }
        }
    }

    fn follow(
        &self,
        client_key: &ClientKey,
        followers: &mut HashMap<ClientKey, Follower>,
        tasks: &mut JoinSet<()>,
    ) {
        // The dialect whose heartbeats tell the state, and which no echo repeats.
        let url = format!("{}/ofrep/v1/streams/{client_key}", self.base);
        let subscriber = url
            .parse::<StreamUrl>()
            .map_err(|error| error.to_string())
            .and_then(|url| {
                Subscriber::new(&url, &Options::default()).map_err(|error| error.to_string())
            })
            .inspect_err(|error| tracing::error!(%error, %url, "the canary cannot subscribe"));
        let Ok(subscriber) = subscriber else { return };
        let (sender, flips) = mpsc::channel(UNDER_WAY_MAX);
        let follow = Follow {
            subscriber,
            flags_url: format!("{}/sdk/v1/environments/{client_key}/flags", self.base),
            reader: self.reader.clone(),
            flips,
            metrics: self.metrics.clone(),
            under_way: VecDeque::new(),
            heard: VecDeque::new(),
            reads: JoinSet::new(),
            has_listened: false,
        };
        let task = tasks.spawn(follow.run());
        let follower = Follower { flips: sender, task, changed: Instant::now() };
        followers.insert(client_key.clone(), follower);
    }
}

impl Follow {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let end = self.listen().await;
            self.metrics.ended(end);
            // Other clients come back with a jitter, too: a measure of users is one of their waits.
            let jitter = rand::rng().random_range(0.5..1.5);
            failures = if began.elapsed() >= LASTING { 0 } else { failures + 1 };
            let rest = REST * (1 << u32::min(failures, 5));
            self.rest(rest.min(REST_MAX).mul_f64(jitter)).await;
        }
    }

    /// Notes what changes meanwhile.
    async fn rest(&mut self, rest: Duration) {
        let over = Clock::now() + rest;
        while let Ok(Some(flip)) = timeout_at(over, self.flips.recv()).await {
            self.note(flip);
        }
        sleep_until(over).await;
        self.miss();
    }

    /// Listens to one stream to its end.
    async fn listen(&mut self) -> CanaryEnd {
        let began = Instant::now();
        let Ok((head, mut events)) = self.subscriber.open("").await else {
            return CanaryEnd::Refused;
        };
        if head.status != 200 {
            return CanaryEnd::Refused;
        }
        let _open = self.metrics.open();
        self.has_listened = true;
        match self.hear(&mut events).await {
            CanaryEnd::Planned if began.elapsed() < LASTING => CanaryEnd::Replayed,
            end => end,
        }
    }

    async fn hear(&mut self, events: &mut Events) -> CanaryEnd {
        let mut patience = PATIENCE;
        let mut silent_at = Clock::now() + patience;
        loop {
            self.miss();
            let next = tokio::select! {
                Some(flip) = self.flips.recv() => {
                    self.note(flip);
                    continue;
                }
                Some(_) = self.reads.join_next() => continue,
                next = timeout_at(silent_at, events.next()) => next,
            };
            let Ok(next) = next else { return CanaryEnd::Silent };
            let Some(next) = next else { return CanaryEnd::Cut };
            silent_at = Clock::now() + patience;
            match next.what {
                What::End(End::Clean) => return CanaryEnd::Planned,
                What::End(End::Cut(_)) => return CanaryEnd::Cut,
                What::Item(Item::Event(event)) => {
                    let told = Told::read(&event);
                    if let Some(seconds) = told.heartbeat_seconds {
                        patience = Duration::from_secs_f64(seconds * HEARTBEATS_MISSING_MAX);
                    }
                    if let Some(revision) = told.revision {
                        self.hears_of(Revision(revision), next.at);
                    }
                }
                What::Bytes(_) | What::Item(_) => {}
            }
        }
    }

    /// Notes a change, which may have arrived already.
    fn note(&mut self, flip: Seen) {
        // What was committed before there was a stream says nothing of streams.
        if !self.has_listened {
            return;
        }
        if let Some(Seen { revision, at }) =
            self.heard.iter().find(|heard| heard.revision >= flip.revision)
        {
            self.arrived(*revision, *at, flip.at);
            return;
        }
        if self.under_way.len() == UNDER_WAY_MAX {
            self.under_way.pop_front();
        }
        self.under_way.push_back(flip);
    }

    /// Counts what should have arrived long ago.
    fn miss(&mut self) {
        while let Some(flip) = self.under_way.front()
            && flip.at.elapsed() > MISSED_AFTER
        {
            self.under_way.pop_front();
            self.metrics.missed.increment(1);
        }
    }

    /// Measures every change that `revision` tells of. What a new stream repeats is no news.
    fn hears_of(&mut self, revision: Revision, at: Instant) {
        if self.heard.back().is_some_and(|heard| heard.revision >= revision) {
            return;
        }
        if self.heard.len() == UNDER_WAY_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back(Seen { revision, at });
        while let Some(flip) = self.under_way.pop_front_if(|flip| flip.revision <= revision) {
            self.arrived(revision, at, flip.at);
        }
    }

    /// Measures a change that has arrived, and what it takes to have its flags.
    fn arrived(&mut self, revision: Revision, at: Instant, committed: Instant) {
        self.metrics.arrival.record(at.saturating_duration_since(committed));
        if self.reads.is_empty() {
            let (reader, metrics) = (self.reader.clone(), self.metrics.clone());
            let url = format!("{}?rev={revision}", self.flags_url);
            self.reads.spawn(async move {
                match read(&reader, &url).await {
                    Some(read) if read >= revision => metrics.refetch.record(committed.elapsed()),
                    Some(read) => {
                        metrics.stale.increment(1);
                        tracing::error!(%url, %read, "a cache answers with older flags than asked for");
                    }
                    None => metrics.read_failures.increment(1),
                }
            });
        }
    }
}

/// The revision of the flags that a client gets.
async fn read(reader: &Client, url: &str) -> Option<Revision> {
    let answer = reader.get(url).send().await.ok()?.error_for_status().ok()?;
    let flags: serde_json::Value = answer.json().await.ok()?;
    flags["revision"].as_u64().map(Revision)
}
