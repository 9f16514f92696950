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
