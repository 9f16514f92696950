//! The HTTP by which a relay asks, whatever its upstream is.
//!
//! Streams and questions have connections of their own: over HTTP/2 a connection carries only so many
//! requests at a time, and one more would wait behind streams that never end.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response};
use tokio::time::timeout;

use super::upstream::Failure;
use crate::config::{self, ConfigError};
use crate::outbound;

/// Streams on one connection of HTTP/2; gateways and proxies allow 100 or more.
const STREAMS_PER_CONNECTION: usize = 90;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take in all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a question waits on a connection that was there before, if it may be asked again on a new one.
const FIRST_TRY: Duration = Duration::from_secs(1);

/// How long the head of a stream may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence after which a connection of HTTP/2 is asked for a sign of life.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Largest snapshot: no environment that the limits allow comes near.
pub(super) const SNAPSHOT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Largest answer to anything else.
pub(super) const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// The connections for questions to one upstream.
#[derive(Debug)]
pub(super) struct Questions {
    base: String,
    http2: config::Http2,
    /// How long an answer may be silent.
    silence: Duration,
    asker: Mutex<Asker>,
}

/// A client with connections of its own, for questions.
#[derive(Debug)]
struct Asker {
    client: Client,
    since: Instant,
}

/// The connections for streams of one upstream.
#[derive(Debug)]
pub(super) struct Lanes {
    base: String,
    http2: config::Http2,
    open: Mutex<Vec<Lane>>,
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
    place: Place,
}

/// A stream's place on the connections of a lane, until it is dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Questions {
    pub(super) fn new(
        base: &str,
        http2: config::Http2,
        silence: Duration,
    ) -> Result<Self, ConfigError> {
        let asker = Mutex::new(Asker::new(base, http2, silence)?);
        Ok(Self { base: base.to_owned(), http2, silence, asker })
    }

    /// A question that is not asked yet.
    pub(super) fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let client = self.asker().client.clone();
        client.request(method, format!("{}{path}", self.base))
    }

    /// Asks it.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| {
            if error.is_timeout() {
                self.distrust();
            }
            away(error)
        })
    }

    /// Asks what may be asked twice: when there is no answer soon, on a new connection.
    pub(super) async fn send_surely(
        &self,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, Failure> {
        if let Ok(answer) = timeout(FIRST_TRY, self.send(request())).await {
            return answer;
        }
        self.distrust();
        self.send(request()).await
    }

    /// Makes questions go on new connections: those that are there may have died without a word, and each
    /// would take its time to be found out.
    pub(super) fn distrust(&self) {
        let mut asker = self.asker();
        if asker.since.elapsed() >= FIRST_TRY
            && let Ok(fresh) = Asker::new(&self.base, self.http2, self.silence)
        {
            *asker = fresh;
        }
    }

    fn asker(&self) -> MutexGuard<'_, Asker> {
        self.asker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asker {
    fn new(base: &str, http2: config::Http2, silence: Duration) -> Result<Self, ConfigError> {
        let builder = client(base, http2).timeout(ANSWER_TIMEOUT).read_timeout(silence);
        Ok(Self { client: build(builder)?, since: Instant::now() })
    }
}

impl Lanes {
    pub(super) fn new(base: &str, http2: config::Http2) -> Self {
        Self { base: base.to_owned(), http2, open: Mutex::default() }
    }

    /// Opens a stream; nothing but the status of an answer that is none.
    pub(super) async fn open(&self, path: &str) -> Result<Result<OpenStream, Response>, Failure> {
        let Lane { client, open } = self.lane()?;
        let place = Place::take(&open);
        let asked = client
            .get(format!("{}{path}", self.base))
            .header(ACCEPT, "text/event-stream")
            .header(CACHE_CONTROL, "no-cache")
            .send();
        let answer = timeout(HEAD_TIMEOUT, asked).await;
        let response = answer
            .map_err(|_| {
                self.leave(&open);
                Failure::Away("the stream does not begin".to_owned())
            })?
            .map_err(away)?;
        if response.status().as_u16() != 200 {
            return Ok(Err(response));
        }
        Ok(Ok(OpenStream { response, place }))
    }

    /// Opens no more streams on the connections of this one: they may have died without a word.
    pub(super) fn distrust(&self, stream: &OpenStream) {
        self.leave(&stream.place.0);
    }

    fn leave(&self, open: &Arc<AtomicUsize>) {
        let mut lanes = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|lane| !Arc::ptr_eq(&lane.open, open));
    }

    /// A client whose connection has room for a stream.
    fn lane(&self) -> Result<Lane, Failure> {
        let mut lanes = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = |lane: &&Lane| lane.open.load(Ordering::Relaxed) < STREAMS_PER_CONNECTION;
        if let Some(lane) = lanes.iter().find(has_room) {
            return Ok(lane.clone());
        }
        let client = build(client(&self.base, self.http2))
            .map_err(|error| Failure::Away(error.to_string()))?;
        let lane = Lane { client, open: Arc::default() };
        lanes.push(lane.clone());
        Ok(lane)
    }
}

impl OpenStream {
    /// The next bytes; nothing at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, Failure> {
        self.response.chunk().await.map_err(away)
    }
}

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
pub(super) fn away(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Failure::Away(cause.to_string())
}

/// A body, unpacked if it is packed, and never larger than `max`.
pub(super) async fn body(mut answer: Response, max: u64) -> Result<Vec<u8>, Failure> {
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
