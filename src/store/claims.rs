//! Claims: which deliveries are due, and who has them. What came of them is written by `settlements`.
//!
//! A worker claims an endpoint for a while (a lease): nobody else attempts anything of it, so its
//! deliveries keep their order and no attempt is made twice. A worker that vanishes loses its leases by
//! time. No transaction is open while a request is under way.

use std::collections::HashSet;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::database::Database;
use super::sealing::Sealer;
use super::settlements::{Settlement, settle};
use super::webhooks::{COLUMNS, revision, small, webhook_of, word};
use super::{Connection, Store, StoreError, json as json_column};
use crate::model::{Delivery, Stamp, UpdatedAt, Webhook};

/// A delivery that is ours to attempt, and what it takes.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Whom to tell.
    pub webhook: Webhook,
    /// What to tell.
    pub delivery: Delivery,
    /// Outside the queue: one attempt, which says nothing about what waits in the queue.
    pub once: bool,
    /// Key of its project.
    pub project: String,
    /// Name of its project.
    pub project_name: String,
    /// Number of its project.
    pub project_id: i64,
    /// Key of the environment.
    pub environment: String,
    /// Name of the environment.
    pub environment_name: String,
    /// Public key of the environment.
    pub client_key: String,
    /// The change event, if it tells one.
    pub event: Option<ClaimedEvent>,
}

/// A change event as a delivery tells it.
#[derive(Clone, Debug)]
pub struct ClaimedEvent {
    /// Its number.
    pub id: i64,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// JSON of the state before.
    pub before: serde_json::Value,
    /// JSON of the state after.
    pub after: serde_json::Value,
    /// The feature that it is about, while it exists: number, description, when it was made, JSON of
    /// its value by default, and whether it is on by default.
    pub feature: Option<EventFeature>,
}

/// What is known of the feature of an event.
#[derive(Clone, Debug)]
pub struct EventFeature {
    /// Its number.
    pub id: i64,
    /// What it is for.
    pub description: String,
    /// When it was made, in microseconds since the epoch.
    pub created_at: i64,
    /// Whether it is on by default.
    pub enabled: bool,
    /// Its value by default.
    pub value: serde_json::Value,
    /// Whether it has variants.
    pub has_variants: bool,
}

/// How many endpoints may be claimed: those that fail must not take the places of those that do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Endpoints whose last attempt succeeded.
    pub healthy: usize,
    /// Others.
    pub failing: usize,
}

/// A delivery that could be claimed.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    delivery: i64,
    webhook: i64,
}

impl Store {
    /// One step of a worker: writes what came of its claims, then claims what is due, in one transaction
    /// if there is anything to write. `lease` names the worker and `until` is when it loses its claims.
    pub async fn settle_and_claim(
        &self,
        settlements: &[Settlement],
        room: Room,
        (lease, until): (&str, i64),
    ) -> Result<Vec<Claim>, StoreError> {
        let now = super::now_micros();
        let mut due = Vec::new();
        if settlements.is_empty() {
            due = candidates(&mut *self.reader().await?, room, now).await?;
            if due.is_empty() {
                return Ok(Vec::new());
            }
        }
        let mut tx = self.begin_write().await?;
        let database = self.pools.database;
        // In the order of endpoints, as changes take them: two who wait for each other would wait for ever.
        let mut settlements: Vec<_> = settlements.iter().collect();
        settlements.sort_by_key(|settlement| settlement.claim.webhook.id);
        for settlement in &settlements {
            settle(&mut tx, database, settlement, (lease, now)).await?;
        }
        if !settlements.is_empty() {
            due = candidates(&mut tx, room, now).await?;
        }
        let mut claims = Vec::new();
        for candidate in due {
            let claimed =
                claim(&mut tx, (database, &self.sealer), candidate, (lease, until, now)).await?;
            claims.extend(claimed);
        }
        tx.commit().await?;
        if !settlements.is_empty() {
            self.settled.send_modify(|count| *count += 1);
        }
        Ok(claims)
    }

    /// Gives up every claim of a worker, so that another need not wait for its time to be over.
    pub async fn release(&self, lease: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE webhooks SET leased_until = 0 WHERE lease = $1 AND leased_until > 0")
            .bind(lease)
            .execute(&mut *self.writer().await?)
            .await?;
        Ok(())
    }

    /// Changes whenever attempts were written by this process.
    #[must_use]
    pub fn settlements(&self) -> tokio::sync::watch::Receiver<u64> {
        self.settled.subscribe()
    }
}

/// What is due of endpoints that nobody has, at most one delivery for each; what is outside the queue
/// comes first.
async fn candidates(
    connection: &mut Connection,
    room: Room,
    now: i64,
) -> Result<Vec<Candidate>, StoreError> {
    let mut all = Vec::new();
    for (healthy, limit) in [(1_i64, room.healthy), (0, room.failing)] {
        if limit == 0 {
            continue;
        }
        let rows = sqlx::query(
            "SELECT d.id, d.webhook_id FROM deliveries d JOIN webhooks w ON w.id = d.webhook_id \
             WHERE d.due_at <= $1 AND d.state = 'pending' AND w.leased_until <= $1 \
             AND (d.once = 1 OR (w.paused = 0 AND w.stopped_at IS NULL)) \
             AND (CASE WHEN w.failures = 0 THEN 1 ELSE 0 END) = $2 \
             ORDER BY d.once DESC, d.due_at, d.id LIMIT $3",
        )
        .bind(now)
        .bind(healthy)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await?;
        let mut seen = HashSet::new();
        for row in &rows {
            let candidate =
                Candidate { delivery: row.try_get("id")?, webhook: row.try_get("webhook_id")? };
            if seen.insert(candidate.webhook) {
                all.push(candidate);
            }
        }
    }
    Ok(all)
}

