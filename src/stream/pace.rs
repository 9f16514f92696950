//! The times of a stream.

use std::ops::Range;
use std::time::Duration;

use rand::RngExt as _;

/// When a drain ends a stream, its client comes back within this time, in milliseconds: later than
/// a restart takes, and not all at once.
const DRAIN_RETRY_MS: Range<u64> = 1_000..5_000;

/// A refused client comes back within this time, in milliseconds.
const REFUSED_RETRY_MS: Range<u64> = 10_000..30_000;

/// The times of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Silence after which a heartbeat is due.
    pub heartbeat: Duration,
    /// Planned life; then the stream ends and the client comes back.
    pub life: Duration,
    /// Time over which a drain ends streams.
    pub drain: Duration,
}

impl Pace {
    /// The same pace with a life that differs by up to a fifth, so that streams which began
    /// together do not end together.
    #[must_use]
    pub fn spread(self) -> Self {
        let factor = rand::rng().random_range(0.8..1.2);
        Self { life: self.life.mul_f64(factor), ..self }
    }
}

/// How long after the beginning of a drain a stream ends: any time within it.
pub(super) fn share_of_drain(drain: Duration) -> Duration {
    drain.mul_f64(rand::rng().random_range(0.0..1.0))
}

/// When a client whose stream a drain ends should come back, in milliseconds.
pub(super) fn drain_retry() -> u64 {
    rand::rng().random_range(DRAIN_RETRY_MS)
}

/// When a refused client should come back, in milliseconds.
pub(super) fn refused_retry() -> u64 {
    rand::rng().random_range(REFUSED_RETRY_MS)
}
