//! What Flagsmith is told of identities, and what it knows of them.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::super::asking::{ANSWER_BYTES_MAX, body};
use super::super::upstream::{Failure, Increment, KnownTraits, TellTraits, TraitsFailure};
use super::{Flagsmith, fault};
use crate::model::{ClientKey, Scalar, Secret, Traits, lay_trait};

/// The answer for an identity.
#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    traits: Vec<KnownTrait>,
}

#[derive(Deserialize)]
struct KnownTrait {
    trait_key: String,
    trait_value: Json,
}

impl Flagsmith {
    /// Reads or changes what Flagsmith keeps of an identity. By a server key: Flagsmith may take no traits
    /// from clients.
    pub(in crate::relay) async fn traits(
        &self,
        client_key: &ClientKey,
        told: &TellTraits<'_>,
    ) -> Result<KnownTraits, TraitsFailure> {
        let none = || {
            let reason = "no server key of this environment is known since the relay began";
            Failure::Refused(reason.to_owned())
        };
        let secret = self.inner.keys.of(client_key).into_iter().next().ok_or_else(none)?;
        match &told.increment {
            Some(increment) => self.increment(&secret, told.identifier, increment).await,
            None => Ok(self.identify(&secret, told).await?),
        }
    }

    async fn identify(
        &self,
        secret: &Secret,
        told: &TellTraits<'_>,
    ) -> Result<KnownTraits, Failure> {
        let traits = told.traits.into_iter().flatten();
        let traits: Vec<Json> =
            traits.map(|(key, value)| json!({ "trait_key": key, "trait_value": value })).collect();
        // Who only asks leaves nothing.
        let transient = traits.is_empty();
        let question = json!({
            "identifier": told.identifier,
            "traits": traits,
            "transient": transient,
        });
        let request = self.ask(Method::POST, "/api/v1/identities/", secret.expose());
        let answer = self.send(request.json(&question)).await?;
        if answer.status().as_u16() != 200 {
            return Err(fault(answer.status().as_u16()));
        }
        let bytes = body(answer, super::SNAPSHOT_BYTES_MAX).await?;
        let known: Known =
            serde_json::from_slice(&bytes).map_err(|error| Failure::Away(error.to_string()))?;
        let mut traits = Traits::new();
        for one in known.traits {
            // What is no single value is none that a condition could compare.
            let value = Scalar::from_json(one.trait_value).unwrap_or_default();
            lay_trait(&mut traits, one.trait_key, value);
        }
        // An environment that hides what is sensitive does not tell them again.
        for (key, value) in told.traits.into_iter().flatten() {
            lay_trait(&mut traits, key.clone(), value.clone().unwrap_or_default());
        }
        Ok(KnownTraits { traits, ..KnownTraits::default() })
    }

    async fn increment(
        &self,
        secret: &Secret,
        identifier: &str,
        increment: &Increment<'_>,
    ) -> Result<KnownTraits, TraitsFailure> {
        let question = json!({
            "identifier": identifier,
            "trait_key": increment.key,
            "increment_by": increment.by,
        });
        let request = self.ask(Method::POST, "/api/v1/traits/increment-value/", secret.expose());
        let answer = self.send(request.json(&question)).await?;
        match answer.status().as_u16() {
            200 => {
                let bytes = body(answer, ANSWER_BYTES_MAX).await?;
                let json: Json = serde_json::from_slice(&bytes).unwrap_or_default();
                Ok(KnownTraits { sum: json["trait_value"].as_i64(), ..KnownTraits::default() })
            }
            400 => Err(TraitsFailure::NotCountable),
            status => Err(fault(status).into()),
        }
    }
}
