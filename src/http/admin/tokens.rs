//! `/admin/v1/tokens`: who may use this API.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Admin;
use super::call::{Call, Nothing, Stop, answer};
use super::caller::Caller;
use super::kinds;
use super::pages::{Listed, PageQuery};
use super::shapes::{Revoked, rfc3339};
use crate::http::errors::Problem;
use crate::http::request::{Params, Path};
use crate::model::{Role, Scope, Token, TokenId};
use crate::rules::check_name;
use crate::store::NewToken;
use crate::store::keys::{digest, new_token};

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTokenBody {
    /// What people call it; it is the actor of the changes it makes.
    #[schema(value_type = kinds::Name)]
    name: String,
    /// What it may do.
    role: Role,
    /// The only project it reaches; all if absent.
    #[schema(value_type = Option<kinds::Key>)]
    project: Option<String>,
    /// The only environment of that project it reaches; all if absent.
    #[schema(value_type = Option<kinds::Key>)]
    environment: Option<String>,
}

/// A token, never the secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TokenShape {
    #[schema(value_type = kinds::Id)]
    id: i64,
    name: String,
    role: Role,
    project: Option<String>,
    environment: Option<String>,
    /// RFC 3339.
    #[schema(value_type = kinds::Time)]
    created_at: String,
}

/// A token that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedToken {
    #[serde(flatten)]
    shape: TokenShape,
    /// The secret, shown once.
    #[schema(value_type = Option<String>)]
    token: String,
}

impl From<Token> for TokenShape {
    fn from(token: Token) -> Self {
        let Token { id, name, role, scope, created_at } = token;
        let Scope { project, environment } = scope;
        Self { id: id.0, name, role, project, environment, created_at: rfc3339(created_at) }
    }
}

/// Tells about the token that asks.
#[utoipa::path(get, path = "/token", tag = "tokens", responses((status = OK, body = TokenShape)))]
pub(super) async fn own(caller: Caller) -> Response {
    answer(StatusCode::OK, json!(TokenShape::from(caller.token)).to_string())
}

/// Lists the tokens inside the caller's scope.
#[utoipa::path(get, path = "/tokens", tag = "tokens", params(PageQuery),
    responses((status = OK, body = Listed<TokenShape>)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    let scope = caller.token.scope.clone();
    caller.may_change(Role::Admin, scope.project.as_deref(), scope.environment.as_deref())?;
    let page = query.page()?;
    let rows = admin.store.tokens(&scope, page).await?;
    let listed = Listed::of(rows, page, |token| token.id.0, TokenShape::from);
    Ok(answer(StatusCode::OK, json!(listed).to_string()))
}

/// Makes a token, no wider than the caller's own.
#[utoipa::path(post, path = "/tokens", tag = "tokens", request_body = NewTokenBody,
    responses((status = CREATED, body = CreatedToken)))]
pub(super) async fn create(
    State(admin): State<Admin>,
    call: Call<NewTokenBody>,
) -> Result<Response, Stop> {
    let NewTokenBody { name, role, project, environment } = &call.body;
    call.caller.may_change(Role::Admin, project.as_deref(), environment.as_deref())?;
    call.expect_nothing()?;
    check_name(name)?;
    if environment.is_some() && project.is_none() {
        let detail = "`environment` needs `project`: keys of environments are unique in a project";
        return Err(Problem::invalid_field(detail.to_owned()).into());
    }
    let mut change = admin.begin(&call).await?;
    let secret = new_token();
    let scope = Scope { project: project.clone(), environment: environment.clone() };
    let hash = digest(secret.expose());
    let new = NewToken { name, role: *role, scope: &scope, hash: &hash };
    let token = change.create_token(&new, &admin.limits).await?;
    let shape =
        |_: &_| CreatedToken { shape: TokenShape::from(token), token: secret.expose().to_owned() };
    admin.finish(change, &call, StatusCode::CREATED, shape).await
}

/// Revokes a token: its next request is refused.
#[utoipa::path(delete, path = "/tokens/{id}", tag = "tokens", params(("id" = i64, Path)),
    responses((status = OK, body = Revoked)))]
pub(super) async fn revoke(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    let scope = call.caller.token.scope.clone();
    let (project, environment) = (scope.project.as_deref(), scope.environment.as_deref());
    call.caller.may_change(Role::Admin, project, environment)?;
    call.expect_nothing()?;
    let not_found = || Problem::not_found(format!("there is no token `{id}`"));
    let id: i64 = id.parse().map_err(|_| not_found())?;
    let mut change = admin.begin(&call).await?;
    change.delete_token(TokenId(id), &scope).await?;
    admin.finish(change, &call, StatusCode::OK, |_| Revoked { revoked: id }).await
}
