//! Keeps the copy up to date. One task reads, whoever wants something: deliveries that come at the
//! same time share a read, and what comes during a read is read behind it.
//!
//! It reads at the start, when it was told of something newer than the copy, and now and then for what
//! nobody told. What was told it tries until it is here; a new delivery ends the wait for the next try.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::delivery::Told;
use crate::held::Held;
use crate::pace;
use crate::read::{Answer, Question, Reader};

/// Tries to read what was told, before whatever is newest will do: what was told may have been lost
/// with the gateway's disk, and others may wait for something older.
const PATIENCE: usize = 4;

/// What the receiver was told of last.
#[derive(Clone, Copy, Debug, Default)]
struct Wish {
    revision: u64,
    /// Zero when nothing was told yet.
    updated_at: f64,
}

/// Where deliveries leave what they tell.
#[derive(Debug, Default)]
pub(crate) struct Wishes(watch::Sender<Wish>);

impl Wishes {
    /// Notes what was told if it is newer, and wakes the reader in any case.
    pub(crate) fn tell(&self, told: &Told) {
        self.0.send_modify(|wish| {
            if told.updated_at > wish.updated_at {
                *wish = Wish { revision: told.revision, updated_at: told.updated_at };
            }
        });
    }
}

/// A tag, and of which copy it is.
struct Tag {
    value: HeaderValue,
    updated_at: f64,
}

/// The task that reads.
pub(crate) struct Follower {
    held: Arc<Held>,
    reader: Reader,
    wishes: watch::Receiver<Wish>,
    /// Between looks at what nobody told; zero for never.
    poll: Duration,
    next_poll: Instant,
    tag: Option<Tag>,
    /// Whether the gateway has answered since the start.
    is_started: bool,
}

impl Follower {
    pub(crate) fn new(held: Arc<Held>, reader: Reader, wishes: &Wishes, poll: Duration) -> Self {
        let wishes = wishes.0.subscribe();
        let next_poll = Instant::now() + pace::jittered(poll);
        Self { held, reader, wishes, poll, next_poll, tag: None, is_started: false }
    }

    /// Goes on until it is stopped. When the receiver goes while this runs on another thread, the end
    /// of the wishes is seen first: waiting for them would then be no wait at all.
    pub(crate) async fn run(mut self) {
        while self.wishes.has_changed().is_ok() {
            let wish = *self.wishes.borrow_and_update();
            if self.is_done(wish) {
                self.rest().await;
            } else {
                self.catch_up(wish).await;
            }
        }
    }

    fn is_done(&self, wish: Wish) -> bool {
        self.is_started && (wish.updated_at <= 0.0 || self.held.holds(wish.updated_at))
    }

    /// Waits for a wish; looks for itself when it is time.
    async fn rest(&mut self) {
        if self.poll.is_zero() {
            // An error is the end of the receiver; the loop sees it.
            drop(self.wishes.changed().await);
        } else if tokio::time::timeout_at(self.next_poll, self.wishes.changed()).await.is_err() {
            let question = Question::Newest(self.present_tag());
            if let Some((why, _)) = self.ask(&question).await {
                tracing::warn!(%why, "flags were not read; the copy stays as it is");
            }
            self.next_poll = Instant::now() + pace::jittered(self.poll);
        }
    }

    /// Tries until the wish is here, or another delivery comes.
    async fn catch_up(&mut self, wish: Wish) {
        let mut asked_for = Duration::ZERO;
        let mut goes_around = wish.revision == 0;
        for attempt in 0.. {
            let wait = pace::before(attempt, asked_for);
            if tokio::time::timeout(wait, self.wishes.changed()).await.is_ok() {
                return;
            }
            let question = if goes_around || attempt >= PATIENCE {
                Question::Newest(None)
            } else {
                Question::AtLeast(wish.revision)
            };
            let failure = self.ask(&question).await;
            if self.is_done(wish) {
                return;
            }
            asked_for = if let Some((why, asked_for)) = failure {
                tracing::warn!(%why, attempt, "flags were not read; trying again");
                asked_for
            } else {
                // A cache has kept what this revision was before the gateway was restored from a
                // backup. Without a revision it must ask the gateway.
                tracing::warn!(attempt, "the flags that were read are older than what was told");
                goes_around = true;
                Duration::ZERO
            };
        }
    }

    /// The tag of the copy, if it is known.
    fn present_tag(&self) -> Option<HeaderValue> {
        let tag = self.tag.as_ref()?;
        self.held.holds(tag.updated_at).then(|| tag.value.clone())
    }

    /// Asks once and takes what is newer. Returns why there was no answer, and for how long the other
    /// side wants to be left alone.
    async fn ask(&mut self, question: &Question) -> Option<(String, Duration)> {
        let answer = match self.reader.read(question).await {
            // Tags are of revisions, and after a restore from a backup a revision comes twice.
            Answer::Same(Some(updated_at)) if !self.held.holds(updated_at) => {
                self.reader.read(&Question::Newest(None)).await
            }
            answer => answer,
        };
        match answer {
            Answer::Nothing(why, asked_for) => return Some((why, asked_for)),
            Answer::Same(_) => {}
            Answer::Flags(flags, tag) => {
                let (revision, updated_at) = (flags.revision(), flags.updated_at());
                if self.held.offer(flags) {
                    tracing::info!(revision, "new flags");
                    self.tag = tag.map(|value| Tag { value, updated_at });
                }
            }
        }
        self.is_started = true;
        None
    }
}
