//! One evaluation: each segment is tried at most once, and only if somebody wants to know.
//!
//! Where conditions read other flags, a flag is decided when it is read. One that is being decided already
//! depends on itself: what rests on it does not hold, and all flags of the circle are named.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeSet;

use jsonpath_rust::query::js_path_process;
use serde_json::{Value as Json, json};

use super::evaluator::{Condition, Evaluator, Feature, Rule};
use super::hash::bucket;
use super::outcome::{Evaluation, Subject};
use super::property::{FlagField, Property};
use super::test::{Test, shown};
use crate::model::{RuleKind, Scalar};

/// Flags that may rest on each other in a chain; a longer one is taken for a circle. Fewer are let in
/// when they are written: this is for contexts that nobody checked, so that none exhausts the stack.
const CHAIN_MAX: usize = 16;

/// An evaluation under way.
pub(super) struct Run<'e: 's, 's> {
    evaluator: &'e Evaluator,
    subject: Subject<'s>,
    key: Option<&'s str>,
    /// Whether the subject is in a segment, as far as that is known.
    segments: Vec<Option<bool>>,
    /// Outcomes of flags that conditions read.
    read: Vec<Option<u32>>,
    /// Flags that are being decided, the outermost first.
    deciding: Vec<usize>,
    circular: BTreeSet<usize>,
    /// Grows whenever a circle is cut, so that what rests on one is told apart.
    cuts: usize,
    /// The context as paths see it, made when the first one is followed.
    json: OnceCell<Json>,
}

impl<'e, 's> Run<'e, 's> {
    pub(super) fn new(
        evaluator: &'e Evaluator,
        subject: Subject<'s>,
        key: Option<&'s str>,
    ) -> Self {
        let read = if evaluator.reads_flags { evaluator.features.len() } else { 0 };
        Self {
            evaluator,
            subject,
            key,
            segments: vec![None; evaluator.segments.len()],
            read: vec![None; read],
            deciding: Vec::new(),
            circular: BTreeSet::new(),
            cuts: 0,
            json: OnceCell::new(),
        }
    }

    /// Decides every flag.
    pub(super) fn finish(&mut self) -> Evaluation {
        let evaluator = self.evaluator;
        let features = evaluator.features.iter();
        let outcomes = if evaluator.reads_flags {
            // All segments are tried first, in the order of the context, as every engine does: where a
            // circle is cut depends on where it is entered.
            let hold: Vec<bool> =
                (0..evaluator.segments.len()).map(|one| self.is_in(one)).collect();
            let decided = features.enumerate().map(|(place, feature)| {
                let read = self.read[place];
                read.unwrap_or_else(|| self.decide(feature, |_, segment| hold[segment]))
            });
            decided.collect()
        } else {
            features.map(|feature| self.decide(feature, Self::is_in)).collect()
        };
        Evaluation { outcomes, circular: self.circular.iter().copied().collect() }
    }

    /// Whether the subject turned out to be in a segment, once the run is finished.
    pub(super) fn matches(&mut self, segment: usize) -> bool {
        if self.evaluator.reads_flags {
            // What is not remembered rests on a circle.
            return self.segments[segment].unwrap_or(false);
        }
        self.is_in(segment)
    }

    /// What a condition looks at; for a split by identity that is its key.
    pub(super) fn found(&mut self, condition: &Condition) -> Scalar {
        if let (Test::Split(_), Property::Nothing) = (&condition.test, &condition.property) {
            return self.key.map_or(Scalar::Null, |key| Scalar::Text(key.to_owned()));
        }
        self.value(&condition.property).map_or(Scalar::Null, Cow::into_owned)
    }

    /// The outcome of a flag, by the strongest of the segments that apply.
    fn decide(
        &mut self,
        feature: &Feature,
        mut applies: impl FnMut(&mut Self, usize) -> bool,
    ) -> u32 {
        let winner = feature.overrides.iter().find(|one| applies(self, one.segment));
        self.evaluator.outcome(winner.map_or(feature.own, |one| one.state), self.key)
    }

    /// Whether the subject is in a segment. What rests on a circle is not, and is not remembered.
    fn is_in(&mut self, segment: usize) -> bool {
        if let Some(known) = self.segments[segment] {
            return known;
        }
        let cuts = self.cuts;
        let evaluator = self.evaluator;
        let one = &evaluator.segments[segment];
        let holds =
            !one.rules.is_empty() && one.rules.iter().all(|rule| self.rule_holds(rule, &one.key));
        if self.cuts != cuts {
            return false;
        }
        self.segments[segment] = Some(holds);
        holds
    }

