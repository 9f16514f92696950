//! What is measured of a relay: its links to the upstream, what it holds, and what it hands on.

use metrics::{Counter, Gauge, Histogram};

use super::Metrics;

/// What a relay measures.
#[derive(Clone, Debug)]
pub struct RelayMetrics {
    metrics: Metrics,
    /// Streams of the upstream that are open.
    pub upstream_streams: Gauge,
    /// Longest time that flags have not been confirmed by the upstream, in seconds.
    pub stale: Gauge,
    /// From the upstream's word of a change to ours.
    pub lag: Histogram,
    /// Answers that were older than what is held.
    pub late: Counter,
    /// Times that the upstream's history went back.
    pub histories: Counter,
    /// Snapshots that could not be written.
    pub disk_errors: Counter,
    unknown: Gauge,
}

impl Metrics {
    /// Handles for a relay.
    #[must_use]
    pub fn relay(&self) -> RelayMetrics {
        RelayMetrics {
            metrics: self.clone(),
            upstream_streams: self.gauge("flagcast_relay_upstream_streams", &[]),
            stale: self.gauge("flagcast_relay_stale_seconds", &[]),
            lag: self.histogram("flagcast_relay_lag_seconds", &[]),
            late: self.counter("flagcast_relay_late_answers_total", &[]),
            histories: self.counter("flagcast_relay_histories_total", &[]),
            disk_errors: self.counter("flagcast_relay_disk_errors_total", &[]),
            unknown: self.gauge("flagcast_relay_unknown_keys", &[]),
        }
    }
}

impl RelayMetrics {
    /// Counts a question for a snapshot, by what it gave.
    pub fn fetched(&self, outcome: &'static str) {
        let labels = [("outcome", outcome.to_owned())];
        self.metrics.counter("flagcast_relay_fetches_total", &labels).increment(1);
    }

    /// Counts a batch of usage counts, by what became of it.
    pub fn usage(&self, outcome: &'static str) {
        let labels = [("outcome", outcome.to_owned())];
        self.metrics.counter("flagcast_relay_usage_batches_total", &labels).increment(1);
    }

    /// How many environments have links in a state.
    pub fn environments(&self, state: &'static str, count: usize) {
        let labels = [("state", state.to_owned())];
        set(&self.metrics.gauge("flagcast_relay_environments", &labels), count);
    }

    /// How many keys are remembered as unknown.
    pub fn unknown(&self, count: usize) {
        set(&self.unknown, count);
    }

    /// Counts an environment that was not taken up because of a limit.
    pub fn limit_hit(&self) {
        self.metrics.limit_hit("environments_max");
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge needs no exact count")]
fn set(gauge: &Gauge, count: usize) {
    gauge.set(count as f64);
}
