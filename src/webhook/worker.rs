//! The worker: claims what is due, has it attempted, and writes what came of it.
//!
//! One loop owns the bookkeeping: what ended while it was writing is written together in its next step,
//! so many deliveries share a transaction. Attempts are tasks; their number is bounded, and so is the
//! share of endpoints that fail, which hold their places longest.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::answer::Answer;
use super::attempt::Sender;
use super::schedule;
use crate::config::{ConfigError, Settings};
use crate::metrics::WebhookMetrics;
use crate::model::{Attempt, AttemptOutcome};
use crate::shutdown::Shutdown;
use crate::store::{Claim, Room, Settlement, Store, Verdict, in_time, keys, now_micros};

/// How long a worker has what it claimed, beyond the longest attempt.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

/// Longest wait for the store in a step: a network that is cut says nothing. What may have been written is
/// written again.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Rest after a failed step: the store may be away.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Endpoints that fail may take one in so many places.
const FAILING_SHARE: usize = 4;

/// Sends what endpoints are owed.
#[derive(Debug)]
pub struct Worker {
    store: Store,
    sender: Sender,
    handle: WorkerHandle,
    /// Names this worker in the store.
    lease: String,
    lease_time: Duration,
    concurrency: usize,
    poll: Duration,
    metrics: WebhookMetrics,
}

/// Wakes the worker.
#[derive(Clone, Debug, Default)]
pub struct WorkerHandle {
    wake: Arc<Notify>,
}

impl WorkerHandle {
    /// Something may be due. Costs nothing when nothing is.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

/// An attempt that ended.
struct Ended {
    settlement: Settlement,
    was_failing: bool,
}

/// What the loop knows between its steps.
#[derive(Default)]
struct Desk {
    under_way: JoinSet<Ended>,
    /// Ended, and not written yet.
    unwritten: Vec<Settlement>,
    /// Places taken by endpoints that are well, and by others.
    healthy: usize,
    failing: usize,
}

impl Worker {
    /// Prepares the worker; `handle` wakes it.
    pub fn new(
        store: Store,
        settings: &Settings,
        public_url: &str,
        handle: WorkerHandle,
        metrics: WebhookMetrics,
    ) -> Result<Self, ConfigError> {
        let webhook = &settings.webhook;
        Ok(Self {
            store,
            sender: Sender::new(webhook, public_url)?,
            handle,
            lease: keys::new_message_id(),
            lease_time: Duration::from_millis(webhook.timeout_ms) + LEASE_MARGIN,
            concurrency: webhook.concurrency,
            poll: Duration::from_millis(settings.store.poll_ms),
            metrics,
        })
    }

    /// Works until the drain; then finishes what is under way, as far as the stop lets it, and leaves
    /// the rest for later.
    pub async fn run(self, shutdown: Shutdown) {
        let mut desk = Desk::default();
        let mut next = Instant::now();
        while !shutdown.is_draining() {
            tokio::select! {
                () = shutdown.drained() => break,
                () = self.handle.wake.notified() => {}
                () = sleep_until(next) => {}
                Some(ended) = desk.under_way.join_next() => desk.take(ended),
            }
            next = Instant::now() + self.step(&mut desk).await;
        }
        tokio::select! {
            () = shutdown.stopped() => {}
            () = self.finish(&mut desk) => {}
        }
        if let Err(error) = self.store.release(&self.lease).await {
            tracing::warn!(%error, "webhooks under way stay claimed until their time is over");
        }
    }

