//! In front of Flagsmith: what a relay asks an unmodified Flagsmith API.
//!
//! Flagsmith gives everything about an environment to who has a server key of it, in one document. It tells
//! nobody of a change unless it has its real-time service, or a relay that it announces changes to; so it is
//! asked now and then, and at once when a change is announced.

mod document;
mod identity;
mod keys;
mod stamp;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{
    ACCEPT_ENCODING, DATE, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, LAST_MODIFIED, LINK,
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Map, Value as Json};

use self::document::Read;
use self::keys::Keys;
use self::stamp::{EPOCH, revision_at, stamp};
use super::asking::{
    ANSWER_BYTES_MAX, Lanes, OpenStream, Questions, SNAPSHOT_BYTES_MAX, away, body,
};
use super::upstream::{Failure, Fetched, Handed};
use crate::config::{self, ConfigError};
use crate::model::{ClientKey, Revision, SERVER_KEY_PREFIX, Secret, UpdatedAt};
use crate::probe::Told;
use crate::snapshot::Snapshot;
use crate::store::now_micros;

/// By which key a request is made.
const KEY_HEADER: &str = "x-environment-key";

/// Flagsmith's instant of what it answers with.
const INSTANT_HEADER: &str = "x-flagsmith-document-updated-at";

/// How much older than its answer a document must be, so that its date tells it from the next one: dates
/// have whole seconds.
const DATE_IS_SURE: Duration = Duration::from_secs(2);

/// How long an answer may be silent: Flagsmith builds a large document for seconds.
const ANSWER_SILENCE: Duration = Duration::from_secs(20);

/// Pages of one document; Flagsmith's own service at the edge cuts large ones.
const PAGES_MAX: usize = 1000;

/// A Flagsmith API. Clones share its connections and keys.
#[derive(Clone, Debug)]
pub struct Flagsmith {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    base: String,
    questions: Questions,
    keys: Keys,
    /// Flagsmith's own real-time service, if there is one.
    realtime: Option<Lanes>,
}

/// What a question for a document gave.
enum Answered {
    Document(Box<Received>),
    /// It has not changed.
    Same,
    /// Flagsmith does not know the key.
    Refused,
}

/// A document as it was received.
struct Received {
    read: Read,
    /// Its date, if it may be asked by.
    date: Option<HeaderValue>,
}

