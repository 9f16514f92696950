//! Every route in one table, grouped by who calls it.

use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get, post, put};
use http::Method;

use super::cors::open_to_browsers;
use super::errors::Problem;
use super::front::{Front, Straight, record};
use super::patience::{Patience, bounded};
use super::request::BodyLimits;
use super::{
    Admin, Flagsmith, Flipper, Ofrep, Ops, Relays, Sdk, Sse, admin, client, dashboard, flagsmith,
    flipper, ofrep, ops, relays, sdk, sse,
};
use crate::metrics::{Metrics, RequestMetrics};

/// The read of our own clients.
pub(super) const SDK_FLAGS_ROUTE: &str = "/sdk/v1/environments/{client_key}/flags";

/// The stream of an environment, in Flagsmith's dialect.
pub(super) const STREAM_ROUTE: &str = "/sse/environments/{client_key}/stream";

/// The same in OFREP's dialect.
pub(super) const OFREP_STREAM_ROUTE: &str = "/ofrep/v1/streams/{client_key}";

/// The read of Flagsmith's clients.
pub(super) const FLAGSMITH_FLAGS_ROUTE: &str = "/api/v1/flags/";

/// The doors of the public listener.
#[derive(Clone, Debug)]
pub struct Doors {
    /// Our own reads.
    pub sdk: Sdk,
    /// Flagsmith's reads.
    pub flagsmith: Flagsmith,
    /// Flipper's reads.
    pub flipper: Flipper,
    /// `OpenFeature`'s evaluations.
    pub ofrep: Ofrep,
    /// Streams and announcements.
    pub sse: Sse,
    /// What relays below ask.
    pub relays: Relays,
    /// Management; nothing at a relay.
    pub admin: Option<Admin>,
    /// How long a change may take.
    pub patience: Patience,
}

/// The public listener: SDKs, streams, management API, dashboard.
pub fn public_front(doors: Doors, metrics: &Metrics, limits: BodyLimits) -> Front {
    let requests = metrics.requests();
    let straight = Straight {
        sdk: doors.sdk.clone(),
        flagsmith: doors.flagsmith.clone(),
        sse: doors.sse.clone(),
        metrics: requests.clone(),
    };
    // Called by SDKs and browsers anywhere.
    let sdk = Router::new()
        .route(SDK_FLAGS_ROUTE, get(sdk::flags))
        .with_state(doors.sdk)
        .route("/client.js", get(client::client));
    // Called by unmodified Flagsmith SDKs; Edge Proxy leaves the last slash out.
    let flagsmith = Router::new()
        .route(FLAGSMITH_FLAGS_ROUTE, get(flagsmith::flags))
        .route("/api/v1/flags", get(flagsmith::flags))
        .route("/api/v1/identities/", get(flagsmith::identity).post(flagsmith::identify))
        .route("/api/v1/identities", get(flagsmith::identity).post(flagsmith::identify))
        .route("/api/v1/environment-document/", get(flagsmith::document))
        .route("/api/v1/environment-document", get(flagsmith::document))
        .route("/api/v1/traits/", post(flagsmith::set_trait))
        .route("/api/v1/traits/bulk/", put(flagsmith::set_traits))
        .route("/api/v1/traits/increment-value/", post(flagsmith::increment_trait))
        .route("/api/v1/analytics/flags/", post(flagsmith::analytics))
        .with_state(doors.flagsmith)
        .route_layer(from_fn_with_state(doors.patience, bounded));
    // Called by unmodified providers of OpenFeature.
    let ofrep = Router::new()
        .route("/ofrep/v1/evaluate/flags", post(ofrep::bulk))
        .route("/ofrep/v1/evaluate/flags/{key}", post(ofrep::single))
        .with_state(doors.ofrep);
    // Called by SDKs and browsers; `queue-change` by another system.
    let announcements = Router::new()
        .route("/sse/environments/{client_key}/queue-change", post(sse::queue_change))
        .route_layer(from_fn_with_state(doors.patience, bounded));
    let streams = Router::new()
        .route(STREAM_ROUTE, get(sse::flagsmith_stream))
        .route(OFREP_STREAM_ROUTE, get(sse::ofrep_stream))
        .merge(announcements)
        .with_state(doors.sse);
    let open = sdk
        .merge(flagsmith)
        .merge(ofrep)
        .merge(streams)
        // Before the layer, which must see the preflights of routes that know no OPTIONS.
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(open_to_browsers));
    // Called by servers only, with `/flipper` as the address of Flipper Cloud.
    let flipper = Router::new()
        .route("/flipper/features", get(flipper::features))
        .route("/flipper/features/{key}", get(flipper::feature))
        .route("/flipper/telemetry", post(flipper::telemetry))
        .with_state(doors.flipper)
        .method_not_allowed_fallback(async || Problem::flipper_writes_nothing())
        .route_layer(from_fn_with_state(doors.patience, bounded));
    // Called by relays.
    let relays = Router::new()
        .route("/sdk/v1/environments/{client_key}/snapshot", get(relays::snapshot))
        .route("/sdk/v1/environments/{client_key}/usage", post(relays::usage))
        .route("/sdk/v1/environments/{client_key}/traits", post(relays::traits))
        .with_state(doors.relays)
        .method_not_allowed_fallback(wrong_method)
        .route_layer(from_fn_with_state(doors.patience, bounded));
    // Called by people and their scripts.
    let management = match doors.admin {
        Some(admin) => admin::router(admin)
            .route_layer(from_fn_with_state(doors.patience, bounded))
            .merge(dashboard::router())
            .method_not_allowed_fallback(wrong_method),
        None => Router::new().route("/admin/v1/{*path}", any(changed_elsewhere)),
    };
    let router = open
        .merge(flipper)
        .merge(relays)
        .merge(management)
        .route_layer(from_fn_with_state(requests, measure))
        .fallback(async || Problem::not_found("there is no such route; see docs/API.md"));
    Front::new(Some(straight), router, limits)
}

/// The operators' listener.
pub fn operators_front(ops: Ops, limits: BodyLimits) -> Front {
    let router = Router::new()
        .route("/livez", get(ops::livez))
        .route("/healthz", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .route("/relay/status", get(ops::relay_status))
        .with_state(ops);
    Front::new(None, router, limits)
}

async fn changed_elsewhere() -> Problem {
    Problem::not_found("this is a relay: flags are managed at its gateway, under `/admin/v1` there")
}

async fn wrong_method() -> Problem {
    Problem::method_not_allowed()
}

/// Records each answer, by route.
async fn measure(
    State(metrics): State<RequestMetrics>,
    route: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let method = name(request.method());
    let response = next.run(request).await;
    record(&metrics, route.as_str(), method, began, &response);
    response
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
