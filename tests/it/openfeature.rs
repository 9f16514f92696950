//! OpenFeature's published providers for servers, with nothing but a URL and a key: in Node, Python
//! and Rust. `openfeature_web` has the provider that follows changes.
//!
//! Where a provider passes on less than it is told, the expectation says so: it is known, and tells us
//! when a newer provider is better.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::Gateway;
use crate::harness::admin::{Admin, Environment};
use crate::harness::driver::{Driver, Language};
use crate::harness::proxy::Proxy;
use crate::harness::rollout::only;

/// A key that no environment has.
const UNKNOWN_KEY: &str = "npfo95nMwUw8cjHXdHi2hG";

/// Flags of each type, and one for each reason that an answer can have.
pub(crate) async fn create_flags(admin: &Admin) -> Environment {
    admin.create_project("web").await;
    let environment = admin.create_environment("web", "production").await;
    for (key, enabled, value) in [
        ("on", true, Value::Null),
        ("off", false, Value::Null),
        ("true", true, json!(true)),
        ("text", true, json!("hello")),
        ("integer", true, json!(42)),
        ("text-off", false, json!("not now")),
        ("for-paying", false, Value::Null),
        ("for-ann", true, json!("everybody")),
    ] {
        admin.create_feature("web", key, enabled, value).await;
    }
    for (key, value) in
        [("fraction", "0.5"), ("whole-fraction", "1.0"), ("object", "{\"a\":{\"b\":[1,\"c\"]}}")]
    {
        let feature = json!({"key": key, "enabled": true, "value": value, "value_type": "json"});
        admin.create_feature_as("web", &feature).await;
    }
    for (key, weight) in [("all-red", 100), ("nobody-red", 0)] {
        let feature = json!({"key": key, "enabled": true, "value": "grey",
            "variants": [{"key": "crimson", "value": "red", "weight": weight}]});
        admin.create_feature_as("web", &feature).await;
    }
    admin.create_segment_of("web", "paying", &only("plan", "EQUAL", "pro")).await;
    let state = json!({"enabled": true});
    admin.override_for_segment(&environment, "for-paying", "paying", &state).await;
    let state = json!({"enabled": true, "value": "ann"});
    admin.override_for_identity(&environment, "for-ann", "ann", &state).await;
    environment
}

/// What an app asks, and what it is to be told.
pub(crate) struct Case {
    pub(crate) flag: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) default: Value,
    pub(crate) value: Value,
    pub(crate) variant: &'static str,
    pub(crate) reason: &'static str,
}

