//! `/admin/v1/projects/{project}/environments/{environment}/webhooks`: who is told of changes.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Admin;
use super::call::{Call, Nothing, Stop, answer};
use super::caller::Caller;
use super::kinds;
use super::pages::{Listed, PageQuery};
use super::shapes::{Deleted, rfc3339};
use crate::http::errors::Problem;
use crate::http::request::{Params, Path};
use crate::model::{
    Environment, Project, Revision, Role, Webhook, WebhookFormat, WebhookId, WebhookMode,
    parse_target,
};
use crate::rules::{check_description, events, headers, secret};
use crate::store::keys::new_webhook_secret;
use crate::store::{NewWebhook, WebhookUpdate, now_micros};

/// Longest time for which an old secret signs beside its successor: 30 days, in seconds.
pub(super) const OVERLAP_SECONDS_MAX: u32 = 30 * 24 * 3600;

/// How long it does if the caller does not say: a day, in seconds.
const OVERLAP_SECONDS: u32 = 24 * 3600;

/// An endpoint to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewWebhookBody {
    /// Where requests go: `https://…`.
    #[schema(value_type = kinds::TargetUrl)]
    url: String,
    /// What it is for.
    #[serde(default)]
    #[schema(value_type = kinds::Description)]
    description: String,
    /// `state`: the newest revision, several changes folded into one delivery. `events`: each change
    /// event, in order.
    #[serde(default)]
    #[schema(value_type = kinds::WebhookMode)]
    mode: WebhookMode,
    /// `flagcast`, or `flagsmith` for receivers of Flagsmith's webhooks (mode `events` only).
    #[serde(default)]
    #[schema(value_type = kinds::WebhookFormat)]
    format: WebhookFormat,
    /// In mode `events`: which actions, `flag.updated` or `flag.*`. None: all.
    #[serde(default)]
    #[schema(value_type = kinds::EventFilters)]
    events: Vec<String>,
    /// Further headers of each request. Their values are not shown again.
    #[serde(default)]
    #[schema(value_type = kinds::TargetHeaders)]
    headers: BTreeMap<String, String>,
    /// `whsec_` and the base64 of 24 to 64 bytes. One is made if absent.
    #[schema(value_type = Option<kinds::WebhookSecret>)]
    secret: Option<String>,
}

/// What to change of an endpoint; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookPatch {
    #[schema(value_type = Option<kinds::TargetUrl>)]
    url: Option<String>,
    #[schema(value_type = Option<kinds::Description>)]
    description: Option<String>,
    #[schema(value_type = Option<kinds::EventFilters>)]
    events: Option<Vec<String>>,
    /// All of them: those that are not named are taken away.
    #[schema(value_type = Option<kinds::TargetHeaders>)]
    headers: Option<BTreeMap<String, String>>,
    /// Whether nothing is sent for now. `false` also resumes an endpoint that answered 410.
    paused: Option<bool>,
}

/// How to replace a secret.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    /// How long the old one signs beside the new one, in seconds; a day if absent, 30 days at most.
    #[schema(value_type = Option<kinds::OverlapSeconds>)]
    overlap_seconds: Option<f64>,
    /// The new one; one is made if absent.
    #[schema(value_type = Option<kinds::WebhookSecret>)]
    secret: Option<String>,
}

/// An endpoint, and how it does.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookShape {
    #[schema(value_type = kinds::Id)]
    id: i64,
    #[schema(value_type = kinds::TargetUrl)]
    url: String,
    #[schema(value_type = kinds::Description)]
    description: String,
    #[schema(value_type = kinds::WebhookMode)]
    mode: WebhookMode,
    #[schema(value_type = kinds::WebhookFormat)]
    format: WebhookFormat,
    #[schema(value_type = kinds::EventFilters)]
    events: Vec<String>,
    /// Names of its headers.
    headers: Vec<String>,
    /// `healthy`; `failing`: attempts fail and are repeated; `failed`: they did for two days, and it is
    /// probed now and then; `stopped`: it answered 410; `paused`.
    #[schema(value_type = kinds::WebhookStatus)]
    status: &'static str,
    /// The first failure since the last success, RFC 3339.
    #[schema(value_type = Option<kinds::Time>)]
    failing_since: Option<String>,
    /// When it answered 410, RFC 3339.
    #[schema(value_type = Option<kinds::Time>)]
    stopped_at: Option<String>,
    /// RFC 3339.
    #[schema(value_type = Option<kinds::Time>)]
    last_attempt_at: Option<String>,
    /// How it ended: `delivered`, `refused`, `timeout` and so on.
    last_outcome: Option<String>,
    /// What was wrong with it.
    last_error: String,
    /// The newest revision that it confirmed.
    delivered_revision: Option<u64>,
    /// The revision that it said it has applied; null if it never said.
    applied_revision: Option<u64>,
    /// Revisions between that, or what it confirmed, and the newest.
    behind: u64,
    /// Deliveries that wait.
    pending: u32,
    /// Events dropped because too many waited.
    dropped: u32,
    /// Whether an old secret still signs beside the new one.
    rotating: bool,
    /// RFC 3339.
    #[schema(value_type = kinds::Time)]
    created_at: String,
}

