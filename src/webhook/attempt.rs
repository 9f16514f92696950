//! One attempt: the request, freshly signed, and its answer within bounds.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, USER_AGENT};
use ipnet::IpNet;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use tokio::time::timeout;

use super::answer::Answer;
use super::guard::{Guard, Inside};
use super::{payload, signature};
use crate::config::{ConfigError, Webhook as Settings};
use crate::model::{AttemptOutcome, WebhookFormat, parse_target};
use crate::outbound;
use crate::store::{Claim, now_micros};

/// What is kept of an answer for the log.
const ANSWER_KEPT: usize = 1024;

/// What is read of an answer so that its connection can be used again.
const ANSWER_READ: usize = 64 * 1024;

/// How long reading the answer's body may take: its head has said how it went.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// How long a connection is kept for the next delivery: shorter than servers commonly do, so that none
/// is used in the moment in which the other side closes it.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// Longest text of an error in the log.
const ERROR_MAX: usize = 300;

/// Makes attempts. Clones share its connections.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    client: Client,
    allowed: Arc<[IpNet]>,
    public_url: Arc<str>,
    total: Duration,
}

impl Sender {
    pub(super) fn new(settings: &Settings, public_url: &str) -> Result<Self, ConfigError> {
        let allowed: Arc<[IpNet]> = settings.allowed_targets.clone().into();
        let total = Duration::from_millis(settings.timeout_ms);
        let build = |builder: reqwest::ClientBuilder| {
            builder
                .redirect(Policy::none())
                // A proxy would look the name up anew, behind the guard.
                .no_proxy()
                .dns_resolver(Guard { allowed: Arc::clone(&allowed) })
                .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
                .timeout(total)
                .pool_idle_timeout(IDLE_TIME)
                .pool_max_idle_per_host(1)
                .build()
        };
        // A system without certificates can still tell endpoints on plain HTTP.
        let client = build(outbound::client()).or_else(|error| {
            tracing::warn!(%error, "webhooks cannot use TLS: the system has no certificates");
            build(outbound::plain_client())
        });
        let client = client.map_err(|error| {
            ConfigError::new(format!("webhooks cannot be sent from this system: {error}"))
        })?;
        Ok(Self { client, allowed, public_url: public_url.into(), total })
    }

    /// Makes the request and reads its answer. Always ends, within the settings' time.
    pub(super) async fn attempt(&self, claim: &Claim) -> Answer {
        // The client bounds itself; this bounds the client.
        match timeout(self.total + ANSWER_TIME, self.send(claim)).await {
            Ok(answer) => answer,
            Err(_) => Answer::missing(AttemptOutcome::Timeout, "no answer in time".to_owned()),
        }
    }

    async fn send(&self, claim: &Claim) -> Answer {
        let webhook = &claim.webhook;
        let Some(secret) = &webhook.secret else {
            let error =
                "its secret was stored with another `secrets.key`; rotate it, or set that key";
            return Answer::missing(AttemptOutcome::Unsigned, error.to_owned());
        };
        let url = match parse_target(&webhook.url, &self.allowed) {
            Ok(url) => url,
            Err(error) => {
                let error = format!("the URL {error}");
                return Answer::missing(AttemptOutcome::Blocked, error);
            }
        };
        let body = payload::body(claim, &self.public_url);
        let timestamp = now_micros().div_euclid(1_000_000);
        let message = signature::Message { id: &claim.delivery.message_id, timestamp, body: &body };
        let secrets: Vec<_> =
            [Some(secret), webhook.previous_secret.as_ref()].into_iter().flatten().collect();
        let mut request = self.client.post(url);
        // The endpoint's own headers first: ours are not for it to replace.
        for (name, value) in &webhook.headers {
            request = request.header(name, value.expose());
        }
        let version = concat!("Flagcast/", env!("CARGO_PKG_VERSION"));
        request = request.header(CONTENT_TYPE, "application/json").header(USER_AGENT, version);
        for (name, value) in signature::headers(message, &secrets) {
            request = request.header(name, value);
        }
        if webhook.format == WebhookFormat::Flagsmith {
            let (name, value) = signature::flagsmith(&body, secret);
            request = request.header(name, value);
        }
        match request.body(body).send().await {
            Ok(response) => answer(response).await,
            Err(error) => refused(error),
        }
    }
}

async fn answer(mut response: Response) -> Answer {
    let now = u64::try_from(now_micros().div_euclid(1_000_000)).unwrap_or(0);
    let mut answer = Answer::of(response.status().as_u16(), response.headers(), now);
    let mut bytes = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() >= ANSWER_READ {
                return;
            }
        }
    };
    // What does not come in time is not needed.
    drop(timeout(ANSWER_TIME, read).await);
    bytes.truncate(ANSWER_KEPT);
    answer.text = String::from_utf8_lossy(&bytes).into_owned();
    answer
}

/// Why there is no answer. A URL can hold what only the endpoint should know, so no text has it.
fn refused(error: reqwest::Error) -> Answer {
    let error = error.without_url();
    let mut causes = vec![error.to_string()];
    let mut cause = error.source();
    let mut is_inside = false;
    while let Some(inner) = cause {
        is_inside |= inner.is::<Inside>();
        causes.push(inner.to_string());
        cause = inner.source();
    }
    causes.dedup();
    let outcome = if is_inside {
        AttemptOutcome::Blocked
    } else if error.is_timeout() {
        AttemptOutcome::Timeout
    } else {
        AttemptOutcome::Unreachable
    };
    let text: String = causes.join(": ").chars().take(ERROR_MAX).collect();
    Answer::missing(outcome, text)
}
