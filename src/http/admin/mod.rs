//! The management API: what dashboards and scripts use to change flags.
//!
//! Every change goes the same way (`call.rs`): caller and body are checked, one transaction does the
//! work, and the answer leaves when the change is told to the subscribers, so that whoever reads it
//! can rely on reading the new state.

mod audit;
mod call;
mod caller;
mod deliveries;
mod document;
mod environments;
mod explain;
mod features;
mod flags;
mod identities;
mod identity_overrides;
mod kinds;
mod overrides;
mod pages;
mod projects;
mod rules;
mod segments;
mod shapes;
mod tokens;
mod variants;
mod wanted;
mod webhooks;

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::header::CONTENT_TYPE;
use ipnet::IpNet;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use document::openapi;

use super::errors::Problem;
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::model::TokenId;
use crate::store::Store;
use crate::stream::Hub;

/// Every route lies below it.
const PREFIX: &str = "/admin/v1";

/// What the management API needs.
#[derive(Clone)]
pub struct Admin {
    /// Where the flags live.
    store: Store,
    /// Who is listening, and whether they have been told.
    hub: Hub,
    limits: Arc<Limits>,
    metrics: Metrics,
    rate: Arc<DefaultKeyedRateLimiter<TokenId>>,
    /// Whether nobody may change anything.
    read_only: bool,
    /// Targets of webhooks that are not on the open internet.
    allowed_targets: Arc<[IpNet]>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Admin {
    /// Puts the door together.
    #[must_use]
    pub fn new(store: Store, hub: Hub, limits: Limits, metrics: Metrics) -> Self {
        let rate = NonZeroU32::new(limits.requests_per_second).unwrap_or(NonZeroU32::MIN);
        let rate = Arc::new(RateLimiter::keyed(Quota::per_second(rate)));
        let (limits, allowed_targets) = (Arc::new(limits), Arc::new([]));
        Self { store, hub, limits, metrics, rate, read_only: false, allowed_targets }
    }

    /// The same, where nobody may change anything: what is served comes from a file.
    #[must_use]
    pub fn read_only(self, read_only: bool) -> Self {
        Self { read_only, ..self }
    }

    /// The same, where webhooks may also go to these addresses.
    #[must_use]
    pub fn with_targets(self, allowed: &[IpNet]) -> Self {
        Self { allowed_targets: allowed.into(), ..self }
    }

    /// Refuses a request of a token that sends too many.
    fn check_rate(&self, token: TokenId) -> Result<(), Problem> {
        self.rate.check_key(&token).map_err(|until| {
            self.metrics.limit_hit("requests_per_second");
            Problem::too_many_requests(until.wait_time_from(DefaultClock::default().now()))
        })
    }
}

fn routes() -> OpenApiRouter<Admin> {
    let routes = OpenApiRouter::new()
        .routes(routes!(tokens::own))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(projects::read, projects::rename, projects::delete))
        .routes(routes!(environments::list, environments::create))
        .routes(routes!(environments::read, environments::update, environments::delete))
        .routes(routes!(environments::clone))
        .routes(routes!(environments::list_keys, environments::create_key))
        .routes(routes!(environments::revoke_key))
        .routes(routes!(environments::streams))
        .routes(routes!(features::list, features::create))
        .routes(routes!(features::read, features::update, features::delete))
        .routes(routes!(flags::list))
        .routes(routes!(flags::read, flags::update))
        .routes(routes!(flags::batch))
        .routes(routes!(flags::analytics))
        .routes(routes!(variants::put, variants::delete))
        .routes(routes!(segments::list, segments::create))
        .routes(routes!(segments::read, segments::update, segments::delete))
        .routes(routes!(overrides::list))
        .routes(routes!(overrides::put, overrides::delete))
        .routes(routes!(identity_overrides::list))
        .routes(routes!(identity_overrides::put, identity_overrides::delete))
        .routes(routes!(explain::explain))
        .routes(routes!(identities::list))
        .routes(routes!(identities::read, identities::update, identities::delete))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::read, webhooks::update, webhooks::delete))
        .routes(routes!(webhooks::rotate))
        .routes(routes!(deliveries::test))
        .routes(routes!(deliveries::recover))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::read))
        .routes(routes!(deliveries::redeliver))
        .routes(routes!(audit::list));
    OpenApiRouter::with_openapi(document::Document::openapi()).nest(PREFIX, routes)
}

/// Every management route, and the document that describes them.
pub(super) fn router(admin: Admin) -> Router {
    let document: Arc<str> = openapi().into();
    let answer = async move || -> Response {
        ([(CONTENT_TYPE, "application/json")], document.to_string()).into_response()
    };
    let (routes, _) = routes().split_for_parts();
    routes.with_state(admin).route("/admin/v1/openapi.json", get(answer))
}
