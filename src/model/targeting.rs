//! Who gets what: segments and their rules, variants and their weights, overrides.
//!
//! The words are Flagsmith's, whose SDKs evaluate the same rules by themselves.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{FeatureId, FlagValue, IdentityId, SegmentId, Traits, VariantId};

/// Thousandths of a percent in the whole.
const WHOLE: u32 = 100_000;

/// The share of a variant: a percentage with at most three decimals, so that sums are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u32);

/// Why a number is no weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a weight must be a percentage from 0 to 100 with at most three decimals")]
pub struct WeightError;

impl Weight {
    /// Everybody.
    pub const WHOLE: Self = Self(WHOLE);

    /// Checks a percentage.
    pub fn from_percent(percent: f64) -> Result<Self, WeightError> {
        let thousandths = (percent * 1000.0).round();
        let exact = (thousandths / 1000.0 - percent).abs() < 1e-9;
        if !(exact && (0.0..=f64::from(WHOLE)).contains(&thousandths)) {
            return Err(WeightError);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above"
        )]
        Ok(Self(thousandths as u32))
    }

    /// From what the store holds.
    #[must_use]
    pub fn from_thousandths(thousandths: u32) -> Self {
        Self(thousandths.min(WHOLE))
    }

    /// What the store holds.
    #[must_use]
    pub fn thousandths(self) -> u32 {
        self.0
    }

    /// As a percentage.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// Whether weights share out no more than there is.
    #[must_use]
    pub fn fit(weights: &[Self]) -> bool {
        weights.iter().map(|weight| u64::from(weight.0)).sum::<u64>() <= u64::from(WHOLE)
    }
}

/// Why named weights are not those of a flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// Nothing of this key can have a share.
    #[error("the feature has no variant `{0}`")]
    UnknownVariant(String),
    /// There is no more to share out.
    #[error("the weights of a flag's variants must sum to at most 100")]
    TooMuch,
}

/// Lays weights by the keys of variants over present ones, which are in the order of `variants`.
pub fn merge_weights(
    variants: &[Variant],
    present: &[Weight],
    named: &BTreeMap<String, Weight>,
) -> Result<Vec<Weight>, WeightsError> {
    if let Some(key) = named.keys().find(|key| variants.iter().all(|v| v.key != **key)) {
        return Err(WeightsError::UnknownVariant(key.clone()));
    }
    let weights: Vec<Weight> = variants
        .iter()
        .zip(present)
        .map(|(variant, weight)| named.get(&variant.key).copied().unwrap_or(*weight))
        .collect();
    if Weight::fit(&weights) { Ok(weights) } else { Err(WeightsError::TooMuch) }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.percent())
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_percent(f64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// How a rule takes its conditions and sub-rules together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RuleKind {
    /// All must hold.
    All,
    /// One must hold.
    Any,
    /// None may hold.
    None,
}

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Operator {
    /// The same, in the type of what is compared.
    Equal,
    /// Not the same.
    NotEqual,
    /// More than.
    GreaterThan,
    /// At least.
    GreaterThanInclusive,
    /// Less than.
    LessThan,
    /// At most.
    LessThanInclusive,
    /// The text holds the value.
    Contains,
    /// The text does not hold the value.
    NotContains,
    /// One of a list.
    In,
    /// The text matches from its start.
    Regex,
    /// A share of all identities.
    PercentageSplit,
    /// `divisor|remainder`.
    Modulo,
    /// There is a value.
    IsSet,
    /// There is none.
    IsNotSet,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// A trait, or a JSON path into the evaluation context. Empty for a split by identity.
    #[serde(default)]
    pub property: String,
    /// How to compare.
    pub operator: Operator,
    /// With what; a list is written as JSON.
    #[serde(default)]
    pub value: String,
}

/// Conditions and sub-rules, taken together as `kind` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// How they are taken together.
    #[serde(rename = "type")]
    pub kind: RuleKind,
    /// Comparisons.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Rules within.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// A part of all identities, told apart by rules that must all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Row number.
    pub id: SegmentId,
    /// Key, unique in its project; SDKs see it as the segment's name.
    pub key: String,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// All must hold; without any, nobody is in it.
    pub rules: Vec<Rule>,
    /// When it was made, in microseconds since the epoch.
    pub created_at: i64,
}

/// One of the values among which identities are shared out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Row number.
    pub id: VariantId,
    /// Key, unique in its feature.
    pub key: String,
    /// Its value.
    pub value: FlagValue,
    /// Its share in a new environment.
    pub weight: Weight,
}

/// How the texts of a feature are to be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// As they are.
    #[default]
    Plain,
    /// As JSON objects or numbers. Only OFREP can carry them as such; Flagsmith's SDKs get the text.
    Json,
}

impl ValueType {
    /// As the store writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Json => "json",
        }
    }

    /// Whether a value can be understood so. Only texts can be wrong.
    #[must_use]
    pub fn fits(self, value: &FlagValue) -> bool {
        let (Self::Json, FlagValue::Text(text)) = (self, value) else { return true };
        let parsed = serde_json::from_str::<serde_json::Value>(text);
        parsed.is_ok_and(|json| json.is_object() || json.is_number())
    }
}

