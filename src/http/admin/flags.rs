//! `/admin/v1/projects/{project}/environments/{environment}/flags`: what is on, and what it holds.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use http::header::ETAG;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::call::{Call, Stop, answer, etag};
use super::caller::Caller;
use super::kinds;
use super::pages::{Listed, PageQuery};
use super::shapes::{FlagShape, stamp_after};
use super::wanted::Wanted;
use crate::config::Limits;
use crate::http::errors::Problem;
use crate::http::request::{Params, Path};
use crate::model::{Environment, Flag, FlagValue, Role, UpdatedAt, Weight, given_value};
use crate::store::StoreError;

/// Days that the analytics list tells of.
const DAYS_MAX: u32 = 366;

/// Flags that one batch may change: as many as a project may have.
const BATCH_MAX: usize = 1000;

/// What to change of a flag; what is absent stays.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FlagPatch {
    /// On or off.
    enabled: Option<bool>,
    /// Null, a boolean, an integer or a string. Null is a value; absent leaves the value as it is.
    #[serde(default, deserialize_with = "given_value")]
    #[schema(value_type = kinds::FlagValue)]
    value: Option<FlagValue>,
    /// Shares of variants in percent, by their keys; those that are not named stay.
    #[schema(value_type = Option<BTreeMap<String, kinds::Percent>>)]
    weights: Option<BTreeMap<String, Weight>>,
    /// A kill switch: its pings do not wait for the pace of others, nor do clients with their reads.
    #[serde(default)]
    urgent: bool,
}

/// Changes of several flags, in one transaction: one revision, one ping.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    /// Each flag at most once.
    // As `BATCH_MAX`.
    #[schema(min_items = 1, max_items = 1000)]
    flags: Vec<BatchItem>,
    /// As of a single flag.
    #[serde(default)]
    urgent: bool,
}

/// A change of one flag in a batch.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchItem {
    /// The feature.
    #[schema(value_type = kinds::FeatureKey)]
    key: String,
    /// On or off; absent leaves it.
    enabled: Option<bool>,
    /// Null, a boolean, an integer or a string; absent leaves it.
    #[serde(default, deserialize_with = "given_value")]
    #[schema(value_type = kinds::FlagValue)]
    value: Option<FlagValue>,
    /// Shares of variants in percent, by their keys; those that are not named stay.
    #[schema(value_type = Option<BTreeMap<String, kinds::Percent>>)]
    weights: Option<BTreeMap<String, Weight>>,
}

/// The flags that a batch changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchAnswer {
    revision: u64,
    /// Seconds since the epoch.
    #[schema(value_type = kinds::Seconds)]
    updated_at: UpdatedAt,
    flags: Vec<FlagShape>,
}

/// Evaluations on one day.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DayShape {
    /// `2026-01-31`, UTC.
    #[schema(value_type = kinds::Day)]
    day: String,
    count: u64,
}

/// How many days.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DaysQuery {
    /// Days with evaluations at most, newest first; 30 if absent.
    #[param(minimum = 1, maximum = 366)]
    limit: Option<u32>,
}

/// Lists the flags of an environment.
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/flags", tag = "flags",
    params(("project" = String, Path), ("environment" = String, Path), PageQuery),
    responses((status = OK, body = Listed<FlagShape>)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment)): Path<(String, String)>,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    let page = query.page()?;
    let (_, environment) = admin.environment(&caller, &project, &environment).await?;
    let (environment, mut flags) = admin.flags(&environment).await?;
    let stamp = environment.stamp;
    let place = |flag: &Flag| flag.feature.id.0;
    flags.sort_by_key(place);
    flags.retain(|flag| place(flag) > page.after);
    let listed = Listed::of(flags, page, place, |flag| FlagShape::at(&flag, stamp));
    let mut response = answer(StatusCode::OK, json!(listed).to_string());
    response.headers_mut().insert(ETAG, etag(stamp));
    Ok(response)
}

/// Reads a flag.
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/flags/{feature}",
    tag = "flags",
    params(("project" = String, Path), ("environment" = String, Path), ("feature" = String, Path)),
    responses((status = OK, body = FlagShape)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment, feature)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let (_, environment) = admin.environment(&caller, &project, &environment).await?;
    let (environment, flags) = admin.flags(&environment).await?;
    let (stamp, flag) = (environment.stamp, find(&flags, &feature)?);
    let mut response = answer(StatusCode::OK, json!(FlagShape::at(flag, stamp)).to_string());
    response.headers_mut().insert(ETAG, etag(stamp));
    Ok(response)
}

/// Changes a flag.
#[utoipa::path(patch, path = "/projects/{project}/environments/{environment}/flags/{feature}",
    tag = "flags", request_body = FlagPatch,
    params(("project" = String, Path), ("environment" = String, Path), ("feature" = String, Path)),
    responses((status = OK, body = FlagShape)))]
