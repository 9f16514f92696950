//! `OpenFeature`'s remote evaluation protocol, OFREP 0.3.0: what its providers read.
//!
//! A request's context is whole: what is kept of an identity in Flagsmith's dialect does not count
//! here, so that an answer follows from the request alone and its tag from the request's bytes. What
//! a flag is for one identity does count, by `targetingKey`.
//!
//! An answer for one person is not compressed: it is made for one request, and compressing it would
//! cost more than all the rest.

mod context;
mod failure;
mod freshness;

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use self::context::Asked;
use self::failure::Failure;
use self::freshness::Wanted;
use super::errors::Problem;
use super::request::BodyLimits;
use super::shared::holds;
use crate::evaluation::{Evaluation, Subject};
use crate::flagset::{Asker, Directory, FlagSet, FlagSets, Known};
use crate::metrics::EvaluationMetrics;
use crate::model::{ClientKey, EnvironmentId, EnvironmentKind, Traits};
use crate::store::keys::hex;

/// Bytes of the digest in a tag.
const TAG_BYTES: usize = 8;

/// Seconds after which a provider whose page is hidden may close its stream; the protocol's default.
const INACTIVITY_SECONDS: u32 = 120;

/// What evaluations need.
#[derive(Clone, Debug)]
pub struct Ofrep {
    /// Which key opens which environment.
    directory: Arc<Directory>,
    /// The flag sets.
    flagsets: FlagSets,
    /// How many evaluations of an environment a second are answered.
    limiter: Option<Arc<DefaultKeyedRateLimiter<EnvironmentId>>>,
    /// Where streams are, if anybody has said under which name clients reach us.
    public_url: Option<Arc<str>>,
    /// The beginning of every digest: what else than context and revision an answer depends on.
    salt: Sha256,
    metrics: EvaluationMetrics,
}

impl Ofrep {
    /// `public_url` is what the settings say, empty or not.
    #[must_use]
    pub fn new(
        directory: Arc<Directory>,
        flagsets: FlagSets,
        evaluations_per_second: u32,
        public_url: &str,
        metrics: EvaluationMetrics,
    ) -> Self {
        let quota = NonZeroU32::new(evaluations_per_second).map(Quota::per_second);
        let public_url = public_url.trim_end_matches('/');
        // A client that is told "you have it" keeps the address of its stream, too.
        let salt = Sha256::new()
            .chain_update(env!("CARGO_PKG_VERSION"))
            .chain_update([0])
            .chain_update(public_url)
            .chain_update([0]);
        Self {
            directory,
            flagsets,
            limiter: quota.map(|quota| Arc::new(RateLimiter::keyed(quota))),
            public_url: (!public_url.is_empty()).then(|| public_url.into()),
            salt,
            metrics,
        }
    }

    /// The environment that the request's key opens, if it is within its rate.
    async fn admit(&self, headers: &HeaderMap) -> Result<Known, Problem> {
        let opened = self.directory.open(key(headers)?).await?;
        let known = opened.ok_or_else(Problem::key_unknown)?;
        if known.kind == EnvironmentKind::PushOnly {
            return Err(Problem::push_only());
        }
        if let Some(limiter) = &self.limiter
            && let Err(early) = limiter.check_key(&known.id)
        {
            self.metrics.limit_hit("evaluations_per_second");
            return Err(Problem::too_many_evaluations(
                early.wait_time_from(DefaultClock::default().now()),
            ));
        }
        Ok(known)
    }

    /// What is asked for, as far as the environment lets it count.
    fn asked(known: &Known, set: &FlagSet, body: &[u8]) -> Result<Asked, Failure> {
        let mut asked = context::parse(body)?;
        if !known.by_server_key && !set.settings.allow_client_traits {
            asked.traits = Traits::new();
        }
        Ok(asked)
    }

    /// Without a name what is known of somebody counts all the same.
    fn evaluate(&self, set: &FlagSet, asked: &Asked) -> Evaluation {
        let identifier = asked.targeting_key.as_deref();
        let subject = Subject { identifier, key: None, traits: &asked.traits };
        self.metrics.ofrep.time(|| set.personal.evaluate(&subject))
    }

    /// The tag of an answer. The provider for the web keeps it when anything but the targeting key
    /// changes, so it is of the whole context; and of the view, because two keys may share a cache.
    fn tag(&self, known: &Known, set: &FlagSet, body: &[u8]) -> HeaderValue {
        let view = [u8::from(known.by_server_key)];
        let digest = self.salt.clone().chain_update(view).chain_update(body).finalize();
        let digest = hex(&digest[..TAG_BYTES]);
        let tag = format!("\"{}.{}.{digest}\"", known.client_key, set.stamp.revision);
        HeaderValue::try_from(tag).expect("keys and numbers are visible ASCII")
    }

    /// Where the provider is told of changes: under our public name, or else where it found us.
    fn event_streams(&self, client_key: &ClientKey) -> String {
        let path = format!("/ofrep/v1/streams/{client_key}");
        let place = match &self.public_url {
            Some(base) => format!("\"url\":{}", json!(format!("{base}{path}"))),
            None => format!("\"endpoint\":{{\"requestUri\":\"{path}\"}}"),
        };
        format!("[{{\"type\":\"sse\",{place},\"inactivityDelaySec\":{INACTIVITY_SECONDS}}}]")
    }
}

