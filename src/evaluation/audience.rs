//! Who surely has a flag, said without knowing whom the question is about.
//!
//! Systems that decide by themselves, with fewer words than segments have, are told this much. What
//! they are told must be safe: nobody may get a flag by it who would not get it here. So a part of a
//! segment that cannot be said in full counts for nobody where it gives a flag, and for anybody where
//! it takes one away.

use std::collections::BTreeSet;

use super::evaluator::{Condition, Evaluator, Rule, Segment};
use super::property::Property;
use super::test::Test;
use crate::model::RuleKind;

/// Who surely has a flag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Audience {
    /// Whether everybody has it. Then nothing else is said.
    pub everybody: bool,
    /// Those who have it by name.
    pub named: BTreeSet<String>,
    /// The share of all who have it, in percent. Who they are is not said.
    pub share: f64,
}

/// Who is in a segment, as far as it can be said.
#[derive(Debug, PartialEq)]
enum Members {
    Nobody,
    /// These, and nobody else.
    Named(BTreeSet<String>),
    /// A share of all, in percent.
    Share(f64),
    /// It depends on what is known of somebody.
    Unsaid,
}

impl Evaluator {
    /// Who surely has each flag, in the order of the context.
    #[must_use]
    pub fn audiences(&self) -> Vec<Audience> {
        let members: Vec<Members> = self.segments.iter().map(Members::of).collect();
        (0..self.features.len()).map(|feature| self.audience(feature, &members)).collect()
    }

    /// From the strongest state to the weakest: the first that is about somebody decides.
    fn audience(&self, feature: usize, members: &[Members]) -> Audience {
        let mut audience = Audience::default();
        let mut decided = BTreeSet::new();
        // Somebody, perhaps unknown, does not have it.
        let mut is_taken = false;
        for (identifier, is_on) in self.overridden(feature) {
            decided.insert(identifier);
            is_taken |= !is_on;
            if is_on {
                audience.named.insert(identifier.to_owned());
            }
        }
        // Beyond a state that takes the flag from people whom nobody can name, no name is safe.
        let mut is_unsure = false;
        for one in &self.features[feature].overrides {
            let is_on = self.is_on(one.state);
            match &members[one.segment] {
                Members::Nobody => continue,
                Members::Named(names) => {
                    for name in names.iter().filter(|name| decided.insert(name.as_str())) {
                        if is_on && !is_unsure {
                            audience.named.insert(name.clone());
                        }
                    }
                }
                Members::Share(share) if is_on => audience.share = audience.share.max(*share),
                Members::Share(_) | Members::Unsaid => is_unsure |= !is_on,
            }
            is_taken |= !is_on;
        }
        if is_taken {
            audience.share = 0.0;
        } else if self.is_on(self.features[feature].own) {
            return Audience { everybody: true, ..Audience::default() };
        }
        audience
    }

    /// Whether a state gives the flag. Its variants differ in value only.
    fn is_on(&self, state: usize) -> bool {
        self.outcomes()[self.states[state].first as usize].enabled
    }

    /// Who has a state of the flag for themselves, and whether that is on.
    fn overridden(&self, feature: usize) -> impl Iterator<Item = (&str, bool)> {
        self.identities.iter().flat_map(move |(identifier, states)| {
            let own = states.iter().filter(move |state| self.states[**state].feature == feature);
            own.map(|state| (identifier.as_str(), self.is_on(*state)))
        })
    }
}

impl Members {
    fn of(segment: &Segment) -> Self {
        if segment.rules.is_empty() {
            return Self::Nobody;
        }
        Self::together(RuleKind::All, segment.rules.iter().map(Self::of_rule))
    }

    fn of_rule(rule: &Rule) -> Self {
        match (rule.conditions.is_empty(), rule.rules.is_empty()) {
            (false, true) => {
                Self::together(rule.kind, rule.conditions.iter().map(Self::of_condition))
            }
            (true, false) => Self::together(rule.kind, rule.rules.iter().map(Self::of_rule)),
            _ => Self::Unsaid,
        }
    }

