//! What a relay asks its upstream, by HTTP.
//!
//! Streams and questions have connections of their own: over HTTP/2 a connection carries only so many
//! requests at a time, and one more would wait behind streams that never end.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flate2::read::GzDecoder;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, HeaderValue,
    IF_NONE_MATCH,
};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::config::{self, ConfigError};
use crate::model::{ClientKey, Revision, SERVER_KEY_PREFIX};
use crate::outbound;
use crate::snapshot::Snapshot;
use crate::store::keys::{DIGEST_PREFIX, digest};

/// Streams on one connection of HTTP/2; gateways and proxies allow 100 or more.
const STREAMS_PER_CONNECTION: usize = 90;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take in all. A pinned read at the upstream waits half a second itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the head of a stream may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence after which a connection of HTTP/2 is asked for a sign of life.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Largest snapshot: no environment that the limits allow comes near.
const SNAPSHOT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Largest answer to anything else.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// The upstream of a relay. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Upstream {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    base: String,
    authorization: HeaderValue,
    http2: config::Http2,
    asker: Client,
    lanes: Mutex<Vec<Lane>>,
}

/// A client with connections of its own, for streams.
#[derive(Clone, Debug)]
struct Lane {
    client: Client,
    open: Arc<AtomicUsize>,
}

/// A stream that is open.
#[derive(Debug)]
pub(super) struct OpenStream {
    response: Response,
    open: Arc<AtomicUsize>,
}

/// Under which name the upstream is asked for an environment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// By its client key.
    Client(String),
    /// By the digest of a server key: the key itself belongs into no URL.
    Digest(String),
}

/// What a question for a snapshot gave.
#[derive(Debug)]
pub(super) enum Fetched {
    /// Another one than ours.
    New(Box<Snapshot>),
    /// Ours is the newest.
    Same,
    /// The revision that was asked for is not there yet.
    Behind,
    /// There is no such environment.
    Unknown,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody answers, or with a fault.
    #[error("{0}")]
    Away(String),
    /// We are not let in.
    #[error(
        "the upstream refuses the relay's token ({0}): it needs the role `relay` and a scope that covers the environment"
    )]
    Refused(String),
}

impl Name {
    /// What a key is asked by.
    pub(super) fn of(key: &str) -> Self {
        if key.starts_with(SERVER_KEY_PREFIX) {
            Self::Digest(digest(key))
        } else if let Some(digest) = key.strip_prefix(DIGEST_PREFIX) {
            // A relay below ours knows no more than that.
            Self::Digest(digest.to_owned())
        } else {
            Self::Client(key.to_owned())
        }
    }

    /// As a part of a path.
    fn segment(&self) -> String {
        match self {
            Self::Client(key) => key.clone(),
            Self::Digest(digest) => format!("{DIGEST_PREFIX}{digest}"),
        }
    }
}

impl Upstream {
    /// Prepares to ask; nothing is sent yet.
    pub fn new(settings: &config::Relay) -> Result<Self, ConfigError> {
        let base = settings.upstream.trim_end_matches('/').to_owned();
        let bearer = format!("Bearer {}", settings.token.expose());
        let mut authorization = HeaderValue::try_from(bearer)
            .map_err(|_| ConfigError::new("relay.token may hold only printable ASCII".into()))?;
        authorization.set_sensitive(true);
        let asker = build(client(&base, settings.http2).timeout(ANSWER_TIMEOUT))?;
        let inner =
            Inner { base, authorization, http2: settings.http2, asker, lanes: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where it is.
    pub(super) fn base(&self) -> &str {
        &self.inner.base
    }

    /// Asks for the snapshot of an environment: of at least `wanted`, unless it is the one that is held.
    pub(super) async fn snapshot(
        &self,
        name: &Name,
        wanted: Option<Revision>,
        held: Option<&Snapshot>,
    ) -> Result<Fetched, Failure> {
        let mut path = format!("/sdk/v1/environments/{}/snapshot", name.segment());
        if let Some(revision) = wanted {
            path.push_str(&format!("?rev={revision}"));
        }
        let mut request = self.ask(Method::GET, &path).header(ACCEPT_ENCODING, "gzip");
        if let Some(held) = held {
            request = request.header(IF_NONE_MATCH, held.mark().tag());
        }
        let answer = request.send().await.map_err(away)?;
        match answer.status().as_u16() {
            200 => {
                let bytes = body(answer, SNAPSHOT_BYTES_MAX).await?;
                let snapshot = Snapshot::decode(&bytes).map_err(|error| {
                    Failure::Away(format!("its snapshot cannot be read: {error}"))
                })?;
                Ok(Fetched::New(Box::new(snapshot)))
            }
            304 => Ok(Fetched::Same),
            404 => match code(answer).await.as_str() {
                "environment_unknown" => Ok(Fetched::Unknown),
                "revision_ahead" => Ok(Fetched::Behind),
                // Not ours: a wrong address, or something in between.
                code => Err(Failure::Away(format!("404 with the code {code:?}: is it a gateway?"))),
            },
            status => Err(refusal(status, answer).await),
        }
    }

    /// Hands usage counts on. The id of a batch stays the same at each attempt.
    pub(super) async fn usage(&self, client_key: &str, batch: &Json) -> Result<(), Failure> {
        let path = format!("/sdk/v1/environments/{client_key}/usage");
        let answer = self.ask(Method::POST, &path).json(batch).send().await.map_err(away)?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            status => Err(refusal(status, answer).await),
        }
    }

    /// Reads or changes what is kept of an identity.
    pub(super) async fn traits<T: DeserializeOwned>(
        &self,
        client_key: &str,
        told: &impl Serialize,
    ) -> Result<T, TraitsFailure> {
        let path = format!("/sdk/v1/environments/{client_key}/traits");
        let answer = self.ask(Method::POST, &path).json(told).send().await.map_err(away)?;
        match answer.status().as_u16() {
            200 => {
                let bytes = body(answer, ANSWER_BYTES_MAX).await?;
                serde_json::from_slice(&bytes)
                    .map_err(|error| Failure::Away(error.to_string()).into())
            }
            422 => Err(TraitsFailure::NotCountable),
            status => Err(refusal(status, answer).await.into()),
        }
    }

    /// Opens the stream of an environment.
    pub(super) async fn stream(&self, client_key: &ClientKey) -> Result<OpenStream, Failure> {
        let Lane { client, open } = self.lane()?;
        let url = format!("{}/ofrep/v1/streams/{client_key}", self.inner.base);
        open.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Some(open));
        let asked = client
            .get(url)
            .header(ACCEPT, "text/event-stream")
            .header(CACHE_CONTROL, "no-cache")
            .send();
        let answer = tokio::time::timeout(HEAD_TIMEOUT, asked).await;
        let response = answer
            .map_err(|_| Failure::Away("the stream does not begin".to_owned()))?
            .map_err(away)?;
        if response.status().as_u16() != 200 {
            return Err(refusal(response.status().as_u16(), response).await);
        }
        Ok(OpenStream { response, open: counted.keep() })
    }

