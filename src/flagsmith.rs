//! Flagsmith's environment document as it comes: the shape of `GET /api/v1/environment-document/`.
//!
//! A fixture is made of one, and so is what a relay holds in front of Flagsmith. What both must understand
//! alike is here: versions of Flagsmith differ in what they leave out, in what is null, and in whether a
//! number is one or a text. Only what cannot be understood is refused, and then the place is named.

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use crate::evaluation::unanchored;
use crate::model::{Condition, FlagValue, Operator, Rule, RuleKind, ValueError, Weight};

/// A document. Only what matters here; it has more.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are Flagsmith's")]
pub struct Document {
    #[serde(default, deserialize_with = "whole")]
    pub id: Option<i64>,
    pub api_key: String,
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    #[serde(default)]
    pub updated_at: Option<String>,
    #[serde(default)]
    pub allow_client_traits: Option<bool>,
    #[serde(default)]
    pub hide_disabled_flags: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    pub hide_sensitive_data: bool,
    #[serde(default)]
    pub use_identity_composite_key_for_hashing: Option<bool>,
    pub project: ProjectPart,
    #[serde(deserialize_with = "or_default")]
    pub feature_states: Vec<StatePart>,
    #[serde(default, deserialize_with = "or_default")]
    pub identity_overrides: Vec<IdentityPart>,
}

/// What belongs to all environments of a project.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are Flagsmith's")]
pub struct ProjectPart {
    #[serde(default, deserialize_with = "whole")]
    pub id: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub hide_disabled_flags: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub segments: Vec<SegmentPart>,
    #[serde(default, deserialize_with = "or_default")]
    pub server_key_only_feature_ids: Vec<i64>,
    #[serde(default, deserialize_with = "or_default")]
    pub organisation: OrganisationPart,
}

/// What belongs to all projects of an organisation.
#[derive(Debug, Default, Deserialize)]
#[expect(missing_docs, reason = "the names are Flagsmith's")]
pub struct OrganisationPart {
    #[serde(default)]
    pub persist_trait_data: Option<bool>,
}

/// A segment, with the states that flags have for it.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are Flagsmith's")]
pub struct SegmentPart {
    #[serde(deserialize_with = "needed_whole")]
    pub id: i64,
    pub name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub rules: Vec<RulePart>,
    #[serde(default, deserialize_with = "or_default")]
    pub feature_states: Vec<StatePart>,
}

/// A rule.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are Flagsmith's")]
pub struct RulePart {
    #[serde(rename = "type")]
    pub kind: RuleKind,
    #[serde(default, deserialize_with = "or_default")]
    pub conditions: Vec<ConditionPart>,
    #[serde(default, deserialize_with = "or_default")]
    pub rules: Vec<RulePart>,
}

/// A comparison.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are Flagsmith's")]
pub struct ConditionPart {
    pub operator: Operator,
    #[serde(default, rename = "property_", deserialize_with = "or_default")]
    pub property: String,
    #[serde(default, deserialize_with = "text")]
    pub value: String,
}

/// A state of a flag, whoever it is for.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are Flagsmith's")]
pub struct StatePart {
    pub feature: FeaturePart,
    pub enabled: bool,
    #[serde(default, deserialize_with = "whole")]
    pub django_id: Option<i64>,
    #[serde(default)]
    pub featurestate_uuid: Option<String>,
    #[serde(default)]
    pub feature_segment: Option<FeatureSegment>,
    #[serde(default, deserialize_with = "flag_value")]
    pub feature_state_value: FlagValue,
    #[serde(default, deserialize_with = "or_default")]
    pub multivariate_feature_state_values: Vec<SharePart>,
}

/// Whose state it is.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are Flagsmith's")]
pub struct FeaturePart {
    #[serde(deserialize_with = "needed_whole")]
    pub id: i64,
    pub name: String,
}

/// How strong a state for a segment is.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are Flagsmith's")]
pub struct FeatureSegment {
    #[serde(default, deserialize_with = "whole")]
    pub priority: Option<i64>,
}

/// The share of a variant.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are Flagsmith's")]
pub struct SharePart {
    #[serde(default, deserialize_with = "whole")]
    pub id: Option<i64>,
    #[serde(default)]
    pub mv_fs_value_uuid: Option<String>,
    #[serde(deserialize_with = "share")]
    pub percentage_allocation: Weight,
    pub multivariate_feature_option: OptionPart,
}

/// A variant.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are Flagsmith's")]
pub struct OptionPart {
    #[serde(default, deserialize_with = "whole")]
    pub id: Option<i64>,
    #[serde(default, deserialize_with = "flag_value")]
    pub value: FlagValue,
    #[serde(default)]
    pub key: Option<String>,
}

/// An identity for which flags are something of their own.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are Flagsmith's")]
pub struct IdentityPart {
    pub identifier: String,
    #[serde(default, deserialize_with = "whole")]
    pub django_id: Option<i64>,
    #[serde(default)]
    pub identity_uuid: Option<String>,
    #[serde(default)]
    pub created_date: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub identity_features: Vec<StatePart>,
}

impl StatePart {
    /// How strong it is among the states of its flag for segments: the smaller, the stronger.
    #[must_use]
    pub fn priority(&self) -> i64 {
        self.feature_segment.as_ref().and_then(|one| one.priority).unwrap_or(i64::MAX)
    }
}

