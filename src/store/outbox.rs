//! The outbox: how a change becomes deliveries, in its own transaction.
//!
//! An endpoint in state mode is owed at most one delivery, which always tells the newest revision; one
//! in events mode is owed each change event, in order. Only the first of a queue has a due time.

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::claims::delivery_of;
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
}

impl Change {
    /// Owes the endpoints of an environment what happened in it.
    pub(super) async fn owe(
        &mut self,
        environment: EnvironmentId,
        stamp: Stamp,
        happened: &[Happened],
    ) -> Result<(), StoreError> {
        let now = self.now();
        let rows = sqlx::query(
            "SELECT id, mode, events, paused, stopped_at, failures, last_attempt_at, not_before \
             FROM webhooks WHERE environment_id = $1 ORDER BY id",
        )
        .bind(environment.0)
        .fetch_all(self.connection())
        .await?;
        let here = || happened.iter().filter(|event| event.environment_id == environment);
        for row in &rows {
            let endpoint = endpoint_of(row, now)?;
            match endpoint.mode {
                WebhookMode::State => {
                    let changed: Vec<_> =
                        here().filter_map(|event| event.feature.clone()).collect();
                    fold(self.connection(), &endpoint, (stamp, now), &changed).await?;
                }
                // It has said that it wants no more; when it is resumed it hears the newest state.
                WebhookMode::Events if endpoint.is_stopped => {}
                WebhookMode::Events => {
                    for event in here().filter(|e| wants_action(&endpoint.events, e.action)) {
                        push(self.connection(), &endpoint, (stamp, now), event).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn endpoint_of(row: &AnyRow, now: i64) -> Result<Endpoint, StoreError> {
    let last: Option<i64> = row.try_get("last_attempt_at")?;
    let fails = row.try_get::<i64, _>("failures")? > 0;
    let rested = last.filter(|_| fails).map_or(now, |last| last + FRESH_PAUSE_MICROS);
    let soonest = now.max(rested).max(row.try_get("not_before")?);
    let is_stopped = row.try_get::<Option<i64>, _>("stopped_at")?.is_some();
    Ok(Endpoint {
        id: WebhookId(row.try_get("id")?),
        mode: word(row, "mode")?,
        events: json_column(row, "events")?,
        is_stopped,
        soonest: (!is_stopped && !flag(row, "paused")?).then_some(soonest),
    })
}

/// Lets the delivery that waits tell this revision, or makes one. One that was attempted before gets
/// another id: whoever has seen the old one must not take the new state for a repetition.
async fn fold(
    connection: &mut Connection,
    endpoint: &Endpoint,
    (stamp, now): (Stamp, i64),
    changed: &[String],
) -> Result<(), StoreError> {
    let waiting = sqlx::query(
        "SELECT id, message_id, attempts, changed, due_at FROM deliveries \
         WHERE webhook_id = $1 AND kind = 'state' AND state = 'pending' AND once = 0",
    )
    .bind(endpoint.id.0)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(waiting) = waiting else {
        let due = endpoint.soonest;
        return insert_state(connection, endpoint.id, (stamp, now), due, changed).await;
    };
    let before: Vec<String> = json_column(&waiting, "changed")?;
    let attempts: i64 = waiting.try_get("attempts")?;
    let message_id: String = match attempts {
        0 => waiting.try_get("message_id")?,
        _ => new_message_id(),
    };
    let due: Option<i64> = waiting.try_get("due_at")?;
    sqlx::query(
        "UPDATE deliveries SET message_id = $1, revision = $2, updated_at = $3, changed = $4, at = $5, \
         attempts = 0, first_attempt_at = NULL, due_at = $6 WHERE id = $7",
    )
    .bind(message_id)
    .bind(signed(stamp.revision.0))
    .bind(stamp.updated_at.micros())
    .bind(keys_text(before.iter().chain(changed)))
    .bind(now)
    .bind(endpoint.soonest.map(|soonest| due.map_or(soonest, |due| due.min(soonest))))
    .bind(waiting.try_get::<i64, _>("id")?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Owes an endpoint that is behind the newest state, from `due` on; nothing if anything waits, because
/// that tells as much.
pub(super) async fn owe_again(
    connection: &mut Connection,
    id: WebhookId,
    at: (Stamp, i64),
    due: i64,
) -> Result<(), StoreError> {
    match waiting(connection, id, "").await? {
        0 => insert_state(connection, id, at, Some(due), &[]).await,
        _ => Ok(()),
    }
}

/// Owes an endpoint that was not told of events the newest state, behind what waits.
pub(super) async fn owe_missed(
    connection: &mut Connection,
    id: WebhookId,
    at: (Stamp, i64),
) -> Result<(), StoreError> {
    match waiting(connection, id, "state").await? {
        0 => insert_state(connection, id, at, None, &[]).await,
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
    changed: &[String],
) -> Result<(), StoreError> {
    let new = New { kind: DeliveryKind::State, once: false, due, changed, event_id: None };
    insert(connection, id, at, &new).await?;
    Ok(())
}

/// Puts an event behind those that wait. If the endpoint fails, this is a reason to try its head again.
async fn push(
    connection: &mut Connection,
    endpoint: &Endpoint,
    at: (Stamp, i64),
    event: &Happened,
) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS n, MIN(id) AS head FROM deliveries \
         WHERE webhook_id = $1 AND state = 'pending' AND once = 0",
    )
    .bind(endpoint.id.0)
    .fetch_one(&mut *connection)
    .await?;
    let (waiting, head): (i64, Option<i64>) = (row.try_get("n")?, row.try_get("head")?);
    if let (Some(head), Some(soonest)) = (head, endpoint.soonest) {
        sqlx::query("UPDATE deliveries SET due_at = $1 WHERE id = $2 AND due_at > $1")
            .bind(soonest)
            .bind(head)
            .execute(&mut *connection)
            .await?;
    }
    if waiting >= QUEUE_MAX {
        drop_oldest(connection, endpoint.id, at.1).await?;
    }
    let changed: Vec<_> = event.feature.iter().cloned().collect();
    let due = endpoint.soonest.filter(|_| head.is_none());
    let new = New {
        kind: DeliveryKind::Event,
        once: false,
        due,
        changed: &changed,
        event_id: Some(event.event_id),
    };
    insert(connection, endpoint.id, at, &new).await?;
    Ok(())
}

/// Drops the oldest that was never attempted: the head may be under way.
async fn drop_oldest(
    connection: &mut Connection,
    id: WebhookId,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE deliveries SET state = 'dropped', due_at = NULL, finished_at = $1 WHERE id = \
         (SELECT MIN(id) FROM deliveries WHERE webhook_id = $2 AND state = 'pending' AND once = 0 \
         AND attempts = 0)",
    )
    .bind(now)
    .bind(id.0)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE webhooks SET dropped = dropped + 1 WHERE id = $1")
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// A delivery to be written.
pub(super) struct New<'a> {
    pub(super) kind: DeliveryKind,
    /// Outside the queue, one attempt.
    pub(super) once: bool,
    pub(super) due: Option<i64>,
    pub(super) changed: &'a [String],
    pub(super) event_id: Option<i64>,
}

/// Writes a delivery.
pub(super) async fn insert(
    connection: &mut Connection,
    id: WebhookId,
    (stamp, now): (Stamp, i64),
    new: &New<'_>,
) -> Result<Delivery, StoreError> {
    let row = sqlx::query(
        "INSERT INTO deliveries (webhook_id, message_id, kind, once, state, revision, updated_at, \
         changed, event_id, at, due_at, created_at) \
         VALUES ($1, $2, $3, $4, 'pending', $5, $6, $7, $8, $9, $10, $9) RETURNING *",
    )
    .bind(id.0)
    .bind(new_message_id())
    .bind(name_of(new.kind))
    .bind(i64::from(new.once))
    .bind(signed(stamp.revision.0))
    .bind(stamp.updated_at.micros())
    .bind(keys_text(new.changed.iter()))
    .bind(new.event_id)
    .bind(now)
    .bind(new.due)
    .fetch_one(connection)
    .await?;
    delivery_of(&row)
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
