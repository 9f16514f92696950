//! The JSON shapes of the management API, and the rules of texts that people choose.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::http::errors::Problem;
use crate::model::{Environment, Feature, Flag, Key, KeyError, Project, Stamp, UpdatedAt};
use crate::store::Stamps;

/// Longest name of anything, in characters.
const NAME_MAX: usize = 200;

/// Longest description, in characters.
const DESCRIPTION_MAX: usize = 2_000;

/// Tags of a feature.
const TAGS_MAX: usize = 20;

/// Longest tag, in characters.
const TAG_MAX: usize = 50;

/// A project.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProjectShape {
    key: String,
    name: String,
    /// RFC 3339.
    created_at: String,
}

/// An environment at one of its revisions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EnvironmentShape {
    key: String,
    name: String,
    /// Public: part of stream and flag URLs.
    client_key: String,
    revision: u64,
    /// Seconds since the epoch.
    #[schema(value_type = f64)]
    updated_at: UpdatedAt,
    /// RFC 3339.
    created_at: String,
}

/// A feature: the definition of a flag, and what it is in a new environment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FeatureShape {
    id: i64,
    key: String,
    description: String,
    enabled: bool,
    /// Null, a boolean, an integer or a string.
    value: serde_json::Value,
    tags: Vec<String>,
    /// RFC 3339.
    created_at: String,
}

/// A flag: a feature's state in one environment, at one of its revisions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FlagShape {
    key: String,
    description: String,
    tags: Vec<String>,
    enabled: bool,
    /// Null, a boolean, an integer or a string.
    value: serde_json::Value,
    revision: u64,
    /// Seconds since the epoch.
    #[schema(value_type = f64)]
    updated_at: UpdatedAt,
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
            revision: stamp.revision.0,
            updated_at: stamp.updated_at,
        }
    }
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

/// Checks a name that people choose: not empty, not long, one line.
pub(super) fn check_name(name: &str) -> Result<(), Problem> {
    check_text("name", name, NAME_MAX)?;
    if name.trim().is_empty() {
        return Err(Problem::invalid_field("`name` must not be empty".to_owned()));
    }
    Ok(())
}

/// Checks a description: not long; it may be empty and have several lines.
pub(super) fn check_description(description: &str) -> Result<(), Problem> {
    if description.chars().count() > DESCRIPTION_MAX {
        let detail = format!("`description` must have at most {DESCRIPTION_MAX} characters");
        return Err(Problem::invalid_field(detail));
    }
    Ok(())
}

/// Checks tags: few, short, one line each.
pub(super) fn check_tags(tags: &[String]) -> Result<(), Problem> {
    if tags.len() > TAGS_MAX {
        return Err(Problem::invalid_field(format!("`tags` may hold at most {TAGS_MAX}")));
    }
    tags.iter().try_for_each(|tag| check_text("tags", tag, TAG_MAX))
}

/// A key in a body: refused with its field's name.
pub(super) fn key_of(text: &str) -> Result<Key, Problem> {
    Key::parse(text).map_err(|error| key_problem(error, text))
}

/// The answer to a key that breaks its rule.
pub(super) fn key_problem(error: KeyError, text: &str) -> Problem {
    let shown: String = text.chars().take(40).collect();
    Problem::invalid_field(format!("`key` {error}, not {shown:?}"))
}

fn check_text(field: &str, text: &str, length_max: usize) -> Result<(), Problem> {
    if text.chars().count() > length_max {
        let detail = format!("`{field}` must have at most {length_max} characters");
        return Err(Problem::invalid_field(detail));
    }
    if text.chars().any(char::is_control) {
        let detail = format!("`{field}` must not hold control characters");
        return Err(Problem::invalid_field(detail));
    }
    Ok(())
}
