//! Our evaluations beside the official engine's: whatever the context, both give the same.
//!
//! Contexts are drawn at random from few names and values, so that rules meet what they ask for. Values
//! that an engine of Flagsmith's takes in its own way are left out; they are pinned one by one below.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use flagcast::evaluation::{CIRCULAR_REASON, Cause, Context, Evaluator, Subject};
use flagcast::model::Traits;
use flagsmith_flag_engine::engine::get_evaluation_result;
use flagsmith_flag_engine::engine_eval::EngineEvaluationContext;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

/// The fuzz targets' drivers, so that they are built and run with the other tests.
#[allow(unreachable_pub, reason = "there it is a library")]
#[path = "fuzz/src/lib.rs"]
mod driven;

const FEATURES: [&str; 5] = ["alpha", "beta", "gamma", "delta", "dark-mode"];
const TRAITS: [&str; 4] = ["plan", "age", "score", "vip"];

/// A flag's enabled, value, variant and reason, by its name; and the segments that apply.
type Given = (BTreeMap<String, Json>, Vec<String>);

fn ours(context: &Json) -> Given {
    let parsed: Context = serde_json::from_value(context.clone()).unwrap();
    let identity = parsed.identity.clone();
    let segments: Vec<String> = parsed.segments.values().map(|one| one.name.clone()).collect();
    let names: Vec<String> = parsed.features.values().map(|one| one.name.clone()).collect();
    let evaluator = Evaluator::compile(parsed);
    let none = Traits::new();
    let subject = Subject {
        identifier: identity.as_ref().map(|one| one.identifier.as_str()),
        key: identity.as_ref().map(|one| one.key.as_str()),
        traits: identity.as_ref().map_or(&none, |one| &one.traits),
    };
    let evaluation = evaluator.evaluate(&subject);
    let matched = evaluator.segments_of(&subject);
    let explained = evaluator.explain(&subject);
    let outcomes = names.into_iter().zip(&evaluation.outcomes).enumerate();
    let given = outcomes.map(|(place, (name, number))| {
        let outcome = &evaluator.outcomes()[*number as usize];
        assert_eq!(outcome.feature, place, "an outcome is of its own feature");
        let reason = if evaluation.circular.contains(&place) {
            CIRCULAR_REASON.to_owned()
        } else {
            outcome.cause.to_string()
        };
        let shown = json!({
            "enabled": outcome.enabled, "value": outcome.value, "variant": outcome.variant,
            "reason": reason,
        });
        let told = &explained.flags[place];
        assert_eq!((&told.name, &told.reason, &told.value), (&name, &reason, &outcome.value));
        (name, shown)
    });
    let given = given.collect();
    for (place, told) in explained.segments.iter().enumerate() {
        assert_eq!(told.matches, matched.contains(&place));
        assert_eq!(told.matches, told.failed.is_none());
    }
    (given, matched.into_iter().map(|place| segments[place].clone()).collect())
}

fn theirs(context: &Json) -> Given {
    let parsed: EngineEvaluationContext = serde_json::from_value(context.clone()).unwrap();
    let result = get_evaluation_result(&parsed);
    let given = result.flags.into_iter().map(|(name, flag)| {
        let shown = json!({
            "enabled": flag.enabled, "value": flag.value, "variant": flag.variant,
            "reason": flag.reason,
        });
        (name, shown)
    });
    (given.collect(), result.segments.into_iter().map(|one| one.name).collect())
}

fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        (-3_i64..40).prop_map(Json::from),
        prop::sample::select(vec![0.5, 1.0, 2.25, -7.5, 18.0]).prop_map(Json::from),
        any::<bool>().prop_map(Json::from),
        text().prop_map(Json::from),
    ]
}

fn text() -> impl Strategy<Value = String> {
    let known = [
        "pro",
        "free",
        "",
        "1",
        "0",
        "18",
        "18.0",
        "2.25",
        "true",
        "True",
        "false",
        "FALSE",
        "pro,free",
        "[\"pro\",\"18\"]",
        " pro",
        "1.2.3",
        "1.2.3:semver",
        "2.0.0-rc.1:semver",
        "x:semver",
        "5|2",
        "2|0",
        "0|0",
        "3|1.5",
        "a|b",
        "^pr",
        "pr.*",
        "[",
        "(a+)+",
        "50",
        "25.5",
        "100",
        "-1",
        "zoë",
        "ß",
        "7,8",
    ];
    prop::sample::select(known.to_vec()).prop_map(str::to_owned)
}

