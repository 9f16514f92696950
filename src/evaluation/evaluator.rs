//! The compiled form of a context: conditions read once, outcomes numbered, overrides sorted.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::context::{Context, FeatureContext, RuleContext};
use super::hash::bucket;
use super::outcome::{CONTROL, Cause, Evaluation, Outcome, Subject};
use super::property::Property;
use super::run::Run;
use super::test::Test;
use crate::model::RuleKind;

/// The deepest rules that are followed; deeper ones are refused when they are written.
const DEPTH_MAX: usize = 64;

/// What decides what everybody gets of an environment at one revision. It never changes.
#[derive(Debug)]
pub struct Evaluator {
    pub(super) context: Context,
    pub(super) features: Vec<Feature>,
    pub(super) segments: Vec<Segment>,
    pub(super) states: Vec<State>,
    outcomes: Vec<Outcome>,
    /// States that identities have for themselves.
    pub(super) identities: HashMap<String, Vec<usize>>,
    /// Whether a condition reads another flag: then the order of things matters.
    pub(super) reads_flags: bool,
}

/// A flag with its states.
#[derive(Debug)]
pub(super) struct Feature {
    pub(super) name: String,
    /// Its own state.
    pub(super) own: usize,
    /// Its states for segments, the strongest first.
    pub(super) overrides: Vec<Overriding>,
}

/// A state of a flag for a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overriding {
    pub(super) segment: usize,
    pub(super) state: usize,
}

/// A segment with its rules read.
#[derive(Debug)]
pub(super) struct Segment {
    /// Seed of its splits.
    pub(super) key: String,
    pub(super) rules: Vec<Rule>,
}

/// A rule with its conditions read.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) kind: RuleKind,
    pub(super) conditions: Vec<Condition>,
    pub(super) rules: Vec<Rule>,
}

/// A condition, read.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) property: Property,
    pub(super) test: Test,
}

/// A state of a flag, and where its outcomes are.
#[derive(Debug)]
pub(super) struct State {
    pub(super) feature: usize,
    /// Seed of its split.
    key: String,
    /// Number of the outcome without a split; control and variants are behind it.
    pub(super) first: u32,
    /// Where the share of each variant ends, in percent.
    pub(super) ends: Vec<f64>,
    /// The smaller, the stronger.
    pub(super) priority: f64,
    /// Told back as it came.
    pub(super) metadata: Option<Json>,
}

impl Evaluator {
    /// Reads a context.
    #[must_use]
    pub fn compile(context: Context) -> Self {
        let mut compiler = Compiler { context: &context, states: Vec::new(), outcomes: Vec::new() };
        let mut features = compiler.features();
        let segments = compiler.segments(&mut features);
        let identities = compiler.identities();
        let Compiler { states, outcomes, .. } = compiler;
        for feature in &mut features {
            // Stable: of equals, the one that comes first in the context is the stronger.
            feature
                .overrides
                .sort_by(|a, b| states[a.state].priority.total_cmp(&states[b.state].priority));
        }
        let reads_flags = segments.iter().flat_map(|segment| &segment.rules).any(Rule::reads_flags);
        Self { context, features, segments, states, outcomes, identities, reads_flags }
    }

    /// Every outcome that can happen, by its number.
    #[must_use]
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The context that it was made of.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What somebody gets.
    #[must_use]
    pub fn evaluate(&self, subject: &Subject<'_>) -> Evaluation {
        let key = self.key_of(subject);
        self.settled(&mut Run::new(self, *subject, key.as_deref()), subject)
    }

    /// The segments that somebody is in, by their places in the context.
    #[must_use]
    pub fn segments_of(&self, subject: &Subject<'_>) -> Vec<usize> {
        let key = self.key_of(subject);
        let mut run = Run::new(self, *subject, key.as_deref());
        drop(run.finish());
        (0..self.segments.len()).filter(|segment| run.matches(*segment)).collect()
    }

    /// The key by which somebody is put into splits.
    pub(super) fn key_of<'s>(&self, subject: &Subject<'s>) -> Option<Cow<'s, str>> {
        match (subject.key, subject.identifier) {
            (Some(key), _) if !key.is_empty() => Some(Cow::Borrowed(key)),
            (_, Some(identifier)) => {
                Some(Cow::Owned(format!("{}_{identifier}", self.context.environment.key)))
            }
            (_, None) => None,
        }
    }

    /// The state that an outcome is of: states are numbered in the order of their outcomes.
    pub(super) fn state_of(&self, number: u32) -> &State {
        &self.states[self.states.partition_point(|state| state.first <= number) - 1]
    }

    /// What a run gives, and over it what this identity has of its own.
    pub(super) fn settled(&self, run: &mut Run<'_>, subject: &Subject<'_>) -> Evaluation {
        let mut evaluation = run.finish();
        let own = subject.identifier.and_then(|identifier| self.identities.get(identifier));
        for state in own.into_iter().flatten() {
            let state = &self.states[*state];
            evaluation.outcomes[state.feature] = state.first;
            evaluation.circular.retain(|feature| *feature != state.feature);
        }
        evaluation
    }

    /// The outcome of a state for the identity with this key.
    pub(super) fn outcome(&self, state: usize, key: Option<&str>) -> u32 {
        let state = &self.states[state];
        let Some(bucket) = state.bucket(key) else { return state.first };
        let place = state.ends.iter().position(|end| bucket <= *end);
        // Behind the plain outcome comes the control's, then those of the variants.
        state.first + place.map_or(1, |variant| numbered(variant) + 2)
    }
}

