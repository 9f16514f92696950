//! The management API: what dashboards and scripts use to change flags.
//!
//! Every change goes the same way (`call.rs`): caller and body are checked, one transaction does the
//! work, and the answer leaves when the change is told to the subscribers, so that whoever reads it
//! can rely on reading the new state.

mod audit;
mod call;
mod caller;
mod environments;
mod features;
mod flags;
mod identities;
mod identity_overrides;
mod overrides;
mod pages;
mod projects;
mod segments;
mod shapes;
mod tokens;
mod variants;
mod wanted;

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::header::CONTENT_TYPE;
use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::{Response as ApiResponse, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

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
        Self { store, hub, limits: Arc::new(limits), metrics, rate }
    }

    /// Refuses a request of a token that sends too many.
    fn check_rate(&self, token: TokenId) -> Result<(), Problem> {
        self.rate.check_key(&token).map_err(|until| {
            self.metrics.limit_hit("requests_per_second");
            Problem::too_many_requests(until.wait_time_from(DefaultClock::default().now()))
        })
    }
}

/// Title and login of the generated document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Flagcast management API",
        description = "Projects, environments, features, flags, segments, identities, tokens and the \
            audit trail. \
            Errors are RFC 9457 problems with a stable `code`; lists are paged by cursor.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    security(("token" = []))
)]
struct Document;

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
        .routes(routes!(identities::list))
        .routes(routes!(identities::read, identities::update, identities::delete))
        .routes(routes!(audit::list));
    OpenApiRouter::with_openapi(Document::openapi()).nest(PREFIX, routes)
}

/// The OpenAPI 3.1 document of the management API, as JSON.
#[must_use]
pub fn openapi() -> String {
    let mut document = routes().split_for_parts().1;
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    document.components.get_or_insert_default().add_security_scheme("token", bearer);
    for item in document.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.insert("default".to_owned(), RefOr::T(problem()));
        }
    }
    document.to_pretty_json().unwrap_or_default()
}

/// What every operation may answer instead: a problem.
fn problem() -> ApiResponse {
    let text =
        |about: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(about));
    let shape = ObjectBuilder::new()
        .property("type", text("`about:blank`"))
        .property("title", text("The status in words."))
        .property("status", ObjectBuilder::new().schema_type(Type::Integer))
        .property("code", text("Stable; programs may rely on it."))
        .property("detail", text("What is wrong, which rule, what to do."))
        .property("revision", ObjectBuilder::new().schema_type(Type::Integer))
        .required("type")
        .required("title")
        .required("status")
        .required("code")
        .required("detail");
    let content = ContentBuilder::new().schema(Some(Schema::from(shape))).build();
    ResponseBuilder::new()
        .description("A problem, as RFC 9457 has it.")
        .content("application/problem+json", content)
        .build()
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