fn case(
    flag: &'static str,
    (kind, default): (&'static str, Value),
    value: Value,
    (variant, reason): (&'static str, &'static str),
) -> Case {
    Case { flag, kind, default, value, variant, reason }
}

/// What Ann, who pays, is told.
pub(crate) fn cases() -> Vec<Case> {
    let boolean = |default: bool| ("boolean", json!(default));
    let text = || ("string", json!("default"));
    vec![
        case("on", boolean(false), json!(true), ("on", "STATIC")),
        case("off", boolean(true), json!(false), ("off", "DISABLED")),
        case("true", boolean(false), json!(true), ("default", "STATIC")),
        case("text", text(), json!("hello"), ("default", "STATIC")),
        case("integer", ("integer", json!(1)), json!(42), ("default", "STATIC")),
        case("fraction", ("float", json!(2.5)), json!(0.5), ("default", "STATIC")),
        case("whole-fraction", ("float", json!(2.5)), json!(1.0), ("default", "STATIC")),
        case("object", ("object", json!({})), json!({"a": {"b": [1, "c"]}}), ("default", "STATIC")),
        case("for-paying", boolean(false), json!(true), ("paying", "TARGETING_MATCH")),
        case("for-ann", text(), json!("ann"), ("identity", "TARGETING_MATCH")),
        case("all-red", text(), json!("red"), ("crimson", "SPLIT")),
        case("nobody-red", text(), json!("grey"), ("control", "SPLIT")),
    ]
}

/// Ann.
pub(crate) fn ann() -> Value {
    json!({"targetingKey": "ann", "plan": "pro", "age": 41, "score": 2.5, "staff": false})
}

/// Whether two answers are the same; JavaScript writes 1.0 as 1.
pub(crate) fn is_same(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().is_some_and(|number| other.as_f64() == Some(number))
}

async fn resolve(
    app: &mut Driver,
    (flag, kind, default): (&str, &str, Value),
    who: &Value,
) -> Value {
    let command = json!({"do": "resolve", "flag": flag, "type": kind, "default": default,
        "context": who});
    app.obey(&command).await
}

async fn comes_through(language: Language, version: &str) {
    let gateway = Gateway::builder().start().await;
    let environment = create_flags(&gateway.admin()).await;
    let url = gateway.url("");
    for key in [&environment.client_key, &environment.server_key] {
        let mut app = Driver::openfeature(language, &url, key).await;
        assert_eq!(app.about["version"], version);
        for case in cases() {
            told(language, &mut app, &environment, &case).await;
        }
    }
    let mut app = Driver::openfeature(language, &url, &environment.client_key).await;
    is_refused(language, &mut app).await;

    let mut stranger = Driver::openfeature(language, &url, UNKNOWN_KEY).await;
    let answer = resolve(&mut stranger, ("on", "boolean", json!(true)), &ann()).await;
    let error = match language {
        Language::Rust => "authentication/authorization error",
        Language::Node | Language::Python => "GENERAL",
    };
    assert_eq!((&answer["value"], &answer["error"]), (&json!(true), &json!(error)), "{answer}");
}

async fn told(language: Language, app: &mut Driver, environment: &Environment, case: &Case) {
    let answer = resolve(app, (case.flag, case.kind, case.default.clone()), &ann()).await;
    assert_eq!(answer["error"], Value::Null, "{}: {answer}", case.flag);
    assert!(is_same(&answer["value"], &case.value), "{}: {answer}", case.flag);
    assert_eq!(answer["variant"], case.variant, "{}: {answer}", case.flag);
    if language == Language::Rust {
        // It says STATIC whatever it is told, and passes no metadata on.
        assert_eq!(answer["reason"], "STATIC");
    } else {
        assert_eq!(answer["reason"], case.reason, "{}: {answer}", case.flag);
        assert_eq!(answer["metadata"]["flagSetId"], environment.client_key);
    }
}

/// No value, no flag, no proper context: the app goes on with its own.
async fn is_refused(language: Language, app: &mut Driver) {
    let answer = resolve(app, ("text-off", "string", json!("mine")), &ann()).await;
    assert_eq!(answer["value"], "mine");
    let error = match language {
        Language::Python => Value::Null,
        // These two do not know yet that there may be no value.
        Language::Node => json!("GENERAL"),
        Language::Rust => json!("PARSE_ERROR"),
    };
    assert_eq!(answer["error"], error, "{answer}");
    let answer = resolve(app, ("nowhere", "string", json!("mine")), &ann()).await;
    assert_eq!((&answer["value"], &answer["error"]), (&json!("mine"), &json!("FLAG_NOT_FOUND")));
    let nobody = json!({"targetingKey": 5});
    let answer = resolve(app, ("text", "string", json!("mine")), &nobody).await;
    assert_eq!((&answer["value"], &answer["error"]), (&json!("mine"), &json!("INVALID_CONTEXT")));
    // Whoever asks for another type than the flag's is told by the provider, not by us.
    let answer = resolve(app, ("text", "integer", json!(5)), &ann()).await;
    assert_eq!(answer["value"], 5);
    assert_ne!(answer["error"], Value::Null);
    // And then it goes on as before.
    let answer = resolve(app, ("text", "string", json!("mine")), &ann()).await;
    assert_eq!(answer["value"], "hello");
}

/// More evaluations than are allowed: the provider is told how long to wait, and does.
async fn waits_when_it_is_told_to(language: Language) {
    let gateway = Gateway::builder().set("limits.evaluations_per_second", 1).start().await;
    let environment = create_flags(&gateway.admin()).await;
    let proxy = Proxy::start(gateway.public()).await;
    let url = format!("http://{}", proxy.address());
    let mut app = Driver::openfeature(language, &url, &environment.client_key).await;
    let begun = Instant::now();
    let (mut told, mut refused) = (0, 0);
    while begun.elapsed() < Duration::from_secs(4) {
        let answer = resolve(&mut app, ("text", "string", json!("mine")), &ann()).await;
        if answer["error"].is_null() {
            assert_eq!(answer["value"], "hello");
            told += 1;
        } else {
            let error = if language == Language::Rust { "Rate limit exceeded" } else { "GENERAL" };
            assert_eq!((&answer["value"], &answer["error"]), (&json!("mine"), &json!(error)));
            refused += 1;
        }
    }
    let asked = proxy.requests("POST /ofrep/v1/evaluate/flags/text");
    assert!(told >= 2 && refused > asked, "{told} told, {refused} refused, {asked} asked");
    assert!(asked <= 10, "{asked} requests in four seconds");
}

#[tokio::test]
async fn the_provider_for_node_waits_when_it_is_told_to() {
    waits_when_it_is_told_to(Language::Node).await;
}

#[tokio::test]
async fn the_provider_for_python_waits_when_it_is_told_to() {
    waits_when_it_is_told_to(Language::Python).await;
}

#[tokio::test]
async fn the_provider_for_rust_waits_when_it_is_told_to() {
    waits_when_it_is_told_to(Language::Rust).await;
}

#[tokio::test]
async fn the_provider_for_node_is_told_all() {
    comes_through(Language::Node, "0.1.3").await;
}

#[tokio::test]
async fn the_provider_for_python_is_told_all() {
    comes_through(Language::Python, "0.3.0").await;
}

#[tokio::test]
async fn the_provider_for_rust_is_told_all() {
    comes_through(Language::Rust, "0.1.2").await;
}
