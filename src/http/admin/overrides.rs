//! `…/flags/{feature}/segments`: the states of a flag for segments, the strongest first.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use http::header::ETAG;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use utoipa::ToSchema;

use super::Admin;
use super::call::{Call, Nothing, Stop, answer, etag};
use super::caller::Caller;
use super::flags::find;
use super::kinds;
use super::pages::{Listed, PageQuery};
use super::rules::check_circles;
use super::shapes::{Deleted, Here, weights_shape};
use super::wanted::Wanted;
use crate::http::errors::Problem;
use crate::http::request::{Params, Path};
use crate::model::{Flag, FlagValue, Role, Segment, Weight, given_value};
use crate::store::Page;

/// What the override of a flag for a segment is to be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SegmentOverridePut {
    /// On or off. Absent: it stays; a new one begins as the flag is.
    enabled: Option<bool>,
    /// Null, a boolean, an integer or a string. Absent: it stays; a new one begins as the flag is.
    #[serde(default, deserialize_with = "given_value")]
    #[schema(value_type = kinds::FlagValue)]
    value: Option<FlagValue>,
    /// Shares of variants in percent, by their keys. Those that are not named stay; in a new one they
    /// begin as the flag's.
    #[schema(value_type = Option<BTreeMap<String, kinds::Percent>>)]
    weights: Option<BTreeMap<String, Weight>>,
    /// Its place among the overrides of the flag, 0 the strongest; others make room. Absent: it stays;
    /// a new one becomes the last.
    priority: Option<usize>,
    /// A kill switch: its pings do not wait for the pace of others, nor do clients with their reads.
    #[serde(default)]
    urgent: bool,
}

/// The state of a flag for a segment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SegmentOverrideShape {
    /// Key of the segment.
    #[schema(value_type = kinds::Key)]
    segment: String,
    enabled: bool,
    /// Null, a boolean, an integer or a string.
    #[schema(value_type = kinds::FlagValue)]
    value: Json,
    /// Shares of the feature's variants in percent, by their keys.
    weights: BTreeMap<String, f64>,
    /// Its place among the overrides of the flag, 0 the strongest.
    priority: usize,
}

/// Lists the overrides of a flag for segments, the strongest first.
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/flags/{feature}/segments",
    tag = "overrides",
    params(("project" = String, Path), ("environment" = String, Path), ("feature" = String, Path),
        PageQuery),
    responses((status = OK, body = Listed<SegmentOverrideShape>)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment, feature)): Path<(String, String, String)>,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    let page = query.page()?;
    let (project, environment) = admin.environment(&caller, &project, &environment).await?;
    let (environment, flags) = admin.flags(&environment).await?;
    let flag = find(&flags, &feature)?;
    let segments = admin.store.segments(project.id, Page::ALL).await?;
    let key = |id| segments.iter().find(|s| s.id == id).map_or("", |s| s.key.as_str());
    let of = |at: usize| shape(flag, at, key(flag.overrides[at].segment));
    let behind = usize::try_from(page.after).unwrap_or(usize::MAX);
    let rows = (0..flag.overrides.len()).skip(behind).collect();
    let place = |at: &usize| i64::try_from(*at + 1).unwrap_or(i64::MAX);
    let listed = Listed::of(rows, page, place, of);
    let mut response = answer(StatusCode::OK, json!(listed).to_string());
    response.headers_mut().insert(ETAG, etag(environment.stamp));
    Ok(response)
}

/// Makes or changes the override of a flag for a segment.
#[utoipa::path(put,
    path = "/projects/{project}/environments/{environment}/flags/{feature}/segments/{segment}",
    tag = "overrides", request_body = SegmentOverridePut,
    params(("project" = String, Path), ("environment" = String, Path), ("feature" = String, Path),
        ("segment" = String, Path)),
    responses((status = OK, body = Here<SegmentOverrideShape>),
        (status = CREATED, body = Here<SegmentOverrideShape>)))]
pub(super) async fn put(
    State(admin): State<Admin>,
    Path((project, environment, feature, segment)): Path<(String, String, String, String)>,
    call: Call<SegmentOverridePut>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), Some(&environment))?;
    let SegmentOverridePut { enabled, value, weights, priority, urgent } = call.body.clone();
    let wanted = Wanted { place: String::new(), enabled, value, weights };
    wanted.check(&admin.limits)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    if urgent {
        change.mark_urgent();
    }
    let flag = change.flag(&environment, &feature).await?;
    let segment = change.segment(&project, &segment).await?;
    let present = flag.overrides.iter().find(|state| state.segment == segment.id);
    let status = if present.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let weights = present.map_or(&flag.weights, |state| &state.weights);
    let update = wanted.of_override(&flag.feature, weights, priority)?;
    let about = (&flag, &segment);
    let flag =
        change.set_segment_override(&project, &environment, about, &update, &admin.limits).await?;
    check_circles(&mut change, &project, &segment.rules).await?;
    let thing = of_segment(&flag, &segment).ok_or_else(Problem::internal)?;
    admin.finish(change, &call, status, |stamps| Here::after(thing, &environment, stamps)).await
}

/// Takes the override of a flag for a segment away.
#[utoipa::path(delete,
    path = "/projects/{project}/environments/{environment}/flags/{feature}/segments/{segment}",
    tag = "overrides",
    params(("project" = String, Path), ("environment" = String, Path), ("feature" = String, Path),
        ("segment" = String, Path)),
    responses((status = OK, body = Here<Deleted>)))]
pub(super) async fn delete(
    State(admin): State<Admin>,
    Path((project, environment, feature, segment)): Path<(String, String, String, String)>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), Some(&environment))?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let flag = change.flag(&environment, &feature).await?;
    let segment = change.segment(&project, &segment).await?;
    change.remove_segment_override(&project, &environment, (&flag, &segment)).await?;
    let thing = Deleted { deleted: segment.key };
    let shape = |stamps: &_| Here::after(thing, &environment, stamps);
    admin.finish(change, &call, StatusCode::OK, shape).await
}

fn of_segment(flag: &Flag, segment: &Segment) -> Option<SegmentOverrideShape> {
    let at = flag.overrides.iter().position(|state| state.segment == segment.id)?;
    Some(shape(flag, at, &segment.key))
}

fn shape(flag: &Flag, at: usize, segment: &str) -> SegmentOverrideShape {
    let state = &flag.overrides[at];
    SegmentOverrideShape {
        segment: segment.to_owned(),
        enabled: state.enabled,
        value: state.value.to_json(),
        weights: weights_shape(&flag.feature, &state.weights),
        priority: at,
    }
}
