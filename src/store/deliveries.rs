//! The log of deliveries and attempts: what it shows, what is sent again, and how long it is kept.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::changes::Note;
use super::claims::delivery_of;
use super::outbox::{New, head_is_due, insert};
use super::webhooks::revision;
use super::{Change, Page, Store, StoreError, counter, flag};
use crate::model::{
    Attempt, Delivery, DeliveryKind, DeliveryState, Environment, Project, Revision, Webhook,
    WebhookId,
};

/// Deliveries whose end is written in one step of the clean-up: a step holds up writers shortly.
const PRUNE_STEP: i64 = 1000;

impl Store {
    /// Deliveries of an endpoint, newest first, older than the delivery `before`.
    pub async fn deliveries(
        &self,
        webhook: WebhookId,
        state: Option<DeliveryState>,
        page: Page,
    ) -> Result<Vec<Delivery>, StoreError> {
        let before = if page.after == 0 { i64::MAX } else { page.after };
        let rows = sqlx::query(
            "SELECT * FROM deliveries WHERE webhook_id = $1 AND id < $2 \
             AND ($3 = '' OR state = $3) ORDER BY id DESC LIMIT $4",
        )
        .bind(webhook.0)
        .bind(before)
        .bind(state.map(super::webhooks::name_of).unwrap_or_default())
        .bind(i64::from(page.limit))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().map(delivery_of).collect()
    }

    /// One delivery of an endpoint.
    pub async fn delivery(&self, webhook: WebhookId, id: i64) -> Result<Delivery, StoreError> {
        let row = sqlx::query("SELECT * FROM deliveries WHERE id = $1 AND webhook_id = $2")
            .bind(id)
            .bind(webhook.0)
            .fetch_optional(&mut *self.reader().await?)
            .await?
            .ok_or_else(|| StoreError::not_found("delivery", &id.to_string()))?;
        delivery_of(&row)
    }

    /// The newest attempts of a delivery, oldest first.
    pub async fn attempts(&self, delivery: i64, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        let rows = sqlx::query(
            "SELECT message_id, revision, at, micros, outcome, status, error, answer, \
             applied_revision FROM attempts WHERE delivery_id = $1 ORDER BY id DESC LIMIT $2",
        )
        .bind(delivery)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.reader().await?)
        .await?;
        rows.iter().rev().map(attempt_of).collect()
    }

    /// How many attempts of a delivery were written.
    pub async fn attempts_written(&self, delivery: i64) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS n FROM attempts WHERE delivery_id = $1")
            .bind(delivery)
            .fetch_one(&mut *self.reader().await?)
            .await?;
        Ok(counter(row.try_get("n")?))
    }

    /// Forgets what ended before `before`, and attempts from before it. Tells whether there may be more.
    pub async fn prune_deliveries(&self, before: i64) -> Result<bool, StoreError> {
        let deliveries = sqlx::query(
            "DELETE FROM deliveries WHERE id IN \
             (SELECT id FROM deliveries WHERE finished_at < $1 LIMIT $2)",
        )
        .bind(before)
        .bind(PRUNE_STEP)
        .execute(&mut *self.writer().await?)
        .await?;
        let attempts = sqlx::query(
            "DELETE FROM attempts WHERE id IN (SELECT id FROM attempts WHERE at < $1 LIMIT $2)",
        )
        .bind(before)
        .bind(PRUNE_STEP)
        .execute(&mut *self.writer().await?)
        .await?;
        let full = |rows: u64| i64::try_from(rows).is_ok_and(|rows| rows >= PRUNE_STEP);
        Ok(full(deliveries.rows_affected()) || full(attempts.rows_affected()))
    }
}

