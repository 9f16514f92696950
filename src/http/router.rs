//! Every route in one table, grouped by who calls it.

use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::Method;

use super::cors::open_to_browsers;
use super::errors::Problem;
use super::{Admin, Flagsmith, Ops, Sdk, Sse, admin, dashboard, flagsmith, ops, sdk, sse};
use crate::metrics::Metrics;

/// The doors of the public listener.
#[derive(Clone, Debug)]
pub struct Doors {
    /// Our own reads.
    pub sdk: Sdk,
    /// Flagsmith's reads.
    pub flagsmith: Flagsmith,
    /// Streams and announcements.
    pub sse: Sse,
    /// Management.
    pub admin: Admin,
}

/// The public listener: SDKs, streams, management API, dashboard.
pub fn router(doors: Doors, metrics: Metrics) -> Router {
    // Called by SDKs and browsers anywhere.
    let sdk = Router::new()
        .route("/sdk/v1/environments/{client_key}/flags", get(sdk::flags))
        .with_state(doors.sdk);
    // Called by unmodified Flagsmith SDKs; Edge Proxy leaves the last slash out.
    let flagsmith = Router::new()
        .route("/api/v1/flags/", get(flagsmith::flags))
        .route("/api/v1/flags", get(flagsmith::flags))
        .route("/api/v1/identities/", get(flagsmith::identity).post(flagsmith::identify))
        .route("/api/v1/identities", get(flagsmith::identity).post(flagsmith::identify))
        .route("/api/v1/environment-document/", get(flagsmith::document))
        .route("/api/v1/environment-document", get(flagsmith::document))
        .route("/api/v1/analytics/flags/", post(flagsmith::analytics))
        .with_state(doors.flagsmith);
    // Called by SDKs and browsers; `queue-change` by another system.
    let streams = Router::new()
        .route("/sse/environments/{client_key}/stream", get(sse::stream))
        .route("/sse/environments/{client_key}/queue-change", post(sse::queue_change))
        .with_state(doors.sse);
    let open = sdk
        .merge(flagsmith)
        .merge(streams)
        // Before the layer, which must see the preflights of routes that know no OPTIONS.
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(open_to_browsers));
    // Called by people and their scripts.
    let management = admin::router(doors.admin)
        .merge(dashboard::router())
        .method_not_allowed_fallback(wrong_method);
    open.merge(management)
        .route_layer(from_fn_with_state(metrics, measure))
        .fallback(async || Problem::not_found("there is no such route; see docs/API.md"))
}

/// The operators' listener.
pub fn ops_router(ops: Ops) -> Router {
    Router::new()
        .route("/livez", get(ops::livez))
        .route("/healthz", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .with_state(ops)
}

async fn wrong_method() -> Problem {
    Problem::method_not_allowed()
}

/// Records how long each answer took, by route, and logs the failures that are ours.
async fn measure(
    State(metrics): State<Metrics>,
    route: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let method = name(request.method());
    let response = next.run(request).await;
    let status = response.status();
    metrics.request(route.as_str(), method, status.as_u16(), began.elapsed());
    if status.is_server_error() {
        tracing::warn!(route = route.as_str(), method, status = status.as_u16(), "request failed");
    }
    response.into_response()
}

/// A method as a metric label; whatever else a client invents counts as one.
fn name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