    pub(super) fn rule_holds(&mut self, rule: &Rule, seed: &str) -> bool {
        let mut conditions = rule.conditions.iter();
        let hold = match rule.kind {
            _ if rule.conditions.is_empty() => true,
            RuleKind::All => conditions.all(|condition| self.condition_holds(condition, seed)),
            RuleKind::Any => conditions.any(|condition| self.condition_holds(condition, seed)),
            RuleKind::None => !conditions.any(|condition| self.condition_holds(condition, seed)),
        };
        if !hold || rule.rules.is_empty() {
            return hold;
        }
        let mut rules = rule.rules.iter();
        match rule.kind {
            RuleKind::All => rules.all(|rule| self.rule_holds(rule, seed)),
            RuleKind::Any => rules.any(|rule| self.rule_holds(rule, seed)),
            RuleKind::None => !rules.any(|rule| self.rule_holds(rule, seed)),
        }
    }

    pub(super) fn condition_holds(&mut self, condition: &Condition, seed: &str) -> bool {
        if let (Test::Split(percent), Property::Nothing) = (&condition.test, &condition.property) {
            return self.key.is_some_and(|key| bucket(seed, key) <= *percent);
        }
        let value = self.value(&condition.property);
        match &condition.test {
            Test::Split(percent) => {
                value.is_some_and(|value| bucket(seed, &shown(&value)) <= *percent)
            }
            test => test.holds(value.as_deref()),
        }
    }

    /// What a condition looks at; null is nothing. Traits and flags are lent, for conditions are many.
    fn value(&mut self, property: &Property) -> Option<Cow<'s, Scalar>> {
        let text = |text: &str| Some(Cow::Owned(Scalar::Text(text.to_owned())));
        let environment = &self.evaluator.context.environment;
        match property {
            Property::Nothing => None,
            Property::Trait(name) => self.trait_of(name),
            Property::EnvironmentKey => text(&environment.key),
            Property::EnvironmentName => text(&environment.name),
            Property::Identifier => self.subject.identifier.and_then(text),
            Property::IdentityKey => self.key.and_then(text),
            Property::TraitPath { name, trait_name } => {
                self.trait_of(name).or_else(|| self.trait_of(trait_name))
            }
            Property::Flag { feature, field } => self.flag(*feature, *field),
            Property::UnknownFlag { trait_name } => self.trait_of(trait_name),
            Property::Path { query, trait_name } => {
                let found = js_path_process(query, self.json()).ok();
                let first =
                    found.and_then(|found| found.into_iter().next().map(|one| one.val().clone()));
                let value = first.and_then(|json| Scalar::from_json(json).ok());
                value
                    .filter(|value| *value != Scalar::Null)
                    .map(Cow::Owned)
                    .or_else(|| self.trait_of(trait_name))
            }
        }
    }

    fn trait_of(&self, name: &str) -> Option<Cow<'s, Scalar>> {
        let value = self.subject.traits.get(name).filter(|value| **value != Scalar::Null)?;
        Some(Cow::Borrowed(value))
    }

    /// A field of another flag, which is decided now if it was not yet.
    fn flag(&mut self, place: usize, field: FlagField) -> Option<Cow<'s, Scalar>> {
        if self.read[place].is_none() {
            self.read_flag(place);
        }
        let outcomes: &'e [_] = self.evaluator.outcomes();
        let outcome = &outcomes[self.read[place]? as usize];
        match field {
            FlagField::Enabled => Some(Cow::Owned(Scalar::Bool(outcome.enabled))),
            FlagField::Value => {
                Some(&outcome.value).filter(|value| **value != Scalar::Null).map(Cow::Borrowed)
            }
            FlagField::Variant => Some(Cow::Owned(Scalar::Text(outcome.variant.clone()?))),
        }
    }

    fn read_flag(&mut self, place: usize) {
        let circle = self.deciding.iter().position(|one| *one == place);
        let circle = circle.or((self.deciding.len() == CHAIN_MAX).then_some(0));
        if let Some(start) = circle {
            self.circular.extend(&self.deciding[start..]);
        }
        if circle.is_some() || self.circular.contains(&place) {
            self.cuts += 1;
            return;
        }
        self.deciding.push(place);
        // Every segment that targets it is tried, so that a circle is found wherever it is entered.
        let feature = &self.evaluator.features[place];
        let targets: BTreeSet<usize> = feature.overrides.iter().map(|one| one.segment).collect();
        let hold: BTreeSet<usize> = targets.into_iter().filter(|one| self.is_in(*one)).collect();
        let outcome = self.decide(feature, |_, segment| hold.contains(&segment));
        self.deciding.pop();
        if !self.circular.contains(&place) {
            self.read[place] = Some(outcome);
        }
    }

    fn json(&self) -> &Json {
        self.json.get_or_init(|| {
            let mut context = json!(self.evaluator.context);
            if let Some(identifier) = self.subject.identifier {
                context["identity"] = json!({
                    "identifier": identifier, "key": self.key, "traits": self.subject.traits,
                });
            }
            context
        })
    }
}
