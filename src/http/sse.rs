//! The streams: `GET /sse/environments/{client_key}/stream` in Flagsmith's dialect,
//! `GET /ofrep/v1/streams/{client_key}` in OFREP's, and `queue-change`, by which another system
//! announces that an environment of its own has changed.
//!
//! A stream route never answers with an error: browsers would give up for ever, and some SDKs
//! would come back at once, hundreds of times a second. An unknown key gets a silent stream with a
//! short life, and so does a stream beyond a limit, with word to come back later.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use http_body::Frame;
use http_body_util::StreamBody;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;
use tokio_stream::StreamExt as _;

use super::errors::Detail;
use super::hops::Hops;
use super::request::{BodyLimits, Peer, parse_json};
use super::shared::SURROGATE_KEY;
use crate::config;
use crate::flagset::Directory;
use crate::model::{ClientKey, Origin, Secret, UpdatedAt};
use crate::origin::Ledger;
use crate::shutdown::Shutdown;
use crate::store::Announced;
use crate::stream::{
    ClientFamily, Contract, Dialect, Hub, Join, Manner, Opening, Pace, Subscriber, body,
};

/// What the streams need.
#[derive(Clone, Debug)]
pub struct Sse {
    /// Which key opens which environment.
    pub directory: Arc<Directory>,
    /// The channels.
    pub hub: Hub,
    /// Where announcements are kept.
    pub ledger: Arc<dyn Ledger>,
    /// Times of streams.
    pub stream: config::Stream,
    /// What is between clients and us.
    pub hops: Hops,
    /// Time over which a drain ends streams.
    pub drain: Duration,
    /// What another system must send to announce changes; empty: nobody may.
    pub push_token: Secret,
    /// How many push-only environments there may be.
    pub limits: config::Limits,
    /// The stop order.
    pub shutdown: Shutdown,
}

/// What a stream is asked for with.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) dialect: Dialect,
    pub(super) client_key: &'a str,
    pub(super) method: &'a Method,
    pub(super) version: Version,
    pub(super) headers: &'a HeaderMap,
    pub(super) peer: SocketAddr,
}

pub(super) async fn flagsmith_stream(
    State(sse): State<Sse>,
    Path(client_key): Path<String>,
    Peer(peer): Peer,
    request: Request,
) -> Response {
    sse.answer(Dialect::Flagsmith, &client_key, peer, &request)
}

pub(super) async fn ofrep_stream(
    State(sse): State<Sse>,
    Path(client_key): Path<String>,
    Peer(peer): Peer,
    request: Request,
) -> Response {
    sse.answer(Dialect::Ofrep, &client_key, peer, &request)
}

impl Sse {
    /// Answers with a stream that is a body.
    fn answer(
        &self,
        dialect: Dialect,
        client_key: &str,
        peer: SocketAddr,
        request: &Request,
    ) -> Response {
        let (method, version, headers) = (request.method(), request.version(), request.headers());
        let asked = Asked { dialect, client_key, method, version, headers, peer };
        let opening = self.open(&asked);
        let head = Head::of(client_key, &opening);
        let frames = body(opening, self.shutdown.clone());
        let frames = frames.map(|frame| frame.map(Frame::data));
        head.with(Body::new(StreamBody::new(frames)))
    }

    /// Decides who begins a stream and how long it may last.
    pub(super) fn open(&self, asked: &Asked<'_>) -> Opening {
        let Asked { dialect, client_key, method, version, headers, peer } = *asked;
        let known = self.directory.open_stream(client_key);
        let contract = self.hops.contract(method, version, headers);
        let pace =
            self.pace(contract, known.is_some() && asks_for_events(headers), known.is_some());
        let manner = Manner { dialect, contract };
        let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        let family = ClientFamily::of(agent.unwrap_or_default());
        let subscriber = Subscriber { family, manner, address: peer.ip() };
        let Some(known) = known else {
            return match self.hub.subscribe_unknown(subscriber) {
                Ok(stranger) => {
                    Opening::stranger(stranger, self.join(client_key, subscriber), pace)
                }
                Err(_) => self.refuse(manner, pace),
            };
        };
        match self.hub.subscribe(known.id, subscriber) {
            Ok(subscription) => Opening::subscriber(subscription, pace),
            Err(_) => self.refuse(manner, pace),
        }
    }