impl State {
    /// Where the identity with this key falls, if the state has a split.
    pub(super) fn bucket(&self, key: Option<&str>) -> Option<f64> {
        let key = key.filter(|_| !self.ends.is_empty() && !self.key.is_empty())?;
        Some(bucket(&self.key, key))
    }
}

impl Rule {
    fn reads_flags(&self) -> bool {
        let reads = |condition: &Condition| condition.property.reads_flags();
        self.conditions.iter().any(reads) || self.rules.iter().any(Self::reads_flags)
    }
}

/// Gives numbers to the states and outcomes of a context.
struct Compiler<'c> {
    context: &'c Context,
    states: Vec<State>,
    outcomes: Vec<Outcome>,
}

impl Compiler<'_> {
    fn features(&mut self) -> Vec<Feature> {
        let context = self.context;
        let targeted: HashSet<&str> = context
            .segments
            .values()
            .flat_map(|segment| &segment.overrides)
            .chain(context.identity_overrides.values().flatten())
            .map(|state| state.name.as_str())
            .collect();
        let mut features = Vec::with_capacity(context.features.len());
        for (place, feature) in context.features.values().enumerate() {
            let is_targeted = targeted.contains(feature.name.as_str());
            let cause = if is_targeted { Cause::Default } else { Cause::Static };
            let own = self.state(place, feature, &cause);
            features.push(Feature { name: feature.name.clone(), own, overrides: Vec::new() });
        }
        features
    }

    fn segments(&mut self, features: &mut [Feature]) -> Vec<Segment> {
        let context = self.context;
        let places = places(context);
        let mut segments = Vec::with_capacity(context.segments.len());
        for (segment, known) in context.segments.values().enumerate() {
            let rules = known.rules.iter().map(|rule| self.rule(rule, 0)).collect();
            segments.push(Segment { key: known.key.clone(), rules });
            for one in &known.overrides {
                let Some(place) = places.get(one.name.as_str()).copied() else { continue };
                let state = self.state(place, one, &Cause::Segment(known.name.clone()));
                features[place].overrides.push(Overriding { segment, state });
            }
        }
        segments
    }

    fn identities(&mut self) -> HashMap<String, Vec<usize>> {
        let context = self.context;
        let places = places(context);
        let mut identities = HashMap::with_capacity(context.identity_overrides.len());
        for (identifier, known) in &context.identity_overrides {
            let mut states = Vec::with_capacity(known.len());
            for one in known {
                if let Some(place) = places.get(one.name.as_str()) {
                    states.push(self.state(*place, one, &Cause::Identity));
                }
            }
            identities.insert(identifier.clone(), states);
        }
        identities
    }

    /// Numbers a state with its outcomes: the plain one, and with variants the control and each.
    fn state(&mut self, feature: usize, known: &FeatureContext, cause: &Cause) -> usize {
        let mut variants: Vec<_> = known.variants.iter().collect();
        let priority = |priority: Option<f64>| priority.unwrap_or(f64::INFINITY);
        variants.sort_by(|a, b| priority(a.priority).total_cmp(&priority(b.priority)));
        let mut end = 0.0;
        let ends = variants.iter().map(|variant| {
            end += variant.weight;
            end
        });
        self.states.push(State {
            feature,
            key: known.key.clone(),
            first: numbered(self.outcomes.len()),
            ends: ends.collect(),
            priority: priority(known.priority),
            metadata: known.metadata.clone(),
        });
        let plain = Outcome {
            feature,
            enabled: known.enabled,
            value: known.value.clone(),
            variant: None,
            cause: cause.clone(),
        };
        self.outcomes.push(plain.clone());
        if !variants.is_empty() {
            self.outcomes.push(Outcome { variant: Some(CONTROL.to_owned()), ..plain.clone() });
        }
        let segment = match cause {
            Cause::Segment(name) => Some(name),
            _ => None,
        };
        self.outcomes.extend(variants.into_iter().map(|variant| Outcome {
            value: variant.value.clone(),
            variant: variant.key.clone(),
            cause: Cause::Split { weight: variant.weight, segment: segment.cloned() },
            ..plain.clone()
        }));
        self.states.len() - 1
    }

    fn rule(&self, rule: &RuleContext, depth: usize) -> Rule {
        if depth == DEPTH_MAX {
            // Nobody may write such rules; whoever evaluates them all the same is in no such segment.
            let never = Condition { property: Property::Nothing, test: Test::Never };
            return Rule { kind: RuleKind::All, conditions: vec![never], rules: Vec::new() };
        }
        let conditions = rule.conditions.iter().map(|condition| Condition {
            property: Property::parse(&condition.property, &self.context.features),
            test: Test::parse(condition),
        });
        Rule {
            kind: rule.kind,
            conditions: conditions.collect(),
            rules: rule.rules.iter().map(|rule| self.rule(rule, depth + 1)).collect(),
        }
    }
}

