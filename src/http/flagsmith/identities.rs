//! `/api/v1/identities/`: the flags of one identity, evaluated with what is kept of it and what the
//! request tells.
//!
//! With a client key and `allow_client_traits` off, the traits of the request do not count. They are
//! ignored in silence, as the open-source core does: an error would cost the app all its flags, for
//! traits that it may not even need.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::traits::may_tell_traits;
use super::{Flagsmith, own};
use crate::evaluation::Subject;
use crate::flagset::{FlagSet, Known};
use crate::http::errors::Detail;
use crate::http::given::Given;
use crate::http::request::{BodyLimits, Params, parse_json};
use crate::model::{Scalar, Traits, lay_trait};
use crate::rules::{check_identifier, check_trait};
use crate::store::TraitsUpdate;
use crate::store::keys::hex;

#[derive(Debug, Deserialize)]
pub(in crate::http) struct IdentityQuery {
    identifier: Option<String>,
    feature: Option<String>,
}

/// What a request tells of an identity.
#[derive(Debug, Deserialize)]
struct Told {
    #[serde(default)]
    identifier: Option<Json>,
    #[serde(default)]
    transient: Option<bool>,
    #[serde(default)]
    traits: Option<Vec<TraitInput>>,
}

#[derive(Clone, Debug, Deserialize)]
struct TraitInput {
    trait_key: String,
    #[serde(default)]
    trait_value: Given,
    #[serde(default)]
    transient: Option<bool>,
}

/// An identity with all that is known of it now.
struct Person {
    identifier: String,
    traits: Traits,
}

/// A read keeps nothing, so it makes no difference whether the identity is transient.
pub(in crate::http) async fn identity(
    State(door): State<Flagsmith>,
    Params(query): Params<IdentityQuery>,
    headers: HeaderMap,
) -> Result<Response, Detail> {
    let known = door.known(&headers).await?;
    let set = door.set(&known).await?;
    let Some(identifier) = query.identifier.filter(|identifier| !is_blank(identifier)) else {
        // Flagsmith answers 200 here, and SDKs rely on the shape of neither.
        let detail = r#"{"detail":"Missing identifier"}"#;
        return Ok(([(CONTENT_TYPE, "application/json")], detail).into_response());
    };
    check_identifier(&identifier, &door.limits)?;
    let traits = door.traits_of(&known, &identifier, TraitsUpdate::new()).await?;
    let person = Person { identifier, traits };
    match query.feature {
        None => Ok(door.answer(&known, &set, &person)),
        Some(feature) => door.single(&known, &set, &person, &feature),
    }
}

pub(in crate::http) async fn identify(
    State(door): State<Flagsmith>,
    limits: BodyLimits,
    request: Request<Body>,
) -> Result<Response, Detail> {
    let known = door.known(request.headers()).await?;
    let set = door.set(&known).await?;
    let bytes = limits.read(request.into_body()).await?;
    let person = door.person(&known, &set, parse_json(&bytes)?).await?;
    Ok(door.answer(&known, &set, &person))
}

impl Flagsmith {
    /// Keeps what is to be kept of an identity, and tells all that is known of it.
    async fn person(&self, known: &Known, set: &FlagSet, told: Told) -> Result<Person, Detail> {
        let mut traits = told.traits.unwrap_or_default();
        if !may_tell_traits(known, set) {
            traits.clear();
        }
        let Some(identifier) = identifier(told.identifier)? else {
            // Nobody in particular: there is nothing to find and nothing to keep it under.
            let identifier = nameless(&traits);
            let mut person = Person { identifier, traits: Traits::new() };
            for one in traits {
                lay_trait(&mut person.traits, one.trait_key, one.trait_value.0);
            }
            return Ok(person);
        };
        check_identifier(&identifier, &self.limits)?;
        for one in &traits {
            check_trait(&one.trait_key, Some(&one.trait_value.0), &self.limits)?;
        }
        let keeps = set.settings.persist_traits && told.transient != Some(true);
        let is_kept = |one: &TraitInput| keeps && one.transient != Some(true);
        let (kept, passing): (Vec<_>, Vec<_>) = traits.into_iter().partition(is_kept);
        let kept = kept.into_iter().map(|one| (one.trait_key, Some(one.trait_value.0)));
        let mut traits = self.traits_of(known, &identifier, kept.collect()).await?;
        for one in passing {
            lay_trait(&mut traits, one.trait_key, one.trait_value.0);
        }
        Ok(Person { identifier, traits })
    }

