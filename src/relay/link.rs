//! Follows one environment of the upstream: hears of a change, fetches the snapshot, and only when that
//! answers every read tells those who listen here.
//!
//! One task for each environment does all of it, so there is never more than one question on its way. A
//! question is asked when the stream tells of something else than what is held, when a read needs more, and
//! now and then to be sure.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::disk::Disk;
use super::held::Line;
use super::listening::{self, Heard};
use super::status::Phase;
use super::upstream::{Failure, Fetched, Upstream};
use crate::metrics::RelayMetrics;
use crate::model::{ClientKey, Revision};
use crate::snapshot::Snapshot;
use crate::store::{StoreError, now_micros};
use crate::told::{Due, News, Told};

/// Shortest and longest rest before a question that failed is asked again.
const RETRY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];

/// How long a link that begins waits for the stream's first word before it asks without.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// How long after the last word of the held history an answer from one that was left is late. Then it is the
/// truth after all: a relay that started between two nodes of its upstream may have left the wrong one.
const LATE_FOR: Duration = Duration::from_mins(1);

/// How long those who listen wait for the disk; a slow one must not hold up changes.
const STAGE_WAIT: Duration = Duration::from_millis(500);

/// How long something is asked for that was told of and does not come.
const VAIN: Duration = Duration::from_secs(10);

/// Histories that were left; an answer from one of them is late, not new.
const LEFT_MAX: usize = 16;

/// A snapshot that is on its way to the disk.
type Staging = JoinHandle<io::Result<()>>;

/// What every link needs.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) upstream: Upstream,
    pub(super) told: Arc<Told>,
    pub(super) disk: Disk,
    pub(super) metrics: RelayMetrics,
    /// How often an upstream that says nothing new is asked all the same.
    pub(super) poll: Duration,
    /// How long an environment must be unknown upstream until it is forgotten.
    pub(super) forget: Duration,
    /// When the second ping of a change comes, if there is one.
    pub(super) echo: Option<Duration>,
}

/// The link of one environment.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) common: Common,
    pub(super) line: Arc<Line>,
    /// How long it waits before it asks for the first time: not all at once.
    pub(super) first_rest: Duration,
    /// Whether what is held is only staged on the disk.
    pub(super) is_staged: bool,
}

/// Why to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The stream told of this revision.
    Heard(Revision),
    /// Somebody waits, or it is time to be sure.
    Look,
}

/// What a link remembers from one question to the next.
#[derive(Debug, Default)]
struct Memory {
    /// Streams that had begun when what is held was confirmed.
    confirmed_stream: u64,
    /// A revision that the stream tells of and that was not found: it is not asked for again and again.
    not_found: Option<Revision>,
    failures: u32,
    /// When a question that failed is asked again.
    retry_at: Option<Instant>,
    /// When somebody's question is asked that came too soon behind a fruitless one.
    question_at: Option<Instant>,
    missing_since: Option<Instant>,
    echo_at: Option<Instant>,
    left: Vec<String>,
    /// When an answer was of the history that is held.
    held_history_at: Option<Instant>,
}

impl Memory {
    /// Asks again later: sooner at first, and not in step with other relays.
    fn put_off(&mut self) {
        let rest = (RETRY[0] * 2_u32.pow(self.failures.min(8))).min(RETRY[1]);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(Instant::now() + rest.mul_f64(rand::random_range(0.5..1.5)));
    }
}

