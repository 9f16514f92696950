//! What operators see of a relay: each environment with its link.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::model::{Revision, UpdatedAt};

/// Where a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It was just taken up; its stream is not open yet.
    Opening,
    /// What is held came from the disk; the upstream has not been reached yet.
    Disk,
    /// The stream is open, and what is held is what the upstream says.
    Live,
    /// The upstream does not answer.
    Away,
    /// The upstream does not let us in.
    Refused,
    /// The upstream says that there is no such environment; it is served until that is sure.
    Missing,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Opening, Self::Disk, Self::Live, Self::Away, Self::Refused, Self::Missing];

    /// As it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Disk => "disk",
            Self::Live => "live",
            Self::Away => "away",
            Self::Refused => "refused",
            Self::Missing => "missing",
        }
    }
}

/// What is known of a link.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) phase: Phase,
    /// Since when nobody has confirmed that what is held is the newest.
    pub(super) unconfirmed_since: Option<Instant>,
    /// The newest revision that the upstream told of.
    pub(super) upstream_revision: Option<Revision>,
    /// From the upstream's word to ours, of the last change.
    pub(super) lag: Option<Duration>,
    /// Why the upstream could not be asked the last time, if it could not.
    pub(super) error: Option<String>,
}

impl Status {
    pub(super) fn new(phase: Phase) -> Self {
        Self {
            phase,
            unconfirmed_since: (phase != Phase::Live).then(Instant::now),
            upstream_revision: None,
            lag: None,
            error: None,
        }
    }

    /// What is held is the newest, as of now.
    pub(super) fn confirm(&mut self) {
        self.phase = Phase::Live;
        self.unconfirmed_since = None;
        self.error = None;
    }

    /// It may not be the newest any more.
    pub(super) fn doubt(&mut self, phase: Phase, error: Option<String>) {
        // What came from the disk stays that until it was confirmed once.
        if self.phase != Phase::Disk || phase != Phase::Away {
            self.phase = phase;
        }
        self.unconfirmed_since.get_or_insert_with(Instant::now);
        if error.is_some() {
            self.error = error;
        }
    }

    /// For how long what is held may have been old; nothing while it is followed.
    pub(super) fn stale(&self) -> Duration {
        self.unconfirmed_since.map(|since| since.elapsed()).unwrap_or_default()
    }
}

/// `GET /relay/status`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where the upstream is; without credentials.
    pub upstream: String,
    /// `flagcast` or `flagsmith`.
    pub kind: &'static str,
    /// Each environment that is held, by client key.
    pub environments: Vec<LineReport>,
    /// Keys that are remembered as unknown.
    pub unknown_keys: usize,
    /// Usage counts that wait for the upstream.
    pub usage_waiting: usize,
}

/// One environment that is held.
#[derive(Clone, Debug, Serialize)]
pub struct LineReport {
    /// Its public key.
    pub client_key: String,
    /// What people call it.
    pub name: String,
    /// Where its link is.
    pub state: Phase,
    /// What is served.
    pub revision: Revision,
    /// When that was committed, in seconds since the epoch.
    pub updated_at: UpdatedAt,
    /// The history that the revision counts in.
    pub epoch: String,
    /// The newest revision that the upstream told of.
    pub upstream_revision: Option<Revision>,
    /// Seconds since the upstream confirmed that what is served is the newest; 0 while it is followed.
    pub stale_seconds: f64,
    /// Milliseconds from the upstream's word of the last change to ours.
    pub lag_ms: Option<f64>,
    /// Open streams of clients.
    pub streams: usize,
    /// Why the upstream could not be asked, if it cannot.
    pub error: Option<String>,
}
