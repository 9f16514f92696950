//! What relays ask of their upstream: a whole environment as one snapshot, and to keep what their clients tell.
//!
//! A gateway and a relay answer alike, so that relays can stand behind relays; only who may ask differs
//! (`gate.rs`). No rate of requests is limited here: a relay asks for all of its clients.

mod gate;
mod snapshots;
mod tell;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

pub use gate::Gate;
pub(super) use tell::{traits, usage};

use self::gate::Pass;
use self::snapshots::{Found, Snapshots};
use super::errors::Problem;
use super::request::{Params, Path};
use super::shared::{encoded, holds};
use crate::config::Limits;
use crate::flagset::{Directory, FlagSets, Known};
use crate::metrics::Metrics;
use crate::model::{EnvironmentKind, Revision};
use crate::origin::{Ledger, Truth};

/// What is behind the routes for relays.
#[derive(Clone, Debug)]
pub struct Relays {
    gate: Gate,
    directory: Arc<Directory>,
    flagsets: FlagSets,
    truth: Arc<dyn Truth>,
    ledger: Arc<dyn Ledger>,
    snapshots: Snapshots,
    limits: Arc<Limits>,
    metrics: Metrics,
}

#[derive(Debug, Deserialize)]
pub(super) struct SnapshotQuery {
    rev: Option<u64>,
}

impl Relays {
    /// Puts the door together.
    #[must_use]
    pub fn new(
        gate: Gate,
        (directory, flagsets): (Arc<Directory>, FlagSets),
        (truth, ledger): (Arc<dyn Truth>, Arc<dyn Ledger>),
        limits: Limits,
        metrics: Metrics,
    ) -> Self {
        let snapshots = Snapshots::new(Arc::clone(&truth));
        let limits = Arc::new(limits);
        Self { gate, directory, flagsets, truth, ledger, snapshots, limits, metrics }
    }

    /// The environment that is asked for, if the caller may have it.
    async fn admit(&self, name: &str, headers: &HeaderMap) -> Result<Known, Problem> {
        let pass: Pass = self.gate.pass(headers, &self.metrics).await?;
        let known = self.directory.open_for_relay(name).await?;
        let known = known.ok_or_else(Problem::environment_unknown)?;
        self.gate.check(&pass, known.id).await?;
        Ok(known)
    }

    /// Whether there is such a revision, perhaps in a moment.
    async fn reaches(&self, known: &Known, wanted: Revision) -> Result<bool, Problem> {
        if known.kind == EnvironmentKind::PushOnly {
            let present = self.truth.revision(known.id, wanted).await?;
            return Ok(present.is_some_and(|present| present >= wanted));
        }
        Ok(self.flagsets.at_least(known.id, wanted).await?.is_some())
    }
}

/// Everything of an environment, of at least the revision `rev`, or the newest.
pub(super) async fn snapshot(
    State(door): State<Relays>,
    Path(name): Path<String>,
    Params(SnapshotQuery { rev }): Params<SnapshotQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = door.admit(&name, &headers).await?;
    let wanted = Revision(rev.unwrap_or(0));
    if rev.is_some() && !door.reaches(&known, wanted).await? {
        return Err(Problem::revision_ahead());
    }
    let found = door.snapshots.find(known.id, wanted, |tag| holds(&headers, tag)).await?;
    let (tag, body) = match found {
        Found::Gone => return Err(Problem::environment_unknown()),
        Found::Behind => return Err(Problem::revision_ahead()),
        Found::Same(tag) => (tag, None),
        Found::New(tag, body) => (tag, Some(body)),
    };
    let mut answered = HeaderMap::new();
    answered.insert(ETAG, tag);
    answered.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    answered.insert(VARY, HeaderValue::from_static("accept-encoding"));
    let Some(body) = body else {
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.headers_mut() = answered;
        return Ok(response);
    };
    answered.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(encoded(&headers, &body, answered))
}
