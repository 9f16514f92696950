//! Where a connection's requests arrive. The two reads that every client makes after a ping are
//! answered straight away; everything else goes to the router.
//!
//! After a change the same small answer is asked for as often as there are clients, and routing,
//! extraction and layers cost more than the answer itself (`docs/BENCHMARKS.md`). Both ways call
//! the same functions, so they cannot differ; a request that is unusual in any way (another method,
//! an escaped path, other parameters) takes the long one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, Request, Uri};
use hyper::body::Incoming;
use tower::ServiceExt as _;

use super::request::{BodyLimits, Peer};
use super::router::{FLAGSMITH_FLAGS_ROUTE, SDK_FLAGS_ROUTE};
use super::{Flagsmith, Sdk, cors, flagsmith, sdk};
use crate::metrics::RequestMetrics;
use crate::model::Revision;

/// Answers the requests of a listener.
#[derive(Debug)]
pub struct Front {
    straight: Option<Straight>,
    router: Router,
    body_limits: BodyLimits,
}

/// What the straight way needs.
#[derive(Debug)]
pub(super) struct Straight {
    pub(super) sdk: Sdk,
    pub(super) flagsmith: Flagsmith,
    pub(super) metrics: RequestMetrics,
}

/// A read that is answered straight away.
#[derive(Debug, PartialEq, Eq)]
enum Read<'a> {
    Sdk { client_key: &'a str, revision: Option<Revision> },
    Flagsmith,
}

impl Front {
    pub(super) fn new(straight: Option<Straight>, router: Router, limits: BodyLimits) -> Self {
        Self { straight, router, body_limits: limits }
    }

    /// Answers a request of `peer`. Both ways are boxed: hyper keeps room for this future as long as
    /// the connection lives, and a stream's connection lives long after its answer.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response {
        if let Some(straight) = &self.straight
            && request.method() == Method::GET
            && let Some(read) = Read::of(request.uri())
        {
            return Box::pin(straight.answer(&read, request.headers())).await;
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(self.body_limits);
        let answer = Box::pin(self.router.clone().oneshot(request));
        answer.await.unwrap_or_else(|never| match never {})
    }
}

impl Straight {
    async fn answer(&self, read: &Read<'_>, headers: &HeaderMap) -> Response {
        let began = Instant::now();
        let (route, mut response) = match read {
            Read::Sdk { client_key, revision } => {
                let answer = sdk::read(&self.sdk, client_key, *revision, headers).await;
                (SDK_FLAGS_ROUTE, answer.unwrap_or_else(|refusal| refusal))
            }
            Read::Flagsmith => {
                let answer = flagsmith::read(&self.flagsmith, headers).await;
                (FLAGSMITH_FLAGS_ROUTE, answer.unwrap_or_else(IntoResponse::into_response))
            }
        };
        cors::open(response.headers_mut());
        record(&self.metrics, route, "GET", began, &response);
        response
    }
}

/// Records how long an answer took, and logs a failure that is ours.
pub(super) fn record(
    metrics: &RequestMetrics,
    route: &str,
    method: &'static str,
    began: Instant,
    response: &Response,
) {
    let status = response.status();
    metrics.record(route, method, status.as_u16(), began.elapsed());
    if status.is_server_error() {
        tracing::warn!(route, method, status = status.as_u16(), "request failed");
    }
}

impl<'a> Read<'a> {
    fn of(uri: &'a Uri) -> Option<Self> {
        let (path, query) = (uri.path(), uri.query());
        if path == FLAGSMITH_FLAGS_ROUTE {
            return query.is_none().then_some(Self::Flagsmith);
        }
        let (before, after) = SDK_FLAGS_ROUTE.split_once("{client_key}")?;
        let client_key = path.strip_prefix(before)?.strip_suffix(after)?;
        // What the router would take apart or unescape.
        let plain = !client_key.contains(['/', '%']);
        let revision = match query {
            None => None,
            Some(query) => Some(Revision(query.strip_prefix("rev=")?.parse().ok()?)),
        };
        plain.then_some(Self::Sdk { client_key, revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plain_reads_go_straight() {
        let read = |text: &'static str| -> Option<String> {
            Read::of(&text.parse().unwrap()).map(|read| format!("{read:?}"))
        };
        let sdk = |revision: Option<u64>| {
            let revision = revision.map(Revision);
            Some(format!("{:?}", Read::Sdk { client_key: "aB3", revision }))
        };
        assert_eq!(read("/api/v1/flags/"), Some("Flagsmith".to_owned()));
        assert_eq!(read("/sdk/v1/environments/aB3/flags"), sdk(None));
        assert_eq!(read("/sdk/v1/environments/aB3/flags?rev=42"), sdk(Some(42)));
        for other in [
            "/api/v1/flags",
            "/api/v1/flags/?feature=x",
            "/sdk/v1/environments/a%42/flags",
            "/sdk/v1/environments/a/b/flags",
            "/sdk/v1/environments/aB3/flags?rev=x",
            "/sdk/v1/environments/aB3/flags?rev=1&rev=2",
            "/sdk/v1/environments/aB3/flags?colour=red",
            "/sdk/v1/environments/aB3/stream",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
