//! What is measured of caches in front: purges, and the canary that looks from outside.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::{Counted, Metrics};

/// What purging caches measures.
#[derive(Clone, Debug)]
pub struct PurgeMetrics {
    durations: [Histogram; PurgeOutcome::ALL.len()],
}

/// How a purge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeOutcome {
    /// Every cache has forgotten.
    Done,
    /// A cache said no, or could not be reached.
    Failed,
    /// A cache did not answer in time.
    Timeout,
}

impl PurgeOutcome {
    /// Every outcome, in the order of their numbers.
    const ALL: [Self; 3] = [Self::Done, Self::Failed, Self::Timeout];

    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
        }
    }
}

impl PurgeMetrics {
    /// Records a purge that ended.
    pub fn record(&self, outcome: PurgeOutcome, duration: Duration) {
        self.durations[outcome as usize].record(duration);
    }
}

/// What the canary measures.
#[derive(Clone, Debug)]
pub struct CanaryMetrics {
    /// From the commit of a change to its ping, at our own public URL.
    pub arrival: Histogram,
    /// From the commit of a change to its flags there.
    pub refetch: Histogram,
    /// Changes that did not arrive.
    pub missed: Counter,
    /// Reads that were answered with older flags than asked for.
    pub stale: Counter,
    /// Reads that failed.
    pub read_failures: Counter,
    open: Gauge,
    ends: [Counter; CanaryEnd::ALL.len()],
}

/// How a stream of the canary ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryEnd {
    /// Cleanly, as they all do.
    Planned,
    /// Within a second: a cache hands out a recording.
    Replayed,
    /// Broken off: a restart, or a hop that cuts.
    Cut,
    /// Nothing came, not even heartbeats.
    Silent,
    /// There was none.
    Refused,
}

impl CanaryEnd {
    /// Every end, in the order of their numbers.
    const ALL: [Self; 5] = [Self::Planned, Self::Replayed, Self::Cut, Self::Silent, Self::Refused];

    fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Replayed => "replayed",
            Self::Cut => "cut",
            Self::Silent => "silent",
            Self::Refused => "refused",
        }
    }
}

impl CanaryMetrics {
    /// Counts a stream while it is open.
    #[must_use]
    pub fn open(&self) -> Counted {
        Counted::new(&self.open)
    }

    /// Counts the end of a stream.
    pub fn ended(&self, end: CanaryEnd) {
        self.ends[end as usize].increment(1);
    }
}

impl Metrics {
    /// Handles for purging caches.
    #[must_use]
    pub fn purge(&self) -> PurgeMetrics {
        let durations = PurgeOutcome::ALL.map(|outcome| {
            let outcome = [("outcome", outcome.as_str().to_owned())];
            self.histogram("flagcast_purge_duration_seconds", &outcome)
        });
        PurgeMetrics { durations }
    }

    /// Handles for the canary.
    #[must_use]
    pub fn canary(&self) -> CanaryMetrics {
        let ends = CanaryEnd::ALL.map(|end| {
            let end = [("end", end.as_str().to_owned())];
            self.counter("flagcast_canary_stream_ends_total", &end)
        });
        CanaryMetrics {
            arrival: self.histogram("flagcast_canary_arrival_seconds", &[]),
            refetch: self.histogram("flagcast_canary_refetch_seconds", &[]),
            missed: self.counter("flagcast_canary_missed_total", &[]),
            stale: self.counter("flagcast_canary_stale_total", &[]),
            read_failures: self.counter("flagcast_canary_read_failures_total", &[]),
            open: self.gauge("flagcast_canary_streams_open", &[]),
            ends,
        }
    }
}
