//! What an evaluation rests on, in the words of Flagsmith's engine context, version 2.
//!
//! A [`Context`] is read from JSON for debugging, and made of an environment's state for serving. The
//! names and the order of things are the engine's: segments are tried in the order of the context.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::model::{
    Condition, EnvironmentState, Feature, Operator, Rule, RuleKind, Scalar, SegmentOverride,
    Traits, Weight,
};

/// Everything that an evaluation rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// Where.
    pub environment: EnvironmentContext,
    /// Who, if somebody in particular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityContext>,
    /// Flags in their own state, by name.
    #[serde(default)]
    pub features: IndexMap<String, FeatureContext>,
    /// Segments by key, in the order in which they are tried.
    #[serde(default)]
    pub segments: IndexMap<String, SegmentContext>,
    /// What single identities get, stronger than any segment.
    #[serde(skip)]
    pub identity_overrides: BTreeMap<String, Vec<FeatureContext>>,
}

/// The environment of a context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentContext {
    /// Its client key; part of every identity's own key.
    pub key: String,
    /// What people call it.
    pub name: String,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdentityContext {
    /// What the app calls it.
    pub identifier: String,
    /// Its key in splits; made of the environment's key and the identifier when empty.
    #[serde(default)]
    pub key: String,
    /// What is known of it.
    #[serde(default)]
    pub traits: Traits,
}

/// A state of a flag: its own, or for a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureContext {
    /// Seed of its split.
    pub key: String,
    /// The name that code asks for.
    pub name: String,
    /// On or off.
    pub enabled: bool,
    /// Its value.
    #[serde(default)]
    pub value: Scalar,
    /// The smaller, the stronger; none is the weakest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<f64>,
    /// Among which identities are shared out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<VariantContext>,
    /// Told back as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
}

/// One of the values of a split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantContext {
    /// Its key, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its value.
    pub value: Scalar,
    /// Its share in percent.
    pub weight: f64,
    /// The smaller, the earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<f64>,
}

/// A segment with the states that flags have for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentContext {
    /// Seed of its percentage splits.
    pub key: String,
    /// What it is called in reasons.
    pub name: String,
    /// All must hold; without any, nobody is in it.
    pub rules: Vec<RuleContext>,
    /// States of flags.
    #[serde(default)]
    pub overrides: Vec<FeatureContext>,
    /// Told back as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
}

/// A rule of a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleContext {
    /// How it takes its parts together.
    #[serde(rename = "type")]
    pub kind: RuleKind,
    /// Comparisons.
    #[serde(default)]
    pub conditions: Vec<ConditionContext>,
    /// Rules within.
    #[serde(default)]
    pub rules: Vec<RuleContext>,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConditionContext {
    /// A trait, or a JSON path into the context.
    #[serde(default)]
    pub property: String,
    /// How to compare.
    pub operator: Operator,
    /// With what: a text, or a list of texts.
    #[serde(default)]
    pub value: Json,
}

impl Context {
    /// The context of an environment, without an identity. Features are in the order of its flags.
    #[must_use]
    pub fn of(state: &EnvironmentState) -> Self {
        let environment = &state.environment;
        let mut segments: IndexMap<String, SegmentContext> = IndexMap::new();
        for segment in &state.segments {
            let context = SegmentContext {
                key: segment.id.0.to_string(),
                name: segment.key.clone(),
                rules: segment.rules.iter().map(rule).collect(),
                overrides: Vec::new(),
                metadata: None,
            };
            segments.insert(context.key.clone(), context);
        }
        for flag in &state.flags {
            for (priority, one) in (0_u32..).zip(&flag.overrides) {
                if let Some(segment) = segments.get_mut(&one.segment.0.to_string()) {
                    segment.overrides.push(overriding(&flag.feature, one, priority));
                }
            }
        }
        let features = state.flags.iter().map(|flag| {
            let (feature, weights) = (&flag.feature, &flag.weights);
            let context = FeatureContext {
                key: flag.state_id.to_string(),
                name: feature.key.clone(),
                enabled: flag.enabled,
                value: Scalar::from(&flag.value),
                priority: None,
                variants: variants(feature, weights),
                metadata: None,
            };
            (feature.key.clone(), context)
        });
        Self {
            environment: EnvironmentContext {
                key: environment.client_key.to_string(),
                name: environment.name.clone(),
            },
            identity: None,
            features: features.collect(),
            segments,
            identity_overrides: identity_overrides(state),
        }
    }
}

/// The pattern as engines get it. Flagsmith's core matches from the start of the text; other engines
/// would look anywhere in it, so the pattern says so itself.
#[must_use]
pub fn anchored(pattern: &str) -> String {
    format!("^(?:{pattern})")
}

/// The pattern as it was written, if it is as engines get it.
#[must_use]
pub fn unanchored(pattern: &str) -> Option<&str> {
    pattern.strip_prefix("^(?:")?.strip_suffix(')')
}

fn overriding(feature: &Feature, one: &SegmentOverride, priority: u32) -> FeatureContext {
    FeatureContext {
        key: one.state_id.to_string(),
        name: feature.key.clone(),
        enabled: one.enabled,
        value: Scalar::from(&one.value),
        priority: Some(f64::from(priority)),
        variants: variants(feature, &one.weights),
        metadata: None,
    }
}

fn variants(feature: &Feature, weights: &[Weight]) -> Vec<VariantContext> {
    let shared = feature.variants.iter().zip(weights).zip(0_u32..);
    shared
        .map(|((variant, weight), priority)| VariantContext {
            key: Some(variant.key.clone()),
            value: Scalar::from(&variant.value),
            weight: weight.percent(),
            priority: Some(f64::from(priority)),
        })
        .collect()
}

/// Identity overrides have no split: one person gets one thing.
fn identity_overrides(state: &EnvironmentState) -> BTreeMap<String, Vec<FeatureContext>> {
    let keys: BTreeMap<_, _> =
        state.flags.iter().map(|flag| (flag.feature.id, flag.feature.key.as_str())).collect();
    let of_one = state.identity_overrides.iter().map(|known| {
        let states = known.overrides.iter().filter_map(|one| {
            Some(FeatureContext {
                key: String::new(),
                name: (*keys.get(&one.feature)?).to_owned(),
                enabled: one.enabled,
                value: Scalar::from(&one.value),
                priority: Some(f64::NEG_INFINITY),
                variants: Vec::new(),
                metadata: None,
            })
        });
        (known.identity.identifier.clone(), states.collect())
    });
    of_one.collect()
}

fn rule(rule: &Rule) -> RuleContext {
    RuleContext {
        kind: rule.kind,
        conditions: rule.conditions.iter().map(condition).collect(),
        rules: rule.rules.iter().map(self::rule).collect(),
    }
}

fn condition(condition: &Condition) -> ConditionContext {
    let value = match condition.operator {
        Operator::Regex => anchored(&condition.value),
        _ => condition.value.clone(),
    };
    ConditionContext {
        property: condition.property.clone(),
        operator: condition.operator,
        value: Json::String(value),
    }
}
