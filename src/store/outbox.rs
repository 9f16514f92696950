//! The outbox: how a change becomes deliveries, in its own transaction.
//!
//! An endpoint in state mode is owed at most one delivery, which always tells the newest revision; one
//! in events mode is owed each change event, in order. Only the first of a queue has a due time.

use std::collections::{BTreeSet, HashMap};

use serde_json::json;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::claims::delivery_of;
use super::database::Database;
use super::keys::new_message_id;
use super::webhooks::{name_of, word};
use super::{Change, Connection, StoreError, flag, json as json_column, signed};
use crate::model::{
    Delivery, DeliveryKind, EnvironmentId, Stamp, WebhookId, WebhookMode, wants_action,
};

/// Keys of features that a delivery names at most; of more, the receiver reads all flags anyway.
pub(super) const CHANGED_MAX: usize = 100;

/// A change is a reason to try a failing endpoint again, but not sooner than this after the last attempt.
pub(super) const FRESH_PAUSE_MICROS: i64 = 30 * 1_000_000;

/// Event deliveries that may wait for an endpoint. Of more, the oldest is dropped: the newest tell more.
const QUEUE_MAX: i64 = 10_000;

/// Rows of one statement: SQLite takes some thousand values.
const INSERT_ROWS: usize = 100;

/// What the outbox needs to know of a change event.
#[derive(Clone, Debug)]
pub(super) struct Happened {
    pub(super) environment_id: EnvironmentId,
    pub(super) event_id: i64,
    pub(super) action: &'static str,
    /// The feature whose state changed, if it is one.
    pub(super) feature: Option<String>,
}

/// An endpoint as the outbox sees it.
struct Endpoint {
    id: WebhookId,
    mode: WebhookMode,
    events: Vec<String>,
    /// It answered 410.
    is_stopped: bool,
    /// The soonest that a new delivery may be attempted; never while it is paused or stopped.
    soonest: Option<i64>,
    /// The state that it is owed already.
    waiting: Option<Waiting>,
}

/// A state that an endpoint was not told of yet.
struct Waiting {
    id: i64,
    message_id: String,
    /// Somebody may have seen its message.
    was_attempted: bool,
    changed: Vec<String>,
    due_at: Option<i64>,
}

/// What waits in a queue: how much, and its first.
type Queue = (i64, i64);

impl Change {
    /// Owes the endpoints of an environment what happened in it. The number of statements does not
    /// grow with the number of endpoints that are well.
    pub(super) async fn owe(
        &mut self,
        environment: EnvironmentId,
        stamp: Stamp,
        happened: &[Happened],
    ) -> Result<(), StoreError> {
        let now = self.now();
        let database = self.database();
        let endpoints = endpoints(self.connection(), database, environment, now).await?;
        let here: Vec<_> =
            happened.iter().filter(|event| event.environment_id == environment).collect();
        let changed: Vec<_> = here.iter().filter_map(|event| event.feature.clone()).collect();
        let mut new = Vec::new();
        let mut of_events = Vec::new();
        for endpoint in &endpoints {
            match (endpoint.mode, &endpoint.waiting) {
                (WebhookMode::State, Some(waiting)) => {
                    let due = endpoint.soonest;
                    fold(self.connection(), waiting, (stamp, now), due, &changed).await?;
                }
                (WebhookMode::State, None) => {
                    new.push(New::state(endpoint.id, endpoint.soonest, &changed));
                }
                // It has said that it wants no more; when it is resumed it hears the newest state.
                (WebhookMode::Events, _) if endpoint.is_stopped => {}
                (WebhookMode::Events, _) => of_events.push(endpoint),
            }
        }
        if !of_events.is_empty() {
            let queues = queues(self.connection(), environment).await?;
            for endpoint in of_events {
                let wants = |event: &&&Happened| wants_action(&endpoint.events, event.action);
                let wanted: Vec<&Happened> = here.iter().filter(wants).copied().collect();
                let queue = queues.get(&endpoint.id).copied();
                make_room(self.connection(), endpoint, queue, wanted.len(), now).await?;
                for (at, event) in wanted.into_iter().enumerate() {
                    let is_head = at == 0 && queue.is_none();
                    new.push(New {
                        webhook: endpoint.id,
                        kind: DeliveryKind::Event,
                        once: false,
                        due: endpoint.soonest.filter(|_| is_head),
                        changed: event.feature.as_slice(),
                        event_id: Some(event.event_id),
                    });
                }
            }
        }
        for part in new.chunks(INSERT_ROWS) {
            insert_all(self.connection(), (stamp, now), part).await?;
        }
        Ok(())
    }
}