impl Link {
    /// Follows the environment until the upstream has none of that name any more.
    pub(super) async fn run(self) {
        let client_key = self.line.snapshot().environment.client_key.clone();
        if self.is_staged {
            self.keep(None).await;
        }
        let mut questions = self.line.questions();
        tokio::select! {
            () = sleep(self.first_rest) => {}
            // Somebody waits.
            Ok(()) = questions.changed() => {}
        }
        let mut heard = self.line.heard().subscribe();
        heard.mark_changed();
        let mut listening = JoinSet::new();
        if self.common.upstream.has_streams() {
            listening.spawn(listening::listen(
                self.common.upstream.clone(),
                client_key.clone(),
                self.line.heard(),
                self.common.metrics.upstream_streams.clone(),
            ));
        }
        let first =
            if self.common.upstream.lives_by_streams() { FIRST_WORD } else { Duration::ZERO };
        let mut memory = Memory { retry_at: Some(Instant::now() + first), ..Memory::default() };
        let mut next_poll = Instant::now() + self.common.poll;
        loop {
            let far = Instant::now() + Duration::from_hours(1);
            let reason = tokio::select! {
                // The line is there as long as this task.
                changed = heard.changed() => match changed {
                    Ok(()) => self.hears(&heard.borrow_and_update().clone(), &mut memory),
                    Err(_) => return,
                },
                Ok(()) = questions.changed() => match self.line.rest_left() {
                    None => Some(self.looks(&heard, &mut memory)),
                    Some(left) => {
                        memory.question_at.get_or_insert(Instant::now() + left);
                        None
                    }
                },
                () = sleep_until(memory.question_at.unwrap_or(far)) => {
                    memory.question_at = None;
                    Some(self.looks(&heard, &mut memory))
                }
                () = sleep_until(next_poll) => Some(self.looks(&heard, &mut memory)),
                () = sleep_until(memory.retry_at.unwrap_or(far)) => {
                    memory.retry_at = None;
                    // Without a stream, its first word will be the reason: one question, not two.
                    let waits = heard.borrow().failure.is_some() && self.common.upstream.lives_by_streams();
                    (!waits).then(|| self.looks(&heard, &mut memory))
                }
                () = sleep_until(memory.echo_at.unwrap_or(far)) => {
                    memory.echo_at = None;
                    Arc::clone(&self.common.told).purge_and_echo(self.line.id).await;
                    None
                }
            };
            let Some(reason) = reason else { continue };
            let word = heard.borrow().clone();
            let number = *questions.borrow_and_update();
            let before = self.line.revision();
            let reached = self.look(reason, &word, &client_key, &mut memory).await;
            self.line.answer(number, reached, self.line.revision() > before);
            next_poll = Instant::now() + self.common.poll.mul_f64(rand::random_range(0.8..1.2));
            let is_gone = memory.missing_since.is_some_and(|at| at.elapsed() >= self.common.forget);
            if is_gone {
                tracing::warn!(%client_key, "the upstream has no such environment any more; it is forgotten");
                return;
            }
        }
    }

    /// Why to ask when there is a reason anyway: what the stream tells of is asked for first.
    fn looks(&self, heard: &watch::Receiver<Heard>, memory: &mut Memory) -> Reason {
        let word = heard.borrow().clone();
        self.hears(&word, memory).unwrap_or(Reason::Look)
    }

    /// Notes what the stream says. Answers with why to ask, if there is a reason.
    fn hears(&self, word: &Heard, memory: &mut Memory) -> Option<Reason> {
        if let Some(failure) = &word.failure {
            self.line.note(|status| status.doubt(phase(failure), Some(failure.to_string())));
            return None;
        }
        let revision = word.revision?;
        self.line.note(|status| status.upstream_revision = Some(revision));
        let held = self.line.revision();
        if self.common.upstream.is_news(revision, held) {
            return (memory.not_found != Some(revision)).then_some(Reason::Heard(revision));
        }
        if word.streams != memory.confirmed_stream {
            return Some(Reason::Look);
        }
        self.line.note(|status| {
            if status.phase == Phase::Live {
                status.confirm();
            }
        });
        None
    }

