//! `/api/v1/identities/`: the flags of one identity. They are the environment's flags.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::{Flagsmith, own};
use crate::flagset::FlagSet;
use crate::http::errors::Detail;
use crate::http::request::{BodyLimits, Params, parse_json};
use crate::store::keys::hex;

#[derive(Debug, Deserialize)]
pub(in crate::http) struct IdentityQuery {
    identifier: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Identify {
    #[serde(default)]
    identifier: Option<Json>,
    #[serde(default)]
    traits: Option<Vec<TraitInput>>,
}

#[derive(Debug, Deserialize)]
struct TraitInput {
    trait_key: String,
    #[serde(default)]
    trait_value: Json,
}

pub(in crate::http) async fn identity(
    State(door): State<Flagsmith>,
    Params(query): Params<IdentityQuery>,
    headers: HeaderMap,
) -> Result<Response, Detail> {
    let set = door.set(&door.known(&headers)?).await?;
    match query.identifier.filter(|identifier| !identifier.is_empty()) {
        Some(identifier) => Ok(answer(&set, &identifier, &[])),
        // Flagsmith answers 200 here, and SDKs rely on the shape of neither.
        None => Ok(([(CONTENT_TYPE, "application/json")], r#"{"detail":"Missing identifier"}"#)
            .into_response()),
    }
}

pub(in crate::http) async fn identify(
    State(door): State<Flagsmith>,
    limits: BodyLimits,
    request: Request<Body>,
) -> Result<Response, Detail> {
    let set = door.set(&door.known(request.headers())?).await?;
    let bytes = limits.read(request.into_body()).await?;
    let body: Identify = parse_json(&bytes)?;
    let mut traits: Vec<Json> = Vec::new();
    for given in body.traits.unwrap_or_default() {
        // A null deletes the trait, so it is not told back.
        if !given.trait_value.is_null() {
            let value = scalar(given.trait_value);
            traits.push(json!({ "trait_key": given.trait_key, "trait_value": value }));
        }
    }
    let identifier = match body.identifier {
        None | Some(Json::Null) => transient(&traits),
        Some(Json::String(text)) if text.trim().is_empty() => transient(&traits),
        Some(Json::String(text)) => text,
        Some(Json::Number(number)) => number.to_string(),
        Some(_) => {
            let detail = "`identifier` must be a string".to_owned();
            return Err(Detail(StatusCode::BAD_REQUEST, detail));
        }
    };
    Ok(answer(&set, &identifier, &traits))
}

/// Flagsmith turns what is no scalar into text.
fn scalar(value: Json) -> Json {
    match value {
        Json::Array(_) | Json::Object(_) => Json::String(value.to_string()),
        scalar => scalar,
    }
}

/// The name of an identity that gave none: the same for the same traits.
fn transient(traits: &[Json]) -> String {
    if traits.is_empty() {
        return uuid::Uuid::new_v4().simple().to_string();
    }
    let mut parts: Vec<String> = traits
        .iter()
        .map(|t| {
            let value = &t["trait_value"];
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{}{value}", t["trait_key"].as_str().unwrap_or_default())
        })
        .collect();
    parts.sort_unstable();
    hex(&Sha256::digest(parts.concat().as_bytes()))
}

/// `identifier` and `traits` exactly as they came: JavaScript's SDK takes them for its own.
fn answer(set: &FlagSet, identifier: &str, traits: &[Json]) -> Response {
    let mut body = Vec::with_capacity(set.flags.plain().len() + 256);
    let head = json!({ "identifier": identifier, "traits": traits }).to_string();
    body.extend_from_slice(head.strip_suffix('}').unwrap_or(&head).as_bytes());
    body.extend_from_slice(b",\"flags\":");
    body.extend_from_slice(set.flags.plain());
    body.push(b'}');
    let mut response = Body::from(body).into_response();
    own(response.headers_mut(), set);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_without_a_name_is_named_by_its_traits() {
        let traits = [
            json!({ "trait_key": "plan", "trait_value": "pro" }),
            json!({ "trait_key": "age", "trait_value": 32 }),
        ];
        let mut turned = traits.clone();
        turned.reverse();
        assert_eq!(transient(&traits), transient(&turned));
        assert_eq!(transient(&traits), hex(&Sha256::digest(b"age32planpro")));
        assert_ne!(transient(&[]), transient(&[]));
    }
}