async fn endpoints(
    connection: &mut Connection,
    database: Database,
    environment: EnvironmentId,
    now: i64,
) -> Result<Vec<Endpoint>, StoreError> {
    lock_all(connection, database, environment).await?;
    let rows = sqlx::query(
        "SELECT w.id, w.mode, w.events, w.paused, w.stopped_at, w.failures, w.last_attempt_at, \
         w.not_before, d.id AS waiting_id, d.message_id, d.attempts, d.changed, d.due_at \
         FROM webhooks w LEFT JOIN deliveries d ON d.webhook_id = w.id AND d.kind = 'state' \
         AND d.state = 'pending' AND d.once = 0 WHERE w.environment_id = $1 ORDER BY w.id",
    )
    .bind(environment.0)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| endpoint_of(row, now)).collect()
}

/// Keeps the endpoints of an environment as they are, before anybody looks at what they are owed: a worker
/// may be settling it.
async fn lock_all(
    connection: &mut Connection,
    database: Database,
    environment: EnvironmentId,
) -> Result<(), StoreError> {
    if database == Database::Sqlite {
        return Ok(());
    }
    let statement = format!(
        "SELECT w.id FROM webhooks w WHERE w.environment_id = $1 ORDER BY w.id{}",
        database.lock_webhooks()
    );
    sqlx::query(sqlx::AssertSqlSafe(statement)).bind(environment.0).fetch_all(connection).await?;
    Ok(())
}

fn endpoint_of(row: &AnyRow, now: i64) -> Result<Endpoint, StoreError> {
    let last: Option<i64> = row.try_get("last_attempt_at")?;
    let fails = row.try_get::<i64, _>("failures")? > 0;
    let rested = last.filter(|_| fails).map_or(now, |last| last + FRESH_PAUSE_MICROS);
    let soonest = now.max(rested).max(row.try_get("not_before")?);
    let is_stopped = row.try_get::<Option<i64>, _>("stopped_at")?.is_some();
    let waiting = match row.try_get::<Option<i64>, _>("waiting_id")? {
        Some(id) => Some(Waiting {
            id,
            message_id: row.try_get("message_id")?,
            was_attempted: row.try_get::<i64, _>("attempts")? > 0,
            changed: json_column(row, "changed")?,
            due_at: row.try_get("due_at")?,
        }),
        None => None,
    };
    Ok(Endpoint {
        id: WebhookId(row.try_get("id")?),
        mode: word(row, "mode")?,
        events: json_column(row, "events")?,
        is_stopped,
        soonest: (!is_stopped && !flag(row, "paused")?).then_some(soonest),
        waiting,
    })
}

/// What waits of the endpoints in events mode; nothing of those that are owed nothing.
async fn queues(
    connection: &mut Connection,
    environment: EnvironmentId,
) -> Result<HashMap<WebhookId, Queue>, StoreError> {
    let rows = sqlx::query(
        "SELECT webhook_id, COUNT(*) AS n, MIN(id) AS head FROM deliveries WHERE webhook_id IN \
         (SELECT id FROM webhooks WHERE environment_id = $1 AND mode = 'events') \
         AND state = 'pending' AND once = 0 GROUP BY webhook_id",
    )
    .bind(environment.0)
    .fetch_all(connection)
    .await?;
    let pair = |row: &AnyRow| {
        let queue = (row.try_get("n")?, row.try_get("head")?);
        Ok((WebhookId(row.try_get("webhook_id")?), queue))
    };
    rows.iter().map(pair).collect()
}

