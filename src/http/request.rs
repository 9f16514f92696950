//! What doors take from a request: who is asking, a bounded body, a query.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Query};
use bytes::Bytes;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::errors::Problem;

/// The other end of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Size and time of a request's body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Bytes.
    pub bytes: usize,
    /// From its first byte to its last.
    pub timeout: Duration,
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().copied().ok_or_else(Problem::internal)
    }
}

impl<S: Sync> FromRequestParts<S> for BodyLimits {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().copied().ok_or_else(Problem::internal)
    }
}

impl BodyLimits {
    /// Reads a whole body within the limits.
    pub(super) async fn read(self, body: Body) -> Result<Bytes, Problem> {
        let read = Limited::new(body, self.bytes).collect();
        match tokio::time::timeout(self.timeout, read).await {
            Err(_) => Err(Problem::body_too_slow(self.timeout)),
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                Err(Problem::body_too_large(self.bytes))
            }
            Ok(Err(_)) => Err(Problem::malformed_json("the body ended early".to_owned())),
        }
    }
}

/// The token of `Authorization: Bearer …`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Reads a JSON object; an error names the field and what it should be.
pub(super) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would take a list for a structure, field by field.
    if begins_with(bytes, b'[') {
        return Err(Problem::invalid_field("the body must be a JSON object".to_owned()));
    }
    parse(bytes)
}

/// Reads a JSON list; an error names the field and what it should be.
pub(super) fn parse_list<T: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>, Problem> {
    parse(bytes)
}

/// Whether the first byte that says something is `wanted`.
pub(super) fn begins_with(bytes: &[u8], wanted: u8) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&wanted)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Following the path costs as much as reading; only an error is worth it.
    if let Ok(parsed) = serde_json::from_slice(bytes) {
        return Ok(parsed);
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // What is JSON but no value that is meant here, or too deep, is not told as an error of data.
        if inner.is_data() || serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
            let place = if path == "." { String::new() } else { format!("`{path}`: ") };
            Problem::invalid_field(format!("{place}{inner}"))
        } else {
            Problem::malformed_json(format!("the body is not JSON: {inner}"))
        }
    })?;
    json.end().map_err(|error| {
        Problem::malformed_json(format!("the body goes on after its end: {error}"))
    })?;
    Ok(parsed)
}

/// The query, read into `T`; unknown or malformed parameters are refused.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|error| Problem::invalid_query(error.to_string()))
    }
}

/// Parts of the path; what is no UTF-8 is refused as everything else is.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(named)| Self(named))
            .map_err(|error| Problem::invalid_path(error.body_text()))
    }
}