fn property() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(TRAITS.to_vec()).prop_map(str::to_owned),
        1 => Just(String::new()),
        1 => prop::sample::select(vec![
            "$.identity.identifier", "$.identity.key", "$.environment.name", "$.environment.key",
            "$.identity.traits.plan", "$.identity.traits['age']", "$.identity.traits", "$.nothing.here", "$.",
            "$..plan", "$.features.alpha.enabled", "$['identity']", "$.flags.nobody.enabled",
        ]).prop_map(str::to_owned),
        3 => (
            prop::sample::select(FEATURES.to_vec()),
            prop::sample::select(vec!["enabled", "value", "variant"]),
            0..3_u8,
        )
            .prop_map(|(feature, field, form)| match form {
                0 => format!("$.flags.{feature}.{field}"),
                1 => format!("$.flags['{feature}'].{field}"),
                _ => format!("$.flags[\"{feature}\"]['{field}']"),
            }),
    ]
}

fn condition() -> impl Strategy<Value = Json> {
    let operators = [
        "EQUAL",
        "NOT_EQUAL",
        "GREATER_THAN",
        "GREATER_THAN_INCLUSIVE",
        "LESS_THAN",
        "LESS_THAN_INCLUSIVE",
        "CONTAINS",
        "NOT_CONTAINS",
        "IN",
        "REGEX",
        "PERCENTAGE_SPLIT",
        "MODULO",
        "IS_SET",
        "IS_NOT_SET",
    ];
    let value = prop_oneof![
        5 => text().prop_map(Json::from),
        1 => prop::collection::vec(text(), 0..4).prop_map(Json::from),
    ];
    (property(), prop::sample::select(operators.to_vec()), value).prop_map(
        |(property, operator, value)| {
            // Only here a list may be written as JSON: the official engine would read it as one for the
            // other operators, too, but from an environment document it reads it for none.
            let listed = value.as_str().is_some_and(|text| text.starts_with("[\""));
            let operator = if listed { "IN" } else { operator };
            json!({ "property": property, "operator": operator, "value": value })
        },
    )
}

fn rule() -> impl Strategy<Value = Json> {
    let kinds = || prop::sample::select(vec!["ALL", "ANY", "NONE"]);
    let leaf = (kinds(), prop::collection::vec(condition(), 0..4)).prop_map(
        |(kind, conditions)| json!({ "type": kind, "conditions": conditions, "rules": [] }),
    );
    leaf.prop_recursive(3, 12, 3, move |inner| {
        (kinds(), prop::collection::vec(condition(), 0..3), prop::collection::vec(inner, 0..3)).prop_map(
            |(kind, conditions, rules)| {
                json!({ "type": kind, "conditions": conditions, "rules": rules })
            },
        )
    })
}

fn state(name: &'static str) -> impl Strategy<Value = Json> {
    let variant = (
        prop::option::of(prop::sample::select(vec!["blue", "green"])),
        scalar(),
        prop::sample::select(vec![0.0, 10.0, 33.3, 50.0, 100.0]),
        prop::option::of(0_i32..3),
    )
        .prop_map(|(key, value, weight, priority)| {
            let mut variant = json!({ "value": value, "weight": weight });
            if let Some(key) = key {
                variant["key"] = json!(key);
            }
            if let Some(priority) = priority {
                variant["priority"] = json!(f64::from(priority));
            }
            variant
        });
    let key = prop::sample::select(vec!["", "1", "2", "78986", "a-uuid"]);
    let priority = prop::option::of(-1_i32..3);
    let variants = prop::collection::vec(variant, 0..4);
    (key, any::<bool>(), scalar(), priority, variants).prop_map(
        move |(key, enabled, value, priority, variants)| {
            let mut state = json!({
                "key": key, "name": name, "enabled": enabled, "value": value, "variants": variants,
            });
            if let Some(priority) = priority {
                state["priority"] = json!(f64::from(priority));
            }
            state
        },
    )
}

fn segment() -> impl Strategy<Value = Json> {
    let overrides = prop::sample::subsequence(FEATURES.to_vec(), 0..4)
        .prop_flat_map(|names| names.into_iter().map(state).collect::<Vec<_>>());
    (prop::collection::vec(rule(), 0..3), overrides)
        .prop_map(|(rules, overrides)| json!({ "rules": rules, "overrides": overrides }))
}

