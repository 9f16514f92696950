//! Where a connection's requests arrive. What every client asks for, the stream and the two reads
//! behind a ping, is answered straight away; everything else goes to the router.
//!
//! After a change the same small answer is asked for as often as there are clients, after a restart
//! they all come back for their streams, and routing, extraction and layers cost more than the
//! answer itself (`docs/BENCHMARKS.md`). Both ways call the same functions, so they cannot differ; a
//! request that is unusual in any way (another method, an escaped path, other parameters) takes the
//! long one.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::CONNECTION;
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tower::ServiceExt as _;

use super::handover::Handover;
use super::request::{BodyLimits, Peer};
use super::router::{FLAGSMITH_FLAGS_ROUTE, OFREP_STREAM_ROUTE, SDK_FLAGS_ROUTE, STREAM_ROUTE};
use super::sse::{Asked, Head};
use super::{Flagsmith, Sdk, Sse, cors, flagsmith, sdk};
use crate::metrics::RequestMetrics;
use crate::model::Revision;
use crate::stream::Dialect;

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
    pub(super) sse: Sse,
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

    /// Answers a request of `peer`. With a `handover` the connection can give its socket away.
    /// Every way is boxed: hyper keeps room for this future as long as the connection lives.
    pub(super) fn answer<'a>(
        &'a self,
        request: Request<Incoming>,
        peer: SocketAddr,
        handover: Option<&Arc<Handover>>,
    ) -> Answer<'a> {
        if let Some(straight) = &self.straight
            && request.method() == Method::GET
        {
            if let Some(handover) = handover
                && let Some((route, asked)) = leaving(&request, peer)
            {
                let answer = straight.stream(route, &asked, handover);
                return Box::pin(std::future::ready(answer));
            }
            return Box::pin(async move {
                match Read::of(request.uri()) {
                    Some(read) => straight.read(&read, request.headers()).await,
                    None => self.route(request, peer).await,
                }
            });
        }
        self.route(request, peer)
    }

    fn route(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer<'_> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(self.body_limits);
        let router = self.router.clone();
        Box::pin(
            async move { router.oneshot(request).await.unwrap_or_else(|never| match never {}) },
        )
    }
}

/// An answer on its way.
pub(super) type Answer<'a> = Pin<Box<dyn Future<Output = Response> + Send + 'a>>;

/// A stream whose socket can leave the HTTP library, and its route. Others stay bodies: HTTP/1.0
/// knows no chunks, and a request with a body would leave that body behind, to be taken for a request.
fn leaving(request: &Request<Incoming>, peer: SocketAddr) -> Option<(&'static str, Asked<'_>)> {
    let (version, path) = (request.version(), request.uri().path());
    if version != Version::HTTP_11 || !request.body().is_end_stream() {
        return None;
    }
    let (route, dialect, client_key) = STREAMS.into_iter().find_map(|(route, dialect)| {
        let (before, after) = route.split_once("{client_key}")?;
        let client_key = path.strip_prefix(before)?.strip_suffix(after)?;
        is_plain(client_key).then_some((route, dialect, client_key))
    })?;
    let (method, headers) = (request.method(), request.headers());
    Some((route, Asked { dialect, client_key, method, version, headers, peer }))
}

/// The routes of streams.
const STREAMS: [(&str, Dialect); 2] =
    [(STREAM_ROUTE, Dialect::Flagsmith), (OFREP_STREAM_ROUTE, Dialect::Ofrep)];

/// Whether a part of a path is what the router would make of it.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && !part.contains(['/', '%'])
}

/// Whether the client wants its connection closed behind the answer.
fn asks_to_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("close"))
}

impl Straight {
    fn stream(&self, route: &str, asked: &Asked<'_>, handover: &Arc<Handover>) -> Response {
        let began = Instant::now();
        let opening = self.sse.open(asked);
        let head = Head::of(asked.client_key, &opening);
        let mut response = head.with(handover.begin(opening, asks_to_close(asked.headers)));
        cors::open(response.headers_mut());
        record(&self.metrics, route, "GET", began, &response);
        response
    }

    async fn read(&self, read: &Read<'_>, headers: &HeaderMap) -> Response {
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
        let revision = match query {
            None => None,
            Some(query) => Some(Revision(query.strip_prefix("rev=")?.parse().ok()?)),
        };
        is_plain(client_key).then_some(Self::Sdk { client_key, revision })
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
