//! How long to wait between tries. Everything is jittered: when a gateway comes back, its receivers
//! must not all knock at once.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The longest wait between two tries.
pub(crate) const LONGEST: Duration = Duration::from_mins(1);

/// Milliseconds before the first tries; then [`LONGEST`].
const STEPS: [u64; 10] = [0, 100, 300, 1000, 1000, 2000, 4000, 8000, 15_000, 30_000];

/// How far a wait is moved in either direction.
const JITTER: f64 = 0.2;

/// The wait before a try, counted from 0, at least as long as the other side has asked for.
pub(crate) fn before(attempt: usize, asked_for: Duration) -> Duration {
    let step =
        STEPS.get(attempt).map_or(LONGEST, |milliseconds| Duration::from_millis(*milliseconds));
    jittered(step).max(asked_for).min(LONGEST)
}

/// A span, up to a fifth longer or shorter.
pub(crate) fn jittered(span: Duration) -> Duration {
    span.mul_f64(1.0 + JITTER * (2.0 * random() - 1.0))
}

/// From 0 to 1. Standard hashing begins at random; that is random enough to spread a crowd.
fn random() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_spread() {
        assert_eq!(before(0, Duration::ZERO), Duration::ZERO);
        for attempt in 1..40 {
            let step = STEPS.get(attempt).map_or(LONGEST, |step| Duration::from_millis(*step));
            let waits: Vec<_> = (0..200).map(|_| before(attempt, Duration::ZERO)).collect();
            let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(*least >= step.mul_f64(0.8) && *most <= step.mul_f64(1.2).min(LONGEST));
            assert!(*most > *least + step / 20, "{attempt}: {least:?} to {most:?}");
        }
    }

    #[test]
    fn what_is_asked_for_is_obeyed_within_reason() {
        assert_eq!(before(0, Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(before(1, Duration::from_hours(1)), LONGEST);
    }
}
