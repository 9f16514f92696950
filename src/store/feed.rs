//! Reads the change events: forward for the change feed, backward for the audit list.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Store, StoreError, counter, flag, json};
use crate::model::{ChangeEvent, EnvironmentId, Origin, Revision, Stamp, UpdatedAt};

/// Events that one read of the feed takes at most; a burst is read in several steps.
const FEED_BATCH: i64 = 1000;

/// What the change feed needs of an event: enough to know what to look at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedEvent {
    /// Position in the feed.
    pub id: i64,
    /// The environment it touched, if it touched one.
    pub environment_id: Option<EnvironmentId>,
    /// The state it made, if it moved the environment.
    pub stamp: Option<Stamp>,
    /// When, in microseconds since the epoch.
    pub at: i64,
    /// Its pings must not wait.
    pub urgent: bool,
}

/// Which events an audit list shows. Empty texts mean any.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Key of the project.
    pub project: String,
    /// Key of the environment.
    pub environment: String,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// Not before, in microseconds since the epoch.
    pub since: i64,
    /// Before, in microseconds since the epoch.
    pub until: i64,
}

impl Store {
    /// Position of the newest event, 0 when there is none.
    pub async fn feed_end(&self) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT COALESCE(MAX(id), 0) AS n FROM change_events")
            .fetch_one(&mut *self.reader().await?)
            .await?;
        Ok(row.try_get("n")?)
    }

    /// The events behind `after`, oldest first; an empty answer means there are none.
    pub async fn feed_after(&self, after: i64) -> Result<Vec<FeedEvent>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, environment_id, revision, updated_at, at, urgent FROM change_events \
             WHERE id > $1 ORDER BY id LIMIT $2",
        )
        .bind(after)
        .bind(FEED_BATCH)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(feed_event_of).collect()
    }

    /// Events that `filter` shows, newest first, older than the event `before`.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        before: i64,
        limit: u32,
    ) -> Result<Vec<ChangeEvent>, StoreError> {
        let texts = [&filter.project, &filter.environment, &filter.actor, &filter.action];
        // No text of the store has one, and PostgreSQL does not compare with it.
        if texts.iter().any(|text| text.contains('\0')) {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(
            "SELECT id, environment_id, revision, updated_at, at, urgent, actor, address, action, \
             project_key, environment_key, subject, before_state, after_state \
             FROM change_events WHERE id < $1 \
             AND ($2 = '' OR project_key = $2) AND ($3 = '' OR environment_key = $3) \
             AND ($4 = '' OR actor = $4) AND ($5 = '' OR action = $5) \
             AND at >= $6 AND at < $7 ORDER BY id DESC LIMIT $8",
        )
        .bind(before)
        .bind(&filter.project)
        .bind(&filter.environment)
        .bind(&filter.actor)
        .bind(&filter.action)
        .bind(filter.since)
        .bind(filter.until)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(change_event_of).collect()
    }
}

fn feed_event_of(row: &AnyRow) -> Result<FeedEvent, StoreError> {
    let revision: Option<i64> = row.try_get("revision")?;
    let updated_at: Option<i64> = row.try_get("updated_at")?;
    Ok(FeedEvent {
        id: row.try_get("id")?,
        environment_id: row.try_get::<Option<i64>, _>("environment_id")?.map(EnvironmentId),
        stamp: revision.zip(updated_at).map(|(revision, micros)| Stamp {
            revision: Revision(counter(revision)),
            updated_at: UpdatedAt::from_micros(micros),
        }),
        at: row.try_get("at")?,
        urgent: flag(row, "urgent")?,
    })
}

fn change_event_of(row: &AnyRow) -> Result<ChangeEvent, StoreError> {
    let FeedEvent { id, environment_id, stamp, at, urgent } = feed_event_of(row)?;
    Ok(ChangeEvent {
        id,
        environment_id,
        stamp,
        at,
        urgent,
        origin: Origin { actor: row.try_get("actor")?, address: row.try_get("address")? },
        action: row.try_get("action")?,
        project: row.try_get("project_key")?,
        environment: row.try_get("environment_key")?,
        subject: row.try_get("subject")?,
        before: json(row, "before_state")?,
        after: json(row, "after_state")?,
    })
}
