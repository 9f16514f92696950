//! `/admin/v1/projects/{project}/segments`: parts of all identities, told apart by rules.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use utoipa::ToSchema;

use super::Admin;
use super::call::{Call, Nothing, Stop, answer};
use super::caller::Caller;
use super::kinds;
use super::pages::{Listed, PageQuery};
use super::rules::{check_circles, check_reads, checked};
use super::shapes::{Deleted, Everywhere, revisions, rfc3339};
use crate::http::errors::Problem;
use crate::http::request::{Params, Path};
use crate::model::{Role, Rule, Segment};
use crate::rules::{check_description, check_name, segment_key};
use crate::store::{NewSegment, SegmentUpdate, Stamps};

/// A segment to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSegmentBody {
    /// Lower-case letters, digits, `-` and `_`; SDKs see it as the segment's name.
    #[schema(value_type = kinds::Key)]
    key: String,
    /// What people call it; the key if absent.
    #[schema(value_type = Option<kinds::Name>)]
    name: Option<String>,
    /// What it is for.
    #[serde(default)]
    #[schema(value_type = kinds::Description)]
    description: String,
    /// All must hold. Without any, nobody is in the segment.
    #[serde(default)]
    #[schema(value_type = Vec<RuleShape>)]
    rules: Vec<Rule>,
}

/// What to change of a segment; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SegmentPatch {
    /// What people call it.
    #[schema(value_type = Option<kinds::Name>)]
    name: Option<String>,
    /// What it is for.
    #[schema(value_type = Option<kinds::Description>)]
    description: Option<String>,
    /// All must hold; they take the place of those that there are.
    #[schema(value_type = Option<Vec<RuleShape>>)]
    rules: Option<Vec<Rule>>,
    /// A kill switch: its pings do not wait for the pace of others, nor do clients with their reads.
    #[serde(default)]
    urgent: bool,
}

/// A segment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SegmentShape {
    #[schema(value_type = kinds::Id)]
    id: i64,
    #[schema(value_type = kinds::Key)]
    key: String,
    #[schema(value_type = kinds::Name)]
    name: String,
    #[schema(value_type = kinds::Description)]
    description: String,
    /// All must hold.
    #[schema(value_type = Vec<RuleShape>)]
    rules: Json,
    /// RFC 3339.
    #[schema(value_type = kinds::Time)]
    created_at: String,
}

/// Conditions and rules within, taken together as `type` says.
#[derive(Debug, ToSchema)]
#[schema(as = Rule)]
#[expect(dead_code, reason = "it describes the model's rule, which knows nothing of HTTP")]
pub(super) struct RuleShape {
    /// How they are taken together.
    r#type: RuleKindShape,
    /// Comparisons.
    #[schema(required = false)]
    conditions: Vec<ConditionShape>,
    /// Rules within.
    #[schema(required = false, no_recursion)]
    rules: Vec<RuleShape>,
}

/// All must hold, one must, or none may.
#[derive(Debug, ToSchema)]
#[schema(as = RuleKind, rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "it describes the model's kinds, which know nothing of HTTP")]
enum RuleKindShape {
    All,
    Any,
    None,
}

/// One comparison.
#[derive(Debug, ToSchema)]
#[schema(as = Condition)]
#[expect(dead_code, reason = "it describes the model's condition, which knows nothing of HTTP")]
struct ConditionShape {
    /// A trait, or a JSON path into the evaluation context: `$.identity.identifier`. Empty for a split
    /// by identity.
    #[schema(required = false)]
    property: String,
    /// How to compare.
    operator: OperatorShape,
    /// With what. A list, for `IN`, is the text of a JSON array, or parts with commas between.
    #[schema(required = false)]
    value: String,
}

/// How a condition compares.
#[derive(Debug, ToSchema)]
#[schema(as = Operator, rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(dead_code, reason = "it describes the model's operators, which know nothing of HTTP")]
enum OperatorShape {
    Equal,
    NotEqual,
    GreaterThan,
    GreaterThanInclusive,
    LessThan,
    LessThanInclusive,
    Contains,
    NotContains,
    In,
    Regex,
    PercentageSplit,
    Modulo,
    IsSet,
    IsNotSet,
}

impl From<&Segment> for SegmentShape {
    fn from(segment: &Segment) -> Self {
        Self {
            id: segment.id.0,
            key: segment.key.clone(),
            name: segment.name.clone(),
            description: segment.description.clone(),
            rules: json!(segment.rules),
            created_at: rfc3339(segment.created_at),
        }
    }
}

