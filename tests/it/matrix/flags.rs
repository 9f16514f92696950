//! Flags of every kind, made through the management API.

use serde_json::{Value, json};

use super::users::User;
use crate::harness::admin::{Admin, Environment};
use crate::harness::rollout::{condition, only, rule};

/// What a flag of a segment is for those outside and inside.
const OUTSIDE: &str = "outside";
const INSIDE: &str = "inside";

/// Flags whose texts are JSON.
pub(super) const IS_JSON: [&str; 2] = ["json", "json-number"];

/// Flags that are not the same for all, next to those of `segments`.
pub(super) const VARYING: [&str; 14] = [
    "switched-by-segment",
    "off-by-segment",
    "other-type-by-segment",
    "strongest",
    "variants",
    "variants-integer",
    "variants-boolean",
    "variants-mixed",
    "variants-by-segment",
    "variants-none-by-segment",
    "variants-by-identity",
    "by-identity",
    "switched-by-identity",
    "segment-and-identity",
];

/// Creates the flags and the segments that they are targeted at.
pub(super) async fn create(admin: &Admin, environment: &Environment) {
    create_plain(admin, environment).await;
    create_segments(admin, environment).await;
    create_variants(admin, environment).await;
}

/// One flag of each kind that is the same for all.
async fn create_plain(admin: &Admin, environment: &Environment) {
    for (key, enabled, value) in [
        ("on", true, Value::Null),
        ("off", false, Value::Null),
        ("text", true, json!("Grüße, \"世界\"\n🙂")),
        ("text-of-digits", true, json!("0042")),
        ("text-off", false, json!("not now")),
        ("integer", true, json!(42)),
        ("integer-zero", true, json!(0)),
        ("integer-negative", true, json!(-7)),
        ("integer-large", true, json!(9_007_199_254_740_991_i64)),
        ("integer-off", false, json!(42)),
        ("true", true, json!(true)),
        ("false", true, json!(false)),
        ("true-off", false, json!(true)),
    ] {
        admin.create_feature(&environment.project, key, enabled, value).await;
    }
    for (key, value) in [("json", json!("{\"a\":[1,2.5,null]}")), ("json-number", json!("0.25"))] {
        let feature = json!({"key": key, "enabled": true, "value": value, "value_type": "json"});
        admin.create_feature_as(&environment.project, &feature).await;
    }
    let feature =
        json!({"key": "server-only", "enabled": true, "value": 1, "server_key_only": true});
    admin.create_feature_as(&environment.project, &feature).await;
}