pub(super) async fn update(
    State(admin): State<Admin>,
    Path((project, environment, feature)): Path<(String, String, String)>,
    call: Call<FlagPatch>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), Some(&environment))?;
    let FlagPatch { enabled, value, weights, urgent } = call.body.clone();
    let wanted = Wanted { place: String::new(), enabled, value, weights };
    check(&wanted, &admin.limits)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    if urgent {
        change.mark_urgent();
    }
    let present = change.flag(&environment, &feature).await?;
    let update = wanted.of_flag(&present.feature, &present.weights)?;
    let flag = change.update_flag(&project, &environment, &present, &update).await?;
    let shape = |stamps: &_| FlagShape::at(&flag, stamp_after(&environment, stamps));
    admin.finish(change, &call, StatusCode::OK, shape).await
}

/// Changes several flags in one transaction: one revision, one ping.
#[utoipa::path(post, path = "/projects/{project}/environments/{environment}/flags:batch",
    tag = "flags", request_body = Batch,
    params(("project" = String, Path), ("environment" = String, Path)),
    responses((status = OK, body = BatchAnswer)))]
pub(super) async fn batch(
    State(admin): State<Admin>,
    Path((project, environment)): Path<(String, String)>,
    call: Call<Batch>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), Some(&environment))?;
    let wanted = checked_batch(&call.body, &admin.limits)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    if call.body.urgent {
        change.mark_urgent();
    }
    let mut flags = Vec::with_capacity(wanted.len());
    for (key, wanted) in &wanted {
        let present = change.flag(&environment, key).await.map_err(|error| match error {
            StoreError::NotFound { .. } => {
                let place = &wanted.place;
                Problem::not_found(format!("`{place}key`: there is no feature `{key}`"))
            }
            other => other.into(),
        })?;
        let update = wanted.of_flag(&present.feature, &present.weights)?;
        flags.push(change.update_flag(&project, &environment, &present, &update).await?);
    }
    let shape = |stamps: &_| {
        let stamp = stamp_after(&environment, stamps);
        BatchAnswer {
            revision: stamp.revision.0,
            updated_at: stamp.updated_at,
            flags: flags.iter().map(|flag| FlagShape::at(flag, stamp)).collect(),
        }
    };
    admin.finish(change, &call, StatusCode::OK, shape).await
}

/// Tells how often SDKs say they evaluated a flag.
#[utoipa::path(get,
    path = "/projects/{project}/environments/{environment}/flags/{feature}/analytics",
    tag = "flags",
    params(("project" = String, Path), ("environment" = String, Path), ("feature" = String, Path),
        DaysQuery),
    responses((status = OK, body = Listed<DayShape>)))]
pub(super) async fn analytics(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment, feature)): Path<(String, String, String)>,
    Params(query): Params<DaysQuery>,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(30);
    if !(1..=DAYS_MAX).contains(&limit) {
        return Err(Problem::invalid_query(format!("`limit` must be 1 to {DAYS_MAX}")));
    }
    let (project, environment) = admin.environment(&caller, &project, &environment).await?;
    let feature = admin.store.feature(&project, &feature).await?;
    let days = admin.store.evaluations(environment.id, feature.id, limit).await?;
    let items = days.into_iter().map(|d| DayShape { day: d.day, count: d.count }).collect();
    let listed = Listed { items, next_cursor: None };
    Ok(answer(StatusCode::OK, json!(listed).to_string()))
}

/// The flag of this key.
pub(super) fn find<'a>(flags: &'a [Flag], key: &str) -> Result<&'a Flag, Problem> {
    let found = flags.iter().find(|flag| flag.feature.key == key);
    found.ok_or_else(|| Problem::not_found(format!("there is no feature `{key}`")))
}

impl Admin {
    /// The flags of an environment that a reader asked for, with where it is then.
    pub(super) async fn flags(
        &self,
        environment: &Environment,
    ) -> Result<(Environment, Vec<Flag>), Problem> {
        self.store.flags(environment.id).await?.ok_or_else(|| {
            Problem::not_found(format!("there is no environment `{}`", environment.key))
        })
    }
}

fn check(wanted: &Wanted, limits: &Limits) -> Result<(), Problem> {
    if wanted.is_empty() {
        let detail = "send `enabled`, `value` or `weights`: there is nothing to change";
        return Err(Problem::invalid_field(detail.to_owned()));
    }
    wanted.check(limits)
}

fn checked_batch(batch: &Batch, limits: &Limits) -> Result<Vec<(String, Wanted)>, Problem> {
    if batch.flags.is_empty() || batch.flags.len() > BATCH_MAX {
        let detail = format!("`flags` must hold 1 to {BATCH_MAX} flags");
        return Err(Problem::invalid_field(detail));
    }
    let mut all: Vec<(String, Wanted)> = Vec::with_capacity(batch.flags.len());
    for (index, item) in batch.flags.iter().enumerate() {
        if all.iter().any(|(key, _)| *key == item.key) {
            let detail = format!("`flags[{index}].key`: `{}` is in the batch twice", item.key);
            return Err(Problem::invalid_field(detail));
        }
        let BatchItem { key, enabled, value, weights } = item.clone();
        let wanted = Wanted { place: format!("flags[{index}]."), enabled, value, weights };
        check(&wanted, limits)?;
        all.push((key, wanted));
    }
    Ok(all)
}
