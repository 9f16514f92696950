//! What people may write into rules, checked before it is kept.
//!
//! A server SDK evaluates the same rules by its own engine. So a rule is refused here when an engine would
//! fail on it, when engines are known to answer differently, when it can never hold, or when a text from
//! outside could keep an engine busy. What is left to the value of a trait is told in
//! `docs/TARGETING.md`.

mod condition;
mod dependencies;
mod letters;
mod number;
mod path;
mod stall;

use std::fmt;

pub use dependencies::{Circle, check_dependencies, features_read};

use crate::model::Rule;

/// Rules within one another. Flagsmith's own page makes two levels; more than a few cannot be read, and
/// engines walk them on their stacks.
const DEPTH_MAX: usize = 10;

/// Bytes of a property. The longest path names a trait or a feature.
const PROPERTY_BYTES_MAX: usize = 500;

/// How large rules may be.
#[derive(Clone, Copy, Debug)]
pub struct RuleLimits {
    /// Conditions in all rules of a segment.
    pub conditions: usize,
    /// Bytes of what a condition compares with.
    pub value_bytes: usize,
}

/// What is wrong with rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {rule}")]
pub struct Fault {
    /// Where: `rules[0].rules[2].conditions[1].value`.
    pub path: String,
    /// What is wrong, by which rule, and what to write instead.
    pub rule: String,
}

/// A fault that does not know yet where it is.
#[derive(Debug)]
struct Wrong {
    /// The field of the condition.
    field: &'static str,
    rule: String,
}

/// Checks all rules of a segment. Without any, nobody is in it.
pub fn check_rules(rules: &[Rule], limits: &RuleLimits) -> Result<(), Fault> {
    let mut checker = Checker { limits, conditions: 0 };
    checker.rules(rules, "rules", 1)
}

/// The rules as they are to be kept: lists as text with commas, which is how every engine reads them.
/// For rules that were checked.
#[must_use]
pub fn rules_to_keep(mut rules: Vec<Rule>) -> Vec<Rule> {
    for rule in &mut rules {
        for condition in &mut rule.conditions {
            condition::to_keep(condition);
        }
        rule.rules = rules_to_keep(std::mem::take(&mut rule.rules));
    }
    rules
}

struct Checker<'a> {
    limits: &'a RuleLimits,
    conditions: usize,
}

impl Checker<'_> {
    /// Goes no deeper than rules may be, so that no tree takes more of the stack.
    fn rules(&mut self, rules: &[Rule], place: &str, depth: usize) -> Result<(), Fault> {
        for (number, rule) in rules.iter().enumerate() {
            let path = format!("{place}[{number}]");
            if depth > DEPTH_MAX {
                let rule = format!("rules may be {DEPTH_MAX} deep in one another; flatten them");
                return Err(Fault { path, rule });
            }
            self.conditions += rule.conditions.len();
            let limit = self.limits.conditions;
            if self.conditions > limit {
                let rule = format!(
                    "a segment may have {limit} conditions (`limits.conditions_per_segment`); take IN \
                     for many values, or several segments"
                );
                return Err(Fault { path: format!("{path}.conditions"), rule });
            }
            if rule.conditions.is_empty() && rule.rules.is_empty() {
                let rule = "a rule needs a condition or a rule within; an empty one would hold for \
                    everybody";
                return Err(Fault { path, rule: rule.to_owned() });
            }
            for (number, condition) in rule.conditions.iter().enumerate() {
                condition::check(condition, self.limits).map_err(|Wrong { field, rule }| {
                    Fault { path: format!("{path}.conditions[{number}].{field}"), rule }
                })?;
            }
            self.rules(&rule.rules, &format!("{path}.rules"), depth + 1)?;
        }
        Ok(())
    }
}

fn wrong(field: &'static str, rule: impl fmt::Display) -> Wrong {
    Wrong { field, rule: rule.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIMITS: RuleLimits = RuleLimits { conditions: 4, value_bytes: 1000 };

    fn fault(rules: serde_json::Value) -> Option<Fault> {
        let rules: Vec<Rule> = serde_json::from_value(rules).unwrap();
        check_rules(&rules, &LIMITS).err()
    }

    fn nested(depth: usize) -> Rule {
        let text = r#"{"type":"ANY","conditions":[{"property":"a","operator":"IS_SET"}]}"#;
        let mut rule: Rule = serde_json::from_str(text).unwrap();
        for _ in 1..depth {
            let rules = vec![rule];
            rule = Rule { kind: crate::model::RuleKind::All, conditions: Vec::new(), rules };
        }
        rule
    }

    #[test]
    fn a_fault_says_where_it_is() {
        let good = json!({"property": "a", "operator": "IS_SET"});
        let bad = json!({"property": "a", "operator": "IS_SET", "value": "x"});
        let rules = json!([{"type": "ALL", "rules": [
            {"type": "ANY", "conditions": [good]},
            {"type": "NONE", "conditions": [good, bad]},
        ]}]);
        let fault = fault(rules).unwrap();
        assert_eq!(fault.path, "rules[0].rules[1].conditions[1].value");
        assert!(fault.to_string().starts_with("`rules[0].rules[1].conditions[1].value`: IS_SET"));
    }

    #[test]
    fn conditions_are_counted_in_all_rules_and_none_is_empty() {
        let good = json!({"property": "a", "operator": "IS_SET"});
        let rule = |rules| json!({"type": "ALL", "conditions": [good, good], "rules": rules});
        assert_eq!(fault(json!([rule(json!([])), rule(json!([]))])), None);
        let many = json!([rule(json!([rule(json!([rule(json!([]))]))]))]);
        assert_eq!(fault(many).unwrap().path, "rules[0].rules[0].rules[0].conditions");
        assert_eq!(fault(json!([])), None);
        assert_eq!(
            fault(json!([rule(json!([{"type": "NONE"}]))])).unwrap().path,
            "rules[0].rules[0]"
        );
    }

    #[test]
    fn a_tree_ends_before_the_stack() {
        assert_eq!(check_rules(&[nested(DEPTH_MAX)], &LIMITS), Ok(()));
        let fault = check_rules(&[nested(100)], &LIMITS).unwrap_err();
        assert_eq!(fault.path, format!("rules[0]{}", ".rules[0]".repeat(DEPTH_MAX)));
        assert!(fault.rule.contains("10 deep"), "{}", fault.rule);
    }

    #[test]
    fn lists_are_kept_as_text_at_any_depth() {
        let listed = json!({"property": "a", "operator": "IN", "value": "[\"x\",1]"});
        let rules = json!([{"type": "ALL", "conditions": [listed], "rules": [
            {"type": "ALL", "conditions": [listed]},
        ]}]);
        let kept = rules_to_keep(serde_json::from_value(rules).unwrap());
        assert_eq!(kept[0].conditions[0].value, "x,1");
        assert_eq!(kept[0].rules[0].conditions[0].value, "x,1");
    }

    #[test]
    fn flags_that_rules_read_are_found_at_any_depth() {
        let reads = |path: &str| json!({"property": path, "operator": "EQUAL", "value": "true"});
        let rules = json!([{"type": "ALL", "conditions": [reads("$.flags['a-b'].enabled")], "rules": [
            {"type": "ALL", "conditions": [reads("$.flags.c.value"), reads("d")]},
        ]}]);
        let read = features_read(&serde_json::from_value::<Vec<Rule>>(rules).unwrap());
        assert_eq!(read.into_iter().collect::<Vec<_>>(), ["a-b", "c"]);
    }
}