/// A segment for each operator and each way to put rules together, and a flag that shows who is in.
pub(super) fn segments() -> Vec<(&'static str, Vec<Value>)> {
    let mut segments = vec![
        ("equal-text", only("plan", "EQUAL", "pro")),
        ("equal-integer", only("age", "EQUAL", "30")),
        ("equal-fraction", only("score", "EQUAL", "2.5")),
        ("equal-true", only("staff", "EQUAL", "true")),
        ("equal-false", only("staff", "EQUAL", "false")),
        ("not-equal-text", only("plan", "NOT_EQUAL", "pro")),
        ("not-equal-integer", only("age", "NOT_EQUAL", "30")),
        ("not-equal-true", only("staff", "NOT_EQUAL", "true")),
        ("greater-text", only("country", "GREATER_THAN", "JP")),
        ("greater-integer", only("age", "GREATER_THAN", "35")),
        ("at-least-integer", only("age", "GREATER_THAN_INCLUSIVE", "35")),
        ("at-least-fraction", only("score", "GREATER_THAN_INCLUSIVE", "2.5")),
        ("less-fraction", only("score", "LESS_THAN", "2.5")),
        ("at-most-integer", only("age", "LESS_THAN_INCLUSIVE", "35")),
        ("contains", only("mail", "CONTAINS", "@example.")),
        ("contains-not", only("mail", "NOT_CONTAINS", "@example.")),
        // The first would be found in nearly everybody's, the others say where they begin and end.
        ("regex-begins", only("mail", "REGEX", "[a-m]")),
        ("regex-choice", only("mail", "REGEX", "ann|zoe")),
        ("regex-whole", only("mail", "REGEX", r"^\w+@example\.(com|org)$")),
        ("regex-classes", only("mail", "REGEX", r"[\w.-]+@[^\s@]+\.(?:org|net)")),
        ("regex-counts", only("mail", "REGEX", r"(?:\x61|\u007a)[n-o]{1}(n|e){1,2}?\@")),
        ("regex-integer", only("age", "REGEX", "[23]")),
        ("version-equal", only("version", "EQUAL", "1.10.0:semver")),
        ("version-not-equal", only("version", "NOT_EQUAL", "1.10.0:semver")),
        ("version-at-least", only("version", "GREATER_THAN_INCLUSIVE", "1.10.0:semver")),
        ("version-before", only("version", "LESS_THAN", "2.0.0:semver")),
        ("in-text", only("country", "IN", "NL,DE")),
        ("in-list", only("country", "IN", r#"["NL","US"]"#)),
        ("in-integers", only("age", "IN", "20,30,40")),
        ("in-integer-list", only("age", "IN", "[25,35]")),
        ("modulo", only("visits", "MODULO", "3|1")),
        ("modulo-fraction", only("score", "MODULO", "2|0.5")),
        ("set", only("plan", "IS_SET", "")),
        ("not-set", only("plan", "IS_NOT_SET", "")),
        ("split", only("", "PERCENTAGE_SPLIT", "40.5")),
        ("split-by-trait", only("account", "PERCENTAGE_SPLIT", "45.5")),
        ("split-by-path", only("$.identity.traits.country", "PERCENTAGE_SPLIT", "45.5")),
        ("by-identifier", only("$.identity.identifier", "REGEX", "user-")),
        (
            "by-environment",
            vec![
                rule("ALL", &[condition("$.environment.name", "EQUAL", "production")]),
                rule("ALL", &[condition("staff", "EQUAL", "true")]),
            ],
        ),
        ("odd-name", only("beta tester?", "EQUAL", "yes")),
    ];
    segments.extend(nested());
    segments
}

fn nested() -> Vec<(&'static str, Vec<Value>)> {
    let pro = condition("plan", "EQUAL", "pro");
    let near = condition("country", "IN", "NL,DE");
    let old = condition("age", "GREATER_THAN", "40");
    let staff = condition("staff", "EQUAL", "true");
    let deep = json!([{"type": "ALL", "conditions": [], "rules": [
        {"type": "ANY", "conditions": [pro.clone(), near.clone()], "rules": []},
        {"type": "NONE", "conditions": [old.clone()], "rules": [
            {"type": "ALL", "conditions": [staff.clone(), near.clone()], "rules": []},
        ]},
    ]}]);
    let any_of_rules = json!([{"type": "ANY", "conditions": [], "rules": [
        {"type": "ALL", "conditions": [pro.clone(), near.clone()], "rules": []},
        {"type": "ALL", "conditions": [old.clone(), staff.clone()], "rules": []},
    ]}]);
    vec![
        ("all", vec![rule("ALL", &[pro.clone(), near.clone()])]),
        ("any", vec![rule("ANY", &[pro.clone(), near.clone()])]),
        ("none", vec![rule("NONE", &[pro.clone(), near])]),
        ("several-rules", vec![rule("ALL", &[staff]), rule("NONE", &[old])]),
        ("deep", deep.as_array().unwrap().clone()),
        ("any-of-rules", any_of_rules.as_array().unwrap().clone()),
    ]
}

async fn create_segments(admin: &Admin, environment: &Environment) {
    for (segment, rules) in segments() {
        let flag = flag_of(segment);
        admin.create_segment_of(&environment.project, segment, &rules).await;
        admin.create_feature(&environment.project, &flag, true, OUTSIDE.into()).await;
        let inside = json!({"enabled": true, "value": INSIDE});
        admin.override_for_segment(environment, &flag, segment, &inside).await;
    }
    // What an override can change, and which of several wins.
    let project = &environment.project;
    admin.create_feature(project, "switched-by-segment", false, Value::Null).await;
    admin
        .override_for_segment(environment, "switched-by-segment", "any", &json!({"enabled": true}))
        .await;
    admin.create_feature(project, "off-by-segment", true, json!(5)).await;
    admin
        .override_for_segment(environment, "off-by-segment", "any", &json!({"enabled": false}))
        .await;
    admin.create_feature(project, "other-type-by-segment", true, json!(5)).await;
    admin
        .override_for_segment(
            environment,
            "other-type-by-segment",
            "any",
            &json!({"value": "five"}),
        )
        .await;
    admin.create_feature(project, "strongest", true, json!("nobody")).await;
    for (segment, priority) in [("any", 0), ("set", 1), ("greater-integer", 0)] {
        let state = json!({"value": segment, "priority": priority});
        admin.override_for_segment(environment, "strongest", segment, &state).await;
    }
}

/// The flag that shows who is in a segment.
pub(super) fn flag_of(segment: &str) -> String {
    format!("in-{segment}")
}

async fn create_variants(admin: &Admin, environment: &Environment) {
    let variants = |values: [Value; 3]| {
        let [first, second, third] = values;
        json!([
            {"key": "first", "value": first, "weight": 30.5},
            {"key": "second", "value": second, "weight": 29.5},
            {"key": "third", "value": third, "weight": 0},
        ])
    };
    let texts = || variants([json!("red"), json!("green"), json!("blue")]);
    for (key, enabled, value, variants) in [
        ("variants", true, json!("control"), texts()),
        ("variants-off", false, json!("control"), texts()),
        ("variants-integer", true, json!(0), variants([json!(1), json!(2), json!(3)])),
        (
            "variants-boolean",
            true,
            json!(false),
            variants([json!(true), json!(true), json!(false)]),
        ),
        ("variants-mixed", true, Value::Null, variants([json!("red"), json!(2), json!(true)])),
        ("variants-by-segment", true, json!("control"), texts()),
        ("variants-none-by-segment", true, json!("control"), texts()),
        ("variants-by-identity", true, json!("control"), texts()),
    ] {
        let feature = json!({"key": key, "enabled": enabled, "value": value, "variants": variants});
        admin.create_feature_as(&environment.project, &feature).await;
    }
    let shares = json!({"enabled": true, "value": "segment's control",
        "weights": {"first": 0, "second": 10.125, "third": 70.5}});
    admin.override_for_segment(environment, "variants-by-segment", "any", &shares).await;
    let none = json!({"enabled": true, "value": "segment's own",
        "weights": {"first": 0, "second": 0, "third": 0}});
    admin.override_for_segment(environment, "variants-none-by-segment", "any", &none).await;
}

/// Some users have states of their own; two of them the same, which engines group.
///
/// Node's engine takes `false` and `0` for no trait where a user has such states (`divergences`), so
/// they are users without.
pub(super) async fn create_overrides(admin: &Admin, environment: &Environment, users: &[User]) {
    let project = &environment.project;
    admin.create_feature(project, "by-identity", true, json!("everybody")).await;
    admin.create_feature(project, "switched-by-identity", true, Value::Null).await;
    admin.create_feature(project, "segment-and-identity", true, json!("everybody")).await;
    let state = json!({"value": "segment's"});
    admin.override_for_segment(environment, "segment-and-identity", "set", &state).await;
    let is_something = |value: &Value| *value != json!(false) && *value != json!(0);
    let mut traits = users.iter().map(|user| user["traits"].as_object().unwrap().values());
    let chosen: Vec<_> =
        users.iter().filter(|_| traits.next().unwrap().all(is_something)).collect();
    assert!(chosen.len() > 6, "users without such traits");
    for (number, user) in chosen.into_iter().enumerate() {
        let identifier = user["identifier"].as_str().unwrap();
        let own = if number < 2 { json!("yours and mine") } else { json!(number) };
        for (flag, state) in [
            ("by-identity", json!({"enabled": true, "value": own})),
            ("switched-by-identity", json!({"enabled": false})),
            ("segment-and-identity", json!({"enabled": true, "value": "identity's"})),
            ("variants-by-identity", json!({"enabled": true, "value": "identity's"})),
        ] {
            admin.override_for_identity(environment, flag, identifier, &state).await;
        }
    }
}
