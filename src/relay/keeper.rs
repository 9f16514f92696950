//! Which environments a relay holds: takes one up when somebody comes with a key of it, lets it go when nobody
//! does any more, and remembers for a while which keys nobody has.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::disk::Disk;
use super::held::{Held, Line};
use super::link::{Common, Link};
use super::status::Phase;
use super::upstream::{Fetched, Name, Upstream};
use super::usage::Usage;
use super::watch::Watch;
use crate::config::Relay as Settings;
use crate::flagset::{Stranger, Word};
use crate::metrics::RelayMetrics;
use crate::model::{ClientKey, EnvironmentId, Secret};
use crate::shutdown::Shutdown;
use crate::snapshot::Snapshot;
use crate::told::Told;

/// How often it looks which environments are used and which keys may be asked about again.
const SWEEP: Duration = Duration::from_secs(1);

/// Over how long links begin whose snapshots come from the disk: an upstream that comes back must not be
/// asked by all at once.
const BEGIN_SPREAD: Duration = Duration::from_secs(2);

/// How long an environment that was let go is still there for who has just come: a read or a stream that was
/// on its way to it.
const LEAVE_GRACE: Duration = Duration::from_secs(5);

/// Keys that are asked about at a time.
const ASKING_MAX: usize = 16;

/// Keys that are remembered as unknown.
const UNKNOWN_MAX: usize = 10_000;

/// Takes environments up and lets them go.
#[derive(Debug)]
pub struct Keeper {
    held: Arc<Held>,
    common: Common,
    usage: Usage,
    unknown_for: Duration,
    idle: Duration,
    environments_max: usize,
    /// Never let go.
    named: Vec<(Name, Secret)>,
    ready_stale: Duration,
    strangers: mpsc::Receiver<Stranger>,
    /// The environments that are held, by client key.
    links: HashMap<ClientKey, Kept>,
    /// Those that were let go a moment ago.
    leaving: Vec<(Instant, EnvironmentId)>,
    tasks: JoinSet<()>,
    by_task: HashMap<Id, ClientKey>,
    /// Keys that are asked about, with those who wait.
    asking: HashMap<Name, Vec<oneshot::Sender<Word>>>,
    /// Keys that wait for their turn to be asked about.
    queue: Vec<(Name, Secret)>,
    asked: JoinSet<(Name, Answer)>,
    unknown: HashMap<Name, Instant>,
    unknown_count: Arc<AtomicUsize>,
}

/// An environment that is held.
#[derive(Debug)]
struct Kept {
    line: Arc<Line>,
    task: AbortHandle,
    used: Instant,
}

/// What was found out about a key.
#[derive(Debug)]
enum Answer {
    Found(Box<Snapshot>),
    /// It was found, and is on the disk.
    Staged(Box<Snapshot>),
    /// It is held, and its link has looked.
    Held,
    Unknown,
    /// There is no key to ask with.
    Closed,
    Away,
}

impl Keeper {
    /// Opens the disk and takes up what is there. Nothing is asked yet.
    pub fn new(
        settings: &Settings,
        held: Arc<Held>,
        upstream: Upstream,
        told: Arc<Told>,
        (usage, strangers): (Usage, mpsc::Receiver<Stranger>),
        (echo, metrics): (Option<Duration>, RelayMetrics),
    ) -> anyhow::Result<Self> {
        let folder = &settings.directory;
        let disk = Disk::open(folder.as_ref())
            .with_context(|| format!("cannot use the folder {folder} (relay.directory)"))?;
        let snapshots =
            disk.load(settings.environments_max).context("cannot read relay.directory")?;
        let common = Common {
            upstream,
            told,
            disk,
            metrics,
            poll: Duration::from_secs(settings.poll_seconds),
            forget: Duration::from_secs(settings.forget_seconds),
            echo,
        };
        let mut keeper = Self {
            held,
            common,
            usage,
            unknown_for: Duration::from_secs(settings.unknown_seconds),
            idle: Duration::from_secs(settings.idle_seconds),
            environments_max: settings.environments_max,
            named: settings.named().into_iter().map(|key| (Name::of(key.expose()), key)).collect(),
            ready_stale: Duration::from_secs(settings.ready_stale_seconds),
            strangers,
            links: HashMap::new(),
            leaving: Vec::new(),
            tasks: JoinSet::new(),
            by_task: HashMap::new(),
            asking: HashMap::new(),
            queue: Vec::new(),
            asked: JoinSet::new(),
            unknown: HashMap::new(),
            unknown_count: Arc::default(),
        };
        let found = snapshots.len();
        for snapshot in snapshots {
            keeper.take_up(snapshot, Phase::Disk);
        }
        tracing::info!(environments = found, %folder, "snapshots on the disk");
        keeper.want_named();
        Ok(keeper)
    }

