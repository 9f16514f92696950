//! What a relay asks a gateway, or another relay.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value as Json;

use super::asking::{ANSWER_BYTES_MAX, Lanes, OpenStream, Questions, SNAPSHOT_BYTES_MAX, body};
use super::upstream::{Failure, Fetched, KnownTraits, Name, TellTraits, TraitsFailure};
use crate::config::{self, ConfigError};
use crate::model::{ClientKey, Revision};
use crate::snapshot::Snapshot;

/// How long an answer may be silent. A pinned read at the upstream waits half a second itself; the rest is
/// for a busy database. A change waits as long when a connection has died without a word.
const ANSWER_SILENCE: Duration = Duration::from_secs(5);

/// A gateway or a relay above this one. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Gateway {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    base: String,
    authorization: HeaderValue,
    questions: Questions,
    lanes: Lanes,
}

impl Gateway {
    /// Prepares to ask; nothing is sent yet.
    pub(super) fn new(settings: &config::Relay) -> Result<Self, ConfigError> {
        let base = settings.upstream.trim_end_matches('/').to_owned();
        let bearer = format!("Bearer {}", settings.token.expose());
        let mut authorization = HeaderValue::try_from(bearer)
            .map_err(|_| ConfigError::new("relay.token may hold only printable ASCII".into()))?;
        authorization.set_sensitive(true);
        let questions = Questions::new(&base, settings.http2, ANSWER_SILENCE)?;
        let lanes = Lanes::new(&base, settings.http2);
        let inner = Inner { base, authorization, questions, lanes };
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
        let wanted = wanted.map(|revision| format!("?rev={revision}")).unwrap_or_default();
        let path = format!("/sdk/v1/environments/{}/snapshot{wanted}", name.segment());
        let request = || {
            let request = self.ask(Method::GET, &path).header(ACCEPT_ENCODING, "gzip");
            match held {
                Some(held) => request.header(IF_NONE_MATCH, held.mark().tag()),
                None => request,
            }
        };
        let answer = self.inner.questions.send_surely(request).await?;
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
                "revision_ahead" => Ok(Fetched::Behind(None)),
                // Not ours: a wrong address, or something in between.
                code => Err(Failure::Away(format!("404 with the code {code:?}: is it a gateway?"))),
            },
            status => Err(refusal(status, answer).await),
        }
    }

    /// Hands usage counts on. The id of a batch stays the same at each attempt.
    pub(super) async fn usage(&self, client_key: &str, batch: &Json) -> Result<(), Failure> {
        let path = format!("/sdk/v1/environments/{client_key}/usage");
        let request = self.ask(Method::POST, &path).json(batch);
        let answer = self.inner.questions.send(request).await?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            status => Err(refusal(status, answer).await),
        }
    }

    /// Reads or changes what is kept of an identity.
    pub(super) async fn traits(
        &self,
        client_key: &str,
        told: &TellTraits<'_>,
    ) -> Result<KnownTraits, TraitsFailure> {
        let path = format!("/sdk/v1/environments/{client_key}/traits");
        let request = self.ask(Method::POST, &path).json(told);
        let answer = self.inner.questions.send(request).await?;
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
        match self.inner.lanes.open(&format!("/ofrep/v1/streams/{client_key}")).await? {
            Ok(stream) => Ok(stream),
            Err(answer) => Err(refusal(answer.status().as_u16(), answer).await),
        }
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.inner.questions.ask(method, path).header(AUTHORIZATION, &self.inner.authorization)
    }

    /// A stream says nothing: neither its connections nor those of questions, which go the same way, are used
    /// any more.
    pub(super) fn distrust(&self, stream: &OpenStream) {
        self.inner.lanes.distrust(stream);
        self.inner.questions.distrust();
    }
}

async fn refusal(status: u16, answer: Response) -> Failure {
    let code = code(answer).await;
    match status {
        401 | 403 => Failure::Refused(format!(
            "the upstream refuses the relay's token ({status}, {code}): it needs the role `relay` and a \
             scope that covers the environment"
        )),
        _ => Failure::Away(format!("it answers with {status} ({code})")),
    }
}

/// The code of a problem.
async fn code(answer: Response) -> String {
    let bytes = body(answer, ANSWER_BYTES_MAX).await.unwrap_or_default();
    let problem: Json = serde_json::from_slice(&bytes).unwrap_or_default();
    problem["code"].as_str().unwrap_or("none").to_owned()
}
