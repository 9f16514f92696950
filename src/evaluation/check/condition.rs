//! What one condition may compare, by its operator.

use semver::Version;

use super::{PROPERTY_BYTES_MAX, RuleLimits, Wrong, number, path, stall, wrong};
use crate::evaluation::test::{SEMVER_SUFFIX, pattern};
use crate::model::{Condition, Operator, check_pattern};

/// Checks a condition.
pub(super) fn check(condition: &Condition, limits: &RuleLimits) -> Result<(), Wrong> {
    let Condition { property, operator, value } = condition;
    let limit = limits.value_bytes;
    if value.len() > limit {
        return Err(refused(format!(
            "at most {limit} bytes (`limits.condition_value_bytes`); this has {}",
            value.len()
        )));
    }
    check_property(property, *operator)?;
    match operator {
        Operator::IsSet | Operator::IsNotSet if value.is_empty() => Ok(()),
        Operator::IsSet | Operator::IsNotSet => {
            Err(refused(format!("{operator} compares with nothing; leave the value empty")))
        }
        Operator::In => list(value).map(drop),
        Operator::PercentageSplit => percentage(value),
        Operator::Modulo => modulo(value),
        Operator::Regex => regex(value),
        Operator::Contains | Operator::NotContains if value.is_empty() => {
            Err(refused("every text holds the empty one; use IS_SET, or IS_NOT_SET"))
        }
        Operator::Contains | Operator::NotContains => Ok(()),
        Operator::Equal
        | Operator::NotEqual
        | Operator::GreaterThan
        | Operator::GreaterThanInclusive
        | Operator::LessThan
        | Operator::LessThanInclusive => compared(*operator, value),
    }
}

/// Brings a condition to the form that every engine reads.
pub(super) fn to_keep(condition: &mut Condition) {
    if condition.operator == Operator::In
        && let Ok(items) = list(&condition.value)
    {
        condition.value = items.join(",");
    }
}

fn check_property(property: &str, operator: Operator) -> Result<(), Wrong> {
    if property.is_empty() && operator != Operator::PercentageSplit {
        let rule = "name a trait, or a path such as `$.identity.identifier`; only PERCENTAGE_SPLIT goes \
            without, by identity";
        return Err(wrong("property", rule));
    }
    if property.len() > PROPERTY_BYTES_MAX {
        let rule = format!("at most {PROPERTY_BYTES_MAX} bytes; this has {}", property.len());
        return Err(wrong("property", rule));
    }
    let is_trait = path::parse(property)?.is_none();
    // The document says such a split by a path, for Node's engine.
    if is_trait && operator == Operator::PercentageSplit && !property.is_empty() {
        path::plain(property)?;
    }
    Ok(())
}

fn compared(operator: Operator, value: &str) -> Result<(), Wrong> {
    if let Some(version) = value.strip_suffix(SEMVER_SUFFIX) {
        return semver(version);
    }
    let is_equality = matches!(operator, Operator::Equal | Operator::NotEqual);
    if value.is_empty() && !is_equality {
        return Err(refused(format!(
            "{operator} needs a number, a text or a version to compare with"
        )));
    }
    if value.trim() != value {
        return Err(refused("engines differ about spaces at its start or end; take them away"));
    }
    if ["true", "false"].iter().any(|truth| value.eq_ignore_ascii_case(truth)) {
        if !is_equality {
            let rule =
                format!("{operator} is for numbers, texts and versions; take EQUAL for booleans");
            return Err(refused(rule));
        }
        if value != value.to_ascii_lowercase() {
            let rule =
                "booleans are `true` and `false`, in small letters; engines differ about others";
            return Err(refused(rule));
        }
    }
    if number::is_doubtful(value) {
        let rule = format!(
            "`{value}` is a number to some engines only; write numbers in plain digits, such as `1000` or \
             `0.25`"
        );
        return Err(refused(rule));
    }
    Ok(())
}

fn semver(version: &str) -> Result<(), Wrong> {
    let parsed = Version::parse(version).map_err(|error| {
        refused(format!("`{version}` is no version: {error}; write one such as `1.2.3:semver`"))
    })?;
    if parsed.build.is_empty() {
        Ok(())
    } else {
        Err(refused("engines differ about what stands behind the `+` of a version; leave it out"))
    }
}

/// The items of a list: the text of a JSON list of strings and whole numbers, or a text with commas.
fn list(value: &str) -> Result<Vec<String>, Wrong> {
    let items = if value.trim_start().starts_with('[') {
        json_list(value)?
    } else {
        value.split(',').map(str::to_owned).collect()
    };
    if items.is_empty() {
        return Err(refused("a list needs an item"));
    }
    if items[0].starts_with('[') {
        return Err(refused("the first item begins with `[`, as lists do; put another one first"));
    }
    for item in &items {
        if item.is_empty()
            || item.trim() != item
            || item.contains(|sign: char| sign == ',' || sign.is_control())
        {
            let rule = format!(
                "engines differ about items that are empty, begin or end with a space, or hold a comma or \
                 a control character: {item:?}; write `a,b`, or take EQUAL for this one"
            );
            return Err(refused(rule));
        }
    }
    Ok(items)
}

fn json_list(value: &str) -> Result<Vec<String>, Wrong> {
    let of = "a value that begins with `[` is the text of a JSON list of strings and whole numbers, such \
        as `[\"NL\",\"BE\"]`; without brackets, items stand between commas";
    let items: Vec<serde_json::Value> = serde_json::from_str(value).map_err(|_| refused(of))?;
    let text = |item: serde_json::Value| match item {
        serde_json::Value::String(text) => Ok(text),
        serde_json::Value::Number(number) if !number.is_f64() => Ok(number.to_string()),
        _ => Err(refused(of)),
    };
    items.into_iter().map(text).collect()
}

fn percentage(value: &str) -> Result<(), Wrong> {
    match number::plain(value) {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(()),
        _ => Err(refused("a percentage from 0 to 100, such as `12.5`")),
    }
}

fn modulo(value: &str) -> Result<(), Wrong> {
    let of = "`divisor|remainder`, such as `10|3`: the divisor above 0, the remainder from 0 and below the \
        divisor";
    let (divisor, remainder) = value.split_once('|').ok_or_else(|| refused(of))?;
    match (number::plain(divisor), number::plain(remainder)) {
        (Some(divisor), Some(remainder)) if (0.0..divisor).contains(&remainder) => Ok(()),
        _ => Err(refused(of)),
    }
}

fn regex(value: &str) -> Result<(), Wrong> {
    check_pattern(value).map_err(refused)?;
    stall::check(value).map_err(refused)?;
    match pattern(&crate::evaluation::anchored(value)) {
        Some(_) => Ok(()),
        None => Err(refused("this pattern takes too much memory; repeat less")),
    }
}

fn refused(rule: impl std::fmt::Display) -> Wrong {
    wrong("value", rule)
}