/// The state of a flag for a segment. Its place in the flag's list is its priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentOverride {
    /// The segment.
    pub segment: SegmentId,
    /// Row number of the state: the bucketing seed, like a flag's.
    pub state_id: i64,
    /// The same as a UUID.
    pub state_uuid: String,
    /// On or off.
    pub enabled: bool,
    /// Its value.
    pub value: FlagValue,
    /// Shares of the feature's variants, in their order.
    pub weights: Vec<Weight>,
}

/// A user of the app, as far as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Row number.
    pub id: IdentityId,
    /// The same as a UUID, which newer SDKs prefer.
    pub uuid: String,
    /// What the app calls it, unique in its environment.
    pub identifier: String,
    /// When it was first seen, in microseconds since the epoch.
    pub created_at: i64,
}

/// The state of a flag for one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityOverride {
    /// The feature.
    pub feature: FeatureId,
    /// Row number of the state.
    pub state_id: i64,
    /// The same as a UUID.
    pub state_uuid: String,
    /// On or off.
    pub enabled: bool,
    /// Its value.
    pub value: FlagValue,
}

/// All overrides of one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityOverrides {
    /// Whose.
    pub identity: Identity,
    /// By feature.
    pub overrides: Vec<IdentityOverride>,
}

/// An identity with all that the store knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownIdentity {
    /// Who.
    pub identity: Identity,
    /// What is known of it.
    pub traits: Traits,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "EQUAL",
            Self::NotEqual => "NOT_EQUAL",
            Self::GreaterThan => "GREATER_THAN",
            Self::GreaterThanInclusive => "GREATER_THAN_INCLUSIVE",
            Self::LessThan => "LESS_THAN",
            Self::LessThanInclusive => "LESS_THAN_INCLUSIVE",
            Self::Contains => "CONTAINS",
            Self::NotContains => "NOT_CONTAINS",
            Self::In => "IN",
            Self::Regex => "REGEX",
            Self::PercentageSplit => "PERCENTAGE_SPLIT",
            Self::Modulo => "MODULO",
            Self::IsSet => "IS_SET",
            Self::IsNotSet => "IS_NOT_SET",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_exact_percentages() {
        let weight = Weight::from_percent(33.333).unwrap();
        assert_eq!(weight.thousandths(), 33_333);
        assert_eq!(serde_json::to_string(&weight).unwrap(), "33.333");
        for wrong in [-0.001, 100.001, 1.0001, f64::NAN, f64::INFINITY] {
            assert_eq!(Weight::from_percent(wrong), Err(WeightError), "{wrong}");
        }
        let thirds = [weight, weight, Weight::from_percent(33.334).unwrap()];
        assert!(Weight::fit(&thirds));
        assert!(!Weight::fit(&[Weight::WHOLE, Weight::from_percent(0.001).unwrap()]));
    }

    #[test]
    fn weights_are_named_by_variants_and_share_out_the_whole() {
        let percent = |percent| Weight::from_percent(percent).unwrap();
        let variant = |id, key: &str| Variant {
            id: VariantId(id),
            key: key.to_owned(),
            value: FlagValue::Null,
            weight: Weight::default(),
        };
        let variants = [variant(1, "blue"), variant(2, "red")];
        let present = [percent(30.0), percent(60.0)];
        let merge = |named: &[(&str, f64)]| {
            let named = named.iter().map(|(key, p)| ((*key).to_owned(), percent(*p))).collect();
            merge_weights(&variants, &present, &named)
        };
        assert_eq!(merge(&[("blue", 40.0)]), Ok(vec![percent(40.0), percent(60.0)]));
        assert_eq!(merge(&[("blue", 40.001)]), Err(WeightsError::TooMuch));
        assert_eq!(merge(&[("blue", 100.0), ("red", 0.0)]).unwrap()[0], Weight::WHOLE);
        let unknown = WeightsError::UnknownVariant("green".to_owned());
        assert_eq!(merge(&[("green", 1.0)]), Err(unknown));
    }

    #[test]
    fn texts_of_a_json_feature_are_objects_or_numbers() {
        let text = |text: &str| FlagValue::Text(text.to_owned());
        for right in ["{}", "{\"a\":[1]}", " 0.5", "-1e3"] {
            assert!(ValueType::Json.fits(&text(right)), "{right}");
        }
        for wrong in ["", "[]", "true", "null", "\"a\"", "{", "{}x", "1e999", "NaN"] {
            assert!(!ValueType::Json.fits(&text(wrong)), "{wrong}");
            assert!(ValueType::Plain.fits(&text(wrong)), "{wrong}");
        }
        assert!(ValueType::Json.fits(&FlagValue::Bool(true)));
    }

    #[test]
    fn an_operator_is_written_as_it_is_read() {
        let written = serde_json::to_string(&Operator::GreaterThanInclusive).unwrap();
        assert_eq!(written, format!("\"{}\"", Operator::GreaterThanInclusive));
    }
}
