//! `…/webhooks/{webhook}/deliveries`: what an endpoint is owed and was told, and telling it again.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::call::{Call, Nothing, Stop, answer};
use super::caller::Caller;
use super::kinds;
use super::pages::{Listed, PageQuery};
use super::shapes::{instant, rfc3339};
use super::webhooks::webhook_id;
use crate::http::errors::Problem;
use crate::http::request::{Params, Path};
use crate::model::{Attempt, Delivery, DeliveryKind, DeliveryState, Role, UpdatedAt, WebhookId};

/// Attempts that a delivery shows: the newest of them.
const ATTEMPTS_SHOWN: u32 = 50;

/// How long a test waits for its answer: an attempt takes 15 s at most unless the settings say more.
const ATTEMPT_WAIT: Duration = Duration::from_secs(20);

/// How often somebody who waits looks again if another process may have made the attempt.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Which deliveries, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveriesQuery {
    /// Only those that stand so.
    #[param(value_type = Option<kinds::DeliveryState>, inline)]
    state: Option<DeliveryState>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<kinds::Cursor>, inline)]
    cursor: Option<String>,
    /// Rows at most, 1 to 200; 50 if absent.
    #[param(value_type = Option<kinds::Limit>, inline)]
    limit: Option<u32>,
}

/// From when on to recover.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Recovery {
    /// Changes from then on, RFC 3339.
    #[schema(value_type = kinds::Time)]
    since: String,
}

/// What was put back.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Recovered {
    /// Deliveries that are to be attempted again.
    recovered: u64,
}

/// Something that an endpoint is owed or was told.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryShape {
    #[schema(value_type = kinds::Id)]
    id: i64,
    /// `webhook-id` of its attempts.
    message_id: String,
    /// `state`, `event` or `test`.
    #[schema(value_type = kinds::DeliveryKind)]
    kind: DeliveryKind,
    #[schema(value_type = kinds::DeliveryState)]
    state: DeliveryState,
    /// The revision that it tells.
    revision: u64,
    /// Seconds since the epoch.
    #[schema(value_type = kinds::Seconds)]
    updated_at: UpdatedAt,
    /// Keys of the features that changed.
    changed: Vec<String>,
    /// The change event that it tells: its `id` in the audit.
    event_id: Option<i64>,
    /// Attempts begun.
    attempts: u32,
    /// When the next is due, RFC 3339; null while it waits behind others or is finished.
    #[schema(value_type = Option<kinds::Time>)]
    next_attempt_at: Option<String>,
    /// When what it tells happened, RFC 3339.
    #[schema(value_type = kinds::Time)]
    at: String,
    /// RFC 3339.
    #[schema(value_type = Option<kinds::Time>)]
    finished_at: Option<String>,
}

/// A delivery with its attempts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryWithAttempts {
    #[serde(flatten)]
    delivery: DeliveryShape,
    /// The newest of them, oldest first.
    log: Vec<AttemptShape>,
}

/// One request to an endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AttemptShape {
    /// When it began, RFC 3339.
    #[schema(value_type = kinds::Time)]
    at: String,
    duration_ms: f64,
    /// `webhook-id`: another than the delivery's, if that has folded into something newer.
    message_id: String,
    revision: u64,
    /// `delivered`, `redirected`, `refused`, `gone`, `throttled`, `failed`, `timeout`, `unreachable`,
    /// `blocked` or `unsigned`.
    outcome: String,
    /// Status of the answer, if there was one.
    status: Option<u16>,
    /// What was wrong.
    error: String,
    /// The first kilobyte of the answer.
    answer: String,
    /// The revision that the endpoint said it has applied.
    applied_revision: Option<u64>,
}

impl From<Delivery> for DeliveryShape {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.id,
            message_id: delivery.message_id,
            kind: delivery.kind,
            state: delivery.state,
            revision: delivery.stamp.revision.0,
            updated_at: delivery.stamp.updated_at,
            changed: delivery.changed,
            event_id: delivery.event_id,
            attempts: delivery.attempts,
            next_attempt_at: delivery.due_at.map(rfc3339),
            at: rfc3339(delivery.at),
            finished_at: delivery.finished_at.map(rfc3339),
        }
    }
}

impl From<Attempt> for AttemptShape {
    fn from(attempt: Attempt) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a minute at most")]
        let millis = attempt.micros as f64 / 1000.0;
        Self {
            at: rfc3339(attempt.at),
            duration_ms: millis,
            message_id: attempt.message_id,
            revision: attempt.revision.0,
            outcome: attempt.outcome,
            status: attempt.status,
            error: attempt.error,
            answer: attempt.answer,
            applied_revision: attempt.applied_revision.map(|revision| revision.0),
        }
    }
}

/// Lists deliveries, newest first.
#[utoipa::path(get, operation_id = "deliveries",
    path = "/projects/{project}/environments/{environment}/webhooks/{webhook}/deliveries",
    tag = "webhooks",
    params(("project" = String, Path), ("environment" = String, Path), ("webhook" = i64, Path),
        DeliveriesQuery),
    responses((status = OK, body = Listed<DeliveryShape>)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment, webhook)): Path<(String, String, String)>,
    Params(query): Params<DeliveriesQuery>,
) -> Result<Response, Problem> {
    let page = PageQuery { cursor: query.cursor, limit: query.limit }.page()?;
    let (_, webhook) = admin.webhook(&caller, (&project, &environment, &webhook)).await?;
    let rows = admin.store.deliveries(webhook.id, query.state, page).await?;
    let listed = Listed::of(rows, page, |delivery| delivery.id, DeliveryShape::from);
    Ok(answer(StatusCode::OK, json!(listed).to_string()))
}

