//! When an endpoint that failed is tried again.
//!
//! The plan is counted from its first failure, not by attempts: an attempt that a new change brings
//! forward uses nothing up. It covers two days, by which Monday's operators have seen Saturday's fault;
//! after that the endpoint is probed for ever, at growing intervals, and comes back by itself.

use std::time::Duration;

use crate::model::FAILED_AFTER_MICROS;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Pauses from one attempt to the next; their sum is two days and some minutes.
const PAUSES: [i64; 10] = [
    5 * SECOND,
    30 * SECOND,
    2 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    17 * HOUR,
];

/// Pauses between probes of an endpoint that has failed.
const PROBE_PAUSES: (i64, i64) = (24 * HOUR, 72 * HOUR);

/// What `Retry-After` may ask for, whatever the plan says.
const RETRY_AFTER_MAX: i64 = HOUR;

/// An endpoint that confirms, but has not applied the newest, is told again after these pauses.
const BEHIND_PAUSES: [i64; 6] =
    [5 * SECOND, 30 * SECOND, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, 2 * HOUR];

/// When to try again, in microseconds since the epoch, with the instant before which no change is a
/// reason to come. `jitter` is 0 to 1: endpoints that failed together do not come back together.
pub(super) fn retry(
    failing_since: Option<i64>,
    now: i64,
    retry_after: Option<Duration>,
    jitter: f64,
) -> (i64, i64) {
    let failing = now - failing_since.unwrap_or(now);
    let pause = spread(pause_after(failing.max(0)), jitter);
    let asked = retry_after.map_or(0, |after| i64::try_from(after.as_micros()).unwrap_or(i64::MAX));
    let asked = asked.min(RETRY_AFTER_MAX.max(2 * pause));
    let not_before = if asked > 0 { now + asked } else { 0 };
    (now + pause.max(asked), not_before)
}

/// The planned pause at a time since the first failure: that in whose span it falls.
fn pause_after(failing: i64) -> i64 {
    let mut planned = 0;
    for pause in PAUSES {
        // Half-way to the planned attempt counts as its predecessor's place: jitter moves attempts.
        if failing <= planned + pause / 2 {
            return pause;
        }
        planned += pause;
    }
    (failing / 2).clamp(PROBE_PAUSES.0, PROBE_PAUSES.1)
}

/// Whether a delivery that was first attempted then has been tried for the whole plan.
pub(super) fn is_over(first_attempt_at: Option<i64>, now: i64) -> bool {
    first_attempt_at.is_some_and(|first| now - first >= FAILED_AFTER_MICROS)
}

/// When to tell an endpoint again that has confirmed and not applied, so many times in a row.
pub(super) fn again(behind_answers: u32, now: i64, jitter: f64) -> i64 {
    let at = usize::try_from(behind_answers).unwrap_or(usize::MAX).min(BEHIND_PAUSES.len() - 1);
    now + spread(BEHIND_PAUSES[at], jitter)
}

/// Up to a fifth more or less.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "some hours")]
fn spread(pause: i64, jitter: f64) -> i64 {
    (pause as f64 * (0.8 + 0.4 * jitter)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No jitter.
    const MIDDLE: f64 = 0.5;

    #[test]
    fn an_endpoint_is_tried_ten_times_in_two_days_and_probed_for_ever() {
        for jitter in [0.0, MIDDLE, 1.0] {
            let start = 1_000_000 * SECOND;
            let (mut now, mut pauses) = (start, Vec::new());
            while now - start < 14 * 24 * HOUR {
                let (next, not_before) = retry(Some(start), now, None, jitter);
                assert_eq!(not_before, 0);
                pauses.push(next - now);
                now = next;
            }
            let planned: Vec<_> = PAUSES.iter().map(|pause| spread(*pause, jitter)).collect();
            assert_eq!(pauses[..10], planned, "jitter {jitter}");
            // Jitter may have shortened the plan; then its last pause comes once more.
            assert!(pauses[10..].is_sorted() && pauses[11] >= spread(24 * HOUR, jitter));
            assert!(pauses.last().unwrap() <= &spread(72 * HOUR, jitter));
        }
        let sum: i64 = PAUSES.iter().sum();
        assert!((FAILED_AFTER_MICROS..FAILED_AFTER_MICROS + HOUR).contains(&sum));
    }

    #[test]
    fn an_attempt_that_a_change_brought_forward_uses_nothing_up() {
        let start = 1_000_000 * SECOND;
        // Every half minute for ten minutes: the pause is still that of the tenth minute.
        let (next, _) = retry(Some(start), start + 10 * MINUTE, None, MIDDLE);
        assert_eq!(next - (start + 10 * MINUTE), 30 * MINUTE);
        let (first, _) = retry(None, start, None, MIDDLE);
        assert_eq!(first - start, 5 * SECOND);
    }

    #[test]
    fn retry_after_is_honoured_within_bounds() {
        let (now, seconds) = (1_000_000 * SECOND, |n| Some(Duration::from_secs(n)));
        assert_eq!(retry(None, now, seconds(60), MIDDLE), (now + MINUTE, now + MINUTE));
        // Sooner than planned is not sooner.
        assert_eq!(retry(None, now, seconds(1), MIDDLE), (now + 5 * SECOND, now + SECOND));
        assert_eq!(retry(None, now, seconds(7 * 86400), MIDDLE).0, now + HOUR);
        let late = retry(Some(now - 12 * HOUR), now, seconds(30 * 86400), MIDDLE).0;
        assert_eq!(late, now + 2 * 10 * HOUR);
        assert_eq!(retry(None, now, Some(Duration::MAX), MIDDLE).0, now + HOUR);
    }

    #[test]
    fn an_endpoint_that_applies_nothing_is_told_less_and_less_often() {
        assert_eq!(again(0, 0, MIDDLE), 5 * SECOND);
        assert_eq!(again(1, 0, MIDDLE), 30 * SECOND);
        assert_eq!(again(99, 0, MIDDLE), 2 * HOUR);
    }

    #[test]
    fn a_delivery_is_given_up_when_the_plan_is_over() {
        let now = 1_000_000 * HOUR;
        assert!(!is_over(None, now) && !is_over(Some(now - 47 * HOUR), now));
        assert!(is_over(Some(now - 48 * HOUR), now));
    }
}
