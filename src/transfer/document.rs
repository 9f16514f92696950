//! The shape of the file. Its words are those of the management API.
//!
//! A state's `seed` is the number by which its split deals people out, and a segment's that of its
//! percentages: whoever keeps them keeps everybody where they are.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Fault, read};
use crate::evaluation::rules_to_keep;
use crate::model::{FlagValue, Rule, Traits, ValueType, WebhookFormat, WebhookMode, Weight};

/// The number of this shape. Another shape that this reader would misread gets another number.
const SCHEMA: u32 = 1;

/// Whether the file has the shape that this program reads. It stands first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schema;

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(SCHEMA)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            SCHEMA => Ok(Self),
            other => Err(D::Error::custom(format!(
                "this Flagcast reads exports of schema {SCHEMA}, not {other}; take the version that \
                 wrote it, or a newer one"
            ))),
        }
    }
}

/// An instant in microseconds since the epoch, written as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub i64);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = jiff::Timestamp::from_microsecond(self.0).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&time)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse::<jiff::Timestamp>().map(|time| Self(time.as_microsecond())).map_err(|_| {
            D::Error::custom("must be an RFC 3339 time, for example 2026-01-31T12:00:00Z")
        })
    }
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object as `flagcast export` writes it (a list may be Flagsmith's export of \
                 features: say `--format flagsmith`)"
)]
pub struct Document {
    /// The shape.
    pub flagcast_export: Schema,
    /// The instant that it shows.
    pub exported_at: Instant,
    /// The project.
    #[serde(skip_serializing)]
    pub project: ProjectPart,
}

/// A project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectPart {
    /// Key.
    pub key: String,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: Instant,
    /// Segments in the order they were made.
    pub segments: Vec<SegmentPart>,
    /// Features in the order they were made.
    pub features: Vec<FeaturePart>,
    /// Environments in the order they were made.
    #[serde(skip_serializing)]
    pub environments: Vec<EnvironmentPart>,
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentPart {
    /// Key.
    pub key: String,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// All must hold.
    pub rules: Vec<Rule>,
    /// Deals people out to its percentages.
    pub seed: i64,
    /// When it was made.
    pub created_at: Instant,
}

/// A feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturePart {
    /// Key.
    pub key: String,
    /// What it is for.
    pub description: String,
    /// Labels for people.
    pub tags: Vec<String>,
    /// How its texts are to be understood.
    pub value_type: ValueType,
    /// Whether client keys do not get to see it.
    pub server_key_only: bool,
    /// On or off in new environments.
    pub enabled: bool,
    /// Its value there.
    pub value: FlagValue,
    /// Values among which identities are shared out.
    pub variants: Vec<VariantPart>,
    /// When it was made.
    pub created_at: Instant,
}

/// A variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantPart {
    /// Key, unique in its feature.
    pub key: String,
    /// Its value.
    pub value: FlagValue,
    /// Its share in new environments, in percent.
    pub weight: Weight,
}

/// An environment.
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentPart {
    /// Key.
    pub key: String,
    /// What people call it.
    pub name: String,
    /// Its public key. It also takes part in dealing people out.
    pub client_key: String,
    /// Where its revisions are.
    pub revision: u64,
    /// The instant of that revision.
    pub updated_at: Instant,
    /// When it was made.
    pub created_at: Instant,
    /// Flags that are off are left out of Flagsmith's lists.
    pub hide_disabled_flags: bool,
    /// Whether traits count that come with a client key.
    pub allow_client_traits: bool,
    /// Descriptions, ids and traits are left out of what Flagsmith's SDKs get.
    pub hide_sensitive_data: bool,
    /// Whether traits that SDKs send are kept.
    pub persist_traits: bool,
    /// Server keys, as digests.
    pub server_keys: Vec<ServerKeyPart>,
    /// A flag for each feature.
    pub flags: Vec<FlagPart>,
    /// Who is told of changes.
    pub webhooks: Vec<WebhookPart>,
    /// Who is known.
    #[serde(skip_serializing)]
    pub identities: Vec<IdentityPart>,
}

/// A server key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerKeyPart {
    /// What people call it.
    pub name: String,
    /// Its digest, in hexadecimal: the key itself is known to those who have it.
    pub sha256: String,
}

/// A feature's state in an environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagPart {
    /// Key of the feature.
    pub feature: String,
    /// On or off.
    pub enabled: bool,
    /// Its value.
    pub value: FlagValue,
    /// Shares of the variants by their keys, in percent. One that is not named has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, Weight>,
    /// Deals people out.
    pub seed: i64,
    /// Flagsmith's name of the state.
    pub uuid: String,
    /// What it is for segments, the strongest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<OverridePart>,
}

/// A flag's state for a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverridePart {
    /// Key of the segment.
    pub segment: String,
    /// On or off.
    pub enabled: bool,
    /// Its value.
    pub value: FlagValue,
    /// Shares of the variants by their keys, in percent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, Weight>,
    /// Deals people out.
    pub seed: i64,
    /// Flagsmith's name of the state.
    pub uuid: String,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookPart {
    /// Where requests go.
    pub url: String,
    /// What it is for.
    pub description: String,
    /// What it is told.
    pub mode: WebhookMode,
    /// In which words.
    pub format: WebhookFormat,
    /// Which actions; none means all.
    pub events: Vec<String>,
    /// Further headers; null where the value was left out because it is secret.
    pub headers: BTreeMap<String, Option<String>>,
    /// Signs each request. Null where it was left out.
    pub secret: Option<String>,
    /// Whether nothing is sent for now.
    pub paused: bool,
}

/// An identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityPart {
    /// What the app calls it.
    pub identifier: String,
    /// Flagsmith's name of it.
    pub uuid: String,
    /// When it was made.
    pub created_at: Instant,
    /// What is known of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub traits: Traits,
    /// Flags that are something of their own for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<IdentityFlagPart>,
}

/// A flag's state for one identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFlagPart {
    /// Key of the feature.
    pub feature: String,
    /// On or off.
    pub enabled: bool,
    /// Its value.
    pub value: FlagValue,
    /// Flagsmith's name of the state.
    pub uuid: String,
}

impl Document {
    /// Reads a file. What it says is not checked yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        read(bytes)
    }

    /// How many identities there are in all environments.
    #[must_use]
    pub fn identities(&self) -> usize {
        self.project.environments.iter().map(|environment| environment.identities.len()).sum()
    }
}

impl SegmentPart {
    /// Its rules in the form that a store keeps.
    #[must_use]
    pub fn rules_to_keep(&self) -> Vec<Rule> {
        rules_to_keep(self.rules.clone())
    }
}

impl WebhookPart {
    /// Its headers, as far as their values are there.
    #[must_use]
    pub fn known_headers(&self) -> BTreeMap<String, String> {
        let known = self.headers.iter();
        known.filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
    }

    /// Names of the headers whose values were left out.
    pub fn unknown_headers(&self) -> impl Iterator<Item = &str> {
        let unknown = self.headers.iter().filter(|(_, value)| value.is_none());
        unknown.map(|(name, _)| name.as_str())
    }

    /// Whether it can work as it did: nothing that is secret was left out.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.secret.is_some() && self.unknown_headers().next().is_none()
    }
}