/// Lets the delivery that waits tell this revision. One that was attempted before gets another id:
/// whoever has seen the old one must not take the new state for a repetition.
async fn fold(
    connection: &mut Connection,
    waiting: &Waiting,
    (stamp, now): (Stamp, i64),
    soonest: Option<i64>,
    changed: &[String],
) -> Result<(), StoreError> {
    let message_id =
        if waiting.was_attempted { new_message_id() } else { waiting.message_id.clone() };
    sqlx::query(
        "UPDATE deliveries SET message_id = $1, revision = $2, updated_at = $3, changed = $4, at = $5, \
         attempts = 0, first_attempt_at = NULL, due_at = $6 WHERE id = $7",
    )
    .bind(message_id)
    .bind(signed(stamp.revision.0))
    .bind(stamp.updated_at.micros())
    .bind(keys_text(waiting.changed.iter().chain(changed)))
    .bind(now)
    .bind(soonest.map(|soonest| waiting.due_at.map_or(soonest, |due| due.min(soonest))))
    .bind(waiting.id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Prepares a queue for more. If the endpoint fails, more is a reason to try its head again.
async fn make_room(
    connection: &mut Connection,
    endpoint: &Endpoint,
    queue: Option<Queue>,
    more: usize,
    now: i64,
) -> Result<(), StoreError> {
    let (Some((waiting, head)), true) = (queue, more > 0) else { return Ok(()) };
    if let Some(soonest) = endpoint.soonest {
        sqlx::query("UPDATE deliveries SET due_at = $1 WHERE id = $2 AND due_at > $1")
            .bind(soonest)
            .bind(head)
            .execute(&mut *connection)
            .await?;
    }
    let more = i64::try_from(more).unwrap_or(i64::MAX);
    let excess = waiting.saturating_add(more) - QUEUE_MAX;
    if excess > 0 {
        drop_oldest(connection, endpoint.id, excess, now).await?;
    }
    Ok(())
}

/// Drops the oldest that were never attempted: the head may be under way.
async fn drop_oldest(
    connection: &mut Connection,
    id: WebhookId,
    count: i64,
    now: i64,
) -> Result<(), StoreError> {
    let dropped = sqlx::query(
        "UPDATE deliveries SET state = 'dropped', due_at = NULL, finished_at = $1 WHERE id IN \
         (SELECT id FROM deliveries WHERE webhook_id = $2 AND state = 'pending' AND once = 0 \
         AND attempts = 0 ORDER BY id LIMIT $3)",
    )
    .bind(now)
    .bind(id.0)
    .bind(count)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE webhooks SET dropped = dropped + $1 WHERE id = $2")
        .bind(signed(dropped.rows_affected()))
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Owes an endpoint that is behind the newest state, from `due` on; nothing if anything waits, because
/// that tells as much. Tells whether it did.
pub(super) async fn owe_again(
    connection: &mut Connection,
    id: WebhookId,
    at: (Stamp, i64),
    due: i64,
) -> Result<bool, StoreError> {
    if waiting(connection, id, "").await? > 0 {
        return Ok(false);
    }
    insert_state(connection, id, at, Some(due)).await?;
    Ok(true)
}

/// Owes an endpoint that was not told of events the newest state, behind what waits.
pub(super) async fn owe_missed(
    connection: &mut Connection,
    id: WebhookId,
    at: (Stamp, i64),
) -> Result<(), StoreError> {
    match waiting(connection, id, "state").await? {
        0 => insert_state(connection, id, at, None).await,
        _ => Ok(()),
    }
}

/// How many deliveries of a kind wait in the queue of an endpoint; of any, if it is empty.
async fn waiting(
    connection: &mut Connection,
    id: WebhookId,
    kind: &str,
) -> Result<i64, StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS n FROM deliveries WHERE webhook_id = $1 AND state = 'pending' \
         AND once = 0 AND ($2 = '' OR kind = $2)",
    )
    .bind(id.0)
    .bind(kind)
    .fetch_one(connection)
    .await?;
    Ok(row.try_get("n")?)
}

async fn insert_state(
    connection: &mut Connection,
    id: WebhookId,
    at: (Stamp, i64),
    due: Option<i64>,
) -> Result<(), StoreError> {
    insert(connection, at, New::state(id, due, &[])).await.map(drop)
}

/// A delivery to be written.
pub(super) struct New<'a> {
    pub(super) webhook: WebhookId,
    pub(super) kind: DeliveryKind,
    /// Outside the queue, one attempt.
    pub(super) once: bool,
    pub(super) due: Option<i64>,
    pub(super) changed: &'a [String],
    pub(super) event_id: Option<i64>,
}

