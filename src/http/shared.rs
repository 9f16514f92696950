//! Answers with a shared body: encoding, validators and cache headers, without copying a byte.

use axum::response::Response;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::flagset::{Body, Encoding, FlagSet};

/// The instant of the state that an answer shows. SDKs compare it with the ping's.
pub(super) const UPDATED_AT: HeaderName =
    HeaderName::from_static("x-flagsmith-document-updated-at");

/// By which caches are purged; one word for each thing that an answer shows.
pub(super) const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// Headers that an answer has at most.
const HEADERS: usize = 13;

/// For a second a cache may share what a change can make old: a herd then costs one request, and
/// who got the older answer reads once more at the echo.
pub(super) const SHARED: &str =
    "public, max-age=0, s-maxage=1, stale-while-revalidate=0, stale-if-error=0";

/// How an answer may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    /// `Cache-Control`.
    pub(super) cache_control: &'static str,
    /// `Vary`.
    pub(super) vary: &'static str,
    /// Whether a change makes it old in caches that may keep it, so that they purge it by its name.
    pub(super) is_purged: bool,
}

/// Answers with a body of `set`, or with 304 when the client holds it.
pub(super) fn respond(
    request: &HeaderMap,
    set: &FlagSet,
    body: &Body,
    keeping: Keeping,
) -> Response {
    // Room for these, CORS and what hyper adds, so that the map never grows.
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(ETAG, set.etag.clone());
    headers.insert(UPDATED_AT, set.updated_at.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keeping.cache_control));
    headers.insert(VARY, HeaderValue::from_static(keeping.vary));
    if keeping.is_purged {
        headers.insert(SURROGATE_KEY, set.surrogate_key.clone());
    }
    if holds(request, &set.etag) {
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.headers_mut() = headers;
        return response;
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    encoded(request, body, headers)
}

/// Answers with `headers` and a body in the best encoding that the client accepts.
pub(super) fn encoded(request: &HeaderMap, body: &Body, mut headers: HeaderMap) -> Response {
    let wanted = request
        .get(ACCEPT_ENCODING)
        .and_then(|accept| accept.to_str().ok())
        .map_or(Encoding::Identity, Encoding::negotiate);
    let (bytes, encoding) = body.encoded(wanted);
    let named = match encoding {
        Encoding::Identity => None,
        Encoding::Gzip => Some("gzip"),
        Encoding::Brotli => Some("br"),
    };
    if let Some(name) = named {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    let mut response = Response::new(axum::body::Body::from(bytes));
    *response.headers_mut() = headers;
    response
}

/// Whether `If-None-Match` names the tag. Compared weakly, as RFC 9110 says; a list and `*` count.
pub(super) fn holds(request: &HeaderMap, etag: &HeaderValue) -> bool {
    fn opaque(tag: &str) -> &str {
        let tag = tag.trim();
        tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
    }
    let Ok(ours) = etag.to_str().map(opaque) else { return false };
    request.get_all(IF_NONE_MATCH).iter().any(|value| {
        // What we issued ourselves comes back as it is, nearly always.
        value == etag
            || value.to_str().is_ok_and(|list| {
                list.split(',').any(|tag| tag.trim() == "*" || opaque(tag) == ours)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_compared_weakly_and_in_lists() {
        let etag = HeaderValue::from_static("W/\"key.42\"");
        let asks = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(value));
            holds(&headers, &etag)
        };
        assert!(asks("W/\"key.42\"") && asks("\"key.42\"") && asks("*"));
        assert!(asks("\"a\", W/\"key.42\""));
        assert!(!asks("W/\"key.41\"") && !holds(&HeaderMap::new(), &etag));
    }
}
