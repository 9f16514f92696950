//! Renders outcomes as `OpenFeature`'s remote evaluation protocol (OFREP 0.3.0) tells them.
//!
//! A flag there is one value, with a reason and a variant. Ours is on or off and may have a value:
//! without one, or with a boolean, being on is the value; with another, a flag that is off has no
//! value, and the app goes on with its own.
//!
//! Reason and variant are always there: Python's provider cannot do without.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::evaluation::{CONTROL, Cause, Outcome};
use crate::model::{Condition, Operator, Rule, Scalar, Segment, ValueType};

/// An outcome up to its metadata, which end with who was asked for; the closing braces follow.
pub(super) fn outcome(key: &str, kind: ValueType, metadata: &str, outcome: &Outcome) -> String {
    let mut text = format!("{{\"key\":{},", json!(key));
    if let Some(value) = value(kind, outcome) {
        write!(text, "\"value\":{value},").expect("writing to a string");
    }
    let (reason, variant) = (reason(outcome), json!(variant(outcome)));
    write!(text, "\"reason\":\"{reason}\",\"variant\":{variant},\"metadata\":{{{metadata}")
        .expect("writing to a string");
    text
}

/// Why there is no outcome.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The flag needs to know whom it is for, and was not told.
    Nameless,
    /// Whether it applies depends on what it is.
    Circle,
}

/// A flag without an outcome, up to its metadata.
pub(super) fn fault(key: &str, metadata: &str, fault: Fault) -> String {
    let key = json!(key);
    let (code, details) = match fault {
        Fault::Nameless => (
            "TARGETING_KEY_MISSING",
            "it matters who somebody is for this flag: send `targetingKey`",
        ),
        Fault::Circle => ("GENERAL", "the rules of this flag depend on one another in a circle"),
    };
    format!(
        "{{\"key\":{key},\"errorCode\":\"{code}\",\"errorDetails\":\"{details}\",\
         \"metadata\":{{{metadata}"
    )
}

/// The value as JSON, if there is one.
fn value(kind: ValueType, outcome: &Outcome) -> Option<String> {
    match &outcome.value {
        Scalar::Null => Some(outcome.enabled.to_string()),
        Scalar::Bool(value) => Some((outcome.enabled && *value).to_string()),
        _ if !outcome.enabled => None,
        Scalar::Text(text) if kind == ValueType::Json => Some(structure(text)),
        value => Some(json!(value).to_string()),
    }
}

/// Text that is JSON as what it is, to the letter: `1.0` stays a fraction. The protocol has objects
/// and numbers; what is neither stays text.
fn structure(text: &str) -> String {
    match serde_json::from_str::<Json>(text) {
        Ok(Json::Object(_) | Json::Number(_)) => text.trim().to_owned(),
        _ => json!(text).to_string(),
    }
}

fn reason(outcome: &Outcome) -> &'static str {
    if !outcome.enabled {
        return "DISABLED";
    }
    match outcome.cause {
        // Who gets the control value of a flag with shares was shared out, too.
        _ if outcome.variant.is_some() => "SPLIT",
        Cause::Split { .. } => "SPLIT",
        Cause::Segment(_) | Cause::Identity => "TARGETING_MATCH",
        Cause::Default => "DEFAULT",
        Cause::Static => "STATIC",
    }
}

fn variant(outcome: &Outcome) -> &str {
    let is_switch = matches!(outcome.value, Scalar::Null | Scalar::Bool(_));
    if is_switch && !outcome.enabled {
        return "off";
    }
    if let Some(variant) = &outcome.variant {
        return variant;
    }
    match &outcome.cause {
        Cause::Segment(key) => key,
        Cause::Split { segment, .. } => segment.as_deref().unwrap_or(CONTROL),
        Cause::Identity => "identity",
        _ if outcome.value == Scalar::Null => "on",
        Cause::Static | Cause::Default => "default",
    }
}