    /// What operators may ask.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch {
            held: Arc::clone(&self.held),
            told: Arc::clone(&self.common.told),
            usage: self.usage.clone(),
            upstream: self.common.upstream.clone(),
            unknown: Arc::clone(&self.unknown_count),
            named: self.named.clone(),
            ready_stale: self.ready_stale,
        }
    }

    /// Works until the stop.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.stopped() => return,
                stranger = self.strangers.recv() => match stranger {
                    Some(Stranger { key, answer }) => {
                        self.wanted(Secret::new(key), Some(answer));
                    }
                    None => return,
                },
                Some(Ok((name, answer))) = self.asked.join_next() => self.found_out(&name, answer),
                Some(ended) = self.tasks.join_next_with_id() => {
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    if let Some(client_key) = self.by_task.remove(&id) {
                        self.gone(&client_key, id);
                    }
                }
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    /// Somebody came with a key that the directory does not know.
    fn wanted(&mut self, key: Secret, waiting: Option<oneshot::Sender<Word>>) {
        self.recognise(&key);
        let name = Name::of(key.expose());
        let say = |waiting: Option<oneshot::Sender<Word>>, word| {
            if let Some(waiting) = waiting {
                waiting.send(word).ok();
            }
        };
        let is_held = match &name {
            Name::Client(key) => self.links.contains_key(key.as_str()),
            Name::Digest(digest) => self
                .links
                .values()
                .any(|kept| kept.line.snapshot().server_key_hashes.contains(digest)),
        };
        // What is no key needs no question; nor does what nobody had a moment ago.
        let is_key = match &name {
            Name::Client(key) => ClientKey::parse(key).is_ok(),
            Name::Digest(_) => true,
        };
        if is_held || !is_key || self.unknown.contains_key(&name) {
            return say(waiting, Word::Settled);
        }
        if let Some(others) = self.asking.get_mut(&name) {
            others.extend(waiting);
            return;
        }
        if self.links.len() >= self.environments_max {
            self.common.metrics.limit_hit();
            tracing::warn!("as many environments are held as `relay.environments_max` allows");
            return say(waiting, Word::Away);
        }
        self.asking.insert(name.clone(), waiting.into_iter().collect());
        self.queue.push((name, key));
        self.ask();
    }

    /// A key that opened an environment before a restart opens it again, whether the upstream can be asked or
    /// not; and it is asked with from now on.
    fn recognise(&self, key: &Secret) {
        let Some(flagsmith) = self.common.upstream.flagsmith() else { return };
        let owner = flagsmith.recognise(key.expose());
        if let Some(kept) = owner.and_then(|client_key| self.links.get(&client_key)) {
            let directory = &self.common.told.directory;
            kept.line.replace(directory, |held| Arc::new(flagsmith.with_its_keys(held)));
            kept.line.look();
        }
    }

    /// Has those asked about that are named and not held.
    fn want_named(&mut self) {
        for (name, key) in self.named.clone() {
            let is_held =
                self.common.upstream.owner(&name).is_some_and(|key| self.links.contains_key(&key));
            if !is_held && !self.unknown.contains_key(&name) {
                self.wanted(key, None);
            }
        }
    }

    /// Asks about as many keys as may be asked about at a time.
    fn ask(&mut self) {
        while self.asked.len() < ASKING_MAX && !self.queue.is_empty() {
            let (name, key) = self.queue.remove(0);
            let upstream = self.common.upstream.clone();
            self.asked.spawn(async move {
                let answer = match upstream.find(key.expose()).await {
                    Ok(Fetched::New(snapshot)) => Answer::Found(snapshot),
                    Ok(Fetched::Unknown) => Answer::Unknown,
                    Ok(Fetched::Closed(_)) => Answer::Closed,
                    // Without a revision and without a snapshot of ours there is no other answer.
                    Ok(Fetched::Same | Fetched::Behind(_)) => Answer::Away,
                    Err(error) => {
                        tracing::warn!(%error, "cannot ask the upstream about a key");
                        Answer::Away
                    }
                };
                (name, answer)
            });
        }
    }

    fn found_out(&mut self, name: &Name, answer: Answer) {
        let word = match answer {
            Answer::Found(snapshot) => return self.take_in(name.clone(), snapshot),
            Answer::Staged(snapshot) => {
                if !self.links.contains_key(&snapshot.environment.client_key) {
                    self.take_up(*snapshot, Phase::Opening);
                }
                Word::Settled
            }
            Answer::Held => Word::Settled,
            Answer::Unknown => self.remember_unknown(name),
            Answer::Closed | Answer::Away if self.take_from_disk(name) => Word::Settled,
            Answer::Closed => match name {
                Name::Client(_) => self.remember_unknown(name),
                // Nobody was asked: the key itself may open it, when somebody comes with that.
                Name::Digest(_) => Word::Settled,
            },
            Answer::Away => Word::Away,
        };
        for waiting in self.asking.remove(name).unwrap_or_default() {
            waiting.send(word).ok();
        }
        self.ask();
    }

    /// What was found is staged before anybody sees it, or, if it is held, taken in by its link: the key is
    /// a new one.
    fn take_in(&mut self, name: Name, snapshot: Box<Snapshot>) {
        if let Some(kept) = self.links.get(&snapshot.environment.client_key) {
            let line = Arc::clone(&kept.line);
            self.asked.spawn(async move {
                let looked = line.ask_again().await;
                (name, if looked.is_ok() { Answer::Held } else { Answer::Away })
            });
            return;
        }
        let common = self.common.clone();
        self.asked.spawn_blocking(move || {
            common.note_write(common.disk.stage(&snapshot));
            (name, Answer::Staged(snapshot))
        });
    }

    fn remember_unknown(&mut self, name: &Name) -> Word {
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.insert(name.clone(), Instant::now() + self.unknown_for);
        }
        Word::Settled
    }

    /// It was let go, and the upstream is away now: the last known flags may be on the disk.
    fn take_from_disk(&mut self, name: &Name) -> bool {
        let Some(key) = self.common.upstream.owner(name) else { return false };
        let Some(snapshot) = self.common.disk.find(&key) else { return false };
        self.take_up(snapshot, Phase::Disk);
        true
    }

    /// Holds an environment from now on, and follows it.
    fn take_up(&mut self, mut snapshot: Snapshot, phase: Phase) {
        if phase == Phase::Disk
            && let Some(flagsmith) = self.common.upstream.flagsmith()
        {
            snapshot = flagsmith.recall(&snapshot);
        }
        let client_key = snapshot.environment.client_key.clone();
        self.unknown.remove(&Name::of(client_key.as_str()));
        let line = self.held.add(snapshot, phase);
        self.common.told.seed(&line.entry());
        // Streams may wait for it.
        self.common.told.hub.welcome();
        let is_fresh = phase == Phase::Opening;
        let first_rest = if is_fresh {
            Duration::ZERO
        } else {
            BEGIN_SPREAD.mul_f64(rand::random_range(0.0..1.0))
        };
        let follow = Link {
            common: self.common.clone(),
            line: Arc::clone(&line),
            first_rest,
            is_staged: is_fresh,
        };
        let task = self.tasks.spawn(follow.run());
        self.by_task.insert(task.id(), client_key.clone());
        self.links.insert(client_key, Kept { line, task, used: Instant::now() });
    }

    /// A link has ended: the upstream has no such environment.
    fn gone(&mut self, client_key: &ClientKey, task: Id) {
        // One that was let go and taken up again has another link by now.
        if self.links.get(client_key).is_none_or(|kept| kept.task.id() != task) {
            return;
        }
        if let Some(id) = self.let_go(client_key) {
            self.forget(id);
        }
        self.common.disk.remove(client_key);
        self.remember_unknown(&Name::of(client_key.as_str()));
    }

    /// Follows an environment no more; whoever comes with a key of it from now on is a stranger.
    fn let_go(&mut self, client_key: &ClientKey) -> Option<EnvironmentId> {
        let kept = self.links.remove(client_key)?;
        kept.task.abort();
        kept.line.leave();
        self.common.told.directory.remove(kept.line.id);
        Some(kept.line.id)
    }

    fn forget(&self, id: EnvironmentId) {
        self.common.told.forget(id);
        self.held.remove(id);
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        self.unknown.retain(|_, until| *until > now);
        self.unknown_count.store(self.unknown.len(), Ordering::Relaxed);
        let mut idle = Vec::new();
        for (client_key, kept) in &mut self.links {
            let told = &self.common.told;
            if told.directory.take_use(kept.line.id) || told.hub.open(kept.line.id) > 0 {
                kept.used = now;
            } else if kept.used.elapsed() >= self.idle {
                idle.push(client_key.clone());
            }
        }
        let named: Vec<_> =
            self.named.iter().filter_map(|(name, _)| self.common.upstream.owner(name)).collect();
        idle.retain(|client_key| !named.contains(client_key));
        for client_key in idle {
            tracing::info!(%client_key, "nobody uses it; it is let go");
            let left = self.let_go(&client_key);
            self.leaving.extend(left.map(|id| (now + LEAVE_GRACE, id)));
        }
        for (_, id) in self.leaving.extract_if(.., |(until, _)| *until <= now).collect::<Vec<_>>() {
            self.forget(id);
        }
        // A named environment that could not be asked about at the start.
        self.want_named();
        self.measure();
    }

    fn measure(&self) {
        let mut counts = [0_usize; Phase::ALL.len()];
        let mut stale = Duration::ZERO;
        for kept in self.links.values() {
            let status = kept.line.status();
            counts[status.phase as usize] += 1;
            stale = stale.max(status.stale());
        }
        let metrics = &self.common.metrics;
        for (phase, count) in Phase::ALL.into_iter().zip(counts) {
            metrics.environments(phase.as_str(), count);
        }
        metrics.stale.set(stale.as_secs_f64());
        metrics.unknown(self.unknown.len());
    }
}
