//! `/admin/v1/projects/{project}/environments`, with server keys and listeners.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use http::header::ETAG;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Admin;
use super::call::{Call, Nothing, Stop, answer, etag};
use super::caller::Caller;
use super::kinds;
use super::pages::{Listed, PageQuery};
use super::shapes::{Deleted, EnvironmentShape, Revoked, rfc3339};
use crate::http::errors::Problem;
use crate::http::request::{Params, Path};
use crate::model::{Environment, EnvironmentSettings, Project, Role, Secret, UpdatedAt};
use crate::rules::{check_name, key_of};
use crate::store::keys::{digest, new_client_key, new_server_key};
use crate::store::{Change, EnvironmentUpdate, NewEnvironment, ServerKey};

/// An environment to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEnvironmentBody {
    /// Lower-case letters, digits, `-` and `_`.
    #[schema(value_type = kinds::Key)]
    key: String,
    /// What people call it.
    #[schema(value_type = kinds::Name)]
    name: String,
}

/// What to change of an environment; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvironmentPatch {
    /// What people call it.
    #[schema(value_type = Option<kinds::Name>)]
    name: Option<String>,
    /// Flags that are off are left out of the lists that Flagsmith's SDKs get.
    hide_disabled_flags: Option<bool>,
    /// Whether traits count that come with a client key, which anybody may have.
    allow_client_traits: Option<bool>,
    /// Descriptions, ids and traits are left out of what Flagsmith's SDKs get.
    hide_sensitive_data: Option<bool>,
    /// Whether traits that SDKs send are kept for later evaluations.
    persist_traits: Option<bool>,
}

/// An environment that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedEnvironment {
    #[serde(flatten)]
    environment: EnvironmentShape,
    /// Its first server key, shown once.
    #[schema(value_type = Option<String>)]
    server_key: String,
}

/// A server key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewServerKey {
    /// What people call it.
    #[schema(value_type = kinds::Name)]
    name: String,
}

/// A server key, never the secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerKeyShape {
    #[schema(value_type = kinds::Id)]
    id: i64,
    name: String,
    /// RFC 3339.
    #[schema(value_type = kinds::Time)]
    created_at: String,
}

/// A server key that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedServerKey {
    #[serde(flatten)]
    key: ServerKeyShape,
    /// The secret, shown once.
    #[schema(value_type = Option<String>)]
    server_key: String,
}

/// Who is listening to an environment, in this process.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StreamsShape {
    #[schema(value_type = kinds::Key)]
    environment: String,
    revision: u64,
    /// Open streams.
    open: usize,
    /// By family of client.
    clients: Vec<ClientShape>,
    /// The last pings, newest first.
    pings: Vec<PingShape>,
}

/// Streams of one family of clients.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClientShape {
    client: &'static str,
    open: usize,
}

/// A ping that was sent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PingShape {
    revision: u64,
    /// Seconds since the epoch.
    #[schema(value_type = kinds::Seconds)]
    updated_at: UpdatedAt,
    /// RFC 3339.
    #[schema(value_type = kinds::Time)]
    committed_at: String,
    /// From commit to ping, in milliseconds.
    change_to_ping_ms: f64,
    /// Streams that were open.
    streams: usize,
}

impl From<ServerKey> for ServerKeyShape {
    fn from(key: ServerKey) -> Self {
        Self { id: key.id, name: key.name, created_at: rfc3339(key.created_at) }
    }
}

/// Lists environments.
#[utoipa::path(get, path = "/projects/{project}/environments", tag = "environments",
    params(("project" = String, Path), PageQuery),
    responses((status = OK, body = Listed<EnvironmentShape>)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Path(project): Path<String>,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    caller.may_read(Some(&project), None)?;
    let page = query.page()?;
    let project = admin.store.project(&project).await?;
    let rows = match &caller.token.scope.environment {
        Some(key) => vec![admin.store.environment(&project, key).await?],
        None => admin.store.environments(project.id, page).await?,
    };
    let listed = Listed::of(rows, page, |e| e.id.0, |e| EnvironmentShape::at(&e, e.stamp));
    Ok(answer(StatusCode::OK, json!(listed).to_string()))
}

/// Makes an environment with every feature in its default state.
#[utoipa::path(post, path = "/projects/{project}/environments", tag = "environments",
    request_body = NewEnvironmentBody, params(("project" = String, Path)),
    responses((status = CREATED, body = CreatedEnvironment)))]
