//! Which deliveries came already: an attempt that comes twice is somebody's recording.
//!
//! A retry of the gateway has the same id and a time of its own, so id and time together name an
//! attempt. They are kept for as long as the time would still be accepted, and no longer.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Attempts that are kept at most. Only who knows the secret can add one, and a gateway sends one at
/// a time; beyond this the oldest are forgotten.
const KEPT: usize = 10_000;

/// The attempts that were seen, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<BTreeSet<(i64, String)>>);

impl Seen {
    /// Notes an attempt; `false` if it was there. Those before `oldest` (seconds) are forgotten.
    pub(crate) fn is_new(&self, id: &str, timestamp: i64, oldest: i64) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while seen.first().is_some_and(|(timestamp, _)| *timestamp < oldest) || seen.len() > KEPT {
            seen.pop_first();
        }
        seen.insert((timestamp, id.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_new_once() {
        let seen = Seen::default();
        assert!(seen.is_new("a", 1000, 700));
        assert!(!seen.is_new("a", 1000, 700));
        assert!(seen.is_new("a", 1005, 700), "a retry has a time of its own");
        assert!(seen.is_new("b", 1000, 700));
        assert!(!seen.is_new("b", 1000, 1000), "for as long as its time is accepted");
    }

    #[test]
    fn memory_is_bounded_by_time_and_number() {
        let seen = Seen::default();
        let kept = || seen.0.lock().unwrap().len();
        for second in 0..2000 {
            assert!(seen.is_new("a", second, second - 600));
        }
        assert_eq!(kept(), 601);
        for number in 0..3 * KEPT {
            assert!(seen.is_new(&number.to_string(), 5000, 0));
        }
        assert_eq!(kept(), KEPT + 1);
        assert!(!seen.is_new(&(3 * KEPT - 1).to_string(), 5000, 0), "the newest are kept");
    }
}