impl OptionPart {
    /// Its key; those of older versions have none.
    #[must_use]
    pub fn key(&self) -> String {
        let given = self.key.as_deref().filter(|key| !key.is_empty());
        given.map_or_else(|| format!("variant-{}", self.id.unwrap_or_default()), str::to_owned)
    }
}

impl From<RulePart> for Rule {
    fn from(part: RulePart) -> Self {
        Self {
            kind: part.kind,
            conditions: part.conditions.into_iter().map(Condition::from).collect(),
            rules: part.rules.into_iter().map(Self::from).collect(),
        }
    }
}

impl From<ConditionPart> for Condition {
    fn from(part: ConditionPart) -> Self {
        let ConditionPart { property, operator, value } = part;
        let value = match operator {
            // Our documents anchor a pattern; we hold it as it was written.
            Operator::Regex => unanchored(&value).map(str::to_owned).unwrap_or(value),
            _ => value,
        };
        Self { property, operator, value }
    }
}

/// Null is what is not there.
fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let json = Json::deserialize(deserializer)?;
    let number = match &json {
        Json::Null => return Ok(None),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Some(whole),
            None => number.to_string().strip_suffix(".0").and_then(|whole| whole.parse().ok()),
        },
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.map(Some).ok_or_else(|| de::Error::custom(format!("must be a whole number, not {json}")))
}

fn needed_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    whole(deserializer)?.ok_or_else(|| de::Error::custom("must be a whole number, not null"))
}

/// Flagsmith takes any fraction of a percent. Its engines tell ten thousand places apart, so thousandths
/// are as good.
fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Weight, D::Error> {
    let json = Json::deserialize(deserializer)?;
    let percent = match &json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let rounded = percent.map(|percent: f64| (percent * 1000.0).round() / 1000.0);
    rounded
        .and_then(|percent| Weight::from_percent(percent).ok())
        .ok_or_else(|| de::Error::custom(format!("must be a percentage from 0 to 100, not {json}")))
}

/// The value of a condition is a text; what is none is written as one.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Json::deserialize(deserializer)? {
        Json::Null => String::new(),
        Json::String(text) => text,
        other => other.to_string(),
    })
}

/// A number that not every SDK could carry is served as a text.
fn flag_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FlagValue, D::Error> {
    let json = Json::deserialize(deserializer)?;
    let text = json.to_string();
    match FlagValue::from_json(json) {
        Ok(value) => Ok(value),
        Err(ValueError::Fraction | ValueError::IntegerTooLarge) => Ok(FlagValue::Text(text)),
        Err(error @ ValueError::Structure) => Err(de::Error::custom(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_older_versions_leave_out_or_write_otherwise_is_understood() {
        let document = json!({
            "id": "23", "api_key": "key", "name": null, "updated_at": null,
            "hide_disabled_flags": null, "hide_sensitive_data": null,
            "project": { "segments": [{ "id": 16.0, "name": "VIP users", "rules": [
                { "type": "ALL", "conditions": null, "rules": [{ "type": "NONE", "conditions": [
                    { "operator": "IS_SET", "property_": "plan", "value": null },
                    { "operator": "PERCENTAGE_SPLIT", "property_": null, "value": 10 },
                    { "operator": "IN", "property_": "plan", "value": ["a", "b"] } ] }] } ] }] },
            "feature_states": [{ "feature": { "id": 7, "name": "My flag!", "type": "STANDARD" },
                "enabled": true, "feature_state_value": 0.5,
                "multivariate_feature_state_values": [{ "id": null,
                    "percentage_allocation": "33.3333333",
                    "multivariate_feature_option": { "value": "a" } }] }],
        });
        let document: Document = serde_json::from_value(document).unwrap();
        assert_eq!((document.id, document.name.as_str()), (Some(23), ""));
        let state = &document.feature_states[0];
        assert_eq!(state.feature_state_value, FlagValue::Text("0.5".to_owned()));
        let share = &state.multivariate_feature_state_values[0];
        assert_eq!(share.percentage_allocation.thousandths(), 33_333);
        assert_eq!(share.multivariate_feature_option.key(), "variant-0");
        assert_eq!(state.priority(), i64::MAX);
        let mut segments = document.project.segments;
        let rule = Rule::from(segments.remove(0).rules.remove(0));
        let values: Vec<&str> =
            rule.rules[0].conditions.iter().map(|one| one.value.as_str()).collect();
        assert_eq!(values, ["", "10", r#"["a","b"]"#]);
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let state = json!({ "feature": { "id": 7, "name": "f" }, "enabled": true });
        for (key, wrong) in [
            ("feature_state_value", json!({ "a": 1 })),
            ("django_id", json!("many")),
            ("feature", json!({ "id": null, "name": "f" })),
            (
                "multivariate_feature_state_values",
                json!([{ "percentage_allocation": 101,
                "multivariate_feature_option": { "value": 1 } }]),
            ),
        ] {
            let mut state = state.clone();
            state[key] = wrong;
            assert!(serde_json::from_value::<StatePart>(state).is_err(), "{key}");
        }
        let unknown = json!({ "operator": "SOUNDS_LIKE", "property_": "p", "value": "v" });
        let error = serde_json::from_value::<ConditionPart>(unknown).unwrap_err();
        assert!(error.to_string().contains("SOUNDS_LIKE"), "{error}");
    }
}
