//! Usage counts on their way to the upstream: folded into batches, each with an id that it keeps, so that a
//! batch whose answer was lost is not counted twice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::upstream::{Failure, Handed, Upstream};
use crate::metrics::RelayMetrics;
use crate::shutdown::Shutdown;

/// Batches that may wait; then the oldest is dropped, and counted. One holds the counts of an environment
/// between two flushes.
const WAITING_MAX: usize = 10_000;

/// Shortest and longest rest after an upstream that took nothing.
const REST: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

/// Longest time for what waits at the stop.
pub const LAST_WAIT: Duration = Duration::from_secs(2);

/// Batches that wait. Clones share them.
#[derive(Clone, Debug)]
pub struct Usage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    waiting: Mutex<VecDeque<Batch>>,
    added: Notify,
    metrics: RelayMetrics,
}

/// Counts of one environment.
#[derive(Clone, Debug)]
struct Batch {
    client_key: String,
    body: Json,
}

/// How often flags were evaluated, by key and day.
pub(super) type Counts = BTreeMap<(String, String), u64>;

impl Usage {
    /// Nothing waits.
    #[must_use]
    pub fn new(metrics: RelayMetrics) -> Self {
        let inner = Inner { waiting: Mutex::default(), added: Notify::new(), metrics };
        Self { inner: Arc::new(inner) }
    }

    /// Adds the counts of an environment.
    pub(super) fn add(&self, client_key: String, counts: Counts) {
        self.pass_on(client_key, &uuid::Uuid::new_v4().to_string(), counts);
    }

    /// Adds a batch that has an id already.
    pub(super) fn pass_on(
        &self,
        client_key: String,
        id: &str,
        counts: impl IntoIterator<Item = ((String, String), u64)>,
    ) {
        let counts: Vec<Json> = counts
            .into_iter()
            .map(
                |((feature, day), count)| json!({ "feature": feature, "day": day, "count": count }),
            )
            .collect();
        let batch = Batch { client_key, body: json!({ "id": id, "counts": counts }) };
        let mut waiting = self.lock();
        if waiting.len() >= WAITING_MAX {
            waiting.pop_front();
            self.inner.metrics.usage("dropped");
        }
        waiting.push_back(batch);
        drop(waiting);
        self.inner.added.notify_one();
    }

    /// Batches that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// Hands them on until the stop, and then what is left, if that goes quickly.
    pub async fn run(self, upstream: Upstream, shutdown: Shutdown) {
        let mut rest = REST[0];
        loop {
            let worked = tokio::select! {
                () = shutdown.stopped() => break,
                worked = self.hand_on(&upstream) => worked,
            };
            if worked {
                rest = REST[0];
                tokio::select! {
                    () = shutdown.stopped() => break,
                    () = self.inner.added.notified() => {}
                }
            } else {
                tokio::select! {
                    () = shutdown.stopped() => break,
                    () = sleep(rest.mul_f64(rand::random_range(0.5..1.5))) => {}
                }
                rest = (rest * 2).min(REST[1]);
            }
        }
        drop(timeout(LAST_WAIT, self.hand_on(&upstream)).await);
        let left = self.waiting();
        if left > 0 {
            tracing::warn!(
                batches = left,
                "usage counts are lost: the upstream does not take them"
            );
        }
    }

    /// Hands on what waits, the oldest first. Tells whether all of it went.
    async fn hand_on(&self, upstream: &Upstream) -> bool {
        loop {
            let Some(batch) = self.lock().front().cloned() else { return true };
            match upstream.usage(&batch.client_key, &batch.body).await {
                Ok(Handed::Taken) => self.inner.metrics.usage("sent"),
                Ok(Handed::Uncertain) => {
                    tracing::warn!(
                        "usage counts were sent, and no answer came; they are not sent again"
                    );
                    self.inner.metrics.usage("uncertain");
                }
                Err(Failure::Away(error)) => {
                    tracing::warn!(%error, "cannot hand usage counts on; they wait");
                    return false;
                }
                Err(Failure::Refused(error)) => {
                    tracing::error!(%error, "the upstream does not take usage counts");
                    self.inner.metrics.usage("refused");
                }
            }
            // Only this task takes from the front, but a full queue may have lost it meanwhile.
            let mut waiting = self.lock();
            if waiting.front().is_some_and(|first| first.body["id"] == batch.body["id"]) {
                waiting.pop_front();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Batch>> {
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
