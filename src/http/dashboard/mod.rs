//! Serves the page: `/` and its files under `/dashboard/`, all built into the program.
//!
//! The page is a client like any other: it uses the public routes only. It may load nothing from
//! elsewhere and run nothing that is not one of its files.

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use include_dir::{Dir, include_dir};

use super::errors::Problem;
use crate::store::keys::digest;

static ASSETS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/src/http/dashboard/assets");

const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'; object-src 'none'";

/// The page's routes.
pub(super) fn router() -> Router {
    let index = async |headers: HeaderMap| asset("index.html", &headers);
    let file = async |Path(path): Path<String>, headers: HeaderMap| asset(&path, &headers);
    Router::new().route("/", get(index)).route("/dashboard/{*path}", get(file))
}

fn asset(path: &str, request: &HeaderMap) -> Response {
    let Some(contents) = ASSETS.get_file(path).and_then(include_dir::File::contents_utf8) else {
        return Problem::not_found(format!("the page has no file `{path}`")).into_response();
    };
    // The tag is the content: a new version of the program is a new page at once.
    let etag = format!("\"{}\"", &digest(contents)[..32]);
    let held = request.get(IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == etag.as_bytes());
    let mut response = if held {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, content_type(path))], contents).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(ETAG, etag);
    }
    response
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}
