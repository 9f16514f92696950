//! The JSON shapes of the management API.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::kinds;
use crate::model::{Environment, Feature, Flag, Project, Stamp, UpdatedAt, Variant, Weight};
use crate::store::Stamps;

/// A project.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProjectShape {
    #[schema(value_type = kinds::Key)]
    key: String,
    #[schema(value_type = kinds::Name)]
    name: String,
    /// RFC 3339.
    #[schema(value_type = kinds::Time)]
    created_at: String,
}

/// An environment at one of its revisions.
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EnvironmentShape {
    #[schema(value_type = kinds::Key)]
    key: String,
    #[schema(value_type = kinds::Name)]
    name: String,
    /// Public: part of stream and flag URLs.
    client_key: String,
    /// Flags that are off are left out of the lists that Flagsmith's SDKs get.
    hide_disabled_flags: bool,
    /// Whether traits count that come with a client key.
    allow_client_traits: bool,
    /// Descriptions, ids and traits are left out of what Flagsmith's SDKs get.
    hide_sensitive_data: bool,
    /// Whether traits that SDKs send are kept.
    persist_traits: bool,
    revision: u64,
    /// Seconds since the epoch.
    #[schema(value_type = kinds::Seconds)]
    updated_at: UpdatedAt,
    /// RFC 3339.
    #[schema(value_type = kinds::Time)]
    created_at: String,
}

/// A feature: the definition of a flag, and what it is in a new environment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FeatureShape {
    #[schema(value_type = kinds::Id)]
    id: i64,
    #[schema(value_type = kinds::FeatureKey)]
    key: String,
    #[schema(value_type = kinds::Description)]
    description: String,
    enabled: bool,
    /// Null, a boolean, an integer or a string.
    #[schema(value_type = kinds::FlagValue)]
    value: serde_json::Value,
    #[schema(value_type = kinds::Tags)]
    tags: Vec<String>,
    /// Values among which identities are shared out; `weight` is for new environments.
    variants: Vec<VariantShape>,
    /// Whether client keys do not get to see it.
    server_key_only: bool,
    /// `plain`, or `json`: then its texts are JSON objects or numbers.
    #[schema(value_type = kinds::ValueType)]
    value_type: &'static str,
    /// RFC 3339.
    #[schema(value_type = kinds::Time)]
    created_at: String,
}

/// One of the values among which identities are shared out.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VariantShape {
    #[schema(value_type = kinds::FeatureKey)]
    key: String,
    /// Null, a boolean, an integer or a string.
    #[schema(value_type = kinds::FlagValue)]
    value: serde_json::Value,
    /// Its share in percent.
    #[schema(value_type = kinds::Percent)]
    weight: f64,
}

/// A flag: a feature's state in one environment, at one of its revisions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FlagShape {
    #[schema(value_type = kinds::FeatureKey)]
    key: String,
    #[schema(value_type = kinds::Description)]
    description: String,
    #[schema(value_type = kinds::Tags)]
    tags: Vec<String>,
    enabled: bool,
    /// Null, a boolean, an integer or a string.
    #[schema(value_type = kinds::FlagValue)]
    value: serde_json::Value,
    /// Values among which identities are shared out, with their shares here.
    variants: Vec<VariantShape>,
    revision: u64,
    /// Seconds since the epoch.
    #[schema(value_type = kinds::Seconds)]
    updated_at: UpdatedAt,
}

/// A thing in one environment, after a change.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Here<T> {
    /// The thing.
    #[serde(flatten)]
    thing: T,
    revision: u64,
    /// Seconds since the epoch.
    #[schema(value_type = kinds::Seconds)]
    updated_at: UpdatedAt,
}

impl<T> Here<T> {
    pub(super) fn after(thing: T, environment: &Environment, stamps: &Stamps) -> Self {
        let Stamp { revision, updated_at } = stamp_after(environment, stamps);
        Self { thing, revision: revision.0, updated_at }
    }
}

/// What was taken away.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deleted {
    /// Its key.
    pub(super) deleted: String,
}