    /// A client whose connection has room for a stream.
    fn lane(&self) -> Result<Lane, Failure> {
        let mut lanes = self.inner.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = |lane: &&Lane| lane.open.load(Ordering::Relaxed) < STREAMS_PER_CONNECTION;
        if let Some(lane) = lanes.iter().find(has_room) {
            return Ok(lane.clone());
        }
        let client = build(client(&self.inner.base, self.inner.http2))
            .map_err(|error| Failure::Away(error.to_string()))?;
        let lane = Lane { client, open: Arc::default() };
        lanes.push(lane.clone());
        Ok(lane)
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.inner.base);
        self.inner.asker.request(method, url).header(AUTHORIZATION, &self.inner.authorization)
    }
}

/// Why traits were not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraitsFailure {
    /// The upstream gives no answer.
    #[error(transparent)]
    Upstream(#[from] Failure),
    /// A trait that should be counted is no whole number.
    #[error("the trait is no whole number")]
    NotCountable,
}

impl From<TraitsFailure> for Failure {
    fn from(failure: TraitsFailure) -> Self {
        match failure {
            TraitsFailure::Upstream(failure) => failure,
            TraitsFailure::NotCountable => Self::Away(failure.to_string()),
        }
    }
}

impl OpenStream {
    /// The next bytes; nothing at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, Failure> {
        self.response.chunk().await.map_err(away)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives a stream's place back unless the stream came to be.
struct Counted(Option<Arc<AtomicUsize>>);

impl Counted {
    fn keep(mut self) -> Arc<AtomicUsize> {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn client(base: &str, http2: config::Http2) -> ClientBuilder {
    let builder = outbound::client_for([base])
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(KEEP_ALIVE)
        .tcp_nodelay(true);
    match http2 {
        config::Http2::Auto => builder,
        config::Http2::Always => builder.http2_prior_knowledge(),
    }
}

fn build(builder: ClientBuilder) -> Result<Client, ConfigError> {
    builder.build().map_err(|error| {
        ConfigError::new(format!("relay.upstream cannot be asked: TLS fails ({error})"))
    })
}

/// What a failed request says: the last cause names what happened.
fn away(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Failure::Away(cause.to_string())
}

async fn refusal(status: u16, answer: Response) -> Failure {
    let code = code(answer).await;
    match status {
        401 | 403 => Failure::Refused(format!("{status}, {code}")),
        _ => Failure::Away(format!("it answers with {status} ({code})")),
    }
}

/// The code of a problem.
async fn code(answer: Response) -> String {
    let bytes = body(answer, ANSWER_BYTES_MAX).await.unwrap_or_default();
    let problem: Json = serde_json::from_slice(&bytes).unwrap_or_default();
    problem["code"].as_str().unwrap_or("none").to_owned()
}

/// A body, unpacked if it is packed, and never larger than `max`.
async fn body(mut answer: Response, max: u64) -> Result<Vec<u8>, Failure> {
    let is_packed = answer.headers().get(CONTENT_ENCODING).is_some_and(|how| how == "gzip");
    let too_large = || Failure::Away(format!("its answer has more than {max} bytes"));
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(away)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > max {
            return Err(too_large());
        }
    }
    if !is_packed {
        return Ok(bytes);
    }
    let mut plain = Vec::new();
    let mut unpacking = GzDecoder::new(bytes.as_slice()).take(max + 1);
    unpacking
        .read_to_end(&mut plain)
        .map_err(|error| Failure::Away(format!("its answer cannot be unpacked: {error}")))?;
    if plain.len() as u64 > max { Err(too_large()) } else { Ok(plain) }
}
