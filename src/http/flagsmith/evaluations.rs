//! Counts evaluations in memory and hands them on now and then: to the store, or at a relay to its upstream.
//!
//! SDKs report every ten seconds; a write for each report would keep the store busy with numbers
//! that nobody waits for. A crash loses what was not written yet, at most
//! `analytics.flush_seconds`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::metrics::AnalyticsMetrics;
use crate::model::EnvironmentId;
use crate::origin::Ledger;
use crate::store::EvaluationCount;

/// Different flags that may wait to be written. Only flags that exist are counted, so more would
/// mean that the store has been away for long.
const PENDING_MAX: usize = 100_000;

/// The counts that are not written yet.
#[derive(Debug)]
pub struct Evaluations {
    pending: Mutex<HashMap<(EnvironmentId, String, String), u64>>,
    metrics: AnalyticsMetrics,
}

impl Evaluations {
    /// Begins at nothing.
    #[must_use]
    pub fn new(metrics: AnalyticsMetrics) -> Self {
        Self { pending: Mutex::default(), metrics }
    }

    /// Adds `count` evaluations of the flag `key` to today's.
    pub(super) fn add(&self, environment: EnvironmentId, key: &str, count: u64) {
        let day = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = (environment, key.to_ascii_lowercase(), day);
        if pending.len() >= PENDING_MAX && !pending.contains_key(&entry) {
            self.metrics.dropped.increment(count);
            return;
        }
        self.metrics.evaluations.increment(count);
        let sum = pending.entry(entry).or_default();
        *sum = sum.saturating_add(count);
    }

    /// Writes what is waiting. What cannot be written waits on.
    pub async fn flush(&self, ledger: &dyn Ledger) {
        let taken =
            std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        if taken.is_empty() {
            return;
        }
        let counts: Vec<EvaluationCount> = taken
            .iter()
            .map(|((environment_id, feature_key, day), count)| EvaluationCount {
                environment_id: *environment_id,
                feature_key: feature_key.clone(),
                day: day.clone(),
                count: *count,
            })
            .collect();
        if let Err(error) = ledger.add_evaluations(&counts).await {
            tracing::warn!(%error, "cannot write evaluation counts; they wait");
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            for (entry, count) in taken {
                let sum = pending.entry(entry).or_default();
                *sum = sum.saturating_add(count);
            }
        }
    }
}