fn places(context: &Context) -> HashMap<&str, usize> {
    let features = context.features.values().enumerate();
    features.map(|(place, feature)| (feature.name.as_str(), place)).collect()
}

/// A context has far fewer outcomes than this can count.
fn numbered(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Scalar, Traits};

    fn evaluator(context: serde_json::Value) -> Evaluator {
        Evaluator::compile(serde_json::from_value(context).unwrap())
    }

    /// What each flag is: value, variant and reason.
    fn given(evaluator: &Evaluator, identifier: &str, traits: &[(&str, Scalar)]) -> Vec<String> {
        let traits: Traits =
            traits.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let subject = Subject { identifier: Some(identifier), key: None, traits: &traits };
        let evaluation = evaluator.evaluate(&subject);
        let outcomes = evaluation.outcomes.iter().map(|number| {
            let outcome = &evaluator.outcomes()[*number as usize];
            let variant = outcome.variant.as_deref().unwrap_or("-");
            let value = super::super::seen::Seen::of(&outcome.value).unwrap();
            let value = value.shown();
            format!("{} {variant} {}", value, outcome.cause)
        });
        outcomes.collect()
    }

    #[test]
    fn the_strongest_segment_wins_and_a_split_goes_by_the_identity() {
        let rules = |property: &str, operator: &str, value: &str| {
            json!([{ "type": "ALL", "rules": [], "conditions": [
                { "property": property, "operator": operator, "value": value } ] }])
        };
        let state = |key: &str, value: &str, priority: f64| json!({ "key": key, "name": "f", "enabled": true, "value": value, "priority": priority });
        let evaluator = evaluator(json!({
            "environment": { "key": "env", "name": "Env" },
            "features": {
                "f": { "key": "1", "name": "f", "enabled": true, "value": "own" },
                "split": { "key": "78986", "name": "split", "enabled": true, "value": "control",
                    "variants": [
                        { "key": "a", "value": "A", "weight": 30, "priority": 0 },
                        { "key": "b", "value": "B", "weight": 30, "priority": 1 } ] },
            },
            "segments": {
                "1": { "key": "1", "name": "weak", "rules": rules("age", "GREATER_THAN", "17"),
                    "overrides": [state("2", "weak", 5.0)] },
                "2": { "key": "2", "name": "strong", "rules": rules("plan", "EQUAL", "pro"),
                    "overrides": [state("3", "strong", 1.0)] },
            },
        }));
        let age = ("age", Scalar::Integer(18));
        let plan = ("plan", Scalar::Text("pro".to_owned()));
        let of = |traits: &[_]| given(&evaluator, "u", traits)[0].clone();
        assert_eq!(of(&[]), "own - DEFAULT");
        assert_eq!(of(std::slice::from_ref(&age)), "weak - TARGETING_MATCH; segment=weak");
        assert_eq!(of(&[age, plan]), "strong - TARGETING_MATCH; segment=strong");
        let traits = Traits::new();
        let subject = Subject { identifier: Some("x"), key: Some("32103813"), traits: &traits };
        let number = evaluator.evaluate(&subject).outcomes[1];
        assert_eq!(evaluator.outcomes()[number as usize].variant.as_deref(), Some("b"));
    }

    #[test]
    fn a_flag_that_depends_on_itself_is_named() {
        let reads = |flag: &str| {
            json!([{ "type": "ALL", "conditions": [
                { "property": format!("$.flags.{flag}.enabled"), "operator": "EQUAL", "value": "true" } ] }])
        };
        let state = |name: &str| json!({ "key": name, "name": name, "enabled": true, "value": 1 });
        let evaluator = evaluator(json!({
            "environment": { "key": "env", "name": "Env" },
            "features": { "a": state("a"), "b": state("b"), "c": state("c") },
            "segments": {
                "1": { "key": "1", "name": "reads-b", "rules": reads("b"), "overrides": [state("a")] },
                "2": { "key": "2", "name": "reads-a", "rules": reads("a"), "overrides": [state("b")] },
            },
        }));
        let traits = Traits::new();
        let subject = Subject { identifier: Some("x"), key: None, traits: &traits };
        assert_eq!(evaluator.evaluate(&subject).circular, [0, 1]);
    }
}
