//! Why somebody gets what they get: for each flag what decided it, for each segment what kept them out.
//!
//! The evaluation is the plain one; this asks the run that made it. What is told goes to people, so it
//! shows conditions as they were written.

use serde::Serialize;
use serde_json::Value as Json;

use super::context::{ConditionContext, RuleContext, SegmentContext, unanchored};
use super::evaluator::{Condition, Evaluator, Rule};
use super::hash::bucket;
use super::outcome::{CIRCULAR_REASON, CONTROL, Cause, Subject};
use super::run::Run;
use super::seen::Seen;
use super::test::Test;
use crate::model::{Operator, RuleKind, Scalar};

/// What somebody gets, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Flags in the order of the context.
    pub flags: Vec<ExplainedFlag>,
    /// Segments in the order in which they are tried.
    pub segments: Vec<ExplainedSegment>,
}

/// What a flag is for somebody, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedFlag {
    /// Its name.
    pub name: String,
    /// On or off.
    pub enabled: bool,
    /// Its value.
    pub value: Scalar,
    /// The variant's key, or `control`; none where no split applies.
    pub variant: Option<String>,
    /// In the engine's words.
    pub reason: String,
    /// The segment whose state it is.
    pub segment: Option<String>,
    /// Whether this identity has a state of its own.
    pub identity_override: bool,
    /// The split that was asked, whether a variant or the control came out.
    pub split: Option<ExplainedSplit>,
}

/// Where somebody falls in a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedSplit {
    /// From 0 to 100.
    pub bucket: f64,
    /// The shares in their order; a bucket on an end belongs to the share that ends there.
    pub ranges: Vec<ExplainedRange>,
}

/// The share of a variant, in percent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedRange {
    /// The variant's key, or `control`.
    pub variant: Option<String>,
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
}

/// Whether somebody is in a segment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedSegment {
    /// Its name.
    pub name: String,
    /// Whether they are in it.
    pub matches: bool,
    /// What kept them out.
    pub failed: Option<Failure>,
}

/// The first part of a segment's rules that kept somebody out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// Where it is, such as `rules[0].rules[1].conditions[0]`.
    pub path: String,
    /// What is the matter with it.
    pub why: Why,
    /// How the rule takes its parts together: under `NONE` a condition fails because it holds.
    pub rule: Option<RuleKind>,
    /// The condition, if it is one.
    #[serde(flatten)]
    pub condition: Option<ExplainedCondition>,
}

/// What can be the matter with a part of a segment's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The condition (with `ANY` the first of those that might have held) does not hold.
    DoesNotHold,
    /// It holds and must not: its rule is of type `NONE`.
    Holds,
    /// There are no rules, so nobody is in the segment.
    NoRules,
    /// It rests on a flag that depends on itself.
    Circular,
}

/// A condition beside what it found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedCondition {
    /// What it looks at.
    pub property: String,
    /// How it compares.
    pub operator: Operator,
    /// With what, as it was written.
    pub value: Json,
    /// What was there; null when nothing was.
    pub found: Scalar,
    /// Where that falls, if the condition is a split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<f64>,
}

impl Evaluator {
    /// What somebody gets, and why.
    #[must_use]
    pub fn explain(&self, subject: &Subject<'_>) -> Explanation {
        let key = self.key_of(subject);
        let mut run = Run::new(self, *subject, key.as_deref());
        let evaluation = self.settled(&mut run, subject);
        let numbered = evaluation.outcomes.iter().enumerate();
        let flags = numbered.map(|(place, number)| {
            let is_circular = evaluation.circular.contains(&place);
            self.explained_flag(*number, is_circular, key.as_deref())
        });
        let flags = flags.collect();
        let segments = self.context.segments.values().enumerate();
        let segments = segments.map(|(place, one)| self.explained_segment(&mut run, place, one));
        Explanation { flags, segments: segments.collect() }
    }

    fn explained_flag(&self, number: u32, is_circular: bool, key: Option<&str>) -> ExplainedFlag {
        let outcome = &self.outcomes()[number as usize];
        let reason =
            if is_circular { CIRCULAR_REASON.to_owned() } else { outcome.cause.to_string() };
        let segment = match &outcome.cause {
            Cause::Segment(name) => Some(name.clone()),
            Cause::Split { segment, .. } => segment.clone(),
            Cause::Static | Cause::Default | Cause::Identity => None,
        };
        ExplainedFlag {
            name: self.features[outcome.feature].name.clone(),
            enabled: outcome.enabled,
            value: outcome.value.clone(),
            variant: outcome.variant.clone(),
            reason,
            segment,
            identity_override: outcome.cause == Cause::Identity,
            split: self.explained_split(number, key),
        }
    }