    /// The times of a stream. A direct client that does not ask for events may be reading to the end
    /// before it looks; behind a cache that is only the first of many.
    fn pace(&self, contract: Contract, asks_for_events: bool, is_known: bool) -> Pace {
        let times = &self.stream;
        let (life, heartbeat) = match contract {
            Contract::Direct if asks_for_events => (times.life_seconds, times.heartbeat_seconds),
            Contract::Direct => (times.short_life_seconds, times.heartbeat_seconds),
            Contract::Cached if is_known => {
                (times.cached_life_seconds, times.cached_heartbeat_seconds)
            }
            Contract::Cached => (times.short_life_seconds, times.cached_heartbeat_seconds),
        };
        let (life, heartbeat) = (Duration::from_secs(life), Duration::from_secs(heartbeat));
        Pace { heartbeat, life, drain: self.drain }
    }

    /// The key of a stranger may become known while it listens.
    fn join(&self, client_key: &str, subscriber: Subscriber) -> Join {
        let (directory, hub) = (Arc::clone(&self.directory), self.hub.clone());
        let client_key = client_key.to_owned();
        Box::new(move || {
            let known = directory.find_client(&client_key)?;
            hub.subscribe(known.id, subscriber).ok()
        })
    }

    fn refuse(&self, manner: Manner, pace: Pace) -> Opening {
        let life = Duration::from_secs(self.stream.refusal_seconds);
        Opening::refused(manner, Pace { life, ..pace })
    }
}

fn asks_for_events(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok())
        .any(|accept| accept.to_ascii_lowercase().contains("text/event-stream"))
}

/// The head of a stream, as its contract wants it.
///
/// A cache makes one stream of many only if nothing in the head forbids or splits it: it has no
/// `Vary`, no validator, no cookie, no coding, and it is the same for every client. What is fresh may
/// be handed out from memory, so a stream must not be fresh for as long as it lives.
#[derive(Debug)]
pub(super) struct Head {
    cache_control: HeaderValue,
    surrogate_key: Option<HeaderValue>,
}

impl Head {
    pub(super) fn of(client_key: &str, opening: &Opening) -> Self {
        let Some(fresh) = opening.fresh_seconds() else {
            let cache_control = HeaderValue::from_static("no-store, no-transform");
            return Self { cache_control, surrogate_key: None };
        };
        let cache_control = format!(
            "public, max-age=0, s-maxage={fresh}, stale-while-revalidate=0, stale-if-error=0, \
             no-transform"
        );
        // What is no key could be no header either.
        let surrogate_key = ClientKey::parse(client_key).ok();
        let surrogate_key = surrogate_key.map(|key| format!("sse env-{key}"));
        Self {
            cache_control: HeaderValue::try_from(cache_control).expect("visible ASCII"),
            surrogate_key: surrogate_key.and_then(|key| HeaderValue::try_from(key).ok()),
        }
    }

    pub(super) fn with(self, body: Body) -> Response {
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, self.cache_control);
        if let Some(surrogate_key) = self.surrogate_key {
            headers.insert(SURROGATE_KEY, surrogate_key);
        }
        // nginx and its kin hold an answer back until a buffer is full, unless told so.
        let buffering = HeaderName::from_static("x-accel-buffering");
        headers.insert(buffering, HeaderValue::from_static("no"));
        response
    }
}

/// What a Flagsmith core sends.
#[derive(Debug, Deserialize)]
struct Announcement {
    updated_at: String,
}