impl Flagsmith {
    /// Prepares to ask; nothing is sent yet.
    pub(super) fn new(settings: &config::Relay) -> Result<Self, ConfigError> {
        let base = settings.upstream.trim_end_matches('/').trim_end_matches("/api/v1");
        let realtime = settings.flagsmith_realtime.trim_end_matches('/');
        let inner = Inner {
            base: base.to_owned(),
            questions: Questions::new(base, settings.http2, ANSWER_SILENCE)?,
            keys: Keys::new(&settings.flagsmith_keys, Duration::from_secs(settings.forget_seconds)),
            realtime: (!realtime.is_empty()).then(|| Lanes::new(realtime, settings.http2)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(super) fn base(&self) -> &str {
        &self.inner.base
    }

    /// Asks for the environment of a key. A client key opens no document: it must have come up before, with
    /// a server key.
    pub(super) async fn find(&self, key: &str) -> Result<Fetched, Failure> {
        let secrets = if key.starts_with(SERVER_KEY_PREFIX) {
            vec![Secret::new(key)]
        } else {
            ClientKey::parse(key).map(|key| self.inner.keys.of(&key)).unwrap_or_default()
        };
        if secrets.is_empty() {
            return Ok(Fetched::Closed(None));
        }
        for secret in secrets {
            if let Answered::Document(received) = self.document(&secret, None).await? {
                let client_key = received.read.state.environment.client_key.clone();
                self.inner.keys.accepted(&client_key, secret.expose());
                return Ok(Fetched::New(Box::new(self.snapshot_of(*received, None))));
            }
        }
        Ok(Fetched::Unknown)
    }

    /// Asks for the document of an environment, unless it is the one that is held.
    pub(super) async fn snapshot(
        &self,
        client_key: &ClientKey,
        wanted: Option<Revision>,
        held: &Snapshot,
    ) -> Result<Fetched, Failure> {
        let keys = &self.inner.keys;
        // What was announced may have the date of what is held.
        let date = keys.date(client_key).filter(|_| wanted.is_none());
        for secret in keys.of(client_key) {
            let fresh = match self.document(&secret, date.clone()).await? {
                Answered::Refused => {
                    keys.refused(client_key, &secret);
                    continue;
                }
                Answered::Same => self.with_its_keys(held),
                Answered::Document(received) => {
                    // Its public key was changed: it goes by another name now.
                    if received.read.state.environment.client_key != *client_key {
                        return Ok(Fetched::Unknown);
                    }
                    keys.dated(client_key, received.date.clone());
                    self.snapshot_of(*received, Some(held))
                }
            };
            keys.accepted(client_key, secret.expose());
            let is_behind = wanted.is_some_and(|wanted| fresh.environment.stamp.revision < wanted);
            let fresh = Some(Box::new(self.with_its_keys(&fresh))).filter(|fresh| **fresh != *held);
            return Ok(match fresh {
                fresh if is_behind => Fetched::Behind(fresh),
                Some(fresh) => Fetched::New(fresh),
                None => Fetched::Same,
            });
        }
        let left = Some(Box::new(self.with_its_keys(held))).filter(|left| **left != *held);
        Ok(Fetched::Closed(left))
    }

    /// What is served of a document, with its place behind what is held.
    fn snapshot_of(&self, received: Received, held: Option<&Snapshot>) -> Snapshot {
        let Read { mut state, instant } = received.read;
        let held = held.filter(|held| held.epoch == EPOCH);
        let before = held.map(|held| {
            state.environment.stamp = held.environment.stamp;
            (held.environment.stamp, held.state.as_ref() == Some(&state))
        });
        state.environment.stamp = stamp(instant, before, now_micros());
        Snapshot {
            epoch: EPOCH.to_owned(),
            server_key_hashes: self.inner.keys.digests(&state.environment.client_key),
            environment: state.environment.clone(),
            state: Some(state),
        }
    }

    /// A snapshot as those may see it who have a key by now.
    pub(super) fn with_its_keys(&self, snapshot: &Snapshot) -> Snapshot {
        let server_key_hashes = self.inner.keys.digests(&snapshot.environment.client_key);
        Snapshot { server_key_hashes, ..snapshot.clone() }
    }

    /// Takes up a snapshot from the disk: only keys that are known open it.
    pub(super) fn recall(&self, snapshot: &Snapshot) -> Snapshot {
        let client_key = &snapshot.environment.client_key;
        self.inner.keys.recall(client_key, &snapshot.server_key_hashes);
        self.with_its_keys(snapshot)
    }

    /// The environment that a server key opened before, which somebody comes with now.
    pub(super) fn recognise(&self, key: &str) -> Option<ClientKey> {
        self.inner.keys.recognise(key)
    }

    /// The environment that a server key with this digest opened when it was used last.
    pub(super) fn owner(&self, digest: &str) -> Option<ClientKey> {
        self.inner.keys.owner(digest)
    }

    /// Reads a document, whole.
    async fn document(
        &self,
        secret: &Secret,
        date: Option<HeaderValue>,
    ) -> Result<Answered, Failure> {
        let mut request = self.ask(Method::GET, "/api/v1/environment-document/", secret.expose());
        if let Some(date) = date {
            request = request.header(IF_MODIFIED_SINCE, date);
        }
        let mut answer = self.send(request.header(ACCEPT_ENCODING, "gzip")).await?;
        let headers = answer.headers().clone();
        match answer.status().as_u16() {
            200 => {}
            304 => return Ok(Answered::Same),
            401 | 403 => return refusal(answer).await,
            status => return Err(fault(status)),
        }
        let unservable = |error: document::Unservable| Failure::Away(error.to_string());
        let mut next = next_page(answer.headers());
        let bytes = body(answer, SNAPSHOT_BYTES_MAX).await?;
        let mut document = document::parse(&bytes).map_err(unservable)?;
        for _ in 0..PAGES_MAX {
            let Some(page) = next.take() else { break };
            let path = format!("/api/v1/environment-document/?page_id={page}");
            let request = self.ask(Method::GET, &path, secret.expose());
            answer = self.send(request.header(ACCEPT_ENCODING, "gzip")).await?;
            if answer.status().as_u16() != 200 {
                return Err(fault(answer.status().as_u16()));
            }
            next = next_page(answer.headers());
            let bytes = body(answer, SNAPSHOT_BYTES_MAX).await?;
            let page = document::parse(&bytes).map_err(unservable)?;
            document.identity_overrides.extend(page.identity_overrides);
        }
        let mut read = document::read(document).map_err(unservable)?;
        read.instant = read.instant.or_else(|| instant_of(&headers));
        let received = Received { read, date: sure_date(&headers) };
        Ok(Answered::Document(Box::new(received)))
    }

    /// Hands usage counts on. Flagsmith knows no batches, so one that may have arrived is not sent again.
    pub(super) async fn usage(&self, client_key: &str, batch: &Json) -> Result<Handed, Failure> {
        let mut counts = Map::new();
        for count in batch["counts"].as_array().into_iter().flatten() {
            if let (Some(feature), Some(more)) =
                (count["feature"].as_str(), count["count"].as_u64())
            {
                let sum = counts.get(feature).and_then(Json::as_u64).unwrap_or(0);
                counts.insert(feature.to_owned(), Json::from(sum.saturating_add(more)));
            }
        }
        let request = self.ask(Method::POST, "/api/v1/analytics/flags/", client_key);
        match request.json(&counts).send().await {
            Ok(answer) => match answer.status().as_u16() {
                200..=299 => Ok(Handed::Taken),
                401 | 403 => {
                    Err(Failure::Refused("Flagsmith does not know the environment".to_owned()))
                }
                status => Err(fault(status)),
            },
            Err(error) if error.is_connect() => Err(away(error)),
            Err(_) => Ok(Handed::Uncertain),
        }
    }

    /// Whether Flagsmith's own real-time service is listened to.
    pub(super) fn has_streams(&self) -> bool {
        self.inner.realtime.is_some()
    }

    /// Opens the stream of an environment.
    pub(super) async fn stream(&self, client_key: &ClientKey) -> Result<OpenStream, Failure> {
        let none = || Failure::Away("relay.flagsmith_realtime names no service".to_owned());
        let lanes = self.inner.realtime.as_ref().ok_or_else(none)?;
        let path = format!("/sse/environments/{client_key}/stream");
        lanes.open(&path).await?.map_err(|answer| fault(answer.status().as_u16()))
    }

    /// The revision that an event tells of.
    pub(super) fn revision_told(event: &Told) -> Option<Revision> {
        let seconds = event.updated_at.filter(|seconds| (0.0..1e11).contains(seconds))?;
        #[expect(clippy::cast_possible_truncation, reason = "checked above")]
        let micros = (seconds * 1_000_000.0).round() as i64;
        Some(revision_at(UpdatedAt::from_micros(micros)))
    }

    /// The revision of an instant that Flagsmith announces.
    pub(super) fn revision_at(instant: UpdatedAt) -> Revision {
        revision_at(instant)
    }

    fn ask(&self, method: Method, path: &str, key: &str) -> RequestBuilder {
        let mut value = HeaderValue::try_from(key).unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        self.inner.questions.ask(method, path).header(KEY_HEADER, value)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        self.inner.questions.send(request).await
    }

    /// A stream says nothing. It is of another service, so only its own connections are in doubt.
    pub(super) fn distrust(&self, stream: &OpenStream) {
        if let Some(lanes) = &self.inner.realtime {
            lanes.distrust(stream);
        }
    }
}

/// Flagsmith refuses a key and an organisation with the same status; only the key is nobody's.
async fn refusal(answer: Response) -> Result<Answered, Failure> {
    let bytes = body(answer, ANSWER_BYTES_MAX).await.unwrap_or_default();
    let json: Json = serde_json::from_slice(&bytes).unwrap_or_default();
    let detail = json["detail"].as_str().unwrap_or_default();
    if detail.contains("rganisation") {
        return Err(Failure::Refused(format!("Flagsmith refuses: {detail}")));
    }
    Ok(Answered::Refused)
}

fn fault(status: u16) -> Failure {
    Failure::Away(match status {
        404 => "Flagsmith answers with 404: does relay.upstream lead to its API?".to_owned(),
        status => format!("Flagsmith answers with {status}"),
    })
}

/// The instant that an answer tells beside its document.
fn instant_of(headers: &HeaderMap) -> Option<UpdatedAt> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let told = text(INSTANT_HEADER).and_then(|seconds| seconds.parse::<f64>().ok());
    let told = told.filter(|seconds| (0.0..1e11).contains(seconds)).map(|seconds| {
        #[expect(clippy::cast_possible_truncation, reason = "checked above")]
        UpdatedAt::from_micros((seconds * 1_000_000.0).round() as i64)
    });
    told.or_else(|| {
        let date = time_of(headers.get(LAST_MODIFIED)?)?;
        let since = date.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_micros()).ok().map(UpdatedAt::from_micros)
    })
}

/// The date of a document, unless it was read in the same second or the next: another change may have the
/// same one.
fn sure_date(headers: &HeaderMap) -> Option<HeaderValue> {
    let date = headers.get(LAST_MODIFIED)?;
    let read_at = headers.get(DATE).and_then(time_of).unwrap_or_else(SystemTime::now);
    let age = read_at.duration_since(time_of(date)?).ok()?;
    (age >= DATE_IS_SURE).then(|| date.clone())
}

fn time_of(date: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(date.to_str().ok()?).ok()
}

/// The id of the next page, if there is one.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let next = link.split(',').find(|one| one.contains("rel=\"next\""))?;
    let (_, rest) = next.split_once("page_id=")?;
    let id: String = rest.chars().take_while(|next| !"&>; ".contains(*next)).collect();
    (!id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests;