    /// The split of the state that an outcome is of, if it has one and somebody was in it.
    fn explained_split(&self, number: u32, key: Option<&str>) -> Option<ExplainedSplit> {
        let state = self.state_of(number);
        let bucket = state.bucket(key)?;
        let mut from = 0.0;
        let variants = (state.first + 2..).zip(&state.ends).map(|(number, end)| {
            let variant = self.outcomes()[number as usize].variant.clone();
            ExplainedRange { variant, from: std::mem::replace(&mut from, *end), to: *end }
        });
        let mut ranges: Vec<_> = variants.collect();
        if from < 100.0 {
            ranges.push(ExplainedRange { variant: Some(CONTROL.to_owned()), from, to: 100.0 });
        }
        Some(ExplainedSplit { bucket, ranges })
    }

    fn explained_segment<'a>(
        &'a self,
        run: &mut Run<'a>,
        segment: usize,
        context: &SegmentContext,
    ) -> ExplainedSegment {
        let known = &self.segments[segment];
        let matches = run.matches(segment);
        let failed = (!matches).then(|| {
            let mut search = Search { run, seed: &known.key };
            search.first(&known.rules, &context.rules).unwrap_or_else(|| Failure {
                path: "rules".to_owned(),
                why: if known.rules.is_empty() { Why::NoRules } else { Why::Circular },
                rule: None,
                condition: None,
            })
        });
        ExplainedSegment { name: context.name.clone(), matches, failed }
    }
}

/// Looks for what kept somebody out of a segment. Compiled rules lie beside those that they were made
/// of; the deepest ones, which are never followed, have nothing beside them.
struct Search<'r, 'a> {
    run: &'r mut Run<'a>,
    seed: &'r str,
}

impl<'a> Search<'_, 'a> {
    /// The first failure among the rules of a segment, which must all hold.
    fn first(&mut self, rules: &'a [Rule], written: &[RuleContext]) -> Option<Failure> {
        let mut pairs = rules.iter().zip(written).enumerate();
        let (place, (rule, written)) =
            pairs.find(|(_, (rule, _))| !self.run.rule_holds(rule, self.seed))?;
        self.within(rule, written, &format!("rules[{place}]"))
    }

    /// What made this rule fail.
    fn within(&mut self, rule: &'a Rule, written: &RuleContext, path: &str) -> Option<Failure> {
        let fails = |holds: bool| holds == (rule.kind == RuleKind::None);
        let any = rule.kind == RuleKind::Any;
        let why = if rule.kind == RuleKind::None { Why::Holds } else { Why::DoesNotHold };
        let conditions = &rule.conditions;
        // With ANY, one that holds is enough: only when none does the first is to blame.
        let saved = any && conditions.iter().any(|one| self.run.condition_holds(one, self.seed));
        if !saved {
            let found =
                conditions.iter().position(|one| fails(self.run.condition_holds(one, self.seed)));
            if let Some(place) = found {
                let condition = written
                    .conditions
                    .get(place)
                    .map(|written| self.condition(&conditions[place], written));
                let path = format!("{path}.conditions[{place}]");
                return Some(Failure { path, why, rule: Some(rule.kind), condition });
            }
        }
        let place = rule.rules.iter().position(|one| fails(self.run.rule_holds(one, self.seed)))?;
        let path = format!("{path}.rules[{place}]");
        if rule.kind == RuleKind::None {
            return Some(Failure { path, why, rule: Some(rule.kind), condition: None });
        }
        self.within(&rule.rules[place], written.rules.get(place)?, &path)
    }

    fn condition(
        &mut self,
        condition: &'a Condition,
        written: &ConditionContext,
    ) -> ExplainedCondition {
        let found = self.run.found(condition);
        let splits = found.as_ref().filter(|_| matches!(condition.test, Test::Split(_)));
        ExplainedCondition {
            property: written.property.clone(),
            operator: written.operator,
            value: as_written(written),
            bucket: splits.map(|found| bucket(self.seed, &found.shown())),
            found: found.map_or(Scalar::Null, Seen::into_scalar),
        }
    }
}

