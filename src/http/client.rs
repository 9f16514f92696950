//! Serves the browser client: `GET /client.js`, built into the program, for pages anywhere.

use std::sync::OnceLock;

use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::shared::{encoded, holds};
use crate::flagset::Body;
use crate::store::keys::digest;

/// The client, as it stands in `clients/browser`.
const CLIENT: &str = include_str!("../../clients/browser/flagcast.js");

/// How long it may be kept without asking: a new version of the program is a new client soon, and a
/// page that loads it costs nothing in between.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The client, compressed once.
struct Served {
    body: Body,
    etag: HeaderValue,
}

fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| Served {
        body: Body::new(CLIENT),
        // Weak, because one tag stands for every content encoding.
        etag: HeaderValue::try_from(format!("W/\"{}\"", &digest(CLIENT)[..32]))
            .expect("a digest is visible ASCII"),
    })
}

pub(super) async fn client(request: HeaderMap) -> Response {
    let Served { body, etag } = served();
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, KEPT);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(ETAG, etag.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if holds(&request, etag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    encoded(&request, body, headers)
}