/// All flags for one context.
pub(super) async fn bulk(
    State(door): State<Ofrep>,
    limits: BodyLimits,
    request: Request,
) -> Result<Response, Response> {
    let known = door.admit(request.headers()).await.map_err(Problem::into_response)?;
    let (parts, body) = request.into_parts();
    let body = limits.read(body).await.map_err(failed)?;
    let set = door.fresh(&known, &parts.uri).await.map_err(Failure::into_response)?;
    let asked = Ofrep::asked(&known, &set, &body).map_err(Failure::into_response)?;
    let tag = door.tag(&known, &set, &body);
    if holds(&parts.headers, &tag) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        own(response.headers_mut(), Some(tag));
        return Ok(response);
    }
    let evaluation = door.evaluate(&set, &asked);
    let tail = Tail::of(&asked);
    let mut answer = Vec::with_capacity(set.flags(known.view()).plain().len() + 512);
    answer.extend_from_slice(b"{\"flags\":");
    set.personal.write_ofrep(&evaluation, known.view(), tail.asker(), &mut answer);
    let streams = door.event_streams(&known.client_key);
    let (metadata, version) = (set.personal.metadata(), set.personal.version());
    let end = format!(",\"eventStreams\":{streams},\"metadata\":{{{metadata}{version}{}", tail.0);
    answer.extend_from_slice(end.as_bytes());
    Ok(json_answer(StatusCode::OK, Body::from(answer), Some(tag)))
}

/// One flag for one context.
pub(super) async fn single(
    State(door): State<Ofrep>,
    key: Result<Path<String>, PathRejection>,
    limits: BodyLimits,
    request: Request,
) -> Result<Response, Response> {
    let known = door.admit(request.headers()).await.map_err(Problem::into_response)?;
    // No flag has a key that is no UTF-8. It is told as it was asked for: the protocol wants a key.
    let Ok(Path(key)) = key else {
        let asked = request.uri().path().rsplit('/').next().unwrap_or_default();
        return Err(Failure::no_flag(asked).of(asked).into_response());
    };
    let of_key = |failure: Failure| failure.of(&key).into_response();
    let body = limits.read(request.into_body()).await.map_err(|problem| of_key(problem.into()))?;
    let set = door.newest(&known).await.map_err(of_key)?;
    let asked = Ofrep::asked(&known, &set, &body).map_err(of_key)?;
    let evaluation = door.evaluate(&set, &asked);
    let tail = Tail::of(&asked);
    let found = set.personal.ofrep_flag(&evaluation, known.view(), tail.asker(), &key);
    let told = found.ok_or_else(|| of_key(Failure::no_flag(&key)))?;
    let status = if told.is_error { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let flag = [told.text, set.personal.version(), &tail.0].concat();
    Ok(json_answer(status, Body::from(flag), None))
}

/// What ends the metadata of a flag, and of the answer.
struct Tail(String, bool);

impl Tail {
    fn of(asked: &Asked) -> Self {
        match &asked.targeting_key {
            Some(key) => Self(format!(",\"contextId\":{}}}}}", json!(key)), true),
            None => Self("}}".to_owned(), false),
        }
    }

    fn asker(&self) -> Asker<'_> {
        Asker { is_named: self.1, tail: &self.0 }
    }
}

/// The key of the request, by either header that the protocol knows.
fn key(headers: &HeaderMap) -> Result<&str, Problem> {
    let bearer = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    let named = || headers.get("x-api-key").and_then(|value| value.to_str().ok());
    bearer.or_else(named).filter(|key| !key.is_empty()).ok_or_else(Problem::key_missing)
}

fn failed(problem: Problem) -> Response {
    Failure::from(problem).into_response()
}

fn json_answer(status: StatusCode, body: Body, tag: Option<HeaderValue>) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    own(headers, tag);
    response
}

/// Headers of an answer that is made for one request.
fn own(headers: &mut HeaderMap, tag: Option<HeaderValue>) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    if let Some(tag) = tag {
        headers.insert(ETAG, tag);
    }
}

impl Ofrep {
    /// The flag set that answers: the newest, and no older than what a ping has told the client of.
    async fn fresh(&self, known: &Known, uri: &Uri) -> Result<Arc<FlagSet>, Failure> {
        match freshness::wanted(uri, &known.client_key) {
            None => self.newest(known).await,
            Some(wanted) => self.at_least(known, wanted).await,
        }
    }

    async fn newest(&self, known: &Known) -> Result<Arc<FlagSet>, Failure> {
        // An environment that was deleted this instant.
        self.flagsets.get(known.id).await?.ok_or_else(Failure::gone)
    }

    async fn at_least(&self, known: &Known, wanted: Wanted) -> Result<Arc<FlagSet>, Failure> {
        let held = self.newest(known).await?;
        let Some(missing) = wanted.missing(held.stamp) else { return Ok(held) };
        match (self.flagsets.at_least(known.id, missing).await?, wanted) {
            (Some(set), _) => Ok(set),
            (None, Wanted::Revision(_)) => Err(Failure::behind()),
            (None, Wanted::Second(_)) => Ok(held),
        }
    }
}
