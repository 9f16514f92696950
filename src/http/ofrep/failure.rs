//! Errors in the shape that OFREP's providers read: `errorCode` and `errorDetails`, and the flag's key
//! where one was asked for.
//!
//! Who may not ask at all gets a problem instead ([`Problem`]): the protocol has no shape for that.

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value as Json, json};

use crate::http::errors::Problem;
use crate::store::StoreError;

/// Seconds after which a state that is on its way should be here.
const BEHIND_RETRY_SECONDS: u64 = 1;

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    details: String,
    key: Option<String>,
    retry_after: Option<u64>,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, details: String) -> Self {
        Self { status, code, details, key: None, retry_after: None }
    }

    pub(super) fn parse(details: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "PARSE_ERROR", details)
    }

    pub(super) fn context(details: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_CONTEXT", details)
    }

    pub(super) fn no_flag(key: &str) -> Self {
        let details = format!("there is no flag `{key}` here, or this key may not see it");
        Self::new(StatusCode::NOT_FOUND, "FLAG_NOT_FOUND", details)
    }

    /// The environment was deleted this instant; the protocol has no 404 for all flags.
    pub(super) fn gone() -> Self {
        Problem::key_unknown().into()
    }

    pub(super) fn behind() -> Self {
        let details = "the state that a ping told of is not here yet; try again in a moment";
        let failure = Self::new(StatusCode::SERVICE_UNAVAILABLE, "GENERAL", details.to_owned());
        Self { retry_after: Some(BEHIND_RETRY_SECONDS), ..failure }
    }

    /// The same about a flag.
    pub(super) fn of(self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self }
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.code
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let failure = Self::new(problem.status(), "GENERAL", problem.detail().to_owned());
        Self { retry_after: problem.retry_after(), ..failure }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Problem::from(error).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if self.status == StatusCode::UNAUTHORIZED {
            return Problem::key_unknown().into_response();
        }
        let mut body = Map::new();
        if let Some(key) = self.key {
            body.insert("key".to_owned(), json!(key));
        }
        body.insert("errorCode".to_owned(), json!(self.code));
        body.insert("errorDetails".to_owned(), json!(self.details));
        let mut response = (self.status, Json::Object(body).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http::header::WWW_AUTHENTICATE;

    use super::*;

    #[test]
    fn who_comes_too_late_is_told_that_the_key_opens_nothing() {
        let response = Failure::gone().of("banner").into_response();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    }
}
