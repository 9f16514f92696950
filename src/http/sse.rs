//! The streams: `GET /sse/environments/{client_key}/stream`, and `queue-change`, by which another
//! system announces that an environment of its own has changed.
//!
//! The stream route never answers with an error: browsers would give up for ever, and some SDKs
//! would come back at once, hundreds of times a second. An unknown key gets a silent stream with a
//! short life, and so does a stream beyond a limit, with word to come back later.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;
use tokio_stream::StreamExt as _;

use super::errors::Detail;
use super::request::{BodyLimits, Peer, parse_json};
use crate::config;
use crate::flagset::Directory;
use crate::model::{ClientKey, Origin, Secret, UpdatedAt};
use crate::shutdown::Shutdown;
use crate::store::{Announced, Store};
use crate::stream::{ClientFamily, Hub, Join, Opening, Pace, body};

/// What the streams need.
#[derive(Clone, Debug)]
pub struct Sse {
    /// Which key opens which environment.
    pub directory: Arc<Directory>,
    /// The channels.
    pub hub: Hub,
    /// Where announcements are kept.
    pub store: Store,
    /// Times of streams.
    pub stream: config::Stream,
    /// Time over which a drain ends streams.
    pub drain: Duration,
    /// What another system must send to announce changes; empty: nobody may.
    pub push_token: Secret,
    /// How many push-only environments there may be.
    pub limits: config::Limits,
    /// The stop order.
    pub shutdown: Shutdown,
}

pub(super) async fn stream(
    State(sse): State<Sse>,
    Path(client_key): Path<String>,
    Peer(peer): Peer,
    headers: HeaderMap,
) -> Response {
    let frames = body(sse.open(&client_key, &headers, peer), sse.shutdown.clone());
    let frames = frames.map(|frame| Ok::<_, std::convert::Infallible>(Frame::data(frame)));
    answer(Body::new(StreamBody::new(frames)))
}

impl Sse {
    /// Decides who begins a stream and how long it may last.
    pub(super) fn open(&self, client_key: &str, headers: &HeaderMap, peer: SocketAddr) -> Opening {
        let known = self.directory.find_client(client_key);
        // A client that does not ask for events may be reading to the end before it looks.
        let short = known.is_none() || !asks_for_events(headers);
        let times = &self.stream;
        let life = if short { times.short_life_seconds } else { times.life_seconds };
        let pace = Pace {
            heartbeat: Duration::from_secs(times.heartbeat_seconds),
            life: Duration::from_secs(life),
            drain: self.drain,
        };
        let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        let family = ClientFamily::of(agent.unwrap_or_default());
        let address = peer.ip();
        let Some(known) = known else {
            return match self.hub.subscribe_unknown(family, address) {
                Ok(stranger) => {
                    Opening::stranger(stranger, self.join(client_key, family, address), pace)
                }
                Err(_) => self.refuse(pace),
            };
        };
        match self.hub.subscribe(known.id, family, address) {
            Ok(subscription) => Opening::subscriber(subscription, pace),
            Err(_) => self.refuse(pace),
        }
    }

    /// The key of a stranger may become known while it listens.
    fn join(&self, client_key: &str, family: ClientFamily, address: IpAddr) -> Join {
        let (directory, hub) = (Arc::clone(&self.directory), self.hub.clone());
        let client_key = client_key.to_owned();
        Box::new(move || {
            let known = directory.find_client(&client_key)?;
            hub.subscribe(known.id, family, address).ok()
        })
    }

    fn refuse(&self, pace: Pace) -> Opening {
        let life = Duration::from_secs(self.stream.refusal_seconds);
        Opening::refused(Pace { life, ..pace })
    }
}

fn asks_for_events(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok())
        .any(|accept| accept.to_ascii_lowercase().contains("text/event-stream"))
}

/// The head of a stream.
pub(super) fn answer(body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // nginx and its kin hold an answer back until a buffer is full, unless told so.
    let buffering = HeaderName::from_static("x-accel-buffering");
    headers.insert(buffering, HeaderValue::from_static("no"));
    response
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
    let instant = parse_instant(&announcement.updated_at).ok_or_else(|| {
        let sent = &announcement.updated_at;
        bad(format!("`updated_at` must be an ISO 8601 time since 1970, not {sent:?}"))
    })?;
    let client_key = ClientKey::parse(&client_key)
        .map_err(|error| bad(format!("the environment key {error}")))?;
    let origin = Origin { actor: "push".to_owned(), address: peer.ip().to_string() };
    let mut change = sse.store.change(origin).await?;
    match change.announce(&client_key, instant, &sse.limits).await? {
        Announced::Moved(id, stamp) => {
            change.commit().await?;
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

/// ISO 8601 with an offset, or without one, which then means UTC.
fn parse_instant(text: &str) -> Option<UpdatedAt> {
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    })?;
    let micros = timestamp.as_microsecond();
    (micros >= 0).then(|| UpdatedAt::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_come_with_and_without_an_offset() {
        let micros = |text: &str| parse_instant(text).map(UpdatedAt::micros);
        let expected = Some(1_787_313_600_123_456);
        assert_eq!(micros("2026-08-21T12:00:00.123456+00:00"), expected);
        assert_eq!(micros("2026-08-21T12:00:00.123456Z"), expected);
        assert_eq!(micros("2026-08-21T14:00:00.123456+02:00"), expected);
        assert_eq!(micros("2026-08-21T12:00:00.123456"), expected);
        assert_eq!(micros("2026-08-21 12:00:00.123456"), expected);
        assert_eq!(micros("1969-12-31T23:59:59Z"), None);
        assert_eq!(micros("yesterday"), None);
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
