//! Answers deliveries: the part that is mounted.
//!
//! Nothing is said to strangers but what is wrong with what they sent. The gateway is told which
//! revision is held, whether that is what it spoke of or not.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use serde_json::json;
use tokio::time::Instant;

use crate::delivery::{self, Told};
use crate::follow::Wishes;
use crate::held::Held;
use crate::options::Clock;
use crate::receiver::Receiver;
use crate::replay::Seen;
use crate::verify::{Doubt, Secrets, TOLERANCE};

/// Bytes of a delivery at most.
const BODY_MAX: usize = 256 << 10;

/// After how many seconds the gateway is to come back when the flags could not be read.
const RETRY_SECONDS: u16 = 5;

const APPLIED: HeaderName = HeaderName::from_static("x-flagcast-applied-revision");

/// The future of an answer.
pub type Answering =
    Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

/// The webhook's target: a tower service for axum and for apps on hyper.
///
/// It answers at every path below which it is mounted, and never fails.
#[derive(Clone, Debug)]
pub struct Service {
    receiver: Receiver,
}

impl Service {
    pub(crate) fn new(receiver: Receiver) -> Self {
        Self { receiver }
    }

    /// Answers one request, for apps without tower.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.receiver.desk().answer(request).await
    }
}

impl<B> tower_service::Service<Request<B>> for Service
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        let service = self.clone();
        Box::pin(async move { Ok(service.handle(request).await) })
    }
}

/// What deliveries are checked and answered with.
pub(crate) struct Desk {
    pub(crate) held: Arc<Held>,
    pub(crate) wishes: Wishes,
    pub(crate) client_key: String,
    pub(crate) secrets: Secrets,
    pub(crate) answer_within: Duration,
    pub(crate) clock: Clock,
    pub(crate) seen: Seen,
}

/// Why a request is refused.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl Desk {
    async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let deadline = Instant::now() + self.answer_within;
        let (parts, body) = request.into_parts();
        if parts.method != Method::POST {
            let mut response = refused(Refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                "deliveries come by POST".to_owned(),
            ));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let body = match read(body, deadline).await {
            Ok(body) => body,
            Err(refusal) => return refused(refusal),
        };
        match self.believe(&parts, &body) {
            Ok(told) => self.take(&told, deadline).await,
            // A recording of what is ours: the gateway may know what we hold.
            Err(refusal) if refusal.0 == StatusCode::CONFLICT => self.applied(refused(refusal)),
            Err(refusal) => refused(refusal),
        }
    }

    /// What a delivery says, if it is the gateway's and for us.
    fn believe(&self, parts: &Parts, body: &[u8]) -> Result<Told, Refusal> {
        let now = (self.clock)().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let attempt =
            self.secrets.verify(&parts.headers, body, now).map_err(|doubt| doubted(&doubt))?;
        if !self.seen.is_new(&attempt.id, attempt.timestamp, now - TOLERANCE) {
            let why = "this attempt came before: a replay";
            return Err(Refusal(StatusCode::CONFLICT, why.to_owned()));
        }
        let told = delivery::parse(body).map_err(|why| Refusal(StatusCode::BAD_REQUEST, why))?;
        if told.client_key != self.client_key {
            let (of, ours) = (&told.client_key, &self.client_key);
            let why = format!("this delivery is for `{of}`, and this receiver for `{ours}`");
            return Err(Refusal(StatusCode::BAD_REQUEST, why));
        }
        Ok(told)
    }

    /// Waits until the copy is what the delivery speaks of.
    async fn take(&self, told: &Told, deadline: Instant) -> Response<Full<Bytes>> {
        let mut states = self.held.watch();
        if !self.held.holds(told.updated_at) && !self.held.is_closed() {
            self.wishes.tell(told);
            let here = states.wait_for(|state| state.holds(told.updated_at) || state.is_closed);
            drop(tokio::time::timeout_at(deadline, here).await);
        }
        if self.held.holds(told.updated_at) {
            return self.applied(answer(StatusCode::OK, &json!({"applied": true})));
        }
        let why = if self.held.is_closed() {
            "this receiver was closed"
        } else {
            "the flags could not be read from the gateway yet; they still are being tried"
        };
        let mut response = refused(Refusal(StatusCode::SERVICE_UNAVAILABLE, why.to_owned()));
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
        self.applied(response)
    }

    /// Adds which revision is held.
    fn applied(&self, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
        if let Some(flags) = self.held.look().as_ref() {
            response.headers_mut().insert(APPLIED, HeaderValue::from(flags.revision()));
        }
        response
    }
}

/// Reads a body within size and time.
async fn read<B>(body: B, deadline: Instant) -> Result<Bytes, Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let too_large = || {
        let why = format!("a delivery has at most {BODY_MAX} bytes");
        Refusal(StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    if body.size_hint().lower() > BODY_MAX as u64 {
        return Err(too_large());
    }
    let body = std::pin::pin!(Limited::new(body, BODY_MAX).collect());
    match tokio::time::timeout_at(deadline, body).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal(StatusCode::BAD_REQUEST, "the body ended early".to_owned())),
        Err(_) => Err(Refusal(StatusCode::REQUEST_TIMEOUT, "the body is too slow".to_owned())),
    }
}

fn doubted(doubt: &Doubt) -> Refusal {
    let status = match doubt {
        Doubt::Signature => StatusCode::UNAUTHORIZED,
        _ => StatusCode::BAD_REQUEST,
    };
    tracing::warn!(%doubt, "a delivery was refused");
    Refusal(status, doubt.to_string())
}

fn refused(Refusal(status, why): Refusal) -> Response<Full<Bytes>> {
    answer(status, &json!({ "error": why }))
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
