//! The comparison of a condition, read once: numbers, patterns, versions and lists.
//!
//! A comparison goes by the type of what it looks at. What cannot be read as that type does not hold,
//! whichever way it was asked.

use std::collections::HashSet;
use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};
use semver::Version;
use serde_json::Value as Json;

use super::context::ConditionContext;
use super::seen::Seen;
use crate::model::Operator;

/// Memory that a pattern may take when compiled; more is refused when it is written.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Marks a text that is a version.
pub(super) const SEMVER_SUFFIX: &str = ":semver";

/// A comparison.
#[derive(Debug)]
pub(super) enum Test {
    /// There is a value.
    Set,
    /// There is none.
    NotSet,
    /// One of a list.
    In(HashSet<String>),
    /// In the first percent of a split.
    Split(f64),
    /// The remainder of a division.
    Modulo(f64, f64),
    /// Matches a pattern.
    Regex(Pattern),
    /// Holds a text.
    Contains(String),
    /// Does not.
    NotContains(String),
    /// An order.
    Compare(Operator, Box<Against>),
    /// The condition makes no sense, so it does not hold.
    Never,
}

/// A pattern, compiled when it is first looked for: that takes longer than to read all the rest of a
/// context, and a change must not wait for it before clients are told. One that cannot be compiled
/// matches nothing.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

/// What a value is compared with, in every type that it may have.
#[derive(Debug)]
pub(super) struct Against {
    text: String,
    /// `true` or `false`, whatever the case.
    truth: Option<bool>,
    integer: Option<i64>,
    float: Option<f64>,
    /// Whether the text says that it is a version.
    is_version: bool,
    version: Option<Version>,
}

impl Test {
    /// Reads a condition.
    pub(super) fn parse(condition: &ConditionContext) -> Self {
        let text = || text_of(&condition.value);
        match condition.operator {
            Operator::IsSet => Self::Set,
            Operator::IsNotSet => Self::NotSet,
            Operator::In => Self::In(list_of(&condition.value)),
            Operator::PercentageSplit => text().parse().map_or(Self::Never, Self::Split),
            Operator::Modulo => modulo(&text()),
            Operator::Regex => Self::Regex(Pattern { text: text(), compiled: OnceLock::new() }),
            Operator::Contains => Self::Contains(text()),
            Operator::NotContains => Self::NotContains(text()),
            Operator::Equal
            | Operator::NotEqual
            | Operator::GreaterThan
            | Operator::GreaterThanInclusive
            | Operator::LessThan
            | Operator::LessThanInclusive => {
                Self::Compare(condition.operator, Box::new(Against::parse(text())))
            }
        }
    }

    /// The only text for which it holds, if there is just one.
    pub(super) fn only_text(&self) -> Option<&str> {
        let Self::Compare(Operator::Equal, against) = self else { return None };
        // A number, a truth or a version is equal to texts that are written in another way.
        let is_one = against.float.is_none() && against.truth.is_none() && !against.is_version;
        is_one.then_some(against.text.as_str())
    }

    /// Whether it holds for a value. Splits are decided elsewhere.
    pub(super) fn holds(&self, value: Option<&Seen<'_>>) -> bool {
        let Some(value) = value else { return matches!(self, Self::NotSet) };
        match self {
            Self::Set => true,
            Self::NotSet | Self::Never | Self::Split(_) => false,
            Self::In(list) => {
                !matches!(value, Seen::Bool(_)) && list.contains(value.shown().as_ref())
            }
            Self::Modulo(divisor, remainder) => {
                number(value).is_some_and(|number| exactly(number % divisor, *remainder))
            }
            Self::Regex(pattern) => pattern.is_match(&value.shown()),
            Self::Contains(text) => value.shown().contains(text.as_str()),
            Self::NotContains(text) => !value.shown().contains(text.as_str()),
            Self::Compare(operator, against) => against.compare(*operator, value),
        }
    }
}

impl Pattern {
    fn is_match(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| pattern(&self.text));
        compiled.as_ref().is_some_and(|pattern| pattern.is_match(text))
    }
}