    /// The answer for one identity. `identifier` and `traits` are told as they are known: JavaScript's
    /// SDK takes them for its own.
    fn answer(&self, known: &Known, set: &FlagSet, person: &Person) -> Response {
        let evaluation = self.evaluate(set, person);
        let mut body = Vec::with_capacity(set.flags(known.view()).plain().len() + 512);
        let shown = if set.settings.hide_sensitive_data { None } else { Some(&person.traits) };
        let traits: Vec<Json> = shown
            .into_iter()
            .flatten()
            .map(|(key, value)| json!({ "trait_key": key, "trait_value": value }))
            .collect();
        let head = json!({ "identifier": person.identifier, "traits": traits }).to_string();
        body.extend_from_slice(head.strip_suffix('}').unwrap_or(&head).as_bytes());
        body.extend_from_slice(b",\"flags\":");
        set.personal.write_flagsmith(&evaluation, known.view(), &mut body);
        body.push(b'}');
        let mut response = Body::from(body).into_response();
        own(response.headers_mut(), set);
        response
    }

    /// One flag of the answer.
    fn single(
        &self,
        known: &Known,
        set: &FlagSet,
        person: &Person,
        feature: &str,
    ) -> Result<Response, Detail> {
        let evaluation = self.evaluate(set, person);
        let found = set.personal.flagsmith_flag(&evaluation, known.view(), feature);
        let found = found.ok_or_else(super::no_feature)?;
        let mut response = found.to_owned().into_response();
        own(response.headers_mut(), set);
        Ok(response)
    }

    fn evaluate(&self, set: &FlagSet, person: &Person) -> crate::evaluation::Evaluation {
        let subject =
            Subject { identifier: Some(&person.identifier), key: None, traits: &person.traits };
        self.metrics.flagsmith.time(|| set.personal.evaluate(&subject))
    }
}

/// Flagsmith takes numbers, too; nothing and blank text mean nobody in particular.
fn identifier(told: Option<Json>) -> Result<Option<String>, Detail> {
    match told {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) if is_blank(&text) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(Json::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => {
            let detail = "`identifier` must be a string".to_owned();
            Err(Detail(StatusCode::BAD_REQUEST, detail))
        }
    }
}

fn is_blank(identifier: &str) -> bool {
    identifier.trim().is_empty()
}

/// The name of an identity that gave none: the same for the same traits.
fn nameless(traits: &[TraitInput]) -> String {
    let told = traits.iter().filter(|one| one.trait_value.0 != Scalar::Null);
    let mut parts: Vec<String> = told
        .map(|one| match &one.trait_value.0 {
            Scalar::Text(text) => format!("{}{text}", one.trait_key),
            value => format!("{}{}", one.trait_key, json!(value)),
        })
        .collect();
    if parts.is_empty() {
        return uuid::Uuid::new_v4().simple().to_string();
    }
    parts.sort_unstable();
    hex(&Sha256::digest(parts.concat().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_without_a_name_is_named_by_its_traits() {
        let traits: Vec<TraitInput> = serde_json::from_value(json!([
            { "trait_key": "plan", "trait_value": "pro" },
            { "trait_key": "age", "trait_value": 32 },
            { "trait_key": "gone", "trait_value": null },
        ]))
        .unwrap();
        let mut turned = traits.clone();
        turned.reverse();
        assert_eq!(nameless(&traits), nameless(&turned));
        assert_eq!(nameless(&traits), hex(&Sha256::digest(b"age32planpro")));
        assert_ne!(nameless(&[]), nameless(&[]));
    }
}
