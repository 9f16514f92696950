//! What Flipper reads: the HTTP adapter of the Ruby gem, and with it `Flipper::Cloud`, whose address is
//! then `https://…/flipper`.
//!
//! An app that is told of a change by webhook reads once, with `_cb`, and never again: what it gets must
//! be as new as the change, and no cache may answer in our place. So that read asks which revision
//! is the newest. All others are answered from memory, like every read.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use super::errors::Problem;
use super::request::{BodyLimits, Params, Path};
use super::shared::{Keeping, respond};
use crate::flagset::{Directory, FlagSet, FlagSets, Known};
use crate::model::EnvironmentKind;

/// The environment is named by a header, and not every cache that ought to heed `Vary` does.
const PRIVATE: Keeping = Keeping {
    cache_control: "private, no-cache",
    vary: "flipper-cloud-token, accept-encoding",
    is_purged: false,
    is_kept_by_our_rules: false,
};

/// For who asks past caches: its name for that changes with the second, and flags may change faster.
const UNSTORED: Keeping = Keeping { cache_control: "private, no-store", ..PRIVATE };

/// Tells an app to stop counting for us.
const TELEMETRY_SHUTDOWN: HeaderName = HeaderName::from_static("telemetry-shutdown");

/// What Flipper's reads need.
#[derive(Clone, Debug)]
pub struct Flipper {
    /// Which key opens which environment.
    pub directory: Arc<Directory>,
    /// The flag sets.
    pub flagsets: FlagSets,
}

/// What adapters say beside the path. `exclude_gate_names` and others change nothing here.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// Keys of features, between commas.
    keys: Option<String>,
    /// Whether caches must be passed by.
    #[serde(rename = "_cb")]
    cache_buster: Option<String>,
}

impl Flipper {
    /// The environment that the request's key opens.
    async fn admit(&self, headers: &HeaderMap) -> Result<Known, Problem> {
        let key = headers
            .get("flipper-cloud-token")
            .and_then(|key| key.to_str().ok())
            .filter(|key| !key.is_empty())
            .ok_or_else(Problem::flipper_token_missing)?;
        let known = self.directory.open(key).await?.ok_or_else(Problem::key_unknown)?;
        if known.kind == EnvironmentKind::PushOnly {
            return Err(Problem::push_only());
        }
        Ok(known)
    }

    async fn newest(&self, known: &Known) -> Result<Arc<FlagSet>, Problem> {
        self.flagsets.get(known.id).await?.ok_or_else(gone)
    }

    /// No older than any change that was committed when the request came.
    async fn fresh(&self, known: &Known) -> Result<Arc<FlagSet>, Problem> {
        self.flagsets.fresh(known.id).await?.ok_or_else(gone)
    }
}

/// All features, or those that are named.
pub(super) async fn features(
    State(door): State<Flipper>,
    Params(asked): Params<Asked>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = door.admit(&headers).await?;
    let (set, keeping) = match asked.cache_buster {
        Some(_) => (door.fresh(&known).await?, UNSTORED),
        None => (door.newest(&known).await?, PRIVATE),
    };
    let flipper = set.flipper(known.view());
    Ok(match asked.keys {
        Some(keys) => own(flipper.features(keys.split(',')).into()),
        None => respond(&headers, &set, flipper.all(), keeping),
    })
}

/// One feature.
pub(super) async fn feature(
    State(door): State<Flipper>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = door.admit(&headers).await?;
    let set = door.newest(&known).await?;
    let feature = set.flipper(known.view()).feature(&key).ok_or_else(|| {
        Problem::not_found(format!("there is no feature `{key}` here, or this key may not see it"))
    })?;
    Ok(own(feature.into()))
}

/// How often an app asked for which feature. Nobody wants to know here, so it need not count.
pub(super) async fn telemetry(
    State(door): State<Flipper>,
    limits: BodyLimits,
    request: Request,
) -> Result<Response, Problem> {
    door.admit(request.headers()).await?;
    limits.read(request.into_body()).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(TELEMETRY_SHUTDOWN, HeaderValue::from_static("true"));
    Ok(response)
}

/// The environment was deleted this instant.
fn gone() -> Problem {
    Problem::not_found("the environment was deleted")
}

/// An answer that is made for one request.
fn own(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    response
}
