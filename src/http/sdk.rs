//! Our own read: `GET /sdk/v1/environments/{client_key}/flags[?rev=N]`.
//!
//! With `rev` the answer never changes, so a cache may keep it for a year and a million refetches
//! after a ping become one. It is never older than N: a process that is behind reads through and
//! waits a little, and one whose store is behind, too, says 404 for a second instead of serving an
//! older body under the new name. Nothing is stored for a number that was never issued.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;

use super::errors::Problem;
use super::hops::Hops;
use super::request::Params;
use super::shared::{Keeping, SHARED, respond};
use crate::flagset::{Directory, FlagSets};
use crate::model::{EnvironmentKind, Revision};

const PINNED: Keeping = Keeping {
    cache_control: "public, max-age=31536000, immutable",
    vary: "accept-encoding",
    is_purged: false,
    is_kept_by_our_rules: false,
};

const UNPINNED: Keeping = Keeping {
    cache_control: "public, max-age=0, must-revalidate",
    vary: "accept-encoding",
    is_purged: false,
    is_kept_by_our_rules: false,
};

/// The same through a cache: a herd without a revision costs one request.
const UNPINNED_SHARED: Keeping = Keeping { cache_control: SHARED, is_purged: true, ..UNPINNED };

/// What the reads need.
#[derive(Clone, Debug)]
pub struct Sdk {
    /// Which key opens which environment.
    pub directory: Arc<Directory>,
    /// The flag sets.
    pub flagsets: FlagSets,
    /// What is between clients and us.
    pub hops: Hops,
}

#[derive(Debug, Deserialize)]
pub(super) struct FlagsQuery {
    rev: Option<String>,
}

pub(super) async fn flags(
    State(sdk): State<Sdk>,
    Path(client_key): Path<String>,
    Params(query): Params<FlagsQuery>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let wanted = match query.rev.as_deref().map(str::parse::<u64>) {
        None => None,
        Some(Ok(revision)) => Some(Revision(revision)),
        Some(Err(_)) => {
            let problem = Problem::invalid_query("`rev` must be a whole number".to_owned());
            return Err(problem.into_response());
        }
    };
    read(&sdk, &client_key, wanted, &headers).await
}

/// The flag set of an environment: of at least `wanted`, or the newest.
pub(super) async fn read(
    sdk: &Sdk,
    client_key: &str,
    wanted: Option<Revision>,
    headers: &HeaderMap,
) -> Result<Response, Response> {
    let opened = sdk.directory.open_client(client_key).await;
    let opened = opened.map_err(|error| Problem::from(error).into_response())?;
    let known = opened.ok_or_else(|| {
        let detail = format!("no environment has the client key `{client_key}`");
        brief(Problem::not_found(detail), "public, max-age=5")
    })?;
    if known.kind == EnvironmentKind::PushOnly {
        let detail = "this environment only pings: its flags live in the system that announces it";
        return Err(brief(Problem::not_found(detail), "public, max-age=5"));
    }
    let set = match wanted {
        Some(revision) => sdk.flagsets.at_least(known.id, revision).await,
        None => sdk.flagsets.get(known.id).await,
    };
    let set = set.map_err(|error| Problem::from(error).into_response())?.ok_or_else(|| {
        let detail = "this revision does not exist yet; try again in a moment";
        brief(Problem::not_found(detail), "public, max-age=1")
    })?;
    let keeping = match wanted {
        Some(_) => PINNED,
        None if sdk.hops.may_share(headers) => UNPINNED_SHARED,
        None => UNPINNED,
    };
    Ok(respond(headers, &set, &set.sdk, keeping))
}

/// An error that a cache may keep for a moment, so that a herd costs one request.
fn brief(problem: Problem, cache_control: &'static str) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cache_control));
    response
}
