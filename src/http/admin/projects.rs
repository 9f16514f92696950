//! `/admin/v1/projects`.

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
use super::shapes::{Deleted, Everywhere, ProjectShape, revisions};
use crate::http::errors::Problem;
use crate::http::request::{Params, Path};
use crate::model::Role;
use crate::rules::{check_name, key_of};

/// A project to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewProject {
    /// Lower-case letters, digits, `-` and `_`.
    #[schema(value_type = kinds::Key)]
    key: String,
    /// What people call it.
    #[schema(value_type = kinds::Name)]
    name: String,
}

/// Another name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rename {
    /// What people call it.
    #[schema(value_type = kinds::Name)]
    pub(super) name: String,
}

/// Lists projects.
#[utoipa::path(get, path = "/projects", tag = "projects", params(PageQuery),
    responses((status = OK, body = Listed<ProjectShape>)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    let page = query.page()?;
    let rows = match &caller.token.scope.project {
        Some(key) => vec![admin.store.project(key).await?],
        None => admin.store.projects(page).await?,
    };
    let listed = Listed::of(rows, page, |p| p.id.0, |p| ProjectShape::from(&p));
    Ok(answer(StatusCode::OK, json!(listed).to_string()))
}

/// Makes a project.
#[utoipa::path(post, path = "/projects", tag = "projects", request_body = NewProject,
    responses((status = CREATED, body = ProjectShape)))]
pub(super) async fn create(
    State(admin): State<Admin>,
    call: Call<NewProject>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, None, None)?;
    call.expect_nothing()?;
    let key = key_of(&call.body.key)?;
    check_name(&call.body.name)?;
    let mut change = admin.begin(&call).await?;
    let project = change.create_project(&key, &call.body.name, &admin.limits).await?;
    admin.finish(change, &call, StatusCode::CREATED, |_| ProjectShape::from(&project)).await
}

/// Reads a project.
#[utoipa::path(get, path = "/projects/{project}", tag = "projects",
    params(("project" = String, Path)), responses((status = OK, body = ProjectShape)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    caller: Caller,
    Path(project): Path<String>,
) -> Result<Response, Problem> {
    caller.may_read(Some(&project), None)?;
    let project = admin.store.project(&project).await?;
    Ok(answer(StatusCode::OK, json!(ProjectShape::from(&project)).to_string()))
}

/// Gives a project another name.
#[utoipa::path(patch, path = "/projects/{project}", tag = "projects", request_body = Rename,
    params(("project" = String, Path)), responses((status = OK, body = Everywhere<ProjectShape>)))]
pub(super) async fn rename(
    State(admin): State<Admin>,
    Path(project): Path<String>,
    call: Call<Rename>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, Some(&project), None)?;
    call.expect_nothing()?;
    check_name(&call.body.name)?;
    let mut change = admin.begin(&call).await?;
    let project = change.project(&project).await?;
    let project = change.rename_project(&project, &call.body.name).await?;
    let shape = |stamps: &_| Everywhere {
        thing: ProjectShape::from(&project),
        revisions: revisions(stamps),
    };
    admin.finish(change, &call, StatusCode::OK, shape).await
}

/// Deletes a project with everything in it.
#[utoipa::path(delete, path = "/projects/{project}", tag = "projects",
    params(("project" = String, Path)), responses((status = OK, body = Deleted)))]
pub(super) async fn delete(
    State(admin): State<Admin>,
    Path(project): Path<String>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, Some(&project), None)?;
    call.expect_nothing()?;
    let mut change = admin.begin(&call).await?;
    let project = change.project(&project).await?;
    change.delete_project(&project).await?;
    admin.finish(change, &call, StatusCode::OK, |_| Deleted { deleted: project.key }).await
}
