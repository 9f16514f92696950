//! `stream.pings_per_second_max`: how many pings a shard may write now.
//!
//! Every ping makes a client read. Where nothing in front collapses those reads, pings that leave
//! at a pace make reads that come at a pace.

use std::time::{Duration, Instant};

/// Pings are allowed in portions of this time, so that a low pace does not mean many short turns.
const PORTION: Duration = Duration::from_millis(10);

/// A bucket that fills at the pace and holds two portions: a shard is not always punctual.
#[derive(Debug)]
pub(super) struct Throttle {
    per_second: f64,
    allowed: f64,
    filled: Instant,
}

impl Throttle {
    /// With 0 there is no limit.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second: f64::from(per_second), allowed: 0.0, filled: now }
    }

    /// How many of `wanted` pings may be written now.
    pub(super) fn allow(&mut self, wanted: usize, now: Instant) -> usize {
        if self.per_second == 0.0 {
            return wanted;
        }
        let since = now.saturating_duration_since(self.filled);
        self.filled = now;
        let most = (self.per_second * 2.0 * PORTION.as_secs_f64()).max(1.0);
        self.allowed = (self.allowed + self.per_second * since.as_secs_f64()).min(most);
        #[expect(clippy::cast_possible_truncation, reason = "whole pings, and few")]
        #[expect(clippy::cast_sign_loss, reason = "never negative")]
        let whole = self.allowed as usize;
        wanted.min(whole)
    }

    /// Counts pings that were written.
    pub(super) fn take(&mut self, pings: usize) {
        if self.per_second != 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "a slice is small")]
            let pings = pings as f64;
            self.allowed -= pings;
        }
    }

    /// When to ask again.
    pub(super) fn pause() -> Duration {
        PORTION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_a_second_it_allows_its_pace_however_often_it_is_asked() {
        for millis in [1, 7, 10, 25] {
            let began = Instant::now();
            let mut throttle = Throttle::new(500, began);
            let mut written = 0;
            for at in (0..=10_000_u64).step_by(millis) {
                let now = began + Duration::from_millis(at);
                let allowed = throttle.allow(256, now);
                throttle.take(allowed);
                written += allowed;
            }
            // The bucket holds what 20 ms bring; who asks more rarely gets less.
            let most = 5_000 * 20 / millis.max(20);
            assert!(written <= most + 5 && written >= most * 9 / 10, "{millis} ms: {written}");
        }
    }

    #[test]
    fn no_limit_allows_everything() {
        let now = Instant::now();
        let mut throttle = Throttle::new(0, now);
        throttle.take(1000);
        assert_eq!(throttle.allow(256, now), 256);
    }
}
