//! `flagcast evaluate`: a context in, flags and segments out.
//!
//! The numbers were worked out by hand from the digests of the identities' keys.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

fn evaluate(context: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagcast"));
    command.args(["evaluate", "--context", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(context).unwrap();
    child.wait_with_output().unwrap()
}

fn answer(context: &Json) -> Json {
    let output = evaluate(context.to_string().as_bytes());
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refusal(context: &[u8]) -> String {
    let output = evaluate(context);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{complaint}");
    assert!(output.stdout.is_empty());
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    complaint
}

fn context(features: &Json, segments: &Json, identity: &Json) -> Json {
    let mut context = json!({
        "environment": { "key": "test_env", "name": "Test" }, "features": features,
        "segments": segments,
    });
    if !identity.is_null() {
        context["identity"] = identity.clone();
    }
    context
}

fn feature(key: &str, name: &str, value: &str) -> Json {
    json!({ "key": key, "name": name, "enabled": true, "value": value })
}

fn rule(property: &str, operator: &str, value: &str) -> Json {
    let condition = json!({ "property": property, "operator": operator, "value": value });
    json!([{ "type": "ALL", "conditions": [condition], "rules": [] }])
}

/// `78986,32103813` falls to 49.28: the second of two shares of 30 %.
#[test]
fn a_split_gives_the_variant_that_every_sdk_gives() {
    let mut split = feature("78986", "colour", "control");
    split["variants"] = json!([
        { "key": "variant_baz", "value": "baz", "weight": 30, "priority": 2 },
        { "key": "variant_bar", "value": "bar", "weight": 30, "priority": 1 },
    ]);
    let features = json!({ "colour": split });
    let of = |key: &str| {
        let identity = json!({ "identifier": "somebody", "key": key });
        answer(&context(&features, &json!({}), &identity))["flags"]["colour"].clone()
    };
    let wanted = json!({
        "name": "colour", "enabled": true, "value": "baz", "reason": "SPLIT; weight=30",
        "variant": "variant_baz",
    });
    assert_eq!(of("32103813"), wanted);
    // Nobody in particular is in no split.
    let nobody = answer(&context(&features, &json!({}), &Json::Null));
    assert_eq!(nobody["flags"]["colour"]["variant"], Json::Null);
    assert_eq!(nobody["flags"]["colour"]["value"], "control");
}

/// `1,8` falls to 38.888, `1,2` to 26.595, `10,env_identity1` to 97.650.
#[test]
fn buckets_lie_where_every_sdk_has_them() {
    for (feature_key, identity_key, bucket) in
        [("1", "8", 38.888), ("1", "2", 26.595), ("10", "env_identity1", 97.650)]
    {
        for (weight, wanted) in [(bucket + 0.002, "in"), (bucket - 0.002, "control")] {
            let mut split = feature(feature_key, "f", "control");
            split["variants"] = json!([{ "key": "in", "value": "in", "weight": weight }]);
            let identity = json!({ "identifier": "x", "key": identity_key });
            let told = answer(&context(&json!({ "f": split }), &json!({}), &identity));
            assert_eq!(told["flags"]["f"]["variant"], wanted, "{feature_key},{identity_key}");
        }
    }
}

/// `12345,test_env_foobar` falls to 51.990; the key of the identity is put together when it is empty.
#[test]
fn a_share_of_all_identities_is_a_segment() {
    for (share, is_in) in [("55", true), ("52", true), ("51.9", false)] {
        for identity in
            [json!({ "identifier": "foobar" }), json!({ "identifier": "foobar", "key": "" })]
        {
            let segment = json!({
                "key": "12345", "name": "share", "metadata": { "id": 7 },
                "rules": rule("", "PERCENTAGE_SPLIT", share),
            });
            let told = answer(&context(&json!({}), &json!({ "12345": segment }), &identity));
            let wanted = json!([{ "name": "share", "metadata": { "id": 7 } }]);
            assert_eq!(told["segments"], if is_in { wanted } else { json!([]) }, "{share}");
        }
    }
}

/// The smaller number is the stronger, none is the weakest, and of equals the first wins; flags and
/// segments come out in the order in which they went in, with what the chosen state carries.
#[test]
fn the_strongest_segment_wins_and_order_is_kept() {
    let segment = |key: &str, priority: Option<i32>, name: &str| {
        let mut state = feature(key, name, key);
        state["metadata"] = json!({ "from": key });
        if let Some(priority) = priority {
            state["priority"] = json!(priority);
        }
        json!({ "key": key, "name": format!("s-{key}"), "rules": rule("age", "GREATER_THAN", "17"),
            "overrides": [state] })
    };
    let segments = json!({
        "9": segment("9", None, "zulu"), "5": segment("5", Some(2), "zulu"),
        "7": segment("7", Some(1), "zulu"), "1": segment("1", Some(1), "zulu"),
    });
    let features =
        json!({ "zulu": feature("1", "zulu", "own"), "alpha": feature("2", "alpha", "own") });
    let identity = json!({ "identifier": "x", "traits": { "age": 18 } });
    let told = answer(&context(&features, &segments, &identity));
    assert_eq!(told["flags"]["zulu"]["value"], "7");
    assert_eq!(told["flags"]["zulu"]["reason"], "TARGETING_MATCH; segment=s-7");
    assert_eq!(told["flags"]["zulu"]["metadata"], json!({ "from": "7" }));
    assert_eq!(told["flags"]["alpha"]["reason"], "STATIC");
    let names: Vec<_> = told["flags"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["zulu", "alpha"]);
    let matched: Vec<_> =
        told["segments"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(matched, ["s-9", "s-5", "s-7", "s-1"]);
    let young = json!({ "identifier": "x", "traits": { "age": 17 } });
    let told = answer(&context(&features, &segments, &young));
    assert_eq!(told["flags"]["zulu"]["reason"], "DEFAULT");
    assert_eq!(told["segments"], json!([]));
}

/// A flag may rest on another one, and a circle is named and ends.
#[test]
fn flags_that_rest_on_each_other_are_followed_and_a_circle_is_named() {
    let on = |key: &str, flag: &str, over: &str| {
        json!({ "key": key, "name": key, "rules": rule(&format!("$.flags.{flag}.enabled"), "EQUAL", "true"),
            "overrides": [feature(key, over, "over")] })
    };
    let names = ["a", "b", "c", "d"];
    let features: Json = names
        .iter()
        .map(|name| ((*name).to_owned(), feature(name, name, "own")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let segments =
        json!({ "1": on("1", "b", "a"), "2": on("2", "a", "b"), "3": on("3", "d", "c") });
    let told = answer(&context(&features, &segments, &json!({ "identifier": "x" })));
    for name in ["a", "b"] {
        assert_eq!(told["flags"][name]["reason"], "ERROR; code=CIRCULAR_DEPENDENCY");
        assert_eq!(told["flags"][name]["value"], "own");
    }
    assert_eq!(told["flags"]["c"]["reason"], "TARGETING_MATCH; segment=3");
    assert_eq!(told["segments"], json!([{ "name": "3" }]));
}

#[test]
fn what_is_no_context_is_refused_with_its_place() {
    for (text, says) in [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("nonsense", "is not JSON"),
        ("{} {}", "missing field `environment`"),
        ("[]", "`.`"),
        ("{\"environment\":{\"key\":\"k\",\"name\":\"n\"}} x", "is not JSON"),
        (
            "{\"environment\":{\"key\":7,\"name\":\"n\"}}",
            "`environment.key`: invalid type: integer `7`",
        ),
    ] {
        let complaint = refusal(text.as_bytes());
        assert!(complaint.starts_with("flagcast: cannot evaluate standard input: "), "{complaint}");
        assert!(complaint.contains(says), "{text}: {complaint}");
    }
    let of = |rules: Json| {
        let segment = json!({ "key": "7", "name": "s", "rules": rules });
        refusal(context(&json!({}), &json!({ "7": segment }), &Json::Null).to_string().as_bytes())
    };
    let complaint = of(json!([{ "type": "ALL", "rules": [{ "type": "SOME" }] }]));
    assert!(complaint.contains("`segments.7.rules[0].rules[0].type`"), "{complaint}");
    assert!(complaint.contains("`ALL`") && complaint.contains("SOME"), "{complaint}");
    let complaint = of(rule("age", "ALMOST\nEQUAL", "1"));
    assert!(complaint.contains("`segments.7.rules[0].conditions[0].operator`"), "{complaint}");
    let identity = json!({ "identifier": "x", "traits": { "plan": ["pro"] } });
    let complaint = refusal(context(&json!({}), &json!({}), &identity).to_string().as_bytes());
    assert!(complaint.contains("`identity.traits.plan`: must be null, a boolean"), "{complaint}");

    // A hundred rules within each other, and a hundred thousand brackets.
    let mut deep = json!({ "type": "ALL" });
    for _ in 0..100 {
        deep = json!({ "type": "ALL", "rules": [deep] });
    }
    assert!(of(json!([deep])).contains("recursion limit"));
    refusal("[".repeat(100_000).as_bytes());
}

#[test]
fn hostile_contexts_are_answered_in_time() {
    let began = std::time::Instant::now();
    let text = "a".repeat(20_000);
    let identity = json!({ "identifier": text, "traits": { "t": text } });
    // Thousands of flags, each of which rests on the next.
    let (mut features, mut segments) = (serde_json::Map::new(), serde_json::Map::new());
    for number in 0..3000 {
        let name = format!("f{number}");
        let rules = rule(&format!("$.flags.f{}.enabled", number + 1), "EQUAL", "true");
        features.insert(name.clone(), feature("1", &name, "own"));
        segments.insert(
            number.to_string(),
            json!({
                "key": "1", "name": "s", "rules": rules, "overrides": [feature("2", &name, "over")],
            }),
        );
    }
    let told = answer(&context(&features.into(), &segments.into(), &identity));
    assert_eq!(told["flags"]["f1"]["reason"], "ERROR; code=CIRCULAR_DEPENDENCY");
    assert_eq!(told["flags"]["f2999"]["reason"], "DEFAULT");
    let mut nested = String::from("$[?");
    write!(nested, "{}1{}", "(".repeat(50_000), ")".repeat(50_000)).unwrap();
    for (property, operator, value) in [
        ("t", "REGEX", "(a+)+(a+)+(a|a)*b"),
        ("t", "REGEX", "(?:(?:a{900}){900}){900}"),
        ("t", "MODULO", "0|0"),
        ("$..*..*..*..*..*..*..*..*..*", "IS_SET", ""),
        ("$[?@..[?@..[?@..[?@..*]]]]", "IS_SET", ""),
        (nested.as_str(), "IS_SET", ""),
        (text.as_str(), "IN", text.as_str()),
    ] {
        let segment = json!({ "key": "1", "name": "s", "rules": rule(property, operator, value) });
        let told = answer(&context(&json!({}), &json!({ "1": segment }), &identity));
        assert_eq!(told["segments"], json!([]), "{operator} {value}");
    }
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

#[test]
fn a_file_is_read_and_one_that_is_not_there_is_no_usage_error() {
    let directory = TempDir::new().unwrap();
    let text = context(&json!({}), &json!({}), &Json::Null).to_string();
    std::fs::write(directory.path().join("context.json"), text).unwrap();
    let of = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flagcast"));
        command.args(arguments).current_dir(directory.path()).output().unwrap()
    };
    let output = of(&["evaluate", "--context", "context.json"]);
    assert_eq!(output.status.code(), Some(0));
    let told: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told, json!({ "flags": {}, "segments": [] }));
    let output = of(&["evaluate", "--context", "absent.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cannot read absent.json: No such file")
    );
    assert_eq!(of(&["evaluate"]).status.code(), Some(64));
}
