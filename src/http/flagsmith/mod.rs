//! Flagsmith's SDK API, version 1: what unmodified Flagsmith SDKs read.
//!
//! Statuses are part of the dialect. SDKs take any other than 200 for an error, and a wrong key is
//! 403, not 401. Every answer that shows flags carries the instant of its state, which SDKs compare
//! with the ping's: an older one makes them refetch at every reconnect.

mod evaluations;
mod identities;
mod traits;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, IF_MODIFIED_SINCE, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use super::errors::Detail;
use super::hops::Hops;
use super::request::{BodyLimits, Params, parse_json};
use super::shared::{Keeping, UPDATED_AT, respond};
use crate::config;
use crate::flagset::{Directory, FlagSet, FlagSets, Known};
use crate::metrics::EvaluationMetrics;
use crate::model::EnvironmentKind;
use crate::origin::Ledger;
use crate::store::now_micros;

pub use evaluations::Evaluations;
pub(super) use identities::{identify, identity};
pub(super) use traits::{increment_trait, set_trait, set_traits};

/// The environment is named by a header, and not every cache that ought to heed `Vary` does.
const PRIVATE: Keeping = Keeping {
    cache_control: "private, no-cache",
    vary: "x-environment-key, accept-encoding",
    is_purged: false,
    is_kept_by_our_rules: false,
};

/// The same through a cache: ours keep environments apart.
const KEPT: Keeping = Keeping { is_purged: true, is_kept_by_our_rules: true, ..PRIVATE };

/// What Flagsmith's reads need.
#[derive(Clone, Debug)]
pub struct Flagsmith {
    /// Which key opens which environment.
    pub directory: Arc<Directory>,
    /// The flag sets.
    pub flagsets: FlagSets,
    /// Where evaluations are counted.
    pub evaluations: Arc<Evaluations>,
    /// What is between clients and us.
    pub hops: Hops,
    /// Where traits are kept.
    pub ledger: Arc<dyn Ledger>,
    /// How much of them, and how large they may be.
    pub limits: config::Limits,
    /// What evaluating measures.
    pub metrics: EvaluationMetrics,
}

impl Flagsmith {
    /// The environment that the request's key opens.
    async fn known(&self, headers: &HeaderMap) -> Result<Known, Detail> {
        let key = headers.get("x-environment-key").and_then(|key| key.to_str().ok());
        let opened = self.directory.open(key.ok_or_else(refused)?).await?;
        opened.filter(|known| known.kind == EnvironmentKind::Stored).ok_or_else(refused)
    }

    /// Its flag set.
    async fn set(&self, known: &Known) -> Result<Arc<FlagSet>, Detail> {
        self.flagsets.get(known.id).await?.ok_or_else(refused)
    }
}

fn no_feature() -> Detail {
    Detail(StatusCode::NOT_FOUND, "Given feature not found".to_owned())
}

fn refused() -> Detail {
    Detail(StatusCode::FORBIDDEN, "Invalid or missing Environment Key".to_owned())
}

#[derive(Debug, Deserialize)]
pub(super) struct FlagsQuery {
    feature: Option<String>,
}

pub(super) async fn flags(
    State(door): State<Flagsmith>,
    Params(query): Params<FlagsQuery>,
    headers: HeaderMap,
) -> Result<Response, Detail> {
    let Some(key) = query.feature else {
        return read(&door, &headers).await;
    };
    let known = door.known(&headers).await?;
    let set = door.set(&known).await?;
    let single = set.single(known.view(), &key).ok_or_else(no_feature)?;
    let mut response = single.0.into_response();
    own(response.headers_mut(), &set);
    Ok(response)
}

/// The flag list of the environment that the request's key opens.
pub(super) async fn read(door: &Flagsmith, headers: &HeaderMap) -> Result<Response, Detail> {
    let known = door.known(headers).await?;
    let set = door.set(&known).await?;
    let keeping = if door.hops.may_share(headers) { KEPT } else { PRIVATE };
    Ok(respond(headers, &set, set.flags(known.view()), keeping))
}

pub(super) async fn document(
    State(door): State<Flagsmith>,
    headers: HeaderMap,
) -> Result<Response, Detail> {
    let known = door.known(&headers).await?;
    if !known.by_server_key {
        let detail = "the environment document needs a server key (`ser.…`)";
        return Err(Detail(StatusCode::FORBIDDEN, detail.to_owned()));
    }
    let set = door.set(&known).await?;
    let updated_at = set.stamp.updated_at.seconds();
    let since = headers
        .get(IF_MODIFIED_SINCE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| httpdate::parse_http_date(value).ok());
    let mut response = if since.is_some_and(|since| since >= at(updated_at)) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        own(response.headers_mut(), &set);
        response
    } else {
        respond(&headers, &set, &set.document, PRIVATE)
    };
    let shown = last_modified(updated_at, now_micros());
    if let Ok(value) = HeaderValue::try_from(httpdate::fmt_http_date(at(shown))) {
        response.headers_mut().insert(LAST_MODIFIED, value);
    }
    Ok(response)
}

/// The time that a poller sends back. It has whole seconds: in the second of a change another one
/// may follow and would look the same. Until that second is over, the time is put one back, so that
/// the next poll gets the document again.
fn last_modified(updated_at: i64, now_micros: i64) -> i64 {
    let over = now_micros.div_euclid(1_000_000) > updated_at;
    if over { updated_at } else { updated_at - 1 }
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

pub(super) async fn analytics(
    State(door): State<Flagsmith>,
    limits: BodyLimits,
    request: Request,
) -> Result<StatusCode, Detail> {
    let known = door.known(request.headers()).await?;
    let set = door.set(&known).await?;
    let bytes = limits.read(request.into_body()).await?;
    let counts: serde_json::Map<String, serde_json::Value> = parse_json(&bytes)?;
    for (key, count) in &counts {
        // Flagsmith skips what it does not know; so SDKs send whatever was asked for.
        if let Some(count) = count.as_u64().filter(|_| set.personal.knows(key)) {
            door.evaluations.add(known.id, key, count);
        }
    }
    Ok(StatusCode::OK)
}

/// Headers of an answer that is made for one request.
fn own(headers: &mut HeaderMap, set: &FlagSet) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(UPDATED_AT, set.updated_at.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_changes_within_a_second_are_told_apart() {
        assert_eq!(last_modified(100, 100_900_000), 99, "the second is not over");
        assert_eq!(last_modified(100, 101_000_000), 100);
        assert_eq!(last_modified(101, 100_900_000), 100, "the instant runs ahead in a burst");
    }
}