/// Claims an endpoint for one of its deliveries, unless somebody else was first.
async fn claim(
    connection: &mut Connection,
    (database, sealer): (Database, &Sealer),
    candidate: Candidate,
    (lease, until, now): (&str, i64, i64),
) -> Result<Option<Claim>, StoreError> {
    let statement = format!(
        "UPDATE webhooks SET lease = $1, leased_until = $2 WHERE id = \
         (SELECT id FROM webhooks WHERE id = $3 AND leased_until <= $4{})",
        database.lock_free()
    );
    let taken = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(lease)
        .bind(until)
        .bind(candidate.webhook)
        .bind(now)
        .execute(&mut *connection)
        .await?;
    if taken.rows_affected() == 0 {
        return Ok(None);
    }
    let row = sqlx::query(
        "UPDATE deliveries SET attempts = attempts + 1, \
         first_attempt_at = COALESCE(first_attempt_at, $1) \
         WHERE id = $2 AND state = 'pending' AND due_at <= $1 AND (once = 1 OR EXISTS \
         (SELECT 1 FROM webhooks WHERE id = $3 AND paused = 0 AND stopped_at IS NULL)) RETURNING *",
    )
    .bind(now)
    .bind(candidate.delivery)
    .bind(candidate.webhook)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else {
        sqlx::query("UPDATE webhooks SET leased_until = 0 WHERE id = $1 AND lease = $2")
            .bind(candidate.webhook)
            .bind(lease)
            .execute(connection)
            .await?;
        return Ok(None);
    };
    let (delivery, once) = (delivery_of(&row)?, super::flag(&row, "once")?);
    facts(connection, sealer, candidate.webhook, (delivery, once)).await.map(Some)
}

/// Everything that an attempt needs, in one statement.
async fn facts(
    connection: &mut Connection,
    sealer: &Sealer,
    webhook: i64,
    (delivery, once): (Delivery, bool),
) -> Result<Claim, StoreError> {
    let statement = format!(
        "SELECT {COLUMNS}, e.key AS environment_key, e.name AS environment_name, e.client_key, \
         p.id AS project_id, p.key AS project_key, p.name AS project_name, v.actor, v.action, \
         v.subject, v.before_state, v.after_state, f.id AS feature_id, \
         f.description AS feature_description, f.enabled AS feature_enabled, \
         f.value AS feature_value, f.created_at AS feature_created_at, \
         (SELECT COUNT(*) FROM variants t WHERE t.feature_id = f.id) AS variants \
         FROM webhooks w JOIN environments e ON e.id = w.environment_id \
         JOIN projects p ON p.id = e.project_id LEFT JOIN change_events v ON v.id = $2 \
         LEFT JOIN features f ON f.project_id = p.id AND f.key = v.subject WHERE w.id = $1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(webhook)
        .bind(delivery.event_id)
        .fetch_one(connection)
        .await?;
    Ok(Claim {
        once,
        webhook: webhook_of(&row, sealer)?,
        project: row.try_get("project_key")?,
        project_name: row.try_get("project_name")?,
        project_id: row.try_get("project_id")?,
        environment: row.try_get("environment_key")?,
        environment_name: row.try_get("environment_name")?,
        client_key: row.try_get("client_key")?,
        event: delivery.event_id.map(|id| event_of(&row, id)).transpose()?,
        delivery,
    })
}

fn event_of(row: &AnyRow, id: i64) -> Result<ClaimedEvent, StoreError> {
    let feature = match row.try_get::<Option<i64>, _>("feature_id")? {
        Some(id) => Some(EventFeature {
            id,
            description: row.try_get("feature_description")?,
            created_at: row.try_get("feature_created_at")?,
            enabled: super::flag(row, "feature_enabled")?,
            value: json_column(row, "feature_value")?,
            has_variants: row.try_get::<i64, _>("variants")? > 0,
        }),
        None => None,
    };
    Ok(ClaimedEvent {
        id,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        subject: row.try_get("subject")?,
        before: json_column(row, "before_state")?,
        after: json_column(row, "after_state")?,
        feature,
    })
}

pub(super) fn delivery_of(row: &AnyRow) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        id: row.try_get("id")?,
        message_id: row.try_get("message_id")?,
        kind: word(row, "kind")?,
        state: word(row, "state")?,
        stamp: Stamp {
            revision: revision(row, "revision")?.unwrap_or_default(),
            updated_at: UpdatedAt::from_micros(row.try_get("updated_at")?),
        },
        changed: json_column(row, "changed")?,
        event_id: row.try_get("event_id")?,
        attempts: small(row.try_get("attempts")?),
        first_attempt_at: row.try_get("first_attempt_at")?,
        at: row.try_get("at")?,
        due_at: row.try_get("due_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}