/// Patterns are given to engines with an anchor; people wrote them without.
fn as_written(condition: &ConditionContext) -> Json {
    let pattern = condition.value.as_str().filter(|_| condition.operator == Operator::Regex);
    let inner = pattern.and_then(unanchored);
    inner.map_or_else(|| condition.value.clone(), Json::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::context::{Context, FeatureContext};
    use super::*;
    use crate::model::Traits;

    fn condition(property: &str, operator: &str, value: &str) -> Json {
        json!({ "property": property, "operator": operator, "value": value })
    }

    fn rule(kind: &str, conditions: &[Json], rules: &[Json]) -> Json {
        json!({ "type": kind, "conditions": conditions, "rules": rules })
    }

    /// How somebody with these traits is in one segment of these rules.
    fn segment(rules: &[Json], traits: &Json) -> ExplainedSegment {
        let context = json!({
            "environment": { "key": "env", "name": "Env" },
            "segments": { "12345": { "key": "12345", "name": "s", "rules": rules } },
        });
        explained(context, "foobar", traits).segments.remove(0)
    }

    fn explained(context: Json, identifier: &str, traits: &Json) -> Explanation {
        let traits: Traits = serde_json::from_value(traits.clone()).unwrap();
        let evaluator = Evaluator::compile(serde_json::from_value(context).unwrap());
        evaluator.explain(&Subject { identifier: Some(identifier), key: None, traits: &traits })
    }

    #[test]
    fn the_first_part_that_fails_is_named() {
        let (pro, old) =
            (condition("plan", "EQUAL", "pro"), condition("age", "GREATER_THAN", "17"));
        let any = rule("ANY", &[pro.clone(), old.clone()], &[]);
        let none = rule("NONE", &[condition("beta", "IS_SET", "")], &[]);
        let rules = [rule("ALL", &[], &[any, none])];
        let failed = |traits: Json| {
            let told = segment(&rules, &traits);
            assert_eq!(told.matches, told.failed.is_none());
            told.failed.map(|failed| (failed.path, failed.why, failed.condition.unwrap().found))
        };
        assert_eq!(failed(json!({ "age": 18 })), None);
        let at = |path: &str, why, found| Some((path.to_owned(), why, found));
        let first = "rules[0].rules[0].conditions[0]";
        assert_eq!(failed(json!({ "age": 17 })), at(first, Why::DoesNotHold, Scalar::Null));
        let free = Scalar::Text("free".to_owned());
        assert_eq!(failed(json!({ "plan": "free" })), at(first, Why::DoesNotHold, free));
        let second = "rules[0].rules[1].conditions[0]";
        let beta = json!({ "plan": "pro", "beta": 1 });
        assert_eq!(failed(beta), at(second, Why::Holds, Scalar::Integer(1)));

        let nested = [rule("NONE", &[], &[rule("ALL", &[pro], &[])])];
        let failed = segment(&nested, &json!({ "plan": "pro" })).failed.unwrap();
        assert_eq!((failed.path.as_str(), failed.why), ("rules[0].rules[0]", Why::Holds));
        // What the conditions of ANY let through can still fail by its rules.
        let old = [old];
        let both = [rule("ANY", &old, &[rule("ALL", &old, &[]), any_of_nobody()])];
        assert!(segment(&both, &json!({ "age": 18 })).matches);
        let stuck = [rule("ANY", &[condition("age", "IS_SET", "")], &[any_of_nobody()])];
        let failed = segment(&stuck, &json!({ "age": 18 })).failed.unwrap();
        assert_eq!(failed.path, "rules[0].rules[0].conditions[0]");
        assert_eq!(segment(&[], &json!({})).failed.unwrap().why, Why::NoRules);
    }

    fn any_of_nobody() -> Json {
        rule("ANY", &[condition("nobody", "IS_SET", "")], &[])
    }

    #[test]
    fn a_split_tells_the_bucket_and_a_pattern_is_as_it_was_written() {
        let split = [rule("ALL", &[condition("", "PERCENTAGE_SPLIT", "1")], &[])];
        let failed = segment(&split, &json!({})).failed.unwrap();
        let told = serde_json::to_value(&failed).unwrap();
        assert_eq!(told["found"], "env_foobar");
        assert_eq!(told["bucket"].as_f64(), Some(bucket("12345", "env_foobar")), "{told}");
        let pattern = [rule("ALL", &[condition("plan", "REGEX", "^(?:pro|max)")], &[])];
        let told = serde_json::to_value(segment(&pattern, &json!({ "plan": "free" }))).unwrap();
        let wanted = json!({
            "name": "s", "matches": false, "failed": {
                "path": "rules[0].conditions[0]", "why": "does_not_hold", "rule": "ALL",
                "property": "plan", "operator": "REGEX", "value": "pro|max", "found": "free",
            },
        });
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_flag_tells_its_segment_its_split_and_its_identity() {
        let variants = json!([
            { "key": "a", "value": "A", "weight": 30, "priority": 0 },
            { "key": "b", "value": "B", "weight": 30, "priority": 1 }]);
        let in_it = rule("ALL", &[condition("$.identity.identifier", "EQUAL", "u")], &[]);
        let mut context: Context = serde_json::from_value(json!({
            "environment": { "key": "env", "name": "Env" },
            "features": {
                "f": { "key": "1", "name": "f", "enabled": false, "value": "own" },
                "mine": { "key": "2", "name": "mine", "enabled": false, "value": "own" },
            },
            "segments": { "1": { "key": "1", "name": "seg", "rules": [in_it], "overrides": [
                { "key": "78986", "name": "f", "enabled": true, "value": "c", "variants": variants },
                { "key": "3", "name": "mine", "enabled": true, "value": "seg" } ] } },
        }))
        .unwrap();
        let own: FeatureContext = serde_json::from_value(
            json!({ "key": "", "name": "mine", "enabled": true, "value": 7 }),
        )
        .unwrap();
        context.identity_overrides.insert("u".to_owned(), vec![own]);
        let evaluator = Evaluator::compile(context);
        let traits = Traits::new();
        let subject = Subject { identifier: Some("u"), key: Some("32103813"), traits: &traits };
        let told = serde_json::to_value(evaluator.explain(&subject)).unwrap();
        let split = &told["flags"][0]["split"];
        assert!((split["bucket"].as_f64().unwrap() - 49.279_856).abs() < 1e-4, "{told}");
        let ranges = json!([
            { "variant": "a", "from": 0.0, "to": 30.0 }, { "variant": "b", "from": 30.0, "to": 60.0 },
            { "variant": "control", "from": 60.0, "to": 100.0 }]);
        assert_eq!(split["ranges"], ranges);
        assert_eq!(told["flags"][0]["variant"], "b");
        assert_eq!(told["flags"][0]["reason"], "SPLIT; weight=30");
        assert_eq!(told["flags"][0]["segment"], "seg");
        let mine = json!({
            "name": "mine", "enabled": true, "value": 7, "variant": null,
            "reason": "TARGETING_MATCH; segment=identity_overrides", "segment": null,
            "identity_override": true, "split": null,
        });
        assert_eq!(told["flags"][1], mine);
        assert_eq!(told["segments"][0], json!({ "name": "seg", "matches": true, "failed": null }));
    }

    #[test]
    fn a_circle_is_told_as_the_reason() {
        let reads = |flag: &str, operator: &str| {
            rule("ALL", &[condition(&format!("$.flags.{flag}.enabled"), operator, "true")], &[])
        };
        let state = |name: &str| json!({ "key": name, "name": name, "enabled": true, "value": 1 });
        let context = json!({
            "environment": { "key": "env", "name": "Env" },
            "features": { "a": state("a"), "b": state("b") },
            "segments": {
                "1": { "key": "1", "name": "reads-b", "rules": [reads("b", "EQUAL")], "overrides": [state("a")] },
                "2": { "key": "2", "name": "no-a", "rules": [reads("a", "IS_NOT_SET")], "overrides": [state("b")] },
            },
        });
        let told = explained(context, "x", &json!({}));
        assert_eq!(told.flags[0].reason, "ERROR; code=CIRCULAR_DEPENDENCY");
        assert!(told.segments.iter().all(|segment| !segment.matches));
        assert_eq!(told.segments[1].failed.as_ref().unwrap().why, Why::Circular);
    }
}
