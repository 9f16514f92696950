//! What the answer of an endpoint means.

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::model::{AttemptOutcome, Revision};

/// By it a receiver says what it has applied.
pub(super) const APPLIED_HEADER: &str = "x-flagcast-applied-revision";

/// An answer, or what came instead of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) outcome: AttemptOutcome,
    pub(super) status: Option<u16>,
    /// What was wrong, for people.
    pub(super) error: String,
    /// The beginning of its body.
    pub(super) text: String,
    pub(super) applied: Option<Revision>,
    /// How long the endpoint wants to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl Answer {
    /// There is none.
    pub(super) fn missing(outcome: AttemptOutcome, error: String) -> Self {
        let (status, text, applied, retry_after) = (None, String::new(), None, None);
        Self { outcome, status, error, text, applied, retry_after }
    }

    /// Its head says it all; the body is for people. `now` is in seconds since the epoch.
    pub(super) fn of(status: u16, headers: &HeaderMap, now: u64) -> Self {
        let outcome = outcome(status);
        let error = match outcome {
            AttemptOutcome::Delivered => String::new(),
            AttemptOutcome::Redirected => {
                format!("answered {status}: redirects are not followed; set the URL they lead to")
            }
            _ => format!("answered {status}"),
        };
        Self {
            outcome,
            status: Some(status),
            error,
            text: String::new(),
            applied: headers
                .get(APPLIED_HEADER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok().map(Revision)),
            retry_after: headers
                .get(RETRY_AFTER)
                .and_then(|value| retry_after(value.to_str().ok()?.trim(), now)),
        }
    }
}

/// By the ranges of RFC 9110; 410 and 429 as Standard Webhooks has them.
fn outcome(status: u16) -> AttemptOutcome {
    match status {
        200..=299 => AttemptOutcome::Delivered,
        300..=399 => AttemptOutcome::Redirected,
        410 => AttemptOutcome::Gone,
        429 => AttemptOutcome::Throttled,
        400..=499 => AttemptOutcome::Refused,
        _ => AttemptOutcome::Failed,
    }
}

/// Seconds, or the date until which to wait (RFC 9110, section 10.2.3).
fn retry_after(text: &str, now: u64) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let since_epoch = until.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(since_epoch.saturating_sub(Duration::from_secs(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, headers: &[(&'static str, &'static str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
        });
        Answer::of(status, &headers.collect(), 1_700_000_000)
    }

    #[test]
    fn only_success_confirms() {
        for (status, outcome) in [
            (200, AttemptOutcome::Delivered),
            (204, AttemptOutcome::Delivered),
            (301, AttemptOutcome::Redirected),
            (308, AttemptOutcome::Redirected),
            (400, AttemptOutcome::Refused),
            (404, AttemptOutcome::Refused),
            (410, AttemptOutcome::Gone),
            (429, AttemptOutcome::Throttled),
            (500, AttemptOutcome::Failed),
            (503, AttemptOutcome::Failed),
            (999, AttemptOutcome::Failed),
        ] {
            assert_eq!(of(status, &[]).outcome, outcome, "{status}");
        }
    }

    #[test]
    fn a_receiver_may_say_what_it_has_and_when_to_come_back() {
        let answer = of(503, &[("retry-after", "7"), ("x-flagcast-applied-revision", "41")]);
        assert_eq!(answer.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(answer.applied, Some(Revision(41)));
        let date = of(429, &[("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT")]);
        assert_eq!(date.retry_after, Some(Duration::from_secs(30)));
        let past = of(429, &[("retry-after", "Tue, 14 Nov 2000 22:13:50 GMT")]);
        assert_eq!(past.retry_after, Some(Duration::ZERO));
        let odd = of(200, &[("retry-after", "soon"), ("x-flagcast-applied-revision", "v1")]);
        assert_eq!((odd.retry_after, odd.applied), (None, None));
    }
}
