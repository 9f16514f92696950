//! `…/environments/{environment}/identities`: who is known, and what of them.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::call::{Call, Nothing, Stop, answer};
use super::caller::Caller;
use super::kinds;
use super::pages::{Listed, PageQuery, decode_text, encode_text};
use super::shapes::{Deleted, Here, rfc3339};
use crate::http::errors::Problem;
use crate::http::request::{Params, Path};
use crate::model::Role;
use crate::rules::{check_identifier, check_traits};
use crate::store::{IdentityDetails, TraitsUpdate};

/// Which identities, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct IdentitiesQuery {
    /// How their identifiers begin.
    #[serde(default)]
    prefix: String,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<kinds::TextCursor>, inline)]
    cursor: Option<String>,
    /// Rows at most, 1 to 200; 50 if absent.
    #[param(value_type = Option<kinds::Limit>, inline)]
    limit: Option<u32>,
}

/// What to change of an identity.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityPatch {
    /// Traits by their names: a boolean, a number or a string; null takes one away. Those that are
    /// not named stay.
    #[schema(value_type = kinds::Traits)]
    traits: TraitsUpdate,
}

/// An identity with all that is kept of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IdentityShape {
    /// What the app calls it.
    #[schema(value_type = kinds::Identifier)]
    identifier: String,
    /// RFC 3339; null when nothing is kept of it any more.
    #[schema(value_type = Option<kinds::Time>)]
    created_at: Option<String>,
    /// What is known of it: booleans, numbers and strings.
    #[schema(value_type = kinds::Traits)]
    traits: BTreeMap<String, Json>,
    /// What it gets instead of others, by the key of the feature.
    overrides: BTreeMap<String, OverrideShape>,
}

/// What an identity gets instead of others.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OverrideShape {
    enabled: bool,
    /// Null, a boolean, an integer or a string.
    #[schema(value_type = kinds::FlagValue)]
    value: Json,
}

impl From<IdentityDetails> for IdentityShape {
    fn from(details: IdentityDetails) -> Self {
        let IdentityDetails { known, overrides } = details;
        let state = |(key, of): (String, crate::model::IdentityOverride)| {
            (key, OverrideShape { enabled: of.enabled, value: of.value.to_json() })
        };
        Self {
            identifier: known.identity.identifier,
            created_at: Some(rfc3339(known.identity.created_at)),
            traits: known.traits.into_iter().map(|(key, value)| (key, json!(value))).collect(),
            overrides: overrides.into_iter().map(state).collect(),
        }
    }
}

/// Lists the identities of which something is kept, by their identifiers.
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/identities",
    tag = "identities",
    params(("project" = String, Path), ("environment" = String, Path), IdentitiesQuery),
    responses((status = OK, body = Listed<IdentityShape>)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment)): Path<(String, String)>,
    Params(query): Params<IdentitiesQuery>,
) -> Result<Response, Problem> {
    let IdentitiesQuery { prefix, cursor, limit } = query;
    let limit = PageQuery { cursor: None, limit }.page()?.limit;
    let after = cursor.as_deref().map(decode_text).transpose()?.unwrap_or_default();
    let (_, environment) = admin.environment(&caller, &project, &environment).await?;
    let mut rows = admin.store.identities(environment.id, &prefix, &after, limit).await?;
    // One row more was read than is shown, to know whether there is another page.
    let shown = limit as usize - 1;
    let more = rows.len() > shown;
    rows.truncate(shown);
    let last = rows.last().map(|details| encode_text(&details.known.identity.identifier));
    let listed = Listed {
        items: rows.into_iter().map(IdentityShape::from).collect(),
        next_cursor: last.filter(|_| more),
    };
    Ok(answer(StatusCode::OK, json!(listed).to_string()))
}

/// Reads an identity with its traits and overrides.
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/identities/{identifier}",
    tag = "identities",
    params(("project" = String, Path), ("environment" = String, Path),
        ("identifier" = String, Path)),
    responses((status = OK, body = IdentityShape)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment, identifier)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    let (_, environment) = admin.environment(&caller, &project, &environment).await?;
    let details = admin.store.identity_details(environment.id, &identifier).await?;
    Ok(answer(StatusCode::OK, json!(IdentityShape::from(details)).to_string()))
}

/// Changes traits of an identity, which need not be known. Clients are told, as of any change that a
/// person makes; when nothing is left of an identity, it is forgotten.
#[utoipa::path(patch,
    path = "/projects/{project}/environments/{environment}/identities/{identifier}",
    tag = "identities", request_body = IdentityPatch,
    params(("project" = String, Path), ("environment" = String, Path),
        ("identifier" = String, Path)),
    responses((status = OK, body = Here<IdentityShape>)))]
pub(super) async fn update(
    State(admin): State<Admin>,
    Path((project, environment, identifier)): Path<(String, String, String)>,
    call: Call<IdentityPatch>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), Some(&environment))?;
    check_identifier(&identifier, &admin.limits)?;
    let traits = &call.body.traits;
    check_traits(traits, &admin.limits)?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    let details =
        change.update_identity(&project, &environment, &identifier, traits, &admin.limits).await?;
    let nobody = || IdentityShape {
        identifier: identifier.clone(),
        created_at: None,
        traits: BTreeMap::new(),
        overrides: BTreeMap::new(),
    };
    let thing = details.map_or_else(nobody, IdentityShape::from);
    let shape = |stamps: &_| Here::after(thing, &environment, stamps);
    admin.finish(change, &call, StatusCode::OK, shape).await
}

/// Forgets an identity with its traits and overrides.
#[utoipa::path(delete,
    path = "/projects/{project}/environments/{environment}/identities/{identifier}",
    tag = "identities",
    params(("project" = String, Path), ("environment" = String, Path),
        ("identifier" = String, Path)),
    responses((status = OK, body = Here<Deleted>)))]
pub(super) async fn delete(
    State(admin): State<Admin>,
    Path((project, environment, identifier)): Path<(String, String, String)>,
    call: Call<Nothing>,
) -> Result<Response, Stop> {
    call.caller.may_change(Role::Editor, Some(&project), Some(&environment))?;
    let (mut change, project, environment) = admin.begin_in(&call, &project, &environment).await?;
    change.delete_identity(&project, &environment, &identifier).await?;
    let thing = Deleted { deleted: identifier };
    let shape = |stamps: &_| Here::after(thing, &environment, stamps);
    admin.finish(change, &call, StatusCode::OK, shape).await
}