    /// Asks the upstream once. Tells whether it had a word to say.
    async fn look(
        &self,
        reason: Reason,
        word: &Heard,
        client_key: &ClientKey,
        memory: &mut Memory,
    ) -> bool {
        let held = self.line.snapshot();
        let heard_at = word.at.filter(|_| matches!(reason, Reason::Heard(_)));
        // Whatever the reason is: another node of the upstream may be behind the one that told, and its word
        // that nothing is new would settle what was told.
        let told = match reason {
            Reason::Heard(revision) => Some(revision),
            Reason::Look => word.revision.filter(|told| !self.was_in_vain(*told, memory)),
        };
        let wanted = told.filter(|told| *told > self.line.revision());
        let fetched = self.common.upstream.snapshot(client_key, wanted, &held).await;
        self.common.metrics.fetched(match &fetched {
            Ok(Fetched::New(_)) => "new",
            Ok(Fetched::Same) => "same",
            Ok(Fetched::Behind(_)) => "behind",
            Ok(Fetched::Unknown) => "unknown",
            Ok(Fetched::Closed(_)) => "closed",
            Err(_) => "failed",
        });
        match fetched {
            Ok(Fetched::New(snapshot)) => {
                self.take(*snapshot, heard_at, memory).await;
                self.confirmed(reason, word, memory);
                true
            }
            Ok(Fetched::Same) => {
                memory.held_history_at = Some(Instant::now());
                self.confirmed(reason, word, memory);
                true
            }
            // Another node of the upstream is behind the one that told.
            Ok(Fetched::Behind(fresh)) => {
                if let Some(fresh) = fresh {
                    self.take(*fresh, heard_at, memory).await;
                }
                if self.is_in_vain(word) {
                    self.confirmed(reason, word, memory);
                } else {
                    memory.put_off();
                }
                true
            }
            Ok(Fetched::Closed(left)) => {
                if let Some(left) = left {
                    self.take(*left, None, memory).await;
                }
                let why = "no server key is known that Flagsmith lets in; old flags are served";
                self.line.note(|status| status.doubt(Phase::Refused, Some(why.to_owned())));
                memory.put_off();
                true
            }
            Ok(Fetched::Unknown) => {
                memory.missing_since.get_or_insert_with(Instant::now);
                self.line.note(|status| status.doubt(Phase::Missing, None));
                memory.retry_at = Some(Instant::now() + (self.common.forget / 4).max(RETRY[0]));
                true
            }
            Err(failure) => {
                let phase = phase(&failure);
                self.line.note(|status| status.doubt(phase, Some(failure.to_string())));
                memory.put_off();
                false
            }
        }
    }

    /// Whether what the stream tells of has not come for so long that it never may.
    fn is_in_vain(&self, word: &Heard) -> bool {
        let waited = word.at.is_some_and(|at| at.elapsed() >= VAIN);
        waited && self.common.upstream.may_announce_in_vain()
    }

    /// The same of what was given up.
    fn was_in_vain(&self, told: Revision, memory: &Memory) -> bool {
        self.common.upstream.may_announce_in_vain() && memory.not_found == Some(told)
    }

    /// What is held is what the upstream says.
    fn confirmed(&self, reason: Reason, word: &Heard, memory: &mut Memory) {
        memory.failures = 0;
        memory.retry_at = None;
        memory.missing_since = None;
        memory.confirmed_stream = word.streams;
        memory.not_found = match reason {
            Reason::Heard(told) if self.line.revision() != told => Some(told),
            Reason::Look if word.revision != Some(self.line.revision()) => word.revision,
            _ => None,
        };
        let is_followed = !self.common.upstream.lives_by_streams()
            || (word.failure.is_none() && word.revision.is_some());
        self.line.note(|status| {
            if is_followed {
                status.confirm();
            } else {
                // It was true a moment ago, but nobody would tell us of a change.
                status.unconfirmed_since = Some(Instant::now());
            }
        });
    }

    /// Takes a snapshot in, if it is newer than what is held.
    async fn take(&self, fresh: Snapshot, heard_at: Option<Instant>, memory: &mut Memory) {
        let held = self.line.snapshot();
        let (now, before) = (fresh.environment.stamp, held.environment.stamp);
        let same_history = fresh.epoch == held.epoch;
        let is_left = memory.left.contains(&fresh.epoch)
            && memory.held_history_at.is_some_and(|at| at.elapsed() < LATE_FOR);
        if is_left || (same_history && now.revision < before.revision) {
            self.common.metrics.late.increment(1);
            return;
        }
        memory.held_history_at = Some(Instant::now());
        if !same_history {
            memory.left.retain(|left| *left != fresh.epoch);
            if memory.left.len() == LEFT_MAX {
                memory.left.remove(0);
            }
            memory.left.push(held.epoch.clone());
        }
        let shows_the_same = now == before && fresh.state == held.state;
        let fresh = Arc::new(fresh);
        // Before anybody sees it: a process that dies must not come back with less than it has shown.
        let staging = self.stage(&fresh).await;
        let upstream = self.common.upstream.flagsmith();
        // A key may have come to be known since it was asked for.
        let with_keys = |_: &Snapshot| match upstream {
            Some(flagsmith) => Arc::new(flagsmith.with_its_keys(&fresh)),
            None => fresh,
        };
        let fresh = self.line.replace(&self.common.told.directory, with_keys);
        // Else only its keys are others, or the history that it counts in.
        if !shows_the_same && now.revision > before.revision {
            self.tell(&fresh, heard_at, memory).await;
        } else if !shows_the_same {
            self.begin_anew(&fresh);
        }
        self.keep(staging).await;
    }