/// An endpoint with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookWithSecret {
    #[serde(flatten)]
    webhook: WebhookShape,
    /// Give it to the receiver. Null when an idempotency key repeats the request.
    secret: Option<String>,
}

impl WebhookShape {
    pub(super) fn at(webhook: &Webhook, newest: Revision) -> Self {
        Self {
            id: webhook.id.0,
            url: webhook.url.clone(),
            description: webhook.description.clone(),
            mode: webhook.mode,
            format: webhook.format,
            events: webhook.events.clone(),
            headers: webhook.headers.iter().map(|(name, _)| name.clone()).collect(),
            status: webhook.status(now_micros()).as_str(),
            failing_since: webhook.failing_since.map(rfc3339),
            stopped_at: webhook.stopped_at.map(rfc3339),
            last_attempt_at: webhook.last_attempt_at.map(rfc3339),
            last_outcome: webhook.last_outcome.clone(),
            last_error: webhook.last_error.clone(),
            delivered_revision: webhook.delivered_revision.map(|revision| revision.0),
            applied_revision: webhook.applied_revision.map(|revision| revision.0),
            behind: webhook.behind(newest),
            pending: webhook.pending,
            dropped: webhook.dropped,
            rotating: webhook.previous_secret.is_some(),
            created_at: rfc3339(webhook.created_at),
        }
    }
}

/// Lists endpoints in the order they were made.
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/webhooks",
    tag = "webhooks",
    params(("project" = String, Path), ("environment" = String, Path), PageQuery),
    responses((status = OK, body = Listed<WebhookShape>)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment)): Path<(String, String)>,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    let page = query.page()?;
    let (_, environment) = admin.environment_of_webhooks(&caller, &project, &environment).await?;
    let newest = environment.stamp.revision;
    let rows = admin.store.webhooks(environment.id, page).await?;
    let shape = |webhook: Webhook| WebhookShape::at(&webhook, newest);
    let listed = Listed::of(rows, page, |webhook| webhook.id.0, shape);
    Ok(answer(StatusCode::OK, json!(listed).to_string()))
}

/// Makes an endpoint. Nothing is sent to it before the next change or test.
#[utoipa::path(post, path = "/projects/{project}/environments/{environment}/webhooks",
    tag = "webhooks", request_body = NewWebhookBody,
    params(("project" = String, Path), ("environment" = String, Path)),
    responses((status = CREATED, body = WebhookWithSecret)))]
pub(super) async fn create(
    State(admin): State<Admin>,
    Path((project, environment)): Path<(String, String)>,
    call: Call<NewWebhookBody>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, Some(&project), Some(&environment))?;
    let NewWebhookBody { url, description, mode, format, .. } = &call.body;
    admin.check_target(url)?;
    check_description(description)?;
    let new = NewWebhook {
        url: url.clone(),
        description: description.clone(),
        mode: *mode,
        format: *format,
        events: events(&call.body.events, *mode, *format)?,
        headers: headers(&call.body.headers)?,
        secret: call.body.secret.as_deref().map_or_else(|| Ok(new_webhook_secret()), secret)?,
    };
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let webhook = change.create_webhook(&project, &environment, &new, &admin.limits).await?;
    let shape = |_: &_| WebhookWithSecret {
        webhook: WebhookShape::at(&webhook, environment.stamp.revision),
        secret: Some(new.secret.expose().to_owned()),
    };
    admin.finish(change, &call, StatusCode::CREATED, shape).await
}

/// Tells how an endpoint does.
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/webhooks/{webhook}",
    tag = "webhooks",
    params(("project" = String, Path), ("environment" = String, Path), ("webhook" = i64, Path)),
    responses((status = OK, body = WebhookShape)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment, webhook)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let (environment, webhook) = admin.webhook(&caller, (&project, &environment, &webhook)).await?;
    let shape = WebhookShape::at(&webhook, environment.stamp.revision);
    Ok(answer(StatusCode::OK, json!(shape).to_string()))
}

/// Changes an endpoint, pauses or resumes it.
#[utoipa::path(patch, path = "/projects/{project}/environments/{environment}/webhooks/{webhook}",
    tag = "webhooks", request_body = WebhookPatch,
    params(("project" = String, Path), ("environment" = String, Path), ("webhook" = i64, Path)),
    responses((status = OK, body = WebhookShape)))]