/// What was made invalid.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Revoked {
    /// Its row number.
    #[schema(value_type = kinds::Id)]
    pub(super) revoked: i64,
}

/// A thing that was changed in several environments at once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Everywhere<T> {
    /// The thing.
    #[serde(flatten)]
    pub(super) thing: T,
    /// The new revision of each environment it touched, by key.
    pub(super) revisions: BTreeMap<String, u64>,
}

impl From<&Project> for ProjectShape {
    fn from(project: &Project) -> Self {
        let Project { key, name, created_at, .. } = project.clone();
        Self { key, name, created_at: rfc3339(created_at) }
    }
}

impl EnvironmentShape {
    pub(super) fn at(environment: &Environment, stamp: Stamp) -> Self {
        Self {
            key: environment.key.clone(),
            name: environment.name.clone(),
            client_key: environment.client_key.as_str().to_owned(),
            hide_disabled_flags: environment.settings.hide_disabled_flags,
            allow_client_traits: environment.settings.allow_client_traits,
            hide_sensitive_data: environment.settings.hide_sensitive_data,
            persist_traits: environment.settings.persist_traits,
            revision: stamp.revision.0,
            updated_at: stamp.updated_at,
            created_at: rfc3339(environment.created_at),
        }
    }

    /// As it is after a change that may or may not have moved it.
    pub(super) fn after(environment: &Environment, stamps: &Stamps) -> Self {
        Self::at(environment, stamp_after(environment, stamps))
    }
}

impl From<&Feature> for FeatureShape {
    fn from(feature: &Feature) -> Self {
        Self {
            id: feature.id.0,
            key: feature.key.clone(),
            description: feature.description.clone(),
            enabled: feature.defaults.enabled,
            value: feature.defaults.value.to_json(),
            tags: feature.tags.clone(),
            variants: variants(&feature.variants, feature.variants.iter().map(|v| v.weight)),
            server_key_only: feature.server_key_only,
            value_type: feature.value_type.as_str(),
            created_at: rfc3339(feature.created_at),
        }
    }
}

impl FlagShape {
    pub(super) fn at(flag: &Flag, stamp: Stamp) -> Self {
        Self {
            key: flag.feature.key.clone(),
            description: flag.feature.description.clone(),
            tags: flag.feature.tags.clone(),
            enabled: flag.enabled,
            value: flag.value.to_json(),
            variants: variants(&flag.feature.variants, flag.weights.iter().copied()),
            revision: stamp.revision.0,
            updated_at: stamp.updated_at,
        }
    }
}

fn variants(variants: &[Variant], weights: impl Iterator<Item = Weight>) -> Vec<VariantShape> {
    let shape = |(variant, weight): (&Variant, Weight)| VariantShape {
        key: variant.key.clone(),
        value: variant.value.to_json(),
        weight: weight.percent(),
    };
    variants.iter().zip(weights).map(shape).collect()
}

/// Shares of a feature's variants in percent, by their keys.
pub(super) fn weights_shape(feature: &Feature, weights: &[Weight]) -> BTreeMap<String, f64> {
    let named = feature.variants.iter().zip(weights);
    named.map(|(variant, weight)| (variant.key.clone(), weight.percent())).collect()
}

/// Where an environment is after a change.
pub(super) fn stamp_after(environment: &Environment, stamps: &Stamps) -> Stamp {
    stamps.get(&environment.id).map_or(environment.stamp, |moved| moved.stamp)
}

/// New revisions by the keys of the environments.
pub(super) fn revisions(stamps: &Stamps) -> BTreeMap<String, u64> {
    stamps.values().map(|moved| (moved.key.clone(), moved.stamp.revision.0)).collect()
}

/// Microseconds since the epoch as RFC 3339.
pub(super) fn rfc3339(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map(|time| time.to_string()).unwrap_or_default()
}

/// RFC 3339 as microseconds since the epoch; if it is none, what is wrong with the field `name`.
pub(super) fn instant(name: &str, text: &str) -> Result<i64, String> {
    text.parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_microsecond)
        .map_err(|_| format!("`{name}` must be an RFC 3339 time, for example 2026-01-31T12:00:00Z"))
}
