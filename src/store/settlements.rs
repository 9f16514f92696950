//! Settlements: what came of an attempt, and what follows from it.
//!
//! Every attempt is written into the log. What follows, for the delivery and for its endpoint, is written
//! only by the worker that still has the endpoint: another may have taken it over meanwhile.

use sqlx::Row as _;

use super::claims::Claim;
use super::database::Database;
use super::outbox::{FRESH_PAUSE_MICROS, head_is_due, nothing_is_due, owe_again};
use super::webhooks::name_of;
use super::{Connection, StoreError, counter, signed};
use crate::model::{Attempt, DeliveryState, Revision, Stamp, UpdatedAt, WebhookFormat};

/// What came of a claim.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// What was claimed.
    pub claim: Claim,
    /// How the attempt went.
    pub attempt: Attempt,
    /// What follows.
    pub verdict: Verdict,
}

/// What follows from an attempt. Times are microseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was confirmed; if what the endpoint applied is old, it is told again from then on.
    Confirmed {
        /// When to tell it again.
        again_at: i64,
    },
    /// It failed, and is to be tried again.
    Retry {
        /// When.
        at: i64,
        /// A new change is no reason to come before.
        not_before: i64,
    },
    /// It failed for as long as anything is tried.
    GiveUp {
        /// When to try the next in the queue.
        next_at: i64,
    },
    /// The endpoint wants nothing more.
    Stop,
}

/// Writes what came of a claim. The log gets every attempt; what follows is written only by the worker
/// that still has the endpoint.
pub(super) async fn settle(
    connection: &mut Connection,
    database: Database,
    settlement: &Settlement,
    (lease, now): (&str, i64),
) -> Result<(), StoreError> {
    let Settlement { claim, attempt, .. } = settlement;
    let statement = format!(
        "SELECT w.lease, e.revision, e.updated_at FROM webhooks w \
         JOIN environments e ON e.id = w.environment_id \
         JOIN deliveries d ON d.webhook_id = w.id AND d.id = $2 WHERE w.id = $1{}",
        database.lock_webhooks()
    );
    let known = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(claim.webhook.id.0)
        .bind(claim.delivery.id)
        .fetch_optional(&mut *connection)
        .await?;
    // It was deleted meanwhile, with everything it was owed.
    let Some(known) = known else { return Ok(()) };
    log(connection, claim.delivery.id, attempt).await?;
    if known.try_get::<String, _>("lease")? != lease {
        return Ok(());
    }
    let newest = Stamp {
        revision: Revision(counter(known.try_get("revision")?)),
        updated_at: UpdatedAt::from_micros(known.try_get("updated_at")?),
    };
    match settlement.verdict {
        Verdict::Confirmed { again_at } => {
            confirmed(connection, settlement, newest, (again_at, now)).await
        }
        Verdict::Retry { at, not_before } => {
            failed(connection, settlement, not_before, false).await?;
            retry(connection, claim, at, now).await
        }
        Verdict::GiveUp { next_at } => {
            failed(connection, settlement, 0, false).await?;
            finish(connection, claim, DeliveryState::Failed, now).await?;
            head_is_due(connection, claim.webhook.id, next_at).await
        }
        Verdict::Stop => {
            failed(connection, settlement, 0, true).await?;
            if claim.once {
                finish(connection, claim, DeliveryState::Failed, now).await?;
            }
            nothing_is_due(connection, claim.webhook.id).await
        }
    }
}

async fn log(
    connection: &mut Connection,
    delivery: i64,
    attempt: &Attempt,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO attempts (delivery_id, message_id, revision, at, micros, outcome, status, \
         error, answer, applied_revision) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(delivery)
    .bind(&attempt.message_id)
    .bind(signed(attempt.revision.0))
    .bind(attempt.at)
    .bind(attempt.micros)
    .bind(&attempt.outcome)
    .bind(attempt.status.map(i64::from))
    .bind(&attempt.error)
    .bind(&attempt.answer)
    .bind(attempt.applied_revision.map(|revision| signed(revision.0)))
    .execute(connection)
    .await?;
    Ok(())
}

