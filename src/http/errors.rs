//! Turns failures into answers: RFC 9457 problems with a stable code, and Flagsmith's `detail`.
//!
//! The client gets what went wrong, which rule it broke and what to do; the cause of a failure that
//! is ours goes to the log, once.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value as Json, json};

use crate::model::Role;
use crate::rules::Broken;
use crate::store::StoreError;

/// Seconds after which a client may try again when the store does not answer.
const STORE_RETRY_SECONDS: u64 = 2;

/// An error answer.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    revision: Option<u64>,
    retry_after: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), revision: None, retry_after: None }
    }

    pub(super) fn malformed_json(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_json", detail)
    }

    pub(super) fn invalid_field(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_field", detail)
    }

    pub(super) fn invalid_cursor() -> Self {
        let detail = "`cursor` must be the `next_cursor` of a page before; leave it out to begin";
        Self::new(StatusCode::BAD_REQUEST, "invalid_cursor", detail)
    }

    pub(super) fn invalid_query(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_query", detail)
    }

    pub(super) fn invalid_path(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_path", detail)
    }

    pub(super) fn invalid_header(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_header", detail)
    }

    pub(super) fn token_missing() -> Self {
        let detail = "send a management token: `Authorization: Bearer fct_…`";
        Self::new(StatusCode::UNAUTHORIZED, "token_missing", detail)
    }

    pub(super) fn token_invalid() -> Self {
        let detail = "this token does not exist or was revoked; ask an admin for another";
        Self::new(StatusCode::UNAUTHORIZED, "token_invalid", detail)
    }

    pub(super) fn role_too_small(has: Role, needs: Role) -> Self {
        let (has, needs) = (has.as_str(), needs.as_str());
        let detail = format!("this token is a {has}; the request needs {needs}");
        Self::new(StatusCode::FORBIDDEN, "role_too_small", detail)
    }

    pub(super) fn outside_scope() -> Self {
        let detail =
            "this token is for another project or environment; `GET /admin/v1/token` tells";
        Self::new(StatusCode::FORBIDDEN, "outside_scope", detail)
    }

    pub(super) fn read_only() -> Self {
        let detail = "this gateway serves a fixture (`serve --fixture`), which only its file changes; \
            change the file and start it again";
        Self::new(StatusCode::FORBIDDEN, "read_only", detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// To a relay: no environment is called so.
    pub(super) fn environment_unknown() -> Self {
        let detail = "no environment has this client key, or a server key of this digest; a server key \
            itself belongs into no URL: say `sha256:` and its digest";
        Self::new(StatusCode::NOT_FOUND, "environment_unknown", detail)
    }

    /// To a relay: it has heard of a change before us.
    pub(super) fn revision_ahead() -> Self {
        let detail = "this revision does not exist yet; try again in a moment";
        Self::new(StatusCode::NOT_FOUND, "revision_ahead", detail)
    }

    /// To a relay: a trait that should be counted is no whole number.
    pub(super) fn not_countable(detail: String) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "not_countable", detail)
    }

    pub(super) fn method_not_allowed() -> Self {
        let detail =
            "this route exists, but not with this method; /admin/v1/openapi.json lists all";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    pub(super) fn body_too_slow(limit: Duration) -> Self {
        let detail =
            format!("the body took longer than {} s (`limits.body_seconds`)", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail)
    }

    pub(super) fn body_too_large(limit: usize) -> Self {
        let detail = format!("the body is larger than {limit} bytes (`limits.body_bytes`)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    }

    pub(super) fn already_exists(detail: String) -> Self {
        Self::new(StatusCode::CONFLICT, "already_exists", detail)
    }

    /// Flags that would depend on themselves, or on what is gone.
    pub(super) fn flag_dependency(detail: String) -> Self {
        Self::new(StatusCode::CONFLICT, "flag_dependency", detail)
    }

    pub(super) fn too_many_requests(wait: Duration) -> Self {
        let detail = "this token sends more than `limits.requests_per_second`";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail).after(wait)
    }

    pub(super) fn too_many_evaluations(wait: Duration) -> Self {
        let detail = "this environment is asked for more than `limits.evaluations_per_second`";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_evaluations", detail).after(wait)
    }

    pub(super) fn key_missing() -> Self {
        let detail = "send a key of the environment, its client key or a server key: \
            `Authorization: Bearer …` or `X-API-Key: …`";
        Self::new(StatusCode::UNAUTHORIZED, "key_missing", detail)
    }

    /// The same in the words of Flipper's settings.
    pub(super) fn flipper_token_missing() -> Self {
        let detail = "send a key of the environment, a server key or its client key, as \
            `flipper-cloud-token` (in Rails: `FLIPPER_CLOUD_TOKEN`)";
        Self::new(StatusCode::UNAUTHORIZED, "key_missing", detail)
    }

    /// A write of Flipper's, which goes to its remote side first.
    pub(super) fn flipper_writes_nothing() -> Self {
        let detail =
            "Flipper only reads here; change the flag on the page or by the management API";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    pub(super) fn key_unknown() -> Self {
        let detail = "no environment has this key, or it was revoked; `GET /admin/v1/projects/…/\
            environments/…` shows the client key";
        Self::new(StatusCode::UNAUTHORIZED, "key_unknown", detail)
    }

    pub(super) fn push_only() -> Self {
        let detail = "this environment only pings: its flags live in the system that announces it";
        Self::new(StatusCode::FORBIDDEN, "push_only", detail)
    }

    /// The store does not answer, and nothing was changed.
    pub(super) fn store_unavailable() -> Self {
        let detail = "the store does not answer now; nothing was changed, try again";
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail);
        Self { retry_after: Some(STORE_RETRY_SECONDS), ..problem }
    }

    /// At a relay: its upstream does not answer, and only that could help.
    pub(super) fn upstream_away(detail: String) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_away", detail);
        Self { retry_after: Some(STORE_RETRY_SECONDS), ..problem }
    }

    /// The store did not say whether it made a change.
    pub(super) fn outcome_unknown() -> Self {
        let detail = "the store did not answer when the change was made true: it may have been \
            made or not; look, or repeat the request with its `Idempotency-Key`";
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", detail);
        Self { retry_after: Some(STORE_RETRY_SECONDS), ..problem }
    }

    /// With word to come back, in whole seconds, after `wait`.
    fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait.as_secs() + 1), ..self }
    }

    /// A fault of ours that no request should be able to cause.
    pub(super) fn internal() -> Self {
        let detail = "an error on our side; the log has its cause";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// The same problem of a part: `variants[0]`.
    pub(super) fn at(self, place: &str) -> Self {
        Self { detail: format!("`{place}`: {}", self.detail), ..self }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Seconds after which to try again, if that may help.
    pub(super) fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }
}

