//! What a file must keep to: the rules of the management API, and that its parts fit together.

mod environment;
mod identity;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Document, Fault, FeaturePart, ProjectPart, SegmentPart};
use crate::config::Limits;
use crate::evaluation::{RuleLimits, check_rules, features_read};
use crate::model::{FeatureKey, FlagValue, Weight};
use crate::rules::{
    Broken, broken_key, check_description, check_name, check_sum, check_tags, check_type,
    check_value, check_variant_key, key_of, segment_key,
};

/// Numbers of segments and of flags' own states. Those of overrides begin behind them.
const SEEDS: std::ops::RangeInclusive<i64> = 1..=1_000_000_000;

/// Numbers of states for segments. Those for identities begin behind them.
const OVERRIDE_SEEDS: std::ops::RangeInclusive<i64> = 1_000_000_001..=2_000_000_000;

/// Rules that depend on the settings.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// How much there may be of everything.
    pub limits: &'a Limits,
    /// Private targets that webhooks may reach.
    pub allowed_targets: &'a [IpNet],
}

/// What has been seen of a file while it is checked.
struct Seen<'a> {
    rules: Rules<'a>,
    features: BTreeMap<&'a str, &'a FeaturePart>,
    segments: BTreeMap<&'a str, &'a SegmentPart>,
    environments: BTreeSet<&'a str>,
    client_keys: BTreeSet<&'a str>,
    server_keys: BTreeSet<&'a str>,
    seeds: BTreeSet<i64>,
    override_seeds: BTreeSet<i64>,
}

impl Document {
    /// Checks all of it. After that it can be made as it is, if the store has room.
    pub fn check(&self, rules: Rules<'_>) -> Result<(), Fault> {
        let project = &self.project;
        key_of(&project.key).map_err(at("project"))?;
        check_name(&project.name).map_err(at("project"))?;
        let mut seen = Seen {
            rules,
            features: BTreeMap::new(),
            segments: BTreeMap::new(),
            environments: BTreeSet::new(),
            client_keys: BTreeSet::new(),
            server_keys: BTreeSet::new(),
            seeds: BTreeSet::new(),
            override_seeds: BTreeSet::new(),
        };
        seen.count(project)?;
        seen.features(project)?;
        seen.segments(project)?;
        for (number, environment) in project.environments.iter().enumerate() {
            seen.environment(&format!("project.environments[{number}]"), environment)?;
        }
        Ok(())
    }
}

impl<'a> Seen<'a> {
    fn count(&self, project: &ProjectPart) -> Result<(), Fault> {
        let limits = self.rules.limits;
        for (path, count, setting, limit) in [
            (
                "segments",
                project.segments.len(),
                "segments_per_project",
                limits.segments_per_project,
            ),
            (
                "features",
                project.features.len(),
                "features_per_project",
                limits.features_per_project,
            ),
            (
                "environments",
                project.environments.len(),
                "environments_per_project",
                limits.environments_per_project,
            ),
        ] {
            check_count(&format!("project.{path}"), count, setting, limit)?;
        }
        Ok(())
    }

    fn features(&mut self, project: &'a ProjectPart) -> Result<(), Fault> {
        let mut folded = BTreeSet::new();
        for (number, feature) in project.features.iter().enumerate() {
            let path = format!("project.features[{number}]");
            let key = FeatureKey::parse(&feature.key)
                .map_err(|error| Fault::new(&path, broken_key(error, &feature.key)))?;
            if !folded.insert(key.folded()) {
                let rule = format!(
                    "there are two features `{}`; keys must differ in more than case",
                    key.folded()
                );
                return Err(Fault::new(format!("{path}.key"), rule));
            }
            self.feature(&path, feature)?;
            self.features.insert(&feature.key, feature);
        }
        Ok(())
    }

    fn feature(&self, path: &str, feature: &FeaturePart) -> Result<(), Fault> {
        let limits = self.rules.limits;
        check_description(&feature.description).map_err(at(path))?;
        check_tags(&feature.tags).map_err(at(path))?;
        self.value(path, &feature.value, feature)?;
        let (variants, limit) = (&feature.variants, limits.variants_per_feature);
        check_count(&format!("{path}.variants"), variants.len(), "variants_per_feature", limit)?;
        let mut keys = BTreeSet::new();
        for (number, variant) in variants.iter().enumerate() {
            let path = format!("{path}.variants[{number}]");
            check_variant_key(&variant.key).map_err(at(&path))?;
            if !keys.insert(&variant.key) {
                return Err(twice(&format!("{path}.key"), "variants", &variant.key));
            }
            self.value(&path, &variant.value, feature)?;
        }
        let weights: Vec<Weight> = variants.iter().map(|variant| variant.weight).collect();
        check_sum("variants", &weights).map_err(at(path))
    }