pub(super) async fn create(
    State(admin): State<Admin>,
    Path(project): Path<String>,
    call: Call<NewEnvironmentBody>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, Some(&project), None)?;
    call.expect_nothing()?;
    let mut change = admin.begin(&call).await?;
    let project = change.project(&project).await?;
    let settings = EnvironmentSettings::default();
    let made = make(&admin, &mut change, &project, &call.body, settings).await?;
    let (environment, server_key) = made;
    finish_created(&admin, change, &call, &environment, &server_key).await
}

/// Makes an environment with settings, flags and segment overrides as they are in another one.
/// Identities stay behind.
#[utoipa::path(post, path = "/projects/{project}/environments/{environment}/clone",
    tag = "environments", request_body = NewEnvironmentBody,
    params(("project" = String, Path), ("environment" = String, Path)),
    responses((status = CREATED, body = CreatedEnvironment)))]
pub(super) async fn clone(
    State(admin): State<Admin>,
    Path((project, environment)): Path<(String, String)>,
    call: Call<NewEnvironmentBody>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, Some(&project), None)?;
    let (mut change, project, from) = admin.begin_in(&call, &project, &environment).await?;
    let made = make(&admin, &mut change, &project, &call.body, from.settings).await?;
    let (to, server_key) = made;
    change.copy_flags(&from, &to).await?;
    finish_created(&admin, change, &call, &to, &server_key).await
}

async fn make(
    admin: &Admin,
    change: &mut Change,
    project: &Project,
    body: &NewEnvironmentBody,
    settings: EnvironmentSettings,
) -> Result<(Environment, Secret), Problem> {
    let key = key_of(&body.key)?;
    check_name(&body.name)?;
    let client_key = new_client_key();
    let new = NewEnvironment { key: &key, name: &body.name, client_key: &client_key, settings };
    let environment = change.create_environment(project, &new, &admin.limits).await?;
    let server_key = new_server_key();
    let named = ("first", digest(server_key.expose()));
    change.create_server_key(project, &environment, (named.0, &named.1), &admin.limits).await?;
    Ok((environment, server_key))
}

async fn finish_created(
    admin: &Admin,
    change: Change,
    call: &Call<NewEnvironmentBody>,
    environment: &Environment,
    server_key: &Secret,
) -> Result<Response, Stop> {
    let shape = |stamps: &_| CreatedEnvironment {
        environment: EnvironmentShape::after(environment, stamps),
        server_key: server_key.expose().to_owned(),
    };
    admin.finish(change, call, StatusCode::CREATED, shape).await
}

/// Reads an environment.
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}",
    tag = "environments", params(("project" = String, Path), ("environment" = String, Path)),
    responses((status = OK, body = EnvironmentShape)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (_, environment) = admin.environment(&caller, &project, &environment).await?;
    let shape = EnvironmentShape::at(&environment, environment.stamp);
    let mut response = answer(StatusCode::OK, json!(shape).to_string());
    response.headers_mut().insert(ETAG, etag(environment.stamp));
    Ok(response)
}

/// Changes the name and the settings of an environment.
#[utoipa::path(patch, path = "/projects/{project}/environments/{environment}",
    tag = "environments", request_body = EnvironmentPatch,
    params(("project" = String, Path), ("environment" = String, Path)),
    responses((status = OK, body = EnvironmentShape)))]
pub(super) async fn update(
    State(admin): State<Admin>,
    Path((project, environment)): Path<(String, String)>,
    call: Call<EnvironmentPatch>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, Some(&project), Some(&environment))?;
    let update = EnvironmentUpdate {
        name: call.body.name.clone(),
        hide_disabled_flags: call.body.hide_disabled_flags,
        allow_client_traits: call.body.allow_client_traits,
        hide_sensitive_data: call.body.hide_sensitive_data,
        persist_traits: call.body.persist_traits,
    };
    if update == EnvironmentUpdate::default() {
        let detail = "send `name` or a setting: there is nothing to change";
        return Err(Problem::invalid_field(detail.to_owned()).into());
    }
    update.name.as_deref().map_or(Ok(()), check_name)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let environment = change.update_environment(&project, &environment, &update).await?;
    let shape = |stamps: &_| EnvironmentShape::after(&environment, stamps);
    admin.finish(change, &call, StatusCode::OK, shape).await
}

/// Deletes an environment with its flags and keys; its streams end.
#[utoipa::path(delete, path = "/projects/{project}/environments/{environment}",
    tag = "environments", params(("project" = String, Path), ("environment" = String, Path)),
    responses((status = OK, body = Deleted)))]
