//! What a relay holds of each environment, and what it knows of its link.
//!
//! It stands behind the flag sets as the store does at a gateway. Who needs more than is held asks the link,
//! which asks the upstream once for all who wait.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::listening::Heard;
use super::status::{Phase, Status};
use crate::flagset::Directory;
use crate::model::{ClientKey, Environment, EnvironmentId, EnvironmentState, Revision};
use crate::origin::{Answer, Truth};
use crate::snapshot::{Mark, Snapshot};
use crate::store::{DirectoryEntry, StoreError};

/// Longest wait of a read for the upstream's answer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Longest wait of who announces a change: Flagsmith gives up after two seconds.
const ANNOUNCED_WAIT: Duration = Duration::from_millis(1500);

/// How long a question that found nothing newer stands for all others: numbers that were never issued must
/// not make us ask as often as somebody wants.
const FRUITLESS_REST: Duration = Duration::from_millis(250);

/// All environments that are held.
#[derive(Debug, Default)]
pub struct Held {
    lines: DashMap<EnvironmentId, Arc<Line>>,
    /// Numbers of our own: those of the upstream may name another environment after a restore.
    last_id: AtomicI64,
}

/// One environment that is held.
pub(super) struct Line {
    pub(super) id: EnvironmentId,
    snapshot: ArcSwap<Snapshot>,
    /// Counts questions for the upstream.
    asked: watch::Sender<u64>,
    /// The last question that was answered, and how.
    answered: watch::Sender<Answered>,
    status: Mutex<Status>,
    /// Nobody follows it any more.
    has_left: AtomicBool,
    /// What the stream says, or who announces changes.
    heard: watch::Sender<Heard>,
    /// Held by who replaces the snapshot and tells the directory.
    replacing: Mutex<()>,
}

#[derive(Clone, Copy, Debug)]
struct Answered {
    number: u64,
    /// Whether the upstream had a word to say.
    reached: bool,
    /// When nothing newer was found.
    fruitless: Option<Instant>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Held {
    /// Takes an environment in.
    pub(super) fn add(&self, snapshot: Snapshot, phase: Phase) -> Arc<Line> {
        let id = EnvironmentId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        let line = Arc::new(Line {
            id,
            snapshot: ArcSwap::from_pointee(snapshot),
            asked: watch::Sender::new(0),
            answered: watch::Sender::new(Answered { number: 0, reached: false, fruitless: None }),
            status: Mutex::new(Status::new(phase)),
            has_left: AtomicBool::new(false),
            heard: watch::Sender::default(),
            replacing: Mutex::default(),
        });
        self.lines.insert(id, Arc::clone(&line));
        line
    }

    /// Forgets an environment.
    pub(super) fn remove(&self, id: EnvironmentId) {
        self.lines.remove(&id);
    }

    /// Every environment that is followed.
    pub(super) fn lines(&self) -> Vec<Arc<Line>> {
        let followed = self.lines.iter().filter(|line| !line.has_left.load(Ordering::Relaxed));
        followed.map(|line| Arc::clone(&line)).collect()
    }

    /// The public key of an environment that is held.
    pub(super) fn client_key(&self, id: EnvironmentId) -> Option<ClientKey> {
        Some(self.line(id)?.snapshot().environment.client_key.clone())
    }

    /// The environment with this public key, if it is held.
    pub(super) fn by_client_key(&self, client_key: &ClientKey) -> Option<Arc<Line>> {
        let is_it = |line: &Line| !line.has_left.load(Ordering::Relaxed) && line.is_of(client_key);
        let found = self.lines.iter().find(|line| is_it(line))?;
        Some(Arc::clone(&found))
    }

    fn line(&self, id: EnvironmentId) -> Option<Arc<Line>> {
        self.lines.get(&id).map(|line| Arc::clone(&line))
    }
}

impl Line {
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Holds another snapshot from now on, made of the present one, and has the directory know its keys.
    pub(super) fn replace(
        &self,
        directory: &Directory,
        make: impl FnOnce(&Snapshot) -> Arc<Snapshot>,
    ) -> Arc<Snapshot> {
        let _alone = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = make(&self.snapshot.load());
        self.snapshot.store(Arc::clone(&fresh));
        directory.insert(&self.entry());
        fresh
    }

    /// Where words of the stream go, and announcements.
    pub(super) fn heard(&self) -> watch::Sender<Heard> {
        self.heard.clone()
    }