    fn segments(&mut self, project: &'a ProjectPart) -> Result<(), Fault> {
        let limits = self.rules.limits;
        let rule_limits = RuleLimits {
            conditions: usize::try_from(limits.conditions_per_segment).unwrap_or(usize::MAX),
            value_bytes: limits.condition_value_bytes,
        };
        let mut seeds = BTreeSet::new();
        for (number, segment) in project.segments.iter().enumerate() {
            let path = format!("project.segments[{number}]");
            segment_key(&segment.key).map_err(at(&path))?;
            check_name(&segment.name).map_err(at(&path))?;
            check_description(&segment.description).map_err(at(&path))?;
            check_rules(&segment.rules, &rule_limits)
                .map_err(|wrong| Fault::new(format!("{path}.{}", wrong.path), wrong.rule))?;
            for read in features_read(&segment.rules) {
                if !self.features.contains_key(read.as_str()) {
                    return Err(unknown(&format!("{path}.rules"), "feature", &read));
                }
            }
            check_seed(&path, segment.seed, &SEEDS, &mut seeds)?;
            if self.segments.insert(&segment.key, segment).is_some() {
                return Err(twice(&format!("{path}.key"), "segments", &segment.key));
            }
        }
        Ok(())
    }

    /// Checks a value of a feature.
    fn value(&self, path: &str, value: &FlagValue, feature: &FeaturePart) -> Result<(), Fault> {
        check_value("value", value, self.rules.limits).map_err(at(path))?;
        check_type("value", value, feature.value_type).map_err(at(path))
    }

    fn feature_of(&self, path: &str, key: &str) -> Result<&'a FeaturePart, Fault> {
        let found = self.features.get(key).copied();
        found.ok_or_else(|| unknown(&format!("{path}.feature"), "feature", key))
    }
}

/// Checks the shares that a state gives the variants of its feature.
fn check_weights(
    path: &str,
    weights: &BTreeMap<String, Weight>,
    feature: &FeaturePart,
) -> Result<(), Fault> {
    for key in weights.keys() {
        if !feature.variants.iter().any(|variant| variant.key == *key) {
            let rule = format!("feature `{}` has no variant `{key}`", feature.key);
            return Err(Fault::new(format!("{path}.weights"), rule));
        }
    }
    let all: Vec<Weight> = weights.values().copied().collect();
    check_sum("weights", &all).map_err(at(path))
}

/// A broken rule, with where it was broken.
fn at(path: &str) -> impl Fn(Broken) -> Fault {
    move |broken| Fault::new(path, broken)
}

fn twice(path: &str, what: &str, key: &str) -> Fault {
    Fault::new(path, format!("there are two {what} `{key}`"))
}

fn unknown(path: &str, what: &str, key: &str) -> Fault {
    Fault::new(path, format!("there is no {what} `{key}` in this file"))
}

fn check_count(path: &str, count: usize, setting: &str, limit: u32) -> Result<(), Fault> {
    if count <= limit as usize {
        return Ok(());
    }
    let rule = format!("there are {count}, and `limits.{setting}` allows {limit}; raise it first");
    Err(Fault::new(path, rule))
}

fn check_seed(
    path: &str,
    seed: i64,
    range: &std::ops::RangeInclusive<i64>,
    known: &mut BTreeSet<i64>,
) -> Result<(), Fault> {
    let path = format!("{path}.seed");
    if !range.contains(&seed) {
        let (first, last) = (range.start(), range.end());
        return Err(Fault::new(path, format!("must be {first} to {last}, not {seed}")));
    }
    if !known.insert(seed) {
        return Err(Fault::new(path, format!("{seed} is another's seed, too")));
    }
    Ok(())
}

fn check_uuid(path: &str, text: &str) -> Result<(), Fault> {
    let parsed = uuid::Uuid::try_parse(text);
    if parsed.is_ok_and(|uuid| uuid.hyphenated().to_string() == text) {
        return Ok(());
    }
    let rule = "must be a UUID such as 0f21cde8-63c5-4e50-baca-87897fa6cd01";
    Err(Fault::new(format!("{path}.uuid"), rule))
}
