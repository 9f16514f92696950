//! Deliveries as the gateway sends them, signed by an independent library.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use flagcast_receiver::{Receiver, Service};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use crate::KEY;

pub(crate) const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub(crate) const OTHER_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8G";

/// The time of day in tests, in seconds.
pub(crate) const NOW: i64 = 1_796_000_000;

/// The time of day that a test sets.
#[derive(Clone)]
pub(crate) struct Clock(Arc<AtomicI64>);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(NOW)))
    }

    pub(crate) fn set(&self, now: i64) {
        self.0.store(now, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn reader(&self) -> impl Fn() -> SystemTime + Send + Sync + 'static {
        let clock = self.clone();
        move || UNIX_EPOCH + Duration::from_secs(clock.now().unsigned_abs())
    }
}

/// A delivery before it is sent.
#[derive(Clone)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) timestamp: i64,
    pub(crate) body: Bytes,
    pub(crate) secrets: Vec<&'static str>,
}

impl Delivery {
    /// A new one that tells of a state.
    pub(crate) fn of(revision: u64, updated_at: f64) -> Self {
        Self::with(&json!({"client_key": KEY, "revision": revision, "updated_at": updated_at}))
    }

    pub(crate) fn with(data: &Value) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let body = json!({"type": "environment.updated", "timestamp": "2026-11-28T08:00:00.015625Z", "data": data});
        Self {
            id: format!("msg_{count}"),
            timestamp: NOW,
            body: body.to_string().into(),
            secrets: vec![SECRET],
        }
    }

    pub(crate) fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = timestamp;
        self
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        let sign = |secret: &&str| {
            let signer = Webhook::new(secret).unwrap();
            signer.sign(&self.id, self.timestamp, &self.body).unwrap()
        };
        let signatures: Vec<_> = self.secrets.iter().map(sign).collect();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("webhook-id", self.id.parse().unwrap());
        headers.insert("webhook-timestamp", self.timestamp.into());
        headers.insert("webhook-signature", signatures.join(" ").parse().unwrap());
        headers
    }

    pub(crate) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::post("/").body(Full::new(self.body.clone())).unwrap();
        *request.headers_mut() = self.headers();
        request
    }

    pub(crate) async fn send(&self, receiver: &Receiver) -> Answer {
        send(&receiver.service(), self.request()).await
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The revision that is said to be applied.
    pub(crate) fn applied(&self) -> Option<u64> {
        let value = self.headers.get("x-flagcast-applied-revision")?;
        Some(value.to_str().unwrap().parse().unwrap())
    }

    pub(crate) fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }

    pub(crate) async fn from(response: Response<Full<Bytes>>) -> Self {
        let (parts, body) = response.into_parts();
        assert_eq!(parts.headers["content-type"], "application/json");
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap();
        Self { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

pub(crate) async fn send(service: &Service, request: Request<Full<Bytes>>) -> Answer {
    Answer::from(service.handle(request).await).await
}
