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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RuleLimits = RuleLimits { conditions: 100, value_bytes: 1000 };

    fn tried(property: &str, operator: &str, value: &str) -> Result<Condition, Wrong> {
        let operator = serde_json::from_str(&format!("\"{operator}\"")).unwrap();
        let (property, value) = (property.to_owned(), value.to_owned());
        let mut condition = Condition { property, operator, value };
        check(&condition, &LIMITS)?;
        to_keep(&mut condition);
        Ok(condition)
    }

    #[test]
    fn what_every_engine_understands_is_taken_and_kept_as_all_of_them_read_it() {
        for (operator, value, kept) in [
            ("EQUAL", "", ""),
            ("EQUAL", "pro", "pro"),
            ("EQUAL", "true", "true"),
            ("NOT_EQUAL", "-2.5", "-2.5"),
            ("GREATER_THAN", "JP", "JP"),
            ("LESS_THAN_INCLUSIVE", "007", "007"),
            ("GREATER_THAN_INCLUSIVE", "1.10.0-beta.1:semver", "1.10.0-beta.1:semver"),
            ("CONTAINS", " a ", " a "),
            ("NOT_CONTAINS", "1_0", "1_0"),
            ("IN", "NL,BE", "NL,BE"),
            ("IN", r#"["NL", "the Netherlands"]"#, "NL,the Netherlands"),
            ("IN", " [25,-35]", "25,-35"),
            ("REGEX", "pro|team", "pro|team"),
            ("PERCENTAGE_SPLIT", "0", "0"),
            ("PERCENTAGE_SPLIT", "100.0", "100.0"),
            ("MODULO", "10|3", "10|3"),
            ("MODULO", "0.5|0", "0.5|0"),
            ("IS_SET", "", ""),
            ("IS_NOT_SET", "", ""),
        ] {
            let condition = tried("t", operator, value);
            assert_eq!(condition.unwrap().value, kept, "{operator} {value}");
        }
    }

    #[test]
    fn what_an_engine_fails_on_or_sees_otherwise_is_refused_with_what_to_write() {
        for (operator, value, advice) in [
            ("EQUAL", " pro", "spaces"),
            ("EQUAL", "TRUE", "small letters"),
            ("EQUAL", "1_000", "plain digits"),
            ("EQUAL", "nan", "plain digits"),
            ("EQUAL", "1.2:semver", "such as `1.2.3:semver`"),
            ("LESS_THAN", "1.2.3+4:semver", "`+`"),
            ("LESS_THAN", ":semver", "no version"),
            ("LESS_THAN", "", "needs"),
            ("GREATER_THAN", "false", "EQUAL"),
            ("CONTAINS", "", "IS_SET"),
            ("NOT_CONTAINS", "", "IS_SET"),
            ("IN", "", "empty"),
            ("IN", "[]", "needs an item"),
            ("IN", "a, b", "space"),
            ("IN", "a,,b", "empty"),
            ("IN", "a,b\n", "space"),
            ("IN", r#"["a,b"]"#, "comma"),
            ("IN", r#"["[a"]"#, "begins with `[`"),
            ("IN", "[a", "JSON list"),
            ("IN", "[1.5]", "whole numbers"),
            ("IN", "[true]", "whole numbers"),
            ("REGEX", "", "IS_SET"),
            ("REGEX", "(?i)pro", "no flags"),
            ("REGEX", "(a+)+b", "stall"),
            ("PERCENTAGE_SPLIT", "", "0 to 100"),
            ("PERCENTAGE_SPLIT", "100.1", "0 to 100"),
            ("PERCENTAGE_SPLIT", "-1", "0 to 100"),
            ("PERCENTAGE_SPLIT", "10%", "0 to 100"),
            ("MODULO", "10", "divisor|remainder"),
            ("MODULO", "0|0", "above 0"),
            ("MODULO", "10|10", "below the divisor"),
            ("MODULO", "-3|1", "above 0"),
            ("MODULO", "10|3|1", "divisor|remainder"),
            ("MODULO", "inf|1", "divisor|remainder"),
            ("IS_SET", "true", "empty"),
            ("IS_NOT_SET", " ", "empty"),
        ] {
            let fault = tried("t", operator, value).expect_err(&format!("{operator} {value}"));
            assert_eq!(fault.field, "value");
            assert!(fault.rule.contains(advice), "{operator} {value}: {}", fault.rule);
        }
        let fault = tried("t", "EQUAL", &"a".repeat(1001)).unwrap_err();
        assert!(fault.rule.contains("at most 1000 bytes"), "{}", fault.rule);
    }

    #[test]
    fn a_property_is_a_trait_or_a_path_and_missing_only_in_splits() {
        for (property, operator, value) in [
            ("", "PERCENTAGE_SPLIT", "5"),
            ("beta tester?", "PERCENTAGE_SPLIT", "5"),
            ("$.identity.traits.plan", "PERCENTAGE_SPLIT", "5"),
            ("it's", "EQUAL", "5"),
        ] {
            assert!(tried(property, operator, value).is_ok(), "{property}");
        }
        for (property, operator, value) in [
            ("", "EQUAL", "5"),
            ("it's", "PERCENTAGE_SPLIT", "5"),
            ("$.identity", "EQUAL", "5"),
            (&"a".repeat(501), "EQUAL", "5"),
        ] {
            let fault = tried(property, operator, value).expect_err(property);
            assert_eq!(fault.field, "property", "{}", fault.rule);
        }
    }
}
