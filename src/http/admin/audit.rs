//! `/admin/v1/audit`: who changed what, when and from where.

use async_stream::stream;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::call::answer;
use super::caller::Caller;
use super::kinds;
use super::pages::{Listed, PageQuery};
use super::shapes::{instant, rfc3339};
use crate::http::errors::Problem;
use crate::http::request::Params;
use crate::model::ChangeEvent;
use crate::store::{AuditFilter, PAGE_MAX, Store};

/// First line of a CSV export.
const CSV_HEAD: &str =
    "id,at,actor,origin,action,project,environment,subject,revision,before,after,urgent\r\n";

/// Which events, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Key of a project.
    project: Option<String>,
    /// Key of an environment.
    environment: Option<String>,
    /// `token:<name>`, `push` and so on.
    actor: Option<String>,
    /// `flag.updated` and so on.
    action: Option<String>,
    /// RFC 3339: not before.
    #[param(value_type = Option<kinds::Time>, inline)]
    since: Option<String>,
    /// RFC 3339: before.
    #[param(value_type = Option<kinds::Time>, inline)]
    until: Option<String>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<kinds::Cursor>, inline)]
    cursor: Option<String>,
    /// Rows at most, 1 to 200; 50 if absent.
    #[param(value_type = Option<kinds::Limit>, inline)]
    limit: Option<u32>,
}

/// A change event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditShape {
    #[schema(value_type = kinds::Id)]
    id: i64,
    /// RFC 3339.
    #[schema(value_type = kinds::Time)]
    at: String,
    /// Who.
    actor: String,
    /// From where.
    origin: String,
    /// What was done: `flag.updated`.
    action: String,
    project: Option<String>,
    environment: Option<String>,
    /// Key of what was changed.
    subject: String,
    /// The environment's revision that it made.
    revision: Option<u64>,
    /// What it was.
    before: Json,
    /// What it is.
    after: Json,
    /// Whether its pings did not wait.
    urgent: bool,
}

impl From<ChangeEvent> for AuditShape {
    fn from(event: ChangeEvent) -> Self {
        Self {
            id: event.id,
            at: rfc3339(event.at),
            actor: event.origin.actor,
            origin: event.origin.address,
            action: event.action,
            project: event.project,
            environment: event.environment,
            subject: event.subject,
            revision: event.stamp.map(|stamp| stamp.revision.0),
            before: event.before,
            after: event.after,
            urgent: event.urgent,
        }
    }
}

/// Lists change events, newest first. With `Accept: application/x-ndjson` or `text/csv`: all that
/// match, in one answer.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery),
    responses((status = OK, body = Listed<AuditShape>)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Params(query): Params<AuditQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may_read(query.project.as_deref(), query.environment.as_deref())?;
    let scope = &caller.token.scope;
    let either = |asked: &Option<String>, scoped: &Option<String>| {
        asked.clone().or_else(|| scoped.clone()).unwrap_or_default()
    };
    let filter = AuditFilter {
        project: either(&query.project, &scope.project),
        environment: either(&query.environment, &scope.environment),
        actor: query.actor.unwrap_or_default(),
        action: query.action.unwrap_or_default(),
        since: time("since", query.since.as_deref(), 0)?,
        until: time("until", query.until.as_deref(), i64::MAX)?,
    };
    let page = PageQuery { cursor: query.cursor, limit: query.limit }.page()?;
    let before = if page.after == 0 { i64::MAX } else { page.after };
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/csv") {
        return Ok(export(admin.store, filter, before, "text/csv; charset=utf-8", CSV_HEAD, csv));
    }
    if accept.contains("ndjson") {
        return Ok(export(admin.store, filter, before, "application/x-ndjson", "", ndjson));
    }
    let rows = admin.store.audit(&filter, before, page.limit).await?;
    let listed = Listed::of(rows, page, |event| event.id, AuditShape::from);
    Ok(answer(StatusCode::OK, json!(listed).to_string()))
}

/// Streams all that match, a batch at a time. A store that fails half-way aborts the answer: the
/// reader sees that it is not whole.
fn export(
    store: Store,
    filter: AuditFilter,
    mut before: i64,
    content_type: &'static str,
    head: &'static str,
    line: fn(&AuditShape) -> String,
) -> Response {
    let body = stream! {
        yield Ok(Bytes::from_static(head.as_bytes()));
        loop {
            match store.audit(&filter, before, PAGE_MAX).await {
                Ok(events) if events.is_empty() => return,
                Ok(events) => {
                    before = events.last().map_or(0, |event| event.id);
                    let lines: String =
                        events.into_iter().map(|event| line(&AuditShape::from(event))).collect();
                    yield Ok(Bytes::from(lines));
                }
                Err(error) => {
                    tracing::error!(%error, "an audit export broke off");
                    yield Err(error);
                    return;
                }
            }
        }
    };
    ([(CONTENT_TYPE, content_type)], Body::from_stream(body)).into_response()
}

fn ndjson(event: &AuditShape) -> String {
    format!("{}\n", json!(event))
}

fn csv(event: &AuditShape) -> String {
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    let fields = [
        event.id.to_string(),
        event.at.clone(),
        event.actor.clone(),
        event.origin.clone(),
        event.action.clone(),
        optional(&event.project),
        optional(&event.environment),
        event.subject.clone(),
        event.revision.map(|revision| revision.to_string()).unwrap_or_default(),
        event.before.to_string(),
        event.after.to_string(),
        event.urgent.to_string(),
    ];
    let quoted: Vec<String> = fields.iter().map(|field| quote(field)).collect();
    format!("{}\r\n", quoted.join(","))
}

/// RFC 4180. A field that a spreadsheet would run as a formula is made a text.
fn quote(field: &str) -> String {
    let harmless = if field.starts_with(['=', '+', '-', '@']) {
        format!("'{field}")
    } else {
        field.to_owned()
    };
    format!("\"{}\"", harmless.replace('"', "\"\""))
}

fn time(name: &str, text: Option<&str>, absent: i64) -> Result<i64, Problem> {
    text.map_or(Ok(absent), |text| instant(name, text).map_err(Problem::invalid_query))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_fields_are_quoted_and_no_formulas() {
        assert_eq!(quote("a \"b\", c"), "\"a \"\"b\"\", c\"");
        assert_eq!(quote("=1+1"), "\"'=1+1\"");
    }
}