    /// One part is itself; several can be said together if all are names.
    fn together(kind: RuleKind, mut parts: impl Iterator<Item = Self>) -> Self {
        let Some(first) = parts.next().filter(|_| kind != RuleKind::None) else {
            return Self::Unsaid;
        };
        parts.fold(first, |so_far, part| match (so_far, part, kind) {
            (Self::Named(names), Self::Named(more), RuleKind::Any) => {
                Self::Named(names.into_iter().chain(more).collect())
            }
            (Self::Named(names), Self::Named(more), _) => {
                Self::Named(names.into_iter().filter(|name| more.contains(name)).collect())
            }
            _ => Self::Unsaid,
        })
    }

    fn of_condition(condition: &Condition) -> Self {
        match (&condition.property, &condition.test) {
            (Property::Identifier, Test::In(names)) => Self::Named(names.iter().cloned().collect()),
            (Property::Identifier, test) => {
                test.only_text().map_or(Self::Unsaid, |name| Self::Named([name.to_owned()].into()))
            }
            (Property::Nothing | Property::IdentityKey, Test::Split(share)) => {
                Self::Share(share.clamp(0.0, 100.0))
            }
            _ => Self::Unsaid,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    /// The audience of the flag `f`, which is off or on by itself, with states for segments from the
    /// strongest to the weakest and for identities.
    fn audience(is_on: bool, segments: &[(Json, bool)], identities: &[(&str, bool)]) -> Audience {
        let state = |enabled: bool, priority: usize| json!({"key": "1", "name": "f", "enabled": enabled, "priority": priority});
        let mut context = json!({
            "environment": {"key": "env", "name": "Env"},
            "features": {"f": state(is_on, 99)},
            "segments": {},
        });
        // The order of the context is not that of strength.
        for (priority, (rules, enabled)) in segments.iter().enumerate().rev() {
            let key = format!("s{priority}");
            context["segments"][&key] = json!({"key": key, "name": key, "rules": rules,
                "overrides": [state(*enabled, priority)]});
        }
        let mut context: super::super::Context = serde_json::from_value(context).unwrap();
        for (identifier, enabled) in identities {
            let own = serde_json::from_value(state(*enabled, 0)).unwrap();
            context.identity_overrides.insert((*identifier).to_owned(), vec![own]);
        }
        Evaluator::compile(context).audiences().remove(0)
    }

    fn condition(property: &str, operator: &str, value: &str) -> Json {
        json!({"property": property, "operator": operator, "value": value})
    }

    fn all(conditions: &[Json]) -> Json {
        json!([{"type": "ALL", "conditions": conditions}])
    }

    fn named(list: &str) -> Json {
        all(&[condition("$.identity.identifier", "IN", list)])
    }

    fn split(percent: &str) -> Json {
        all(&[condition("", "PERCENTAGE_SPLIT", percent)])
    }

    fn paying() -> Json {
        all(&[condition("plan", "EQUAL", "pro")])
    }

    fn of(people: &[&str], share: f64) -> Audience {
        let named = people.iter().map(|name| (*name).to_owned()).collect();
        Audience { everybody: false, named, share }
    }

    fn everybody() -> Audience {
        Audience { everybody: true, ..Audience::default() }
    }

    #[test]
    fn what_is_on_for_all_is_for_everybody_and_nothing_else_is_said() {
        assert_eq!(audience(true, &[], &[]), everybody());
        assert_eq!(audience(false, &[], &[]), of(&[], 0.0));
        let given = [(named("ann"), true), (split("20"), true), (paying(), true)];
        assert_eq!(audience(true, &given, &[("bob", true)]), everybody());
    }

    #[test]
    fn names_and_a_share_are_said() {
        let segments = [(named("ann, bob"), true), (split("12.5"), true), (split("7"), true)];
        assert_eq!(audience(false, &segments, &[("cid", true)]), of(&["ann", "bob", "cid"], 12.5));
        // What depends on traits is for nobody.
        assert_eq!(audience(false, &[(paying(), true)], &[]), of(&[], 0.0));
        assert_eq!(audience(false, &[(json!([]), true)], &[]), of(&[], 0.0));
        assert_eq!(audience(false, &[(split("250"), true)], &[]), of(&[], 100.0));
    }

    /// A gate can only give; so what is taken from anybody is given to nobody but by name.
    #[test]
    fn what_is_taken_from_somebody_is_not_for_everybody() {
        assert_eq!(audience(true, &[], &[("bob", false), ("ann", true)]), of(&["ann"], 0.0));
        assert_eq!(audience(true, &[(named("bob"), false)], &[]), of(&[], 0.0));
        assert_eq!(audience(true, &[(paying(), false)], &[]), of(&[], 0.0));
        assert_eq!(audience(true, &[(split("20"), false)], &[]), of(&[], 0.0));
        assert_eq!(audience(false, &[(split("20"), true)], &[("bob", false)]), of(&[], 0.0));
        assert_eq!(audience(false, &[(split("20"), true), (paying(), false)], &[]), of(&[], 0.0));
        // A segment without rules has nobody in it.
        assert_eq!(audience(true, &[(json!([]), false)], &[]), everybody());
    }

    #[test]
    fn the_strongest_state_decides_about_a_name() {
        let (on, off) = (|list: &str| (named(list), true), |list: &str| (named(list), false));
        assert_eq!(audience(false, &[on("ann"), off("ann,bob")], &[]), of(&["ann"], 0.0));
        assert_eq!(audience(false, &[off("ann"), on("ann,bob")], &[]), of(&["bob"], 0.0));
        assert_eq!(audience(false, &[on("ann,bob")], &[("ann", false)]), of(&["bob"], 0.0));
        assert_eq!(audience(false, &[off("ann")], &[("ann", true)]), of(&["ann"], 0.0));
        // Ann may pay, and then she does not have it.
        let unsure = [on("cid"), (paying(), false), on("ann")];
        assert_eq!(audience(false, &unsure, &[("bob", true)]), of(&["bob", "cid"], 0.0));
        let unsure = [(split("1"), false), on("ann")];
        assert_eq!(audience(false, &unsure, &[]), of(&[], 0.0));
        // A state that gives does not make it unsure.
        assert_eq!(audience(false, &[(paying(), true), on("ann")], &[]), of(&["ann"], 0.0));
    }

    #[test]
    fn a_segment_is_said_only_in_full() {
        let given = |rules: Json| audience(false, &[(rules, true)], &[]);
        let who = |operator: &str, value: &str| condition("$.identity.identifier", operator, value);
        assert_eq!(given(all(&[who("EQUAL", "ann")])), of(&["ann"], 0.0));
        assert_eq!(given(all(&[who("IN", "ann,bob"), who("IN", "bob")])), of(&["bob"], 0.0));
        let any = json!([{"type": "ANY", "conditions": [who("EQUAL", "a"), who("IN", "b,c")]}]);
        assert_eq!(given(any), of(&["a", "b", "c"], 0.0));
        let nested =
            json!([{"type": "ALL", "rules": [{"type": "ANY", "conditions": [who("IN", "a")]}]}]);
        assert_eq!(given(nested), of(&["a"], 0.0));
        let two = json!([named("ann,bob")[0], named("ann,cid")[0]]);
        assert_eq!(given(two), of(&["ann"], 0.0));

        let half = condition("", "PERCENTAGE_SPLIT", "50");
        let plan = condition("plan", "EQUAL", "pro");
        for unsaid in [
            all(&[who("IN", "ann"), plan.clone()]),
            all(&[half.clone(), plan.clone()]),
            all(&[half.clone(), half.clone()]),
            json!([{"type": "ANY", "conditions": [who("IN", "ann"), plan.clone()]}]),
            json!([{"type": "NONE", "conditions": [who("IN", "ann")]}]),
            json!([{"type": "NONE", "conditions": [half]}]),
            json!([{"type": "ALL", "conditions": [], "rules": []}]),
            json!([{"type": "ALL", "conditions": [who("IN", "ann")],
                "rules": [{"type": "ALL", "conditions": [plan]}]}]),
            all(&[who("NOT_EQUAL", "ann")]),
            all(&[who("CONTAINS", "ann")]),
            all(&[who("REGEX", "ann")]),
            all(&[condition("account", "PERCENTAGE_SPLIT", "50")]),
            all(&[condition("identifier", "IN", "ann")]),
            // These are equal to other texts, too: `07`, `TRUE`, `1.2.0`.
            all(&[who("EQUAL", "7")]),
            all(&[who("EQUAL", "0.5")]),
            all(&[who("EQUAL", "true")]),
            all(&[who("EQUAL", "1.2.0:semver")]),
        ] {
            assert_eq!(given(unsaid.clone()), of(&[], 0.0), "{unsaid}");
            let taken = audience(true, &[(unsaid.clone(), false)], &[]);
            assert_eq!(taken, of(&[], 0.0), "{unsaid}");
        }
    }
}
