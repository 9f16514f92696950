//! `…/flags/{feature}/identities`: the states of a flag for single identities.

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
use super::shapes::{Deleted, Here};
use super::wanted::Wanted;
use crate::http::errors::Problem;
use crate::http::request::{Params, Path};
use crate::model::{FlagValue, Role, given_value};
use crate::rules::check_identifier;
use crate::store::IdentityOverrideRow;

/// What the override of a flag for one identity is to be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityOverridePut {
    /// On or off. Absent: it stays; a new one begins as the flag is.
    enabled: Option<bool>,
    /// Null, a boolean, an integer or a string. Absent: it stays; a new one begins as the flag is.
    #[serde(default, deserialize_with = "given_value")]
    #[schema(value_type = kinds::FlagValue)]
    value: Option<FlagValue>,
}

/// The state of a flag for one identity.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IdentityOverrideShape {
    /// What the app calls it.
    #[schema(value_type = kinds::Identifier)]
    identifier: String,
    enabled: bool,
    /// Null, a boolean, an integer or a string.
    #[schema(value_type = kinds::FlagValue)]
    value: Json,
}

impl From<IdentityOverrideRow> for IdentityOverrideShape {
    fn from(row: IdentityOverrideRow) -> Self {
        Self {
            identifier: row.identity.identifier,
            enabled: row.state.enabled,
            value: row.state.value.to_json(),
        }
    }
}

/// Lists the overrides of a flag for single identities, in the order they were made.
#[utoipa::path(get, operation_id = "list_identity",
    path = "/projects/{project}/environments/{environment}/flags/{feature}/identities",
    tag = "overrides",
    params(("project" = String, Path), ("environment" = String, Path), ("feature" = String, Path),
        PageQuery),
    responses((status = OK, body = Listed<IdentityOverrideShape>)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment, feature)): Path<(String, String, String)>,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    let page = query.page()?;
    let (project, environment) = admin.environment(&caller, &project, &environment).await?;
    let feature = admin.store.feature(&project, &feature).await?;
    let rows = admin.store.identity_overrides(environment.id, feature.id, page).await?;
    let listed = Listed::of(rows, page, |row| row.state.state_id, IdentityOverrideShape::from);
    Ok(answer(StatusCode::OK, json!(listed).to_string()))
}

/// Makes or changes the override of a flag for one identity.
#[utoipa::path(put, operation_id = "put_identity",
    path = "/projects/{project}/environments/{environment}/flags/{feature}/identities/{identifier}",
    tag = "overrides", request_body = IdentityOverridePut,
    params(("project" = String, Path), ("environment" = String, Path), ("feature" = String, Path),
        ("identifier" = String, Path)),
    responses((status = OK, body = Here<IdentityOverrideShape>),
        (status = CREATED, body = Here<IdentityOverrideShape>)))]
pub(super) async fn put(
    State(admin): State<Admin>,
    Path((project, environment, feature, identifier)): Path<(String, String, String, String)>,
    call: Call<IdentityOverridePut>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), Some(&environment))?;
    check_identifier(&identifier, &admin.limits)?;
    let IdentityOverridePut { enabled, value } = call.body.clone();
    let wanted = Wanted { enabled, value, ..Wanted::default() };
    wanted.check(&admin.limits)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let flag = change.flag(&environment, &feature).await?;
    let update = wanted.of_override(&flag.feature, &flag.weights, None)?;
    let about = (&flag, identifier.as_str());
    let (row, is_new) =
        change.set_identity_override(&project, &environment, about, &update, &admin.limits).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let thing = IdentityOverrideShape::from(row);
    admin.finish(change, &call, status, |stamps| Here::after(thing, &environment, stamps)).await
}

/// Takes the override of a flag for one identity away.
#[utoipa::path(delete, operation_id = "delete_identity",
    path = "/projects/{project}/environments/{environment}/flags/{feature}/identities/{identifier}",
    tag = "overrides",
    params(("project" = String, Path), ("environment" = String, Path), ("feature" = String, Path),
        ("identifier" = String, Path)),
    responses((status = OK, body = Here<Deleted>)))]
pub(super) async fn delete(
    State(admin): State<Admin>,
    Path((project, environment, feature, identifier)): Path<(String, String, String, String)>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), Some(&environment))?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let flag = change.flag(&environment, &feature).await?;
    change.remove_identity_override(&project, &environment, (&flag, &identifier)).await?;
    let thing = Deleted { deleted: identifier };
    let shape = |stamps: &_| Here::after(thing, &environment, stamps);
    admin.finish(change, &call, StatusCode::OK, shape).await
}