/// Lists segments.
#[utoipa::path(get, path = "/projects/{project}/segments", tag = "segments",
    params(("project" = String, Path), PageQuery),
    responses((status = OK, body = Listed<SegmentShape>)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Path(project): Path<String>,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    caller.may_read(Some(&project), None)?;
    let page = query.page()?;
    let project = admin.store.project(&project).await?;
    let rows = admin.store.segments(project.id, page).await?;
    let listed = Listed::of(rows, page, |s| s.id.0, |s| SegmentShape::from(&s));
    Ok(answer(StatusCode::OK, json!(listed).to_string()))
}

/// Makes a segment. It shows in every environment of the project: one transaction moves them all.
#[utoipa::path(post, path = "/projects/{project}/segments", tag = "segments",
    request_body = NewSegmentBody, params(("project" = String, Path)),
    responses((status = CREATED, body = Everywhere<SegmentShape>)))]
pub(super) async fn create(
    State(admin): State<Admin>,
    Path(project): Path<String>,
    call: Call<NewSegmentBody>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), None)?;
    call.expect_nothing()?;
    let body = &call.body;
    let key = segment_key(&body.key)?;
    let name = body.name.as_deref().unwrap_or(&body.key);
    check_name(name)?;
    check_description(&body.description)?;
    let rules = checked(body.rules.clone(), &admin.limits)?;
    let mut change = admin.begin(&call).await?;
    let project = change.project(&project).await?;
    let new = NewSegment { key: &key, name, description: &body.description, rules: &rules };
    check_reads(&mut change, &project, &rules).await?;
    let segment = change.create_segment(&project, &new, &admin.limits).await?;
    admin.finish(change, &call, StatusCode::CREATED, |stamps| everywhere(&segment, stamps)).await
}

/// Reads a segment.
#[utoipa::path(get, path = "/projects/{project}/segments/{segment}", tag = "segments",
    params(("project" = String, Path), ("segment" = String, Path)),
    responses((status = OK, body = SegmentShape)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, segment)): Path<(String, String)>,
) -> Result<Response, Problem> {
    caller.may_read(Some(&project), None)?;
    let project = admin.store.project(&project).await?;
    let segment = admin.store.segment(&project, &segment).await?;
    Ok(answer(StatusCode::OK, json!(SegmentShape::from(&segment)).to_string()))
}

/// Changes a segment. Other rules show in every environment of the project: one transaction moves
/// them all. Name and description are for people and move none.
#[utoipa::path(patch, path = "/projects/{project}/segments/{segment}", tag = "segments",
    request_body = SegmentPatch, params(("project" = String, Path), ("segment" = String, Path)),
    responses((status = OK, body = Everywhere<SegmentShape>)))]
pub(super) async fn update(
    State(admin): State<Admin>,
    Path((project, segment)): Path<(String, String)>,
    call: Call<SegmentPatch>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), None)?;
    call.expect_nothing()?;
    let SegmentPatch { name, description, rules, urgent } = &call.body;
    name.as_deref().map_or(Ok(()), check_name)?;
    description.as_deref().map_or(Ok(()), check_description)?;
    let rules = rules.clone().map(|rules| checked(rules, &admin.limits)).transpose()?;
    let update = SegmentUpdate { name: name.clone(), description: description.clone(), rules };
    let mut change = admin.begin(&call).await?;
    if *urgent {
        change.mark_urgent();
    }
    let project = change.project(&project).await?;
    let segment = change.segment(&project, &segment).await?;
    let segment = change.update_segment(&project, &segment, &update).await?;
    if let Some(rules) = &update.rules {
        check_reads(&mut change, &project, rules).await?;
        check_circles(&mut change, &project, rules).await?;
    }
    admin.finish(change, &call, StatusCode::OK, |stamps| everywhere(&segment, stamps)).await
}

/// Deletes a segment with all overrides for it, in every environment of the project.
#[utoipa::path(delete, path = "/projects/{project}/segments/{segment}", tag = "segments",
    params(("project" = String, Path), ("segment" = String, Path)),
    responses((status = OK, body = Everywhere<Deleted>)))]
pub(super) async fn delete(
    State(admin): State<Admin>,
    Path((project, segment)): Path<(String, String)>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), None)?;
    call.expect_nothing()?;
    let mut change = admin.begin(&call).await?;
    let project = change.project(&project).await?;
    let segment = change.segment(&project, &segment).await?;
    change.delete_segment(&project, &segment).await?;
    let shape = |stamps: &_| Everywhere {
        thing: Deleted { deleted: segment.key.clone() },
        revisions: revisions(stamps),
    };
    admin.finish(change, &call, StatusCode::OK, shape).await
}

fn everywhere(segment: &Segment, stamps: &Stamps) -> Everywhere<SegmentShape> {
    Everywhere { thing: SegmentShape::from(segment), revisions: revisions(stamps) }
}
