//! Webhooks: who is told of changes by a request of ours, what they are owed, and how it went.

use serde::{Deserialize, Serialize};

use super::{EnvironmentId, Revision, Secret, Stamp};

/// In front of the base64 of a secret's bytes.
pub const WEBHOOK_SECRET_PREFIX: &str = "whsec_";

/// Row number of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebhookId(pub i64);

/// What an endpoint is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookMode {
    /// The newest revision: changes while a delivery waits fold into it.
    #[default]
    State,
    /// Each change event, in order.
    Events,
}

/// In which words an endpoint is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookFormat {
    /// Ours, a Standard Webhooks payload.
    #[default]
    Flagcast,
    /// `FLAG_UPDATED` and `FLAG_DELETED`, as Flagsmith sends them.
    Flagsmith,
}

/// How an endpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookStatus {
    /// The last attempt succeeded, or there was none yet.
    Healthy,
    /// Attempts fail; they are repeated by the schedule.
    Failing,
    /// It failed for the whole schedule: it is probed, at growing intervals.
    Failed,
    /// It answered 410: it wants nothing more until somebody resumes it.
    Stopped,
    /// Somebody paused it.
    Paused,
}

impl WebhookStatus {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Healthy, Self::Failing, Self::Failed, Self::Stopped, Self::Paused];

    /// Its name in the API and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Failing => "failing",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
        }
    }
}

/// An endpoint: the URL of an app that wants to be told of an environment's changes.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Row number.
    pub id: WebhookId,
    /// Whose changes.
    pub environment_id: EnvironmentId,
    /// Where requests go.
    pub url: String,
    /// What it is for.
    pub description: String,
    /// What it is told.
    pub mode: WebhookMode,
    /// In which words.
    pub format: WebhookFormat,
    /// In events mode: which actions, `flag.updated` or `flag.*`; none means all.
    pub events: Vec<String>,
    /// Further headers of each request.
    pub headers: Vec<(String, Secret)>,
    /// Signs each request. Absent when it was sealed with a key that is not ours.
    pub secret: Option<Secret>,
    /// Signs beside it, while a rotation lasts.
    pub previous_secret: Option<Secret>,
    /// Somebody paused it.
    pub paused: bool,
    /// When it answered 410, in microseconds since the epoch.
    pub stopped_at: Option<i64>,
    /// Attempts that failed since the last success.
    pub failures: u32,
    /// When the first of them was, in microseconds since the epoch.
    pub failing_since: Option<i64>,
    /// The last attempt, in microseconds since the epoch.
    pub last_attempt_at: Option<i64>,
    /// How it ended.
    pub last_outcome: Option<String>,
    /// What was wrong with it.
    pub last_error: String,
    /// Confirmations in a row that were behind the newest revision.
    pub behind_answers: u32,
    /// The newest revision that it confirmed.
    pub delivered_revision: Option<Revision>,
    /// The revision that it said it has applied.
    pub applied_revision: Option<Revision>,
    /// Deliveries waiting.
    pub pending: u32,
    /// Events dropped because too many waited.
    pub dropped: u32,
    /// When it was made, in microseconds since the epoch.
    pub created_at: i64,
}

/// What a delivery is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryKind {
    /// The newest revision.
    State,
    /// One change event.
    Event,
    /// Somebody tries the endpoint.
    Test,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It is to be attempted.
    Pending,
    /// The endpoint confirmed it.
    Delivered,
    /// It was given up.
    Failed,
    /// Too many waited, and it was the oldest.
    Dropped,
}