/// The endpoint is well. What waits may go at once; what it has not applied it is told again.
async fn confirmed(
    connection: &mut Connection,
    settlement: &Settlement,
    newest: Stamp,
    (again_at, now): (i64, i64),
) -> Result<(), StoreError> {
    let Settlement { claim, attempt, .. } = settlement;
    let id = claim.webhook.id;
    let applied = attempt.applied_revision;
    let is_behind = applied.is_some_and(|applied| applied < newest.revision)
        && claim.webhook.format == WebhookFormat::Flagcast;
    finish(connection, claim, DeliveryState::Delivered, now).await?;
    head_is_due(connection, id, now).await?;
    // What waits tells as much; then it is not told again, and does not count as told in vain.
    let again = is_behind && owe_again(connection, id, (newest, now), again_at).await?;
    sqlx::query(
        "UPDATE webhooks SET leased_until = 0, failures = 0, failing_since = NULL, not_before = 0, \
         last_attempt_at = $1, last_outcome = $2, last_error = '', \
         behind_answers = CASE WHEN $3 = 1 THEN behind_answers + 1 ELSE 0 END, \
         delivered_revision = CASE WHEN delivered_revision > $4 THEN delivered_revision ELSE $4 END, \
         applied_revision = COALESCE($5, applied_revision) WHERE id = $6",
    )
    .bind(attempt.at)
    .bind(&attempt.outcome)
    .bind(i64::from(again))
    .bind(signed(attempt.revision.0))
    .bind(applied.map(|revision| signed(revision.0)))
    .bind(id.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// The endpoint is not well. A try outside the queue says nothing about what waits in it.
async fn failed(
    connection: &mut Connection,
    settlement: &Settlement,
    not_before: i64,
    stops: bool,
) -> Result<(), StoreError> {
    let Settlement { claim, attempt, .. } = settlement;
    let counts = i64::from(!claim.once);
    sqlx::query(
        "UPDATE webhooks SET leased_until = 0, failures = failures + $1, \
         failing_since = CASE WHEN $1 = 1 THEN COALESCE(failing_since, $2) ELSE failing_since END, \
         last_attempt_at = $2, last_outcome = $3, last_error = $4, not_before = $5, \
         applied_revision = COALESCE($6, applied_revision), \
         stopped_at = CASE WHEN $7 = 1 THEN $2 ELSE stopped_at END WHERE id = $8",
    )
    .bind(counts)
    .bind(attempt.at)
    .bind(&attempt.outcome)
    .bind(&attempt.error)
    .bind(not_before)
    .bind(attempt.applied_revision.map(|revision| signed(revision.0)))
    .bind(i64::from(stops))
    .bind(claim.webhook.id.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// One that folded while it was under way tells something new: it may be tried sooner.
async fn retry(
    connection: &mut Connection,
    claim: &Claim,
    at: i64,
    now: i64,
) -> Result<(), StoreError> {
    if claim.once {
        return finish(connection, claim, DeliveryState::Failed, now).await;
    }
    sqlx::query(
        "UPDATE deliveries SET due_at = CASE WHEN message_id = $1 OR $2 < $3 THEN $2 ELSE $3 END \
         WHERE id = $4 AND state = 'pending' AND due_at IS NOT NULL",
    )
    .bind(&claim.delivery.message_id)
    .bind(at)
    .bind(now + FRESH_PAUSE_MICROS)
    .bind(claim.delivery.id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a delivery, unless it has folded into something newer meanwhile.
async fn finish(
    connection: &mut Connection,
    claim: &Claim,
    state: DeliveryState,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE deliveries SET state = $1, due_at = NULL, finished_at = $2 \
         WHERE id = $3 AND message_id = $4 AND state = 'pending'",
    )
    .bind(name_of(state))
    .bind(now)
    .bind(claim.delivery.id)
    .bind(&claim.delivery.message_id)
    .execute(connection)
    .await?;
    Ok(())
}