impl<'a> New<'a> {
    fn state(webhook: WebhookId, due: Option<i64>, changed: &'a [String]) -> Self {
        Self { webhook, kind: DeliveryKind::State, once: false, due, changed, event_id: None }
    }
}

/// Writes a delivery.
pub(super) async fn insert(
    connection: &mut Connection,
    at: (Stamp, i64),
    new: New<'_>,
) -> Result<Delivery, StoreError> {
    let written = insert_all(connection, at, &[new]).await?;
    let missing = || StoreError::Damaged("a delivery was not written".to_owned());
    written.into_iter().next().ok_or_else(missing)
}

async fn insert_all(
    connection: &mut Connection,
    (stamp, now): (Stamp, i64),
    new: &[New<'_>],
) -> Result<Vec<Delivery>, StoreError> {
    // Three values are the same in all rows; each row has seven of its own.
    let row = |at: usize| {
        let own: [_; 7] = std::array::from_fn(|column| format!("${}", 4 + at * 7 + column));
        let [webhook, message, kind, once, changed, event, due] = own;
        format!(
            "({webhook}, {message}, {kind}, {once}, 'pending', $1, $2, {changed}, {event}, $3, {due}, $3)"
        )
    };
    let rows: Vec<_> = (0..new.len()).map(row).collect();
    let statement = format!(
        "INSERT INTO deliveries (webhook_id, message_id, kind, once, state, revision, updated_at, \
         changed, event_id, at, due_at, created_at) VALUES {} RETURNING *",
        rows.join(", ")
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(signed(stamp.revision.0))
        .bind(stamp.updated_at.micros())
        .bind(now);
    for New { webhook, kind, once, due, changed, event_id } in new {
        query = query
            .bind(webhook.0)
            .bind(new_message_id())
            .bind(name_of(kind))
            .bind(i64::from(*once))
            .bind(keys_text(changed.iter()))
            .bind(*event_id)
            .bind(*due);
    }
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(delivery_of).collect()
}

/// Lets the first of a queue be attempted now.
pub(super) async fn head_is_due(
    connection: &mut Connection,
    id: WebhookId,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE deliveries SET due_at = $1 WHERE id = (SELECT MIN(id) FROM deliveries \
         WHERE webhook_id = $2 AND state = 'pending' AND once = 0) \
         AND (due_at IS NULL OR due_at > $1)",
    )
    .bind(now)
    .bind(id.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets nothing of an endpoint's queue be attempted until somebody says so.
pub(super) async fn nothing_is_due(
    connection: &mut Connection,
    id: WebhookId,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE deliveries SET due_at = NULL \
         WHERE webhook_id = $1 AND once = 0 AND due_at IS NOT NULL",
    )
    .bind(id.0)
    .execute(connection)
    .await?;
    Ok(())
}

fn keys_text<'a>(keys: impl Iterator<Item = &'a String>) -> String {
    let keys: BTreeSet<_> = keys.collect();
    json!(keys.into_iter().take(CHANGED_MAX).collect::<Vec<_>>()).to_string()
}