impl Against {
    fn parse(text: String) -> Self {
        Self {
            truth: truth(&text),
            integer: text.parse().ok(),
            float: text.parse().ok(),
            is_version: text.ends_with(SEMVER_SUFFIX),
            version: text.strip_suffix(SEMVER_SUFFIX).and_then(|text| Version::parse(text).ok()),
            text,
        }
    }

    fn compare(&self, operator: Operator, value: &Seen<'_>) -> bool {
        match value {
            // "1" counts as true here, "0" as nothing: so it always was.
            Seen::Bool(value) => {
                let against = self.truth.or((self.text == "1").then_some(true));
                equal(operator, Some(*value), against)
            }
            Seen::Integer(value) => order(operator, Some(value), self.integer.as_ref()),
            Seen::Float(value) => order(operator, Some(value), self.float.as_ref()),
            Seen::Text(text) => self.compare_text(operator, text),
        }
    }

    fn compare_text(&self, operator: Operator, text: &str) -> bool {
        if self.is_version {
            return order(operator, Version::parse(text).ok().as_ref(), self.version.as_ref());
        }
        if let (Some(left), Some(right)) = (truth(text), self.truth) {
            return equal(operator, Some(left), Some(right));
        }
        if let (Ok(left), Some(right)) = (text.parse::<i64>(), &self.integer) {
            return order(operator, Some(&left), Some(right));
        }
        if let (Ok(left), Some(right)) = (text.parse::<f64>(), &self.float) {
            return order(operator, Some(&left), Some(right));
        }
        order(operator, Some(text), Some(self.text.as_str()))
    }
}

/// A pattern, compiled; none if it is wrong or takes too much memory.
pub(super) fn pattern(text: &str) -> Option<Regex> {
    RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build().ok()
}

fn text_of(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A list, a text that holds one as JSON, or a text with commas.
fn list_of(value: &Json) -> HashSet<String> {
    match value {
        Json::Array(items) => items.iter().map(text_of).collect(),
        Json::String(text) => {
            let listed = text.trim_start().starts_with('[');
            let parsed = listed.then(|| serde_json::from_str::<Vec<String>>(text).ok()).flatten();
            parsed.map_or_else(
                || text.split(',').map(|item| item.trim().to_owned()).collect(),
                |items| items.into_iter().collect(),
            )
        }
        other => HashSet::from([other.to_string()]),
    }
}

fn modulo(text: &str) -> Test {
    let parts = text.split_once('|').filter(|(_, rest)| !rest.contains('|'));
    let parsed = parts.and_then(|(divisor, remainder)| {
        Some(Test::Modulo(divisor.parse().ok()?, remainder.parse().ok()?))
    });
    parsed.unwrap_or(Test::Never)
}

fn truth(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

#[expect(clippy::cast_precision_loss, reason = "divisions are made in floating point everywhere")]
fn number(value: &Seen<'_>) -> Option<f64> {
    match value {
        Seen::Integer(value) => Some(*value as f64),
        Seen::Float(value) => Some(*value),
        Seen::Text(text) => text.parse().ok(),
        Seen::Bool(_) => None,
    }
}

#[expect(clippy::float_cmp, reason = "a remainder is compared as it is written")]
fn exactly(left: f64, right: f64) -> bool {
    left == right
}

fn equal(operator: Operator, left: Option<bool>, right: Option<bool>) -> bool {
    match (left.zip(right), operator) {
        (Some((left, right)), Operator::Equal) => left == right,
        (Some((left, right)), Operator::NotEqual) => left != right,
        _ => false,
    }
}

fn order<T: PartialOrd + ?Sized>(operator: Operator, left: Option<&T>, right: Option<&T>) -> bool {
    let Some((left, right)) = left.zip(right) else { return false };
    match operator {
        Operator::Equal => left == right,
        Operator::NotEqual => left != right,
        Operator::GreaterThan => left > right,
        Operator::GreaterThanInclusive => left >= right,
        Operator::LessThan => left < right,
        Operator::LessThanInclusive => left <= right,
        _ => false,
    }
}
