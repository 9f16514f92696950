//! Lets browsers on any page read flags and streams: the keys there are public.
//!
//! `*` without credentials, always: echoing the origin would split a cache, or serve one page's
//! header to another.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// What Flagsmith's SDKs, `OpenFeature`'s providers and the usual instrumentation send.
const ALLOWED_HEADERS: &str = "accept, authorization, baggage, cache-control, content-type, \
    flagsmith-application-name, flagsmith-application-version, flagsmith-sdk-user-agent, \
    if-none-match, last-event-id, origin, sentry-trace, traceparent, tracestate, user-agent, \
    x-api-key, x-csrftoken, x-environment-key, x-requested-with";

/// Without these, browsers' SDKs see no instant and refetch at every ping.
const EXPOSED_HEADERS: &str = "x-flagsmith-document-updated-at, etag, retry-after";

/// Answers preflights and opens every other answer.
pub(super) async fn open_to_browsers(request: Request, next: Next) -> Response {
    let preflight = request.method() == Method::OPTIONS;
    let mut response =
        if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    if preflight {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, OPTIONS");
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    } else {
        open(headers);
    }
    response
}

/// Opens an answer.
pub(super) fn open(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
}