pub(super) async fn delete(
    State(admin): State<Admin>,
    Path((project, environment)): Path<(String, String)>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, Some(&project), None)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    change.delete_environment(&project, &environment).await?;
    admin.finish(change, &call, StatusCode::OK, |_| Deleted { deleted: environment.key }).await
}

/// Lists server keys.
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/server-keys",
    tag = "environments",
    params(("project" = String, Path), ("environment" = String, Path), PageQuery),
    responses((status = OK, body = Listed<ServerKeyShape>)))]
pub(super) async fn list_keys(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment)): Path<(String, String)>,
    Params(query): Params<PageQuery>,
) -> Result<Response, Problem> {
    caller.may_change(Role::Admin, Some(&project), Some(&environment))?;
    let page = query.page()?;
    let (_, environment) = admin.environment(&caller, &project, &environment).await?;
    let rows = admin.store.server_keys(environment.id, page).await?;
    let listed = Listed::of(rows, page, |key| key.id, ServerKeyShape::from);
    Ok(answer(StatusCode::OK, json!(listed).to_string()))
}

/// Makes a server key.
#[utoipa::path(post, path = "/projects/{project}/environments/{environment}/server-keys",
    tag = "environments", request_body = NewServerKey,
    params(("project" = String, Path), ("environment" = String, Path)),
    responses((status = CREATED, body = CreatedServerKey)))]
pub(super) async fn create_key(
    State(admin): State<Admin>,
    Path((project, environment)): Path<(String, String)>,
    call: Call<NewServerKey>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, Some(&project), Some(&environment))?;
    check_name(&call.body.name)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let secret = new_server_key();
    let hash = digest(secret.expose());
    let named = (call.body.name.as_str(), hash.as_str());
    let key = change.create_server_key(&project, &environment, named, &admin.limits).await?;
    let shape = |_: &_| CreatedServerKey {
        key: ServerKeyShape::from(key),
        server_key: secret.expose().to_owned(),
    };
    admin.finish(change, &call, StatusCode::CREATED, shape).await
}

/// Revokes a server key.
#[utoipa::path(delete, path = "/projects/{project}/environments/{environment}/server-keys/{id}",
    tag = "environments",
    params(("project" = String, Path), ("environment" = String, Path), ("id" = i64, Path)),
    responses((status = OK, body = Revoked)))]
pub(super) async fn revoke_key(
    State(admin): State<Admin>,
    Path((project, environment, id)): Path<(String, String, String)>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Admin, Some(&project), Some(&environment))?;
    let not_found = || Problem::not_found(format!("there is no server key `{id}`"));
    let id: i64 = id.parse().map_err(|_| not_found())?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    change.delete_server_key(&project, &environment, id).await?;
    admin.finish(change, &call, StatusCode::OK, |_| Revoked { revoked: id }).await
}

/// Tells who is listening.
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/streams",
    tag = "environments", params(("project" = String, Path), ("environment" = String, Path)),
    responses((status = OK, body = StreamsShape)))]
pub(super) async fn streams(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (_, environment) = admin.environment(&caller, &project, &environment).await?;
    let clients: Vec<ClientShape> = admin
        .hub
        .listeners(environment.id)
        .into_iter()
        .map(|(family, open)| ClientShape { client: family.as_str(), open })
        .collect();
    let pings = admin.hub.recent(environment.id).into_iter().map(|ping| PingShape {
        revision: ping.stamp.revision.0,
        updated_at: ping.stamp.updated_at,
        committed_at: rfc3339(ping.committed_at),
        change_to_ping_ms: (ping.change_to_ping.as_secs_f64() * 1e5).round() / 100.0,
        streams: ping.streams,
    });
    let shape = StreamsShape {
        environment: environment.key.clone(),
        revision: environment.stamp.revision.0,
        open: clients.iter().map(|client| client.open).sum(),
        clients,
        pings: pings.collect(),
    };
    Ok(answer(StatusCode::OK, json!(shape).to_string()))
}

impl Admin {
    /// The environment that a reader asks for.
    pub(super) async fn environment(
        &self,
        caller: &Caller,
        project: &str,
        environment: &str,
    ) -> Result<(Project, Environment), Problem> {
        caller.may_read(Some(project), Some(environment))?;
        let project = self.store.project(project).await?;
        let environment = self.store.environment(&project, environment).await?;
        Ok((project, environment))
    }
}