pub(super) async fn update(
    State(admin): State<Admin>,
    Path((project, environment, webhook)): Path<(String, String, String)>,
    call: Call<WebhookPatch>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, Some(&project), Some(&environment))?;
    let WebhookPatch { url, description, events: wanted, headers: given, paused } = &call.body;
    if let Some(url) = url {
        admin.check_target(url)?;
    }
    if let Some(description) = description {
        check_description(description)?;
    }
    let given = given.as_ref().map(headers).transpose()?;
    let id = webhook_id(&webhook)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let present = change.webhook(&environment, id).await?;
    let wanted = wanted.as_ref().map(|given| events(given, present.mode, present.format));
    let update = WebhookUpdate {
        url: url.clone(),
        description: description.clone(),
        events: wanted.transpose()?,
        headers: given,
        paused: *paused,
    };
    let webhook = change.update_webhook(&project, &environment, &present, &update).await?;
    let shape = |_: &_| WebhookShape::at(&webhook, environment.stamp.revision);
    admin.finish(change, &call, StatusCode::OK, shape).await
}

/// Takes an endpoint away, with what it was still to be told.
#[utoipa::path(delete, path = "/projects/{project}/environments/{environment}/webhooks/{webhook}",
    tag = "webhooks",
    params(("project" = String, Path), ("environment" = String, Path), ("webhook" = i64, Path)),
    responses((status = OK, body = Deleted)))]
pub(super) async fn delete(
    State(admin): State<Admin>,
    Path((project, environment, webhook)): Path<(String, String, String)>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, Some(&project), Some(&environment))?;
    let id = webhook_id(&webhook)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let webhook = change.webhook(&environment, id).await?;
    change.delete_webhook(&project, &environment, &webhook).await?;
    let deleted = webhook.id.0.to_string();
    admin.finish(change, &call, StatusCode::OK, |_| Deleted { deleted }).await
}

/// Replaces the secret. The old one signs beside the new one for a while, so that receivers can be
/// given the new one without missing anything.
#[utoipa::path(post,
    path = "/projects/{project}/environments/{environment}/webhooks/{webhook}/secret:rotate",
    tag = "webhooks", request_body = Rotation,
    params(("project" = String, Path), ("environment" = String, Path), ("webhook" = i64, Path)),
    responses((status = OK, body = WebhookWithSecret)))]
pub(super) async fn rotate(
    State(admin): State<Admin>,
    Path((project, environment, webhook)): Path<(String, String, String)>,
    call: Call<Rotation>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, Some(&project), Some(&environment))?;
    let overlap = call.body.overlap_seconds.unwrap_or_else(|| f64::from(OVERLAP_SECONDS));
    let in_bounds = (0.0..=f64::from(OVERLAP_SECONDS_MAX)).contains(&overlap);
    // 600.0 is a whole number, too, as JSON has it.
    if !in_bounds || overlap.fract() != 0.0 {
        let detail = format!(
            "`overlap_seconds` must be a whole number, 0 to {OVERLAP_SECONDS_MAX} (30 days)"
        );
        return Err(Problem::invalid_field(detail).into());
    }
    let new = call.body.secret.as_deref().map_or_else(|| Ok(new_webhook_secret()), secret)?;
    let id = webhook_id(&webhook)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let present = change.webhook(&environment, id).await?;
    #[expect(clippy::cast_possible_truncation, reason = "30 days at most")]
    let overlap = overlap as i64 * 1_000_000;
    change.rotate_webhook_secret((&project, &environment), &present, &new, overlap).await?;
    let webhook = change.webhook(&environment, id).await?;
    let shape = |_: &_| WebhookWithSecret {
        webhook: WebhookShape::at(&webhook, environment.stamp.revision),
        secret: Some(new.expose().to_owned()),
    };
    admin.finish(change, &call, StatusCode::OK, shape).await
}

/// The number of an endpoint in a path.
pub(super) fn webhook_id(text: &str) -> Result<WebhookId, Problem> {
    let not_found = || Problem::not_found(format!("there is no webhook `{text}`"));
    text.parse().map(WebhookId).map_err(|_| not_found())
}

impl Admin {
    fn check_target(&self, url: &str) -> Result<(), Problem> {
        parse_target(url, &self.allowed_targets)
            .map(drop)
            .map_err(|error| Problem::invalid_field(format!("`url` {error}")))
    }

    /// A URL can be a secret of its own, so viewers do not see endpoints.
    async fn environment_of_webhooks(
        &self,
        caller: &Caller,
        project: &str,
        environment: &str,
    ) -> Result<(Project, Environment), Problem> {
        caller.may_change(Role::Editor, Some(project), Some(environment))?;
        self.environment(caller, project, environment).await
    }

    /// The endpoint that a reader asks for.
    pub(super) async fn webhook(
        &self,
        caller: &Caller,
        (project, environment, webhook): (&str, &str, &str),
    ) -> Result<(Environment, Webhook), Problem> {
        let (_, environment) = self.environment_of_webhooks(caller, project, environment).await?;
        let webhook = self.store.webhook(environment.id, webhook_id(webhook)?).await?;
        Ok((environment, webhook))
    }
}