impl Change {
    /// Owes an endpoint a test delivery, at once and outside its queue.
    pub async fn test_webhook(
        &mut self,
        project: &Project,
        environment: &Environment,
        webhook: &Webhook,
    ) -> Result<Delivery, StoreError> {
        let now = self.now();
        let kind = DeliveryKind::Test;
        let (webhook_id, due) = (webhook.id, Some(now));
        let new = New { webhook: webhook_id, kind, once: true, due, changed: &[], event_id: None };
        let delivery = insert(self.connection(), (environment.stamp, now), new).await?;
        let (subject, action) = (webhook.id.0.to_string(), "webhook.tested");
        self.note(Note::of_environment(project, environment, false, action, &subject));
        Ok(delivery)
    }

    /// Sends a delivery once more, under its id, outside the queue. One that waits is tried now; one that
    /// waits behind others keeps its place, and the first of them is tried. Answers whether it is
    /// attempted now: nothing of the queue of a paused endpoint is.
    pub async fn redeliver(
        &mut self,
        project: &Project,
        environment: &Environment,
        webhook: &Webhook,
        delivery: i64,
    ) -> Result<(Delivery, bool), StoreError> {
        let now = self.now();
        let row = sqlx::query(
            "UPDATE deliveries SET once = CASE WHEN state = 'pending' THEN once ELSE 1 END, \
             due_at = CASE WHEN state = 'pending' AND due_at IS NULL THEN due_at ELSE $1 END, \
             state = 'pending', finished_at = NULL WHERE id = $2 AND webhook_id = $3 RETURNING *",
        )
        .bind(now)
        .bind(delivery)
        .bind(webhook.id.0)
        .fetch_optional(self.connection())
        .await?
        .ok_or_else(|| StoreError::not_found("delivery", &delivery.to_string()))?;
        head_is_due(self.connection(), webhook.id, now).await?;
        let (subject, action) = (webhook.id.0.to_string(), "webhook.redelivered");
        self.note(Note::of_environment(project, environment, false, action, &subject));
        let delivery = delivery_of(&row)?;
        let rests = webhook.paused || webhook.stopped_at.is_some();
        let is_due = delivery.due_at.is_some() && (flag(&row, "once")? || !rests);
        Ok((delivery, is_due))
    }

    /// Puts everything that failed or was dropped since `since` back into the queue, in its order.
    /// Answers with how much that is. A state that failed is none of it: the newest is told anyway.
    pub async fn recover(
        &mut self,
        project: &Project,
        environment: &Environment,
        webhook: &Webhook,
        since: i64,
    ) -> Result<u64, StoreError> {
        let now = self.now();
        let recovered = sqlx::query(
            "UPDATE deliveries SET state = 'pending', finished_at = NULL, once = 0, attempts = 0, \
             first_attempt_at = NULL, due_at = NULL WHERE webhook_id = $1 AND kind = 'event' \
             AND state IN ('failed', 'dropped') AND at >= $2",
        )
        .bind(webhook.id.0)
        .bind(since)
        .execute(self.connection())
        .await?
        .rows_affected();
        sqlx::query(
            "UPDATE deliveries SET due_at = NULL WHERE webhook_id = $1 AND state = 'pending' \
             AND once = 0",
        )
        .bind(webhook.id.0)
        .execute(self.connection())
        .await?;
        head_is_due(self.connection(), webhook.id, now).await?;
        let (subject, action) = (webhook.id.0.to_string(), "webhook.recovered");
        self.note(Note::of_environment(project, environment, false, action, &subject));
        Ok(recovered)
    }
}

fn attempt_of(row: &AnyRow) -> Result<Attempt, StoreError> {
    Ok(Attempt {
        at: row.try_get("at")?,
        micros: row.try_get("micros")?,
        message_id: row.try_get("message_id")?,
        revision: revision(row, "revision")?.unwrap_or(Revision(0)),
        outcome: row.try_get("outcome")?,
        status: row
            .try_get::<Option<i64>, _>("status")?
            .and_then(|status| u16::try_from(status).ok()),
        error: row.try_get("error")?,
        answer: row.try_get("answer")?,
        applied_revision: revision(row, "applied_revision")?,
    })
}