    /// The order of every change: it answers reads, then those who listen are told.
    async fn tell(&self, fresh: &Snapshot, heard_at: Option<Instant>, memory: &mut Memory) {
        let told = &self.common.told;
        let stamp = fresh.environment.stamp;
        let news = News {
            stamp,
            committed_at: stamp.updated_at.micros().min(now_micros()),
            urgent: false,
            is_new: false,
        };
        match self.serve(news).await {
            Ok(Some(due)) => {
                if Arc::clone(told).purge_and_ping(due).await.is_some() {
                    memory.echo_at = self.common.echo.map(|echo| Instant::now() + echo);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "cannot bring a flag set up to date"),
        }
        if let Some(at) = heard_at {
            self.common.metrics.lag.record(at.elapsed());
            self.line.note(|status| status.lag = Some(at.elapsed()));
        }
    }

    /// Brings what is served up to date. It waits for a build under way, which may be a read's that waits
    /// for us: so questions are answered meanwhile, with what is held now, and asked once we are done.
    async fn serve(&self, news: News) -> Result<Option<Due>, StoreError> {
        let mut questions = self.line.questions();
        let mut serving = pin!(self.common.told.serve(self.line.id, news));
        loop {
            self.line.answer(*questions.borrow_and_update(), true, true);
            tokio::select! {
                served = &mut serving => return served,
                Ok(()) = questions.changed() => {}
            }
        }
    }

    /// The upstream was put back to an earlier state: its numbers count anew, and whoever listens begins
    /// anew with them.
    fn begin_anew(&self, fresh: &Snapshot) {
        let revision = fresh.environment.stamp.revision;
        let client_key = &fresh.environment.client_key;
        tracing::warn!(%client_key, %revision, "the upstream's history went back; following it");
        self.common.metrics.histories.increment(1);
        let told = &self.common.told;
        told.flagsets.remove(self.line.id);
        told.hub.remove(self.line.id);
        told.seed(&self.line.entry());
        // For who came in between.
        told.hub.echo(self.line.id);
    }

    /// Stages a snapshot on the disk. Answers with what is still under way when a slow disk takes too long.
    async fn stage(&self, fresh: &Arc<Snapshot>) -> Option<Staging> {
        let (disk, fresh) = (self.common.disk.clone(), Arc::clone(fresh));
        let mut staging = tokio::task::spawn_blocking(move || disk.stage(&fresh));
        match timeout(STAGE_WAIT, &mut staging).await {
            Ok(staged) => {
                self.note_write(staged);
                None
            }
            Err(_) => Some(staging),
        }
    }

    /// Makes what is staged last.
    async fn keep(&self, staging: Option<Staging>) {
        if let Some(staging) = staging {
            self.note_write(staging.await);
        }
        let disk = self.common.disk.clone();
        let client_key = self.line.snapshot().environment.client_key.clone();
        let kept = tokio::task::spawn_blocking(move || match disk.keep(&client_key) {
            // It could not be staged, which was told.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            kept => kept,
        });
        self.note_write(kept.await);
    }

    fn note_write(&self, written: Result<io::Result<()>, JoinError>) {
        if let Ok(written) = written {
            self.common.note_write(written);
        }
    }
}

impl Common {
    /// Counts and tells of a snapshot that could not be written.
    pub(super) fn note_write(&self, written: io::Result<()>) {
        if let Err(error) = written {
            self.metrics.disk_errors.increment(1);
            tracing::error!(%error, "cannot write a snapshot to the disk; it is held in memory");
        }
    }
}

fn phase(failure: &Failure) -> Phase {
    match failure {
        Failure::Away(_) => Phase::Away,
        Failure::Refused(_) => Phase::Refused,
    }
}