impl From<Broken> for Problem {
    fn from(broken: Broken) -> Self {
        Self::invalid_field(broken.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::NotFound { .. } => Self::not_found(detail),
            StoreError::AlreadyExists { .. } => {
                Self::already_exists(format!("{detail}; choose another key"))
            }
            StoreError::LimitReached { .. } => {
                Self::new(StatusCode::CONFLICT, "limit_reached", detail)
            }
            StoreError::NotCountable { .. } => {
                Self::invalid_field(format!("{detail}; set it to a whole number first"))
            }
            StoreError::RevisionConflict { present } => {
                let detail = format!("{detail}, not where `If-Match` says; read it and try again");
                let problem =
                    Self::new(StatusCode::PRECONDITION_FAILED, "revision_conflict", detail);
                Self { revision: Some(present.0), ..problem }
            }
            StoreError::IdempotencyKeyReused => {
                let detail = format!("{detail}; take a new key for a new request");
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
            }
            StoreError::OutcomeUnknown(_) => {
                tracing::error!(error = %detail, "the store failed");
                Self::outcome_unknown()
            }
            StoreError::Damaged(_) | StoreError::Migration(_) | StoreError::Unsuitable(_) => {
                tracing::error!(error = %detail, "the store failed");
                Self::internal()
            }
            StoreError::Away(_) => Self::upstream_away(detail),
            StoreError::Elsewhere(_) => Self::new(StatusCode::CONFLICT, "kept_elsewhere", detail),
            StoreError::Unavailable(_) => {
                tracing::error!(error = %detail, "the store failed");
                Self::store_unavailable()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = Map::new();
        body.insert("type".to_owned(), json!("about:blank"));
        body.insert("title".to_owned(), json!(self.status.canonical_reason()));
        body.insert("status".to_owned(), json!(self.status.as_u16()));
        body.insert("code".to_owned(), json!(self.code));
        body.insert("detail".to_owned(), json!(self.detail));
        if let Some(revision) = self.revision {
            body.insert("revision".to_owned(), json!(revision));
        }
        let mut response = (self.status, Json::Object(body).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// An error in the shape that Flagsmith's SDKs show to their users.
#[derive(Debug)]
pub(super) struct Detail(pub(super) StatusCode, pub(super) String);

impl From<Problem> for Detail {
    fn from(problem: Problem) -> Self {
        Self(problem.status(), problem.detail().to_owned())
    }
}

impl From<Broken> for Detail {
    fn from(broken: Broken) -> Self {
        Problem::from(broken).into()
    }
}

impl From<StoreError> for Detail {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl IntoResponse for Detail {
    fn into_response(self) -> Response {
        let Self(status, detail) = self;
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (status, headers, json!({ "detail": detail }).to_string()).into_response()
    }
}