/// Shows a delivery with its attempts.
#[utoipa::path(get, operation_id = "delivery",
    path = "/projects/{project}/environments/{environment}/webhooks/{webhook}/deliveries/{delivery}",
    tag = "webhooks",
    params(("project" = String, Path), ("environment" = String, Path), ("webhook" = i64, Path),
        ("delivery" = i64, Path)),
    responses((status = OK, body = DeliveryWithAttempts)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment, webhook, delivery)): Path<(String, String, String, String)>,
) -> Result<Response, Problem> {
    let (_, webhook) = admin.webhook(&caller, (&project, &environment, &webhook)).await?;
    let shape = admin.delivery(webhook.id, delivery_id(&delivery)?).await?;
    Ok(answer(StatusCode::OK, json!(shape).to_string()))
}

/// Sends a test now, beside what waits, and answers with how it went. It is tried once. Also for an
/// endpoint that is paused or stopped.
#[utoipa::path(post, operation_id = "test",
    path = "/projects/{project}/environments/{environment}/webhooks/{webhook}/test",
    tag = "webhooks",
    params(("project" = String, Path), ("environment" = String, Path), ("webhook" = i64, Path)),
    responses((status = OK, body = DeliveryWithAttempts)))]
pub(super) async fn test(
    State(admin): State<Admin>,
    Path((project, environment, webhook)): Path<(String, String, String)>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), Some(&environment))?;
    let id = webhook_id(&webhook)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let webhook = change.webhook(&environment, id).await?;
    let delivery = change.test_webhook(&project, &environment, &webhook).await?;
    let number = delivery.id;
    let shape = |_: &_| DeliveryWithAttempts { delivery: delivery.into(), log: Vec::new() };
    let first = admin.finish(change, &call, StatusCode::OK, shape).await?;
    admin.answer_when_attempted(first, (id, number), 0).await
}

/// Sends a delivery once more, under its id, and answers with how it went. One that is finished is
/// tried once, beside what waits.
#[utoipa::path(post, operation_id = "redeliver",
    path = "/projects/{project}/environments/{environment}/webhooks/{webhook}/deliveries/{delivery}/redeliver",
    tag = "webhooks",
    params(("project" = String, Path), ("environment" = String, Path), ("webhook" = i64, Path),
        ("delivery" = i64, Path)),
    responses((status = OK, body = DeliveryWithAttempts)))]
pub(super) async fn redeliver(
    State(admin): State<Admin>,
    Path((project, environment, webhook, delivery)): Path<(String, String, String, String)>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), Some(&environment))?;
    let (id, number) = (webhook_id(&webhook)?, delivery_id(&delivery)?);
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let webhook = change.webhook(&environment, id).await?;
    let (delivery, is_due) = change.redeliver(&project, &environment, &webhook, number).await?;
    let before = admin.store.attempts_written(number).await?;
    let shape = |_: &_| DeliveryWithAttempts { delivery: delivery.into(), log: Vec::new() };
    let first = admin.finish(change, &call, StatusCode::OK, shape).await?;
    if is_due { admin.answer_when_attempted(first, (id, number), before).await } else { Ok(first) }
}

/// Puts the events that were given up or dropped since a time back into the queue, in their order.
#[utoipa::path(post, operation_id = "recover",
    path = "/projects/{project}/environments/{environment}/webhooks/{webhook}/recover",
    tag = "webhooks", request_body = Recovery,
    params(("project" = String, Path), ("environment" = String, Path), ("webhook" = i64, Path)),
    responses((status = OK, body = Recovered)))]
pub(super) async fn recover(
    State(admin): State<Admin>,
    Path((project, environment, webhook)): Path<(String, String, String)>,
    call: Call<Recovery>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), Some(&environment))?;
    let since = instant("since", &call.body.since).map_err(Problem::invalid_field)?;
    let id = webhook_id(&webhook)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let webhook = change.webhook(&environment, id).await?;
    let recovered = change.recover(&project, &environment, &webhook, since).await?;
    admin.finish(change, &call, StatusCode::OK, |_| Recovered { recovered }).await
}

fn delivery_id(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| Problem::not_found(format!("there is no delivery `{text}`")))
}

impl Admin {
    async fn delivery(&self, webhook: WebhookId, id: i64) -> Result<DeliveryWithAttempts, Problem> {
        let delivery = self.store.delivery(webhook, id).await?;
        let attempts = self.store.attempts(id, ATTEMPTS_SHOWN).await?;
        let log = attempts.into_iter().map(AttemptShape::from).collect();
        Ok(DeliveryWithAttempts { delivery: delivery.into(), log })
    }

    /// Waits until there are more attempts of a delivery than `before`, and answers with how it went; with
    /// `first` if that takes too long.
    async fn answer_when_attempted(
        &self,
        first: Response,
        (webhook, delivery): (WebhookId, i64),
        before: u64,
    ) -> Result<Response, Stop> {
        let mut settled = self.store.settlements();
        let until = Instant::now() + ATTEMPT_WAIT;
        while Instant::now() < until {
            settled.mark_unchanged();
            if self.store.attempts_written(delivery).await? > before {
                let known = self.delivery(webhook, delivery).await?;
                return Ok(answer(StatusCode::OK, json!(known).to_string()));
            }
            let next = until.min(Instant::now() + LOOK_AGAIN);
            // Whatever ends the wait: the next look tells.
            drop(timeout_at(next, settled.changed()).await);
        }
        Ok(first)
    }
}
