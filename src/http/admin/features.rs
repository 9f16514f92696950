//! `/admin/v1/projects/{project}/features`.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Admin;
use super::call::{Call, Nothing, Stop, answer};
use super::caller::Caller;
use super::kinds;
use super::pages::{Listed, PageQuery};
use super::rules::check_unread;
use super::shapes::{Deleted, Everywhere, FeatureShape, revisions};
use super::variants::{NewVariantBody, checked_variants};
use crate::http::errors::Problem;
use crate::http::request::{Params, Path};
use crate::model::{FeatureDefaults, FeatureKey, FlagValue, Role, ValueType};
use crate::rules::{broken_key, check_description, check_tags, check_type, check_value};
use crate::store::{FeatureUpdate, NewFeature};

/// A feature to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewFeatureBody {
    /// The name that code asks for: letters, digits, `-`, `_` and `.`.
    #[schema(value_type = kinds::FeatureKey)]
    key: String,
    /// What it is for.
    #[serde(default)]
    #[schema(value_type = kinds::Description)]
    description: String,
    /// On or off in every environment at first.
    #[serde(default)]
    enabled: bool,
    /// Null, a boolean, an integer or a string.
    #[serde(default)]
    #[schema(value_type = kinds::FlagValue)]
    value: FlagValue,
    /// Labels for people.
    #[serde(default)]
    #[schema(value_type = kinds::Tags)]
    tags: Vec<String>,
    /// Values among which identities are shared out, in this order.
    #[serde(default)]
    variants: Vec<NewVariantBody>,
    /// Whether client keys do not get to see it.
    #[serde(default)]
    server_key_only: bool,
    /// `plain`, or `json`: then its texts must be JSON objects or numbers.
    #[serde(default)]
    #[schema(value_type = kinds::ValueType)]
    value_type: ValueType,
}

/// What to change of a feature; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FeaturePatch {
    /// What it is for.
    #[schema(value_type = Option<kinds::Description>)]
    description: Option<String>,
    /// Labels for people.
    #[schema(value_type = Option<kinds::Tags>)]
    tags: Option<Vec<String>>,
    /// Whether client keys do not get to see it.
    server_key_only: Option<bool>,
}

/// Lists features.
#[utoipa::path(get, path = "/projects/{project}/features", tag = "features",
    params(("project" = String, Path), PageQuery),
    responses((status = OK, body = Listed<FeatureShape>)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Path(project): Path<String>,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    caller.may_read(Some(&project), None)?;
    let page = query.page()?;
    let project = admin.store.project(&project).await?;
    let rows = admin.store.features(project.id, page).await?;
    let listed = Listed::of(rows, page, |f| f.id.0, |f| FeatureShape::from(&f));
    Ok(answer(StatusCode::OK, json!(listed).to_string()))
}

/// Makes a feature, in its default state in every environment.
#[utoipa::path(post, path = "/projects/{project}/features", tag = "features",
    request_body = NewFeatureBody, params(("project" = String, Path)),
    responses((status = CREATED, body = Everywhere<FeatureShape>)))]
pub(super) async fn create(
    State(admin): State<Admin>,
    Path(project): Path<String>,
    call: Call<NewFeatureBody>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), None)?;
    call.expect_nothing()?;
    let body = &call.body;
    let key = FeatureKey::parse(&body.key).map_err(|error| broken_key(error, &body.key))?;
    check_description(&body.description)?;
    check_tags(&body.tags)?;
    check_value("value", &body.value, &admin.limits)?;
    check_type("value", &body.value, body.value_type)?;
    let variants = checked_variants(&body.variants, body.value_type, &admin.limits)?;
    let mut change = admin.begin(&call).await?;
    let project = change.project(&project).await?;
    let defaults = FeatureDefaults { enabled: body.enabled, value: body.value.clone() };
    let new = NewFeature {
        key: &key,
        description: &body.description,
        tags: &body.tags,
        defaults: &defaults,
        value_type: body.value_type,
        server_key_only: body.server_key_only,
        variants: &variants,
    };
    let feature = change.create_feature(&project, &new, &admin.limits).await?;
    let shape = |stamps: &_| Everywhere {
        thing: FeatureShape::from(&feature),
        revisions: revisions(stamps),
    };
    admin.finish(change, &call, StatusCode::CREATED, shape).await
}

/// Reads a feature.
#[utoipa::path(get, path = "/projects/{project}/features/{feature}", tag = "features",
    params(("project" = String, Path), ("feature" = String, Path)),
    responses((status = OK, body = FeatureShape)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, feature)): Path<(String, String)>,
) -> Result<Response, Problem> {
    caller.may_read(Some(&project), None)?;
    let project = admin.store.project(&project).await?;
    let feature = admin.store.feature(&project, &feature).await?;
    Ok(answer(StatusCode::OK, json!(FeatureShape::from(&feature)).to_string()))
}

/// Changes what a feature is for, and who gets to see it.
#[utoipa::path(patch, path = "/projects/{project}/features/{feature}", tag = "features",
    request_body = FeaturePatch, params(("project" = String, Path), ("feature" = String, Path)),
    responses((status = OK, body = Everywhere<FeatureShape>)))]
pub(super) async fn update(
    State(admin): State<Admin>,
    Path((project, feature)): Path<(String, String)>,
    call: Call<FeaturePatch>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), None)?;
    call.expect_nothing()?;
    let FeaturePatch { description, tags, server_key_only } = &call.body;
    description.as_deref().map_or(Ok(()), check_description)?;
    tags.as_deref().map_or(Ok(()), check_tags)?;
    let update = FeatureUpdate {
        description: description.clone(),
        tags: tags.clone(),
        server_key_only: *server_key_only,
    };
    let mut change = admin.begin(&call).await?;
    let project = change.project(&project).await?;
    let feature = change.feature(&project, &feature).await?;
    let feature = change.update_feature(&project, &feature, &update).await?;
    let shape = |stamps: &_| Everywhere {
        thing: FeatureShape::from(&feature),
        revisions: revisions(stamps),
    };
    admin.finish(change, &call, StatusCode::OK, shape).await
}

/// Deletes a feature from every environment.
#[utoipa::path(delete, path = "/projects/{project}/features/{feature}", tag = "features",
    params(("project" = String, Path), ("feature" = String, Path)),
    responses((status = OK, body = Everywhere<Deleted>)))]
pub(super) async fn delete(
    State(admin): State<Admin>,
    Path((project, feature)): Path<(String, String)>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), None)?;
    call.expect_nothing()?;
    let mut change = admin.begin(&call).await?;
    let project = change.project(&project).await?;
    let feature = change.feature(&project, &feature).await?;
    check_unread(&mut change, &project, &feature).await?;
    change.delete_feature(&project, &feature).await?;
    let shape = |stamps: &_| Everywhere {
        thing: Deleted { deleted: feature.key.clone() },
        revisions: revisions(stamps),
    };
    admin.finish(change, &call, StatusCode::OK, shape).await
}
