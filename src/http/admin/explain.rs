//! `…/environments/{environment}/explain`: why somebody gets what they get.
//!
//! It evaluates as the doors do for Flagsmith's SDKs: what is kept of the identity counts, and what is
//! told in the question lies over it.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use http::header::ETAG;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::call::{answer, etag};
use super::caller::Caller;
use super::kinds;
use crate::evaluation::{Context, Evaluator, ExplainedFlag, ExplainedSegment, Subject};
use crate::http::errors::Problem;
use crate::http::request::{Params, Path};
use crate::model::{Traits, UpdatedAt, lay_trait};
use crate::rules::{check_identifier, check_traits};
use crate::store::TraitsUpdate;

/// Who, and which flag.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExplainQuery {
    /// What the app calls the identity; absent: somebody unnamed.
    #[param(value_type = Option<kinds::Identifier>, inline)]
    identifier: Option<String>,
    /// A JSON object of traits, which lie over those that are kept; null takes one away.
    #[param(value_type = Option<kinds::TraitsText>, inline)]
    traits: Option<String>,
    /// Only this flag; absent: all.
    flag: Option<String>,
}

/// What somebody gets of each flag, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplanationShape {
    revision: u64,
    /// Seconds since the epoch.
    #[schema(value_type = kinds::Seconds)]
    updated_at: UpdatedAt,
    identifier: Option<String>,
    /// What the evaluation knew of the identity.
    #[schema(value_type = std::collections::BTreeMap<String, serde_json::Value>)]
    traits: Traits,
    /// For each flag `name`, `enabled`, `value`, `variant`, `reason`, `segment`, `identity_override`, and
    /// `split` with the `bucket` and the `ranges` of the variants.
    #[schema(value_type = Vec<serde_json::Value>)]
    flags: Vec<ExplainedFlag>,
    /// For each segment `name`, `matches`, and what `failed` first: its `path`, `why`, and the condition
    /// with what it found.
    #[schema(value_type = Vec<serde_json::Value>)]
    segments: Vec<ExplainedSegment>,
}

/// Tells what somebody gets of each flag, and why.
#[utoipa::path(get, path = "/projects/{project}/environments/{environment}/explain",
    tag = "identities",
    params(("project" = String, Path), ("environment" = String, Path), ExplainQuery),
    responses((status = OK, body = ExplanationShape)))]
pub(super) async fn explain(
    State(admin): State<Admin>,
    caller: Caller,
    Path((project, environment)): Path<(String, String)>,
    Params(query): Params<ExplainQuery>,
) -> Result<Response, Problem> {
    let ExplainQuery { identifier, traits, flag } = query;
    let update = told(traits.as_deref())?;
    check_traits(&update, &admin.limits)?;
    let (_, environment) = admin.environment(&caller, &project, &environment).await?;
    let mut traits = match &identifier {
        Some(identifier) => {
            check_identifier(identifier, &admin.limits)?;
            let known = admin.store.identity(environment.id, identifier).await?;
            known.map(|known| known.traits).unwrap_or_default()
        }
        None => Traits::new(),
    };
    for (name, value) in update {
        lay_trait(&mut traits, name, value.unwrap_or_default());
    }
    let state = admin.store.environment_state(environment.id).await?;
    let state = state.ok_or_else(|| {
        Problem::not_found(format!("there is no environment `{}`", environment.key))
    })?;
    let evaluator = Evaluator::compile(Context::of(&state));
    let subject = Subject { identifier: identifier.as_deref(), key: None, traits: &traits };
    let mut explanation = evaluator.explain(&subject);
    if let Some(flag) = flag {
        explanation.flags.retain(|one| one.name == flag);
        if explanation.flags.is_empty() {
            return Err(Problem::not_found(format!("there is no feature `{flag}`")));
        }
    }
    let stamp = state.environment.stamp;
    let shape = ExplanationShape {
        revision: stamp.revision.0,
        updated_at: stamp.updated_at,
        identifier,
        traits,
        flags: explanation.flags,
        segments: explanation.segments,
    };
    let mut response = answer(StatusCode::OK, json!(shape).to_string());
    response.headers_mut().insert(ETAG, etag(stamp));
    Ok(response)
}

/// The traits in the question.
fn told(text: Option<&str>) -> Result<TraitsUpdate, Problem> {
    let Some(text) = text else { return Ok(TraitsUpdate::new()) };
    let traits: Traits = serde_json::from_str(text).map_err(|error| {
        Problem::invalid_query(format!(
            "`traits` must be a JSON object such as {{\"plan\":\"pro\"}}: {error}"
        ))
    })?;
    // Null takes a trait away, as it does in an update.
    Ok(traits.into_iter().map(|(name, value)| (name, Some(value))).collect())
}