/// Which segments ask who somebody is, not only what is known of them: by name, by a share of all, or,
/// if `flags_ask`, by what a flag is for somebody.
pub(super) fn asks_who(segment: &Segment, flags_ask: bool) -> bool {
    fn rule_asks(rule: &Rule, flags_ask: bool) -> bool {
        let asks = |condition: &Condition| {
            let property = condition.property.as_str();
            let is_split = condition.operator == Operator::PercentageSplit;
            (property.is_empty() && is_split)
                || ["$.identity.identifier", "$.identity.key"].contains(&property)
                || (flags_ask && property.starts_with("$.flags"))
        };
        rule.conditions.iter().any(asks) || rule.rules.iter().any(|rule| rule_asks(rule, flags_ask))
    }
    segment.rules.iter().any(|rule| rule_asks(rule, flags_ask))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: ValueType, enabled: bool, value: Scalar, cause: Cause) -> Json {
        shown(kind, &Outcome { feature: 0, enabled, value, variant: None, cause })
    }

    fn shown(kind: ValueType, of: &Outcome) -> Json {
        let text = outcome("a-flag", kind, "\"version\":\"42\"", of);
        let mut json: Json = serde_json::from_str(&format!("{text}}}}}")).unwrap();
        let told = json.as_object_mut().unwrap();
        assert_eq!(told.remove("key"), Some(json!("a-flag")));
        assert_eq!(told.remove("metadata"), Some(json!({"version": "42"})));
        json
    }

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    #[test]
    fn a_switch_is_its_value() {
        let plain = |enabled, value| told(ValueType::Plain, enabled, value, Cause::Static);
        let state = |value: bool, reason: &str, variant: &str| json!({"value": value, "reason": reason, "variant": variant});
        assert_eq!(plain(true, Scalar::Null), state(true, "STATIC", "on"));
        assert_eq!(plain(false, Scalar::Null), state(false, "DISABLED", "off"));
        assert_eq!(plain(true, Scalar::Bool(true)), state(true, "STATIC", "default"));
        assert_eq!(plain(true, Scalar::Bool(false)), state(false, "STATIC", "default"));
        assert_eq!(plain(false, Scalar::Bool(true)), state(false, "DISABLED", "off"));
    }

    /// Without a value the app goes on with its own.
    #[test]
    fn a_value_that_is_off_is_none() {
        let plain = |enabled, value| told(ValueType::Plain, enabled, value, Cause::Static);
        let on = json!({"value": "blue", "reason": "STATIC", "variant": "default"});
        assert_eq!(plain(true, text("blue")), on);
        let off = json!({"reason": "DISABLED", "variant": "default"});
        assert_eq!(plain(false, text("blue")), off);
        assert_eq!(plain(true, Scalar::Integer(7))["value"], 7);
    }

    #[test]
    fn text_that_is_json_is_told_as_what_it_is() {
        let typed = |kind, value: &str| {
            let cause = Cause::Static;
            let (enabled, variant) = (true, None);
            outcome(
                "f",
                kind,
                "",
                &Outcome { feature: 0, enabled, value: text(value), variant, cause },
            )
        };
        let json = |value: &str| typed(ValueType::Json, value);
        // Python's provider takes 1 for no fraction, and 1.0 for no whole number.
        assert!(json(" 1.0 ").contains("\"value\":1.0,"), "{}", json(" 1.0 "));
        assert!(json("{\"a\": [1]}").contains("\"value\":{\"a\": [1]},"));
        assert!(typed(ValueType::Plain, "1.0").contains("\"value\":\"1.0\","));
        for wrong in ["[1]", "true", "nonsense", "", "{\"a\":1} x"] {
            let quoted = format!("\"value\":{},", json!(wrong));
            assert!(json(wrong).contains(&quoted), "{wrong}");
        }
    }

    #[test]
    fn reason_and_variant_tell_why() {
        let because = |cause| {
            let told = told(ValueType::Plain, true, text("x"), cause);
            (
                told["reason"].as_str().unwrap().to_owned(),
                told["variant"].as_str().unwrap().to_owned(),
            )
        };
        let pair = |reason: &str, variant: &str| (reason.to_owned(), variant.to_owned());
        let segment = Cause::Segment("paying".to_owned());
        assert_eq!(because(segment), pair("TARGETING_MATCH", "paying"));
        assert_eq!(because(Cause::Identity), pair("TARGETING_MATCH", "identity"));
        assert_eq!(because(Cause::Default), pair("DEFAULT", "default"));
        assert_eq!(because(Cause::Static), pair("STATIC", "default"));
    }

    #[test]
    fn who_was_shared_out_is_told_so() {
        let split = |variant: &str, enabled, value| {
            let (variant, cause) = (Some(variant.to_owned()), Cause::Static);
            shown(ValueType::Plain, &Outcome { feature: 0, enabled, value, variant, cause })
        };
        let control = split("control", true, text("grey"));
        assert_eq!(control, json!({"value": "grey", "reason": "SPLIT", "variant": "control"}));
        let off = split("red", false, text("#f00"));
        assert_eq!(off, json!({"reason": "DISABLED", "variant": "red"}));
        let switch = split("yes", true, Scalar::Bool(true));
        assert_eq!(switch, json!({"value": true, "reason": "SPLIT", "variant": "yes"}));
    }

    #[test]
    fn a_fault_is_told_in_the_place_of_an_outcome() {
        let told = |of: Fault| -> Json {
            let text = fault("a-flag", "\"version\":\"42\"", of);
            serde_json::from_str(&format!("{text}}}}}")).unwrap()
        };
        assert_eq!(told(Fault::Nameless)["errorCode"], "TARGETING_KEY_MISSING");
        let circle = told(Fault::Circle);
        assert_eq!(circle["errorCode"], "GENERAL");
        assert_eq!(
            (&circle["key"], &circle["metadata"]["version"]),
            (&json!("a-flag"), &json!("42"))
        );
        assert!(circle["errorDetails"].is_string() && circle.get("value").is_none());
    }
}
