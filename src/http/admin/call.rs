//! A call that changes something: the way from a request to a told change.

use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use super::Admin;
use super::caller::Caller;
use crate::http::errors::Problem;
use crate::http::request::{BodyLimits, parse_json};
use crate::model::{Environment, Project, Revision, Stamp};
use crate::store::keys::hex;
use crate::store::{Change, Idempotency, Replay, Stamps};

/// Longest idempotency key.
pub(super) const IDEMPOTENCY_KEY_MAX: usize = 128;

/// Fields that are told once and kept nowhere.
const SECRET_FIELDS: [&str; 3] = ["token", "server_key", "secret"];

/// A checked call: who, what, and under which conditions.
#[derive(Debug)]
pub(super) struct Call<T> {
    pub(super) caller: Caller,
    pub(super) body: T,
    if_match: Option<Revision>,
    idempotency: Option<Idempotency>,
}

/// A body that a call does not need.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Why a call ends before its work: it is refused, or it was done before.
#[derive(Debug)]
pub(super) enum Stop {
    /// The request is wrong, or it cannot be done now.
    Refused(Problem),
    /// Its idempotency key came before, and this was the answer.
    Done(Response),
}

impl<E: Into<Problem>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(problem) => problem.into_response(),
            Self::Done(response) => response,
        }
    }
}

impl<T: DeserializeOwned> FromRequest<Admin> for Call<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, admin: &Admin) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, admin).await?;
        let if_match = if_match(&parts.headers)?;
        let limits = BodyLimits::from_request_parts(&mut parts, admin).await?;
        let bytes = limits.read(body).await?;
        let idempotency = idempotency_key(&parts.headers)?.map(|key| {
            let mut hash = Sha256::new();
            hash.update(parts.method.as_str());
            hash.update([0]);
            hash.update(parts.uri.path());
            hash.update([0]);
            hash.update(&bytes);
            let request_hash = hex(&hash.finalize());
            Idempotency { token_id: caller.token.id, key, request_hash }
        });
        let bytes = if bytes.is_empty() { b"{}".as_slice() } else { &bytes };
        Ok(Self { caller, body: parse_json(bytes)?, if_match, idempotency })
    }
}

impl<T> Call<T> {
    /// Refuses `If-Match` on a call that is not about one environment's state.
    pub(super) fn expect_nothing(&self) -> Result<(), Problem> {
        match self.if_match {
            None => Ok(()),
            Some(_) => Err(Problem::invalid_header(
                "`If-Match` holds an environment's revision; this route changes no single environment",
            )),
        }
    }
}

impl Admin {
    /// Begins the change of a call, unless it was done before.
    pub(super) async fn begin<T>(&self, call: &Call<T>) -> Result<Change, Stop> {
        if self.read_only {
            return Err(Problem::read_only().into());
        }
        let mut change = self.store.change(call.caller.origin()).await?;
        if let Some(idempotency) = &call.idempotency
            && let Some(replay) = change.replay(idempotency).await?
        {
            let status = StatusCode::from_u16(replay.status).unwrap_or(StatusCode::OK);
            let mut response = answer(status, replay.body);
            let replayed = HeaderValue::from_static("true");
            response.headers_mut().insert("idempotency-replayed", replayed);
            return Err(Stop::Done(response));
        }
        Ok(change)
    }

    /// Begins the change of a call about one environment, if that is where `If-Match` says.
    pub(super) async fn begin_in<T>(
        &self,
        call: &Call<T>,
        project: &str,
        environment: &str,
    ) -> Result<(Change, Project, Environment), Stop> {
        let mut change = self.begin(call).await?;
        let project = change.project(project).await?;
        let environment = change.environment(&project, environment).await?;
        change.expect_revision(&environment, call.if_match)?;
        Ok((change, project, environment))
    }

    /// Makes the change true, waits until it is told, and answers with what `shape` makes of the
    /// new states.
    pub(super) async fn finish<T, S: Serialize>(
        &self,
        mut change: Change,
        call: &Call<T>,
        status: StatusCode,
        shape: impl FnOnce(&Stamps) -> S,
    ) -> Result<Response, Stop> {
        let stamps = change.seal().await?;
        let json = serde_json::to_value(shape(&stamps)).map_err(|error| {
            tracing::error!(%error, "cannot serialise an answer");
            Problem::internal()
        })?;
        if let Some(idempotency) = &call.idempotency {
            let body = without_secrets(json.clone()).to_string();
            change.remember(idempotency, &Replay { status: status.as_u16(), body }).await?;
        }
        change.commit().await?;
        for (id, moved) in &stamps {
            // One warning is enough: the same feed tells of all.
            if !self.hub.told(*id, moved.stamp.revision).await {
                break;
            }
        }
        let mut response = answer(status, json.to_string());
        // One environment only: of several, none is the one to match.
        if let (1, Some(moved)) = (stamps.len(), stamps.values().next()) {
            response.headers_mut().insert(ETAG, etag(moved.stamp));
        }
        Ok(response)
    }
}

/// The tag that `If-Match` takes back.
pub(super) fn etag(stamp: Stamp) -> HeaderValue {
    HeaderValue::try_from(format!("\"{}\"", stamp.revision))
        .unwrap_or(HeaderValue::from_static("\"0\""))
}

/// A JSON answer that nobody keeps.
pub(super) fn answer(status: StatusCode, body: String) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (http::header::CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}

fn without_secrets(mut json: Json) -> Json {
    if let Json::Object(fields) = &mut json {
        for field in SECRET_FIELDS {
            if let Some(value) = fields.get_mut(field) {
                *value = Json::Null;
            }
        }
    }
    json
}

/// `"42"`, or `*` for any.
fn if_match(headers: &HeaderMap) -> Result<Option<Revision>, Problem> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match quoted.map(str::parse) {
        Some(Ok(revision)) => Ok(Some(Revision(revision))),
        _ => Err(Problem::invalid_header(
            "`If-Match` must be a revision in quotes, for example `If-Match: \"42\"`",
        )),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        // `to_str` lets tabs through.
        Ok(key) if (1..=IDEMPOTENCY_KEY_MAX).contains(&key.len()) && !key.contains('\t') => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(Problem::invalid_header(
            "`Idempotency-Key` must have 1 to 128 printable ASCII characters",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_comes_in_quotes() {
        let parse = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, HeaderValue::from_static(text));
            if_match(&headers).map_err(|_| ())
        };
        assert_eq!(parse("\"42\""), Ok(Some(Revision(42))));
        assert_eq!(parse("*"), Ok(None));
        for wrong in ["42", "\"x\"", "\"-1\"", "W/\"42\"", "\"1\", \"2\"", ""] {
            assert_eq!(parse(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_not_kept() {
        let kept = without_secrets(serde_json::json!({ "token": "fct_x", "name": "n" }));
        assert_eq!(kept.to_string(), r#"{"token":null,"name":"n"}"#);
    }
}
