//! Reads the change events: forward for the change feed, backward for the audit list.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::database::Database;
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

/// A place in the change feed: everything before it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedPosition(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Behind the event with this id: with one writer, ids are in the order of commits.
    Id(i64),
    /// What a statement saw. Ids are given before commits, so the id of the last event says nothing about
    /// those that were still open; the snapshot names them.
    Snapshot {
        /// Where the database came from: in another one, the numbers of transactions mean nothing.
        lineage: String,
        /// `xmin:xmax:xip,…`, as PostgreSQL writes it.
        snapshot: String,
    },
}

/// What a read of the feed found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedNews {
    /// Events behind the position, oldest first, and the position behind them.
    Events(Vec<FeedEvent>, FeedPosition),
    /// The database is another one than before: everything must be looked at again.
    Restarted,
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
    /// The end of the feed.
    pub async fn feed_end(&self) -> Result<FeedPosition, StoreError> {
        let mut reader = self.reader().await?;
        let place = match self.pools.database {
            Database::Sqlite => {
                let row = sqlx::query("SELECT COALESCE(MAX(id), 0) AS n FROM change_events")
                    .fetch_one(&mut *reader)
                    .await?;
                Place::Id(row.try_get("n")?)
            }
            Database::Postgres => {
                let row = sqlx::query(
                    "SELECT CAST(pg_current_snapshot() AS TEXT) AS snapshot, lineage FROM lineage",
                )
                .fetch_one(&mut *reader)
                .await?;
                Place::Snapshot {
                    lineage: row.try_get("lineage")?,
                    snapshot: row.try_get("snapshot")?,
                }
            }
        };
        Ok(FeedPosition(place))
    }

    /// The events behind `after`; none means that there are none.
    pub async fn feed_after(&self, after: &FeedPosition) -> Result<FeedNews, StoreError> {
        match &after.0 {
            Place::Id(id) => self.feed_after_id(*id).await,
            Place::Snapshot { lineage, snapshot } => {
                self.feed_after_snapshot(lineage, snapshot).await
            }
        }
    }

    async fn feed_after_id(&self, after: i64) -> Result<FeedNews, StoreError> {
        let rows = sqlx::query(
            "SELECT id, environment_id, revision, updated_at, at, urgent FROM change_events \
             WHERE id > $1 ORDER BY id LIMIT $2",
        )
        .bind(after)
        .bind(FEED_BATCH)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let events = rows.iter().map(feed_event_of).collect::<Result<Vec<_>, _>>()?;
        let last = events.last().map_or(after, |last| last.id);
        Ok(FeedNews::Events(events, FeedPosition(Place::Id(last))))
    }

    /// What is visible now and was not before: of transactions that began since, and of those that were
    /// open. Rows that a backup brought carry numbers of transactions that are still to come; those are
    /// left out. One statement, so that the snapshot it tells is the one it read by.
    async fn feed_after_snapshot(
        &self,
        known: &str,
        snapshot: &str,
    ) -> Result<FeedNews, StoreError> {
        let rows = sqlx::query(
            "WITH seen AS (SELECT CAST($1 AS pg_snapshot) AS by), \
             found AS (SELECT v.* FROM seen CROSS JOIN LATERAL \
             (SELECT * FROM change_events WHERE xact >= pg_snapshot_xmax(seen.by) \
             AND xact < pg_snapshot_xmax(pg_current_snapshot())) v \
             UNION ALL SELECT v.* FROM seen CROSS JOIN LATERAL pg_snapshot_xip(seen.by) AS open(xact) \
             JOIN change_events v ON v.xact = open.xact) \
             SELECT CAST(pg_current_snapshot() AS TEXT) AS snapshot, lineage, found.id, \
             found.environment_id, found.revision, found.updated_at, found.at, found.urgent \
             FROM lineage LEFT JOIN found ON TRUE ORDER BY found.id",
        )
        .bind(snapshot)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let missing = || StoreError::Damaged("the table lineage is empty".to_owned());
        let first = rows.first().ok_or_else(missing)?;
        let lineage: String = first.try_get("lineage")?;
        if lineage != known {
            return Ok(FeedNews::Restarted);
        }
        let place = Place::Snapshot { lineage, snapshot: first.try_get("snapshot")? };
        let mut events = Vec::new();
        for row in &rows {
            if row.try_get::<Option<i64>, _>("id")?.is_some() {
                events.push(feed_event_of(row)?);
            }
        }
        Ok(FeedNews::Events(events, FeedPosition(place)))
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
