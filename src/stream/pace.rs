//! The times of a stream.

use std::ops::Range;
use std::time::Duration;

use rand::RngExt as _;

/// Time over which streams are cut that caches share, when their node has lost its store.
const CUT_SPREAD: Duration = Duration::from_secs(3);

/// When a drain ends a stream, its client comes back within this time, in milliseconds: later than
/// a restart takes, and not all at once.
const DRAIN_RETRY_MS: Range<u64> = 1_000..5_000;

/// A refused client comes back within this time, in milliseconds.
const REFUSED_RETRY_MS: Range<u64> = 10_000..30_000;

/// Seconds by which a stream outlives its freshness in a cache: an age is told in whole seconds, so
/// each tier may take up to one more. Measured: none is too few behind two tiers.
const FRESH_MARGIN_SECONDS: u64 = 3;

/// Shortest life of a stream that a cache shares: it must have some freshness within the margin.
const CACHED_LIFE_MIN: Duration = Duration::from_secs(6);

/// The times of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Silence after which a heartbeat is due.
    pub heartbeat: Duration,
    /// Planned life; then the stream ends and the client comes back.
    pub life: Duration,
    /// Time over which a drain ends streams that can be ended at any time.
    pub drain: Duration,
}

impl Pace {
    /// The same pace with a life that a cache can share.
    pub(super) fn cacheable(self) -> Self {
        Self { life: self.life.max(CACHED_LIFE_MIN), ..self }
    }

    /// How long a cache may hand a stream of this life out to further clients, in whole seconds.
    pub(super) fn fresh_seconds(self) -> u64 {
        self.life.as_secs().saturating_sub(FRESH_MARGIN_SECONDS)
    }

    /// The same pace with a life that differs by up to a fifth, so that streams which began
    /// together do not end together.
    pub(super) fn spread(self) -> Self {
        let factor = rand::rng().random_range(0.8..1.2);
        Self { life: self.life.mul_f64(factor), ..self }
    }
}

/// How long after the beginning of a drain a stream is cut that a cache shares: later than any other
/// stream, because its planned end may come by then, and before the grace period is over.
pub(super) fn cut_of_drain(drain: Duration) -> Duration {
    // A drain is three quarters of the grace period.
    drain.mul_f64(rand::rng().random_range(1.0..1.2))
}

/// How long after the beginning of a drain a stream ends: any time within it.
pub(super) fn share_of_drain(drain: Duration) -> Duration {
    drain.mul_f64(rand::rng().random_range(0.0..1.0))
}

/// How long after its cut was decided a stream that a cache shares ends: any time within a moment, so that
/// not all come back at once.
pub(super) fn share_of_cut() -> Duration {
    CUT_SPREAD.mul_f64(rand::rng().random_range(0.0..1.0))
}

/// When a client whose stream a drain ends should come back, in milliseconds.
pub(super) fn drain_retry() -> u64 {
    rand::rng().random_range(DRAIN_RETRY_MS)
}

/// When a refused client should come back, in milliseconds.
pub(super) fn refused_retry() -> u64 {
    rand::rng().random_range(REFUSED_RETRY_MS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cached_stream_outlives_its_freshness(millis in 0_u64..200_000) {
            let nothing = Duration::ZERO;
            let life = Duration::from_millis(millis);
            let pace = Pace { heartbeat: nothing, life, drain: nothing }.spread().cacheable();
            let fresh = Duration::from_secs(pace.fresh_seconds());
            prop_assert!(fresh >= Duration::from_secs(3), "a herd must meet in the cache");
            prop_assert!(pace.life >= fresh + Duration::from_secs(FRESH_MARGIN_SECONDS));
            prop_assert!(pace.life < fresh + Duration::from_secs(FRESH_MARGIN_SECONDS + 1));
        }
    }
}