    /// Takes the announcement of a revision. Completes when that is told to those who listen, or when that
    /// takes too long: then the link goes on with it.
    pub(super) async fn announced(&self, revision: Revision) {
        let mut answered = self.answered.subscribe();
        self.heard.send_if_modified(|heard| {
            let is_news = heard.revision.is_none_or(|told| told < revision);
            if is_news {
                heard.revision = Some(revision);
                heard.at = Some(Instant::now());
            }
            is_news
        });
        let reached = async {
            while answered.changed().await.is_ok() {
                if self.revision() >= revision {
                    return;
                }
            }
        };
        drop(timeout(ANNOUNCED_WAIT, reached).await);
    }

    /// Whether it is the environment with this public key.
    pub(super) fn is_of(&self, client_key: &ClientKey) -> bool {
        self.snapshot.load().environment.client_key == *client_key
    }

    /// Nobody follows it any more; who is on the way to it is still served.
    pub(super) fn leave(&self) {
        self.has_left.store(true, Ordering::Relaxed);
    }

    pub(super) fn revision(&self) -> Revision {
        self.snapshot.load().environment.stamp.revision
    }

    /// As the directory knows it.
    pub(super) fn entry(&self) -> DirectoryEntry {
        let snapshot = self.snapshot.load();
        DirectoryEntry {
            environment: Environment { id: self.id, ..snapshot.environment.clone() },
            server_key_hashes: snapshot.server_key_hashes.clone(),
        }
    }

    pub(super) fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The number of the last question.
    pub(super) fn questions(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// Says that all questions up to `number` have their answer.
    pub(super) fn answer(&self, number: u64, reached: bool, newer: bool) {
        let fruitless = (!newer).then(Instant::now);
        self.answered.send_modify(|last| {
            *last = Answered { number: number.max(last.number), reached, fruitless };
        });
    }

    /// Has the upstream asked for something newer, and waits for its answer. Questions that come while one
    /// is on its way share the next one.
    pub(super) async fn ask(&self) -> Result<(), StoreError> {
        let last = *self.answered.borrow();
        if self.rest_left().is_some() {
            // Asked when the rest is over; who asks holds up others and must not wait for that here.
            self.look();
            return if last.reached { Ok(()) } else { Err(away()) };
        }
        self.ask_again().await
    }

    /// How long the answer still stands that nothing is newer.
    pub(super) fn rest_left(&self) -> Option<Duration> {
        let fruitless = self.answered.borrow().fruitless?;
        FRUITLESS_REST.checked_sub(fruitless.elapsed()).filter(|left| !left.is_zero())
    }

    /// Has the upstream asked, for nobody in particular.
    pub(super) fn look(&self) {
        self.asked.send_modify(|asked| *asked += 1);
    }

    /// The same as `ask`, however short ago the last question was.
    pub(super) async fn ask_again(&self) -> Result<(), StoreError> {
        let mut answered = self.answered.subscribe();
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        let answer = timeout(ANSWER_WAIT, answered.wait_for(|done| done.number >= number)).await;
        match answer {
            Ok(Ok(done)) if done.reached => Ok(()),
            _ => Err(away()),
        }
    }
}

fn away() -> StoreError {
    StoreError::Away("it was asked for a newer state of an environment".to_owned())
}

impl Truth for Held {
    fn is_shared(&self) -> bool {
        // Its uptime must not depend on the upstream's: unpinned reads are answered from what is held.
        false
    }

    fn revision(&self, id: EnvironmentId, wanted: Revision) -> Answer<'_, Option<Revision>> {
        Box::pin(async move {
            let Some(line) = self.line(id) else { return Ok(None) };
            if line.revision() < wanted {
                line.ask().await?;
            }
            Ok(Some(line.revision()))
        })
    }

    fn environment_state(
        &self,
        id: EnvironmentId,
        wanted: Revision,
    ) -> Answer<'_, Option<EnvironmentState>> {
        Box::pin(async move {
            let Some(line) = self.line(id) else { return Ok(None) };
            if line.revision() < wanted {
                // Better what is held than nothing: whoever wants more sees that it is less.
                drop(line.ask().await);
            }
            Ok(line.snapshot().state.clone())
        })
    }

    fn mark(&self, id: EnvironmentId) -> Answer<'_, Option<Mark>> {
        Box::pin(async move { Ok(self.line(id).map(|line| line.snapshot().mark())) })
    }

    fn snapshot(&self, id: EnvironmentId) -> Answer<'_, Option<Snapshot>> {
        Box::pin(async move { Ok(self.line(id).map(|line| Snapshot::clone(&line.snapshot()))) })
    }
}
