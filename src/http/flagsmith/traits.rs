//! Traits: what is kept of identities, and `/api/v1/traits/`, where SDKs tell of it without asking for
//! flags.
//!
//! An evaluation must not fail, or wait long, because the store does: it goes on with what the
//! request tells, which for most SDKs is everything they know. Who only wants something kept is told
//! when it is not.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use super::Flagsmith;
use crate::flagset::{FlagSet, Known};
use crate::http::errors::Detail;
use crate::http::given::Given;
use crate::http::request::{BodyLimits, parse_json, parse_list};
use crate::model::{Scalar, Traits};
use crate::rules::{check_identifier, check_trait};
use crate::store::TraitsUpdate;

/// Longest wait of an evaluation for the store: SDKs give up after a few seconds.
const STORE_WAIT: Duration = Duration::from_secs(1);

/// One trait of one identity.
#[derive(Debug, Deserialize)]
struct OneTrait {
    identity: Named,
    trait_key: String,
    #[serde(default)]
    trait_value: Given,
}

#[derive(Debug, Serialize, Deserialize)]
struct Named {
    identifier: String,
}

#[derive(Debug, Deserialize)]
struct Increment {
    identifier: String,
    trait_key: String,
    #[serde(rename = "increment_by")]
    by: i64,
}

pub(in crate::http) async fn set_trait(
    State(door): State<Flagsmith>,
    limits: BodyLimits,
    request: Request,
) -> Result<Response, Detail> {
    let (known, bytes) = door.telling(limits, request).await?;
    let one: OneTrait = parse_json(&bytes)?;
    let shown = one.json();
    door.keep(&known, vec![one]).await?;
    Ok(answer(&shown))
}

pub(in crate::http) async fn set_traits(
    State(door): State<Flagsmith>,
    limits: BodyLimits,
    request: Request,
) -> Result<Response, Detail> {
    let (known, bytes) = door.telling(limits, request).await?;
    let all: Vec<OneTrait> = parse_list(&bytes)?;
    let shown: Json = all.iter().map(OneTrait::json).collect();
    door.keep(&known, all).await?;
    Ok(answer(&shown))
}

pub(in crate::http) async fn increment_trait(
    State(door): State<Flagsmith>,
    limits: BodyLimits,
    request: Request,
) -> Result<Response, Detail> {
    let (known, bytes) = door.telling(limits, request).await?;
    let Increment { identifier, trait_key, by } = parse_json(&bytes)?;
    check_identifier(&identifier, &door.limits)?;
    check_trait(&trait_key, None, &door.limits)?;
    let sum =
        door.ledger.increment_trait(known.id, &identifier, &trait_key, by, &door.limits).await?;
    let shown = json!({ "trait_key": trait_key, "trait_value": sum, "identifier": identifier });
    Ok(answer(&shown))
}

/// Whether the traits of a request count.
pub(super) fn may_tell_traits(known: &Known, set: &FlagSet) -> bool {
    known.by_server_key || set.settings.allow_client_traits
}

impl Flagsmith {
    /// What is known of an identity when `kept` is laid over it and kept.
    pub(super) async fn traits_of(
        &self,
        known: &Known,
        identifier: &str,
        kept: TraitsUpdate,
    ) -> Result<Traits, Detail> {
        let asked = async {
            if kept.is_empty() {
                return self.ledger.traits(known.id, identifier).await;
            }
            let limits = &self.limits;
            let written = self.ledger.write_traits(known.id, identifier, &kept, limits).await?;
            if let Some(limit) = written.limit {
                self.metrics.limit_hit(limit);
            }
            Ok(written.traits)
        };
        match timeout(STORE_WAIT, asked).await {
            Ok(Ok(traits)) => Ok(traits),
            Ok(Err(error)) if !error.is_silence() => Err(error.into()),
            Ok(Err(_)) | Err(_) => {
                self.metrics.without_store.increment(1);
                let told = kept.into_iter().filter_map(|(key, value)| Some((key, value?)));
                Ok(told.filter(|(_, value)| *value != Scalar::Null).collect())
            }
        }
    }

    /// The body of a request that only wants something kept.
    async fn telling(
        &self,
        limits: BodyLimits,
        request: Request,
    ) -> Result<(Known, bytes::Bytes), Detail> {
        let known = self.known(request.headers()).await?;
        let set = self.set(&known).await?;
        let refuse = |detail: &str| Err(Detail(StatusCode::BAD_REQUEST, detail.to_owned()));
        if !may_tell_traits(&known, &set) {
            return refuse("Unable to set traits with client key.");
        }
        if !set.settings.persist_traits {
            return refuse("this environment keeps no traits (`persist_traits`)");
        }
        Ok((known, limits.read(request.into_body()).await?))
    }

    /// Keeps traits, in one write for each identity.
    async fn keep(&self, known: &Known, all: Vec<OneTrait>) -> Result<(), Detail> {
        let mut updates = BTreeMap::<String, TraitsUpdate>::new();
        for one in all {
            let value = one.trait_value.0;
            check_identifier(&one.identity.identifier, &self.limits)?;
            check_trait(&one.trait_key, Some(&value), &self.limits)?;
            let update = updates.entry(one.identity.identifier).or_default();
            update.insert(one.trait_key, Some(value));
        }
        let max = self.limits.identities_per_request;
        if updates.len() > max {
            let detail = format!(
                "traits of {} identities in one request; at most {max} \
                 (`limits.identities_per_request`)",
                updates.len()
            );
            return Err(Detail(StatusCode::BAD_REQUEST, detail));
        }
        for (identifier, update) in &updates {
            let limits = &self.limits;
            let written = self.ledger.write_traits(known.id, identifier, update, limits).await?;
            if let Some(limit) = written.limit {
                self.metrics.limit_hit(limit);
                let detail = format!("not everything could be kept: `limits.{limit}` is reached");
                return Err(Detail(StatusCode::CONFLICT, detail));
            }
        }
        Ok(())
    }
}

impl OneTrait {
    fn json(&self) -> Json {
        json!({
            "identity": self.identity,
            "trait_key": self.trait_key,
            "trait_value": self.trait_value.0,
        })
    }
}

fn answer(shown: &Json) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "private, no-store")];
    (headers, shown.to_string()).into_response()
}