    /// Writes what ended and begins what is due. Answers with the time until the next step at the
    /// latest.
    async fn step(&self, desk: &mut Desk) -> Duration {
        desk.take_all();
        let failing_max = (self.concurrency / FAILING_SHARE).max(1);
        let room = Room {
            healthy: (self.concurrency - failing_max).saturating_sub(desk.healthy),
            failing: failing_max.saturating_sub(desk.failing),
        };
        let until = now_micros() + micros(self.lease_time);
        let step = self.store.settle_and_claim(&desk.unwritten, room, (&self.lease, until));
        match in_time(STEP_TIMEOUT, step).await {
            Ok(claims) => {
                desk.unwritten.clear();
                for claim in claims {
                    self.begin(claim, desk);
                }
                self.poll
            }
            Err(error) => {
                tracing::warn!(%error, "webhooks wait: the store does not answer");
                RETRY_PAUSE
            }
        }
    }

    fn begin(&self, claim: Claim, desk: &mut Desk) {
        let was_failing = claim.webhook.failures > 0;
        *desk.places(was_failing) += 1;
        let (sender, metrics) = (self.sender.clone(), self.metrics.clone());
        desk.under_way.spawn(async move {
            let (at, began) = (now_micros(), Instant::now());
            let answer = sender.attempt(&claim).await;
            let took = began.elapsed();
            metrics.attempted(answer.outcome.as_str(), took);
            if answer.outcome == AttemptOutcome::Delivered {
                let since = u64::try_from(now_micros() - claim.delivery.at).unwrap_or(0);
                metrics.delivered(Duration::from_micros(since));
            }
            Ended { settlement: settlement(claim, answer, at, took), was_failing }
        });
    }

    /// Waits for the attempts under way and writes what came of them.
    async fn finish(&self, desk: &mut Desk) {
        while let Some(ended) = desk.under_way.join_next().await {
            desk.take(ended);
            desk.take_all();
            let (nothing, lease) = (Room { healthy: 0, failing: 0 }, (self.lease.as_str(), 0));
            match self.store.settle_and_claim(&desk.unwritten, nothing, lease).await {
                Ok(_) => desk.unwritten.clear(),
                Err(error) => tracing::warn!(%error, "an attempt could not be written"),
            }
        }
    }
}

impl Desk {
    fn places(&mut self, failing: bool) -> &mut usize {
        if failing { &mut self.failing } else { &mut self.healthy }
    }

    fn take(&mut self, ended: Result<Ended, JoinError>) {
        match ended {
            Ok(ended) => {
                let places = self.places(ended.was_failing);
                *places = places.saturating_sub(1);
                self.unwritten.push(ended.settlement);
            }
            // Its claim ends by time.
            Err(error) => tracing::error!(%error, "an attempt broke off"),
        }
        if self.under_way.is_empty() {
            (self.healthy, self.failing) = (0, 0);
        }
    }

    fn take_all(&mut self) {
        while let Some(ended) = self.under_way.try_join_next() {
            self.take(ended);
        }
    }
}

/// What an answer means for its delivery.
fn settlement(claim: Claim, answer: Answer, at: i64, took: Duration) -> Settlement {
    let (now, jitter) = (now_micros(), rand::random());
    let webhook = &claim.webhook;
    let verdict = match answer.outcome {
        AttemptOutcome::Delivered => {
            Verdict::Confirmed { again_at: schedule::again(webhook.behind_answers, now, jitter) }
        }
        AttemptOutcome::Gone => Verdict::Stop,
        // What tells the newest state is never too old to tell.
        _ if claim.event.is_some() && schedule::is_over(claim.delivery.first_attempt_at, now) => {
            Verdict::GiveUp { next_at: now }
        }
        _ => {
            let since = webhook.failing_since;
            let (at, not_before) = schedule::retry(since, now, answer.retry_after, jitter);
            Verdict::Retry { at, not_before }
        }
    };
    let attempt = Attempt {
        at,
        micros: micros(took),
        message_id: claim.delivery.message_id.clone(),
        revision: claim.delivery.stamp.revision,
        outcome: answer.outcome.as_str().to_owned(),
        status: answer.status,
        error: answer.error,
        answer: answer.text,
        applied_revision: answer.applied,
    };
    Settlement { claim, attempt, verdict }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
