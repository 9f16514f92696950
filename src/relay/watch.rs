//! What operators may ask a relay: its links, one by one and in sum, and whether it should get traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::held::{Held, Line};
use super::status::{LineReport, Phase, Report};
use super::upstream::{Name, Upstream};
use super::usage::Usage;
use crate::model::Secret;
use crate::told::Told;

/// What operators may ask a relay.
#[derive(Clone, Debug)]
pub struct Watch {
    pub(super) held: Arc<Held>,
    pub(super) told: Arc<Told>,
    pub(super) usage: Usage,
    pub(super) upstream: Upstream,
    pub(super) unknown: Arc<AtomicUsize>,
    pub(super) named: Vec<(Name, Secret)>,
    pub(super) ready_stale: Duration,
}

impl Watch {
    /// Everything, environment by environment.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut environments: Vec<_> =
            self.held.lines().iter().map(|line| self.line(line)).collect();
        environments.sort_by(|a, b| a.client_key.cmp(&b.client_key));
        Report {
            upstream: self.upstream.base().to_owned(),
            kind: self.upstream.kind(),
            environments,
            unknown_keys: self.unknown.load(Ordering::Relaxed),
            usage_waiting: self.usage.waiting(),
        }
    }

    /// How many environments are held, and in which state their links are.
    #[must_use]
    pub fn describe(&self) -> String {
        let phases: Vec<_> = self.held.lines().iter().map(|line| line.status().phase).collect();
        let live = phases.iter().filter(|phase| **phase == Phase::Live).count();
        let sign = if live == phases.len() { '+' } else { '-' };
        format!("[{sign}]upstream: {live} of {} environments are followed", phases.len())
    }

    fn line(&self, line: &Line) -> LineReport {
        let (snapshot, status) = (line.snapshot(), line.status());
        let environment = &snapshot.environment;
        LineReport {
            client_key: environment.client_key.as_str().to_owned(),
            name: environment.name.clone(),
            state: status.phase,
            revision: environment.stamp.revision,
            updated_at: environment.stamp.updated_at,
            epoch: snapshot.epoch.clone(),
            upstream_revision: status.upstream_revision,
            stale_seconds: status.stale().as_secs_f64(),
            lag_ms: status.lag.map(|lag| lag.as_secs_f64() * 1000.0),
            streams: self.told.hub.open(line.id),
            error: status.error,
        }
    }

    /// Why this relay should get no traffic, if it should get none: it does not hold what it was told to hold, or
    /// some of it has gone unconfirmed for too long, if the settings name such a time.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        let lines = self.held.lines();
        let holds = |name: &Name| {
            let key = self.upstream.owner(name);
            key.is_some_and(|key| lines.iter().any(|line| line.is_of(&key)))
        };
        if let Some((missing, _)) = self.named.iter().find(|(name, _)| !holds(name)) {
            return Some(format!("no snapshot of {missing} yet"));
        }
        if self.ready_stale.is_zero() {
            return None;
        }
        let stale = lines.iter().map(|line| line.status().stale()).max().unwrap_or_default();
        if stale < self.ready_stale {
            return None;
        }
        let seconds = stale.as_secs();
        Some(format!("flags have not been confirmed by the upstream for {seconds} s"))
    }
}
