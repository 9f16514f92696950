//! When a client comes back whose stream ended, as our clients and careful SDKs do it: a little
//! later, and not all at once; and later and later after one failure upon the other.

use std::time::{Duration, Instant};

use super::dice::Dice;
use crate::machine::now;

/// A client comes back after 0.5 to 1.5 times this.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest pause after failures, but for its chance.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A stream that ends earlier is a failure: a cache replays what is over, or a server is in trouble.
const SHORT: Duration = Duration::from_secs(1);

/// The visits of many clients.
#[derive(Debug)]
pub(super) struct Returns {
    dice: Dice,
    visits: Vec<Visit>,
    /// Streams that ended at once.
    pub(super) immediate: u64,
    pub(super) gaps: Vec<Gap>,
}

/// From the end of a client's stream until its next one was open, in nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Visit {
    /// Since when the stream is open, and when the one before ended.
    opened: Option<Instant>,
    lost: Option<i64>,
    /// Attempts without a stream that lasted, one upon the other.
    failures: u32,
}

impl Returns {
    pub(super) fn new(count: usize, seed: u64) -> Self {
        let visits = vec![Visit::default(); count];
        Self { dice: Dice::new(seed), visits, immediate: 0, gaps: Vec::new() }
    }

    /// Takes in that a client's stream is open.
    pub(super) fn opened(&mut self, index: usize, when: Instant) {
        let visit = &mut self.visits[index];
        visit.opened = Some(when);
        self.gaps.extend(visit.lost.take().map(|from| Gap { from, to: now() }));
    }

    /// Streams that have been open for so long that their end is none at once.
    pub(super) fn lasting(&self, when: Instant) -> usize {
        let since = self.visits.iter().filter_map(|visit| visit.opened);
        since.filter(|opened| when.duration_since(*opened) >= SHORT).count()
    }

    /// Takes in that a client's connection is gone, or was never made. Tells when it tries again.
    pub(super) fn lost(&mut self, index: usize, when: Instant) -> Duration {
        let visit = &mut self.visits[index];
        if let Some(opened) = visit.opened.take() {
            visit.lost = Some(now());
            if when.duration_since(opened) < SHORT {
                self.immediate += 1;
                visit.failures += 1;
            } else {
                visit.failures = 0;
            }
        } else {
            visit.failures += 1;
        }
        pause(PAUSE, visit.failures.saturating_sub(1), &mut self.dice)
    }
}

/// `first`, doubled `times` times, but not without end, times 0.5 to 1.5.
pub(super) fn pause(first: Duration, times: u32, dice: &mut Dice) -> Duration {
    let whole = first.saturating_mul(2_u32.saturating_pow(times)).min(PAUSE_MAX);
    let percent = u32::try_from(dice.roll(101)).unwrap_or_default();
    whole / 100 * (50 + percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(pause: Duration, low: u64, high: u64) -> bool {
        (Duration::from_millis(low)..=Duration::from_millis(high)).contains(&pause)
    }

    #[test]
    fn who_had_a_stream_comes_back_soon_and_who_fails_comes_later() {
        let (mut returns, began) = (Returns::new(2, 1), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        returns.opened(1, at(0));
        assert!(within(returns.lost(1, at(60)), 500, 1500));
        assert!(within(returns.lost(1, at(61)), 500, 1500), "nobody listened");
        assert!(within(returns.lost(1, at(62)), 1000, 3000), "again nobody listened");
        returns.opened(1, at(64));
        assert_eq!((returns.immediate, returns.gaps.len()), (0, 1));
        assert_eq!((returns.lasting(at(64)), returns.lasting(at(65))), (0, 1));
        assert!(returns.gaps[0].from <= returns.gaps[0].to);
        assert!(within(returns.lost(1, at(64)), 2000, 6000), "it ended at once");
        assert_eq!(returns.immediate, 1);
        returns.opened(1, at(70));
        assert!(within(returns.lost(1, at(130)), 500, 1500), "it lasted");
    }

    #[test]
    fn pauses_have_an_end_and_differ() {
        let mut dice = Dice::new(1);
        assert!(within(pause(PAUSE, 1000, &mut dice), 15_000, 45_000));
        let pauses: Vec<Duration> = (0..50).map(|_| pause(PAUSE, 0, &mut dice)).collect();
        assert!(pauses.iter().all(|pause| within(*pause, 500, 1500)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