/// Something that an endpoint is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Row number: the order of an endpoint's deliveries.
    pub id: i64,
    /// Its name on the wire, the same in every attempt.
    pub message_id: String,
    /// What it is about.
    pub kind: DeliveryKind,
    /// Where it stands.
    pub state: DeliveryState,
    /// The state of the environment that it tells.
    pub stamp: Stamp,
    /// Keys of the features that changed.
    pub changed: Vec<String>,
    /// The change event that it tells.
    pub event_id: Option<i64>,
    /// Attempts begun.
    pub attempts: u32,
    /// When the first was, in microseconds since the epoch.
    pub first_attempt_at: Option<i64>,
    /// When what it tells happened.
    pub at: i64,
    /// When the next attempt is due, if it is next.
    pub due_at: Option<i64>,
    /// When it ended.
    pub finished_at: Option<i64>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// 2xx.
    Delivered,
    /// 3xx, which is never followed.
    Redirected,
    /// 4xx.
    Refused,
    /// 410: the endpoint wants nothing more.
    Gone,
    /// 429.
    Throttled,
    /// 5xx.
    Failed,
    /// No answer in time.
    Timeout,
    /// No connection, or one that broke: DNS, TCP, TLS.
    Unreachable,
    /// Its address is not for webhooks to reach.
    Blocked,
    /// It could not be signed: the secret cannot be read.
    Unsigned,
}

impl AttemptOutcome {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Delivered,
        Self::Redirected,
        Self::Refused,
        Self::Gone,
        Self::Throttled,
        Self::Failed,
        Self::Timeout,
        Self::Unreachable,
        Self::Blocked,
        Self::Unsigned,
    ];

    /// Its name in the API, the store and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Redirected => "redirected",
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Blocked => "blocked",
            Self::Unsigned => "unsigned",
        }
    }
}

/// One request to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it began, in microseconds since the epoch.
    pub at: i64,
    /// How long it took, in microseconds.
    pub micros: i64,
    /// The message that it carried; a delivery that folds gets another.
    pub message_id: String,
    /// The revision that it told.
    pub revision: Revision,
    /// How it ended.
    pub outcome: String,
    /// Status of the answer.
    pub status: Option<u16>,
    /// What was wrong.
    pub error: String,
    /// The first kilobyte of the answer.
    pub answer: String,
    /// The revision that the endpoint said it has applied.
    pub applied_revision: Option<Revision>,
}

impl Webhook {
    /// How it does, at `now` in microseconds since the epoch.
    #[must_use]
    pub fn status(&self, now: i64) -> WebhookStatus {
        let long_failing = |since: i64| now - since >= FAILED_AFTER_MICROS;
        match self.failing_since {
            _ if self.paused => WebhookStatus::Paused,
            _ if self.stopped_at.is_some() => WebhookStatus::Stopped,
            Some(since) if long_failing(since) => WebhookStatus::Failed,
            Some(_) => WebhookStatus::Failing,
            None => WebhookStatus::Healthy,
        }
    }

    /// Revisions that it has not applied, or not confirmed if it does not say what it applied.
    /// Nothing of one that was never told anything.
    #[must_use]
    pub fn behind(&self, newest: Revision) -> u64 {
        let known = self.applied_revision.or(self.delivered_revision);
        known.map_or(0, |known| newest.0.saturating_sub(known.0))
    }
}

/// An endpoint that fails for so long has failed: the whole schedule of retries.
pub const FAILED_AFTER_MICROS: i64 = 48 * 3600 * 1_000_000;

/// Whether an endpoint with these filters is told of an action.
#[must_use]
pub fn wants_action(events: &[String], action: &str) -> bool {
    let matches = |filter: &String| match filter.strip_suffix('*') {
        Some(prefix) => action.starts_with(prefix),
        None => filter == action,
    };
    events.is_empty() || events.iter().any(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_name_actions_or_groups_of_them() {
        let of = |filters: &[&str]| filters.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>();
        assert!(wants_action(&[], "flag.updated"));
        assert!(wants_action(&of(&["flag.*"]), "flag.updated"));
        assert!(wants_action(&of(&["segment.updated", "flag.updated"]), "flag.updated"));
        assert!(!wants_action(&of(&["flag.*"]), "flagship.updated"));
        assert!(!wants_action(&of(&["flag.update"]), "flag.updated"));
    }
}
