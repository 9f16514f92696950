//! What telling webhooks measures.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::Metrics;

/// Handles of the worker and of those who count endpoints.
#[derive(Clone, Debug)]
pub struct WebhookMetrics {
    /// By outcome.
    attempts: BTreeMap<&'static str, Counter>,
    duration: Histogram,
    /// From the change to its confirmation.
    delivered: Histogram,
    /// By status, in the order in which they were named.
    endpoints: Vec<Gauge>,
    behind: Gauge,
    pending: Gauge,
}

impl WebhookMetrics {
    /// An attempt ended.
    pub fn attempted(&self, outcome: &'static str, took: Duration) {
        if let Some(counter) = self.attempts.get(outcome) {
            counter.increment(1);
        }
        self.duration.record(took);
    }

    /// An endpoint confirmed, so long after the change.
    pub fn delivered(&self, since_change: Duration) {
        self.delivered.record(since_change);
    }

    /// How many endpoints there are of each status, how many have not applied the newest revision, and
    /// how many deliveries wait.
    pub fn count(&self, endpoints: &[u32], behind: u32, pending: u32) {
        for (gauge, count) in self.endpoints.iter().zip(endpoints) {
            gauge.set(f64::from(*count));
        }
        self.behind.set(f64::from(behind));
        self.pending.set(f64::from(pending));
    }
}

impl Metrics {
    /// Handles for webhooks, with the names of attempts' outcomes and of endpoints' statuses.
    pub fn webhook(
        &self,
        outcomes: impl IntoIterator<Item = &'static str>,
        statuses: impl IntoIterator<Item = &'static str>,
    ) -> WebhookMetrics {
        let attempts = outcomes.into_iter().map(|outcome| {
            let label = [("outcome", outcome.to_owned())];
            (outcome, self.counter("flagcast_webhook_attempts_total", &label))
        });
        let endpoints = statuses.into_iter().map(|status| {
            self.gauge("flagcast_webhook_endpoints", &[("status", status.to_owned())])
        });
        WebhookMetrics {
            attempts: attempts.collect(),
            duration: self.histogram("flagcast_webhook_attempt_seconds", &[]),
            delivered: self.histogram("flagcast_webhook_change_to_delivered_seconds", &[]),
            endpoints: endpoints.collect(),
            behind: self.gauge("flagcast_webhook_endpoints_behind", &[]),
            pending: self.gauge("flagcast_webhook_deliveries_pending", &[]),
        }
    }
}
