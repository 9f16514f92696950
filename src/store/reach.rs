//! Whether the database answers: what readiness, streams and reads go by while it does not.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Store, StoreError};

/// Since when nothing was answered. Whoever reads all the time, the change feed, says so.
#[derive(Debug, Default)]
pub(super) struct Reach {
    silent_since: Mutex<Option<Instant>>,
    /// After so much silence the database counts as lost; nothing: never.
    lost_after: Option<Duration>,
}

impl Reach {
    pub(super) fn new(lost_after: Option<Duration>) -> Self {
        Self { silent_since: Mutex::default(), lost_after }
    }
}

impl Store {
    /// Takes note of an answer.
    pub fn answered(&self) {
        *self.reach.silent_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Takes note of a failure.
    pub fn failed(&self) {
        let mut since = self.reach.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now);
    }

    /// For how long nothing was answered; nothing while it answers.
    #[must_use]
    pub fn silent_for(&self) -> Option<Duration> {
        let since = self.reach.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| since.elapsed())
    }

    /// Whether it was silent for too long (`store.lost_after_seconds`): other nodes may know more. A store
    /// that nobody shares is never lost, because nobody would know more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        let silent_for = self.silent_for();
        self.reach.lost_after.is_some_and(|limit| silent_for.is_some_and(|silent| silent >= limit))
    }
}

/// Gives up `work` after `limit`: a network that delivers nothing more says nothing, either.
pub async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let in_time = timeout(limit, work).await;
    in_time.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))
}
