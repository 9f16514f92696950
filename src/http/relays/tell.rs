//! What the clients of a relay told it, on its way to where it is kept.

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Map, json};

use super::Relays;
use crate::flagset::Known;
use crate::http::errors::Problem;
use crate::http::request::{BodyLimits, Path, parse_json};
use crate::model::{EnvironmentId, EnvironmentKind, FeatureKey};
use crate::rules::{check_identifier, check_trait, check_traits};
use crate::store::{EvaluationCount, StoreError, TraitsUpdate, UsageBatch};

/// How often flags of an environment were evaluated. Fields that we do not know are those of newer relays.
#[derive(Debug, Deserialize)]
struct Usage {
    id: String,
    counts: Vec<Evaluated>,
}

#[derive(Debug, Deserialize)]
struct Evaluated {
    feature: String,
    day: String,
    count: u64,
}

/// What an app told of an identity; nothing but its name: what is known of it?
#[derive(Debug, Deserialize)]
struct ToldTraits {
    identifier: String,
    traits: Option<TraitsUpdate>,
    increment: Option<Increment>,
}

#[derive(Debug, Deserialize)]
struct Increment {
    key: String,
    by: i64,
}

impl Relays {
    /// The environment, and the body of a request that tells something of it.
    async fn told(
        &self,
        name: &str,
        limits: BodyLimits,
        request: Request,
    ) -> Result<(Known, bytes::Bytes), Problem> {
        let known = self.admit(name, request.headers()).await?;
        if known.kind == EnvironmentKind::PushOnly {
            return Err(Problem::push_only());
        }
        Ok((known, limits.read(request.into_body()).await?))
    }

    /// Refuses to keep traits where none are kept.
    async fn check_keeps(&self, known: &Known) -> Result<(), Problem> {
        let set = self.flagsets.get(known.id).await?.ok_or_else(Problem::environment_unknown)?;
        if set.settings.persist_traits {
            return Ok(());
        }
        let detail = "this environment keeps no traits (`persist_traits`)";
        Err(Problem::invalid_field(detail.to_owned()))
    }
}

/// Adds evaluation counts, once for each id of a batch.
pub(in crate::http) async fn usage(
    State(door): State<Relays>,
    Path(name): Path<String>,
    limits: BodyLimits,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (known, bytes) = door.told(&name, limits, request).await?;
    let Usage { id, counts } = parse_json(&bytes)?;
    let id = uuid::Uuid::try_parse(&id)
        .map_err(|_| Problem::invalid_field("`id` must be a UUID".to_owned()))?;
    let counts = counts.into_iter().enumerate().filter_map(|(index, count)| {
        let place = format!("counts[{index}]");
        count.checked(known.id).map_err(|problem| problem.at(&place)).transpose()
    });
    let counts = counts.collect::<Result<_, _>>()?;
    let batch = UsageBatch { environment_id: known.id, id: id.to_string(), counts };
    door.ledger.add_usage(&batch).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Evaluated {
    /// The count as it is kept; nothing for what can be no feature.
    fn checked(self, environment_id: EnvironmentId) -> Result<Option<EvaluationCount>, Problem> {
        let day = self.day.parse::<jiff::civil::Date>().map_err(|_| {
            Problem::invalid_field("`day` must be a day, for example 2026-01-31".to_owned())
        })?;
        let is_key = FeatureKey::parse(&self.feature).is_ok();
        let (feature_key, day, count) = (self.feature, day.to_string(), self.count);
        Ok(is_key.then_some(EvaluationCount { environment_id, feature_key, day, count }))
    }
}

/// Keeps what is told of an identity, and says what is known of it then.
pub(in crate::http) async fn traits(
    State(door): State<Relays>,
    Path(name): Path<String>,
    limits: BodyLimits,
    request: Request,
) -> Result<Response, Problem> {
    let (known, bytes) = door.told(&name, limits, request).await?;
    let ToldTraits { identifier, traits, increment } = parse_json(&bytes)?;
    let limits = &door.limits;
    check_identifier(&identifier, limits)?;
    if let Some(traits) = &traits {
        check_traits(traits, limits)?;
    }
    if let Some(Increment { key, .. }) = &increment {
        check_trait(key, None, limits)?;
    }
    if traits.is_some() || increment.is_some() {
        door.check_keeps(&known).await?;
    }
    let mut shown = Map::new();
    let mut now_known = None;
    if let Some(traits) = &traits {
        let written = door.ledger.write_traits(known.id, &identifier, traits, limits).await?;
        if let Some(limit) = written.limit {
            door.metrics.limit_hit(limit);
            shown.insert("limit".to_owned(), json!(limit));
        }
        now_known = Some(written.traits);
    }
    if let Some(Increment { key, by }) = increment {
        let sum = door.ledger.increment_trait(known.id, &identifier, &key, by, limits).await;
        let sum = sum.map_err(|error| match error {
            StoreError::NotCountable { .. } => Problem::not_countable(error.to_string()),
            error => error.into(),
        })?;
        shown.insert("sum".to_owned(), json!(sum));
        now_known = None;
    }
    let now_known = match now_known {
        Some(traits) => traits,
        None => door.ledger.traits(known.id, &identifier).await?,
    };
    shown.insert("traits".to_owned(), json!(now_known));
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "private, no-store")];
    Ok((headers, json!(shown).to_string()).into_response())
}