pub(super) async fn queue_change(
    State(sse): State<Sse>,
    Path(client_key): Path<String>,
    Peer(peer): Peer,
    limits: BodyLimits,
    request: Request,
) -> Result<Response, Detail> {
    authorize(&sse.push_token, request.headers())?;
    let bytes = limits.read(request.into_body()).await?;
    let announcement: Announcement = parse_json(&bytes)?;
    let bad = |detail: String| Detail(StatusCode::BAD_REQUEST, detail);
    let instant = UpdatedAt::parse_iso(&announcement.updated_at).ok_or_else(|| {
        let sent = &announcement.updated_at;
        bad(format!("`updated_at` must be an ISO 8601 time since 1970, not {sent:?}"))
    })?;
    let client_key = ClientKey::parse(&client_key)
        .map_err(|error| bad(format!("the environment key {error}")))?;
    let origin = Origin { actor: "push".to_owned(), address: peer.ip().to_string() };
    match sse.ledger.announce(&client_key, instant, origin, &sse.limits).await? {
        Announced::Moved(id, stamp) => {
            sse.hub.told(id, stamp.revision).await;
        }
        // Late, out of order or repeated: the subscribers know better already.
        Announced::Known(_) => {}
        Announced::Stored => {
            let detail = "this environment's flags live here: change them through /admin/v1";
            return Err(Detail(StatusCode::CONFLICT, detail.to_owned()));
        }
    }
    Ok(([(CONTENT_TYPE, "application/json")], "null").into_response())
}

fn authorize(push_token: &Secret, headers: &HeaderMap) -> Result<(), Detail> {
    if push_token.is_empty() {
        let detail = "announcements are turned off: set `auth.push_token`";
        return Err(Detail(StatusCode::FORBIDDEN, detail.to_owned()));
    }
    let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.strip_prefix("Token ")).unwrap_or_default();
    if bool::from(sent.as_bytes().ct_eq(push_token.expose().as_bytes())) {
        Ok(())
    } else {
        Err(Detail(StatusCode::UNAUTHORIZED, "Invalid authorization header".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a stream of `life`, with what every answer to a browser has.
    fn head(contract: Contract, life: u64, client_key: &str) -> HeaderMap {
        let life = Duration::from_secs(life);
        let pace = Pace { heartbeat: Duration::from_secs(1), life, drain: Duration::ZERO };
        let manner = Manner { dialect: Dialect::Ofrep, contract };
        let opening = Opening::refused(manner, pace);
        let mut response = Head::of(client_key, &opening).with(Body::empty());
        crate::http::cors::open(response.headers_mut());
        response.headers().clone()
    }

    /// One header more, or another word in these, and a cache makes a stream for each client, or hands
    /// out a recording. So the whole head is named here.
    #[test]
    fn the_head_of_a_cached_stream_has_what_collapses_and_nothing_that_does_not() {
        for life in [6, 48, 60, 72] {
            let headers = head(Contract::Cached, life, "aB3");
            let fresh = life - 3;
            let cache_control = format!(
                "public, max-age=0, s-maxage={fresh}, stale-while-revalidate=0, \
                 stale-if-error=0, no-transform"
            );
            let expected = [
                ("access-control-allow-origin", "*"),
                (
                    "access-control-expose-headers",
                    "x-flagsmith-document-updated-at, etag, retry-after",
                ),
                ("cache-control", &cache_control),
                ("content-type", "text/event-stream"),
                ("surrogate-key", "sse env-aB3"),
                ("x-accel-buffering", "no"),
            ];
            let mut found: Vec<_> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                .collect();
            found.sort_unstable();
            assert_eq!(found, expected);
        }
        assert!(!head(Contract::Cached, 60, "no key\n").contains_key("surrogate-key"));
    }

    #[test]
    fn no_cache_keeps_a_direct_stream() {
        let headers = head(Contract::Direct, 900, "aB3");
        assert_eq!(headers[CACHE_CONTROL], "no-store, no-transform");
        assert!(!headers.contains_key("surrogate-key"));
    }

    #[test]
    fn every_way_to_ask_for_events_counts() {
        let asks = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            asks_for_events(&headers)
        };
        assert!(asks(&["text/event-stream"]));
        assert!(asks(&["application/json , text/event-stream"]), "Flutter");
        assert!(asks(&["application/json", "text/event-stream"]), "Android");
        assert!(!asks(&["*/*"]) && !asks(&[]));
    }
}