fn identity() -> impl Strategy<Value = Json> {
    let traits = TRAITS.map(|name| prop::option::of(scalar()).prop_map(move |value| (name, value)));
    ("[a-z]{1,3}", traits).prop_map(|(identifier, traits)| {
        let known = traits.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        json!({
            "identifier": identifier, "key": format!("env_{identifier}"),
            "traits": Json::Object(known.collect()),
        })
    })
}

fn context() -> impl Strategy<Value = Json> {
    let features = FEATURES.map(state);
    (features, prop::collection::vec(segment(), 0..5), prop::option::weighted(0.9, identity()))
        .prop_map(|(features, segments, identity)| {
            let features =
                FEATURES.iter().zip(features).map(|(name, one)| ((*name).to_owned(), one));
            let segments = segments.into_iter().enumerate().map(|(number, mut segment)| {
                segment["key"] = json!(number.to_string());
                segment["name"] = json!(format!("segment-{number}"));
                (number.to_string(), segment)
            });
            let mut context = json!({
                "environment": { "key": "env", "name": "Environment" },
                "features": Json::Object(features.collect()),
                "segments": Json::Object(segments.collect()),
            });
            if let Some(identity) = identity {
                context["identity"] = identity;
            }
            context
        })
}

/// Cases of a usual run; `PROPTEST_CASES` asks for more.
const CASES: u32 = 2000;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_the_context_both_give_the_same(context in context()) {
        prop_assert_eq!(ours(&context), theirs(&context), "{}", context);
    }

    #[test]
    fn bytes_that_are_nearly_a_context_do_no_harm(
        context in context(), cut in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = context.to_string().into_bytes();
        driven::context(&bytes);
        let place = cut.index(bytes.len());
        bytes[place] = byte;
        driven::context(&bytes);
    }

    #[test]
    fn any_text_is_a_condition_that_does_no_harm(
        head in "[ -~]{2}", property in "(\\$\\.)?\\PC{0,20}", value in "\\PC{0,20}", known in scalar(),
    ) {
        driven::condition(format!("{head}\n{property}\n{value}\n{known}").as_bytes());
    }
}

/// Paths and patterns that could keep a reader busy, or take all of its stack. Those that people write
/// are refused; these come in a context that nobody checked.
#[test]
fn hostile_conditions_do_not_stall() {
    let nested = |open: &str, times: usize| format!("$.flags[?{}@.a]", open.repeat(times));
    let paths = [
        nested("(", 200),
        nested("!(", 100),
        nested("length(", 60),
        nested("@[?", 60),
        format!("$.{}", "..*".repeat(20)),
        format!("$.{}*", "*..".repeat(20)),
        format!("$.a{}", "[*]".repeat(2000)),
        format!("$.{}", "a.".repeat(50_000)),
    ];
    // The first sign of each chooses the operator.
    let values = [
        ('\u{9}', "(".repeat(1000)),
        ('\u{9}', format!("a{}", "{1000}".repeat(10))),
        ('\u{9}', "(?:\\PL{50}){50}".to_owned()),
        ('\u{8}', ",".repeat(1_000_000)),
        ('\u{8}', "[".repeat(100_000)),
        ('\u{b}', "1e308|1e-308".to_owned()),
        ('\u{b}', "NaN|NaN".to_owned()),
        ('\u{18}', "NaN".to_owned()),
    ];
    let paths = paths.map(|path| format!("\0\0\n{path}\n1\n1"));
    let values = values.map(|(operator, value)| format!("{operator}\0\nplan\n{value}\n1"));
    for input in paths.into_iter().chain(values) {
        let shown: String = input.chars().take(60).collect();
        let (done, wait) = std::sync::mpsc::channel();
        // A run that never ends is left behind; the test program ends it.
        std::thread::spawn(move || {
            driven::condition(input.as_bytes());
            done.send(()).unwrap();
        });
        let ended = wait.recv_timeout(std::time::Duration::from_mins(1));
        assert!(ended.is_ok(), "does not end, or fails: {shown:?}");
    }
}

/// A cause knows what the engine's word for it leaves out.
#[test]
fn a_split_of_a_segment_knows_its_segment() {
    let cause = Cause::Split { weight: 30.0, segment: Some("beta".to_owned()) };
    assert_eq!(cause.to_string(), "SPLIT; weight=30");
}
