//! Segments of a project.

use reqwest::Method;
use serde_json::{Value, json};

use super::{SEGMENTS, each, refused, shop};
use crate::harness::Gateway;

const FIELD: (u16, &str) = (400, "invalid_field");

/// A rule with everything that a rule can have.
fn deep_rules() -> Value {
    json!([{
        "type": "ALL",
        "conditions": [{"property": "plan", "operator": "IN", "value": "[\"pro\",\"team\"]"}],
        "rules": [{
            "type": "NONE",
            "conditions": [{"property": "", "operator": "PERCENTAGE_SPLIT", "value": "12.5"}],
            "rules": [],
        }],
    }])
}

#[tokio::test]
async fn a_segment_lives_from_creation_to_deletion() {
    let (gateway, production, staging) = shop().await;
    let admin = gateway.admin();
    let before = (admin.revision(&production).await, admin.revision(&staging).await);
    let both = |by: u64| json!({"production": before.0 + by, "staging": before.1 + by});
    let body = json!({"key": "deep", "name": "Deep", "description": "all of it",
        "rules": deep_rules()});
    let made = admin.post(SEGMENTS, body).await;
    assert_eq!((&made["key"], &made["name"]), (&json!("deep"), &json!("Deep")));
    let mut kept = deep_rules();
    kept[0]["conditions"][0]["value"] = json!("pro,team");
    assert_eq!((&made["rules"], &made["revisions"]), (&kept, &both(1)), "lists are kept as text");
    assert!(made["created_at"].as_str().unwrap().ends_with('Z'));
    let path = format!("{SEGMENTS}/deep");
    let mut read = admin.get(&path).await;
    assert_eq!(read["id"], made["id"]);
    assert_eq!(each(&admin.get(SEGMENTS).await, "key"), ["staff", "pro", "deep"]);
    assert_eq!(admin.list(&format!("{SEGMENTS}?limit=2")).await.len(), 3);

    let named = admin.patch(&path, json!({"name": "Deeper", "description": ""})).await;
    assert_eq!(named["revisions"], json!({}), "people see it, clients do not");
    let ruled = admin.patch(&path, json!({"rules": []})).await;
    assert_eq!((&ruled["rules"], &ruled["revisions"]), (&json!([]), &both(2)));
    let same = admin.patch(&path, json!({"rules": [], "name": "Deeper"})).await;
    assert_eq!(same["revisions"], json!({}), "nothing changed");
    read = admin.get(&path).await;
    assert_eq!((&read["name"], &read["rules"]), (&json!("Deeper"), &json!([])));

    let gone = admin.delete(&path).await;
    assert_eq!(gone, json!({"deleted": "deep", "revisions": both(3)}));
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        refused(&gateway, (method, &path, ""), (404, "not_found"), "segment `deep`").await;
    }
    let plain = admin.post(SEGMENTS, json!({"key": "plain"})).await;
    assert_eq!((&plain["name"], &plain["rules"]), (&json!("plain"), &json!([])));
}

#[tokio::test]
async fn a_segment_takes_its_overrides_with_it() {
    let (gateway, production, staging) = shop().await;
    let admin = gateway.admin();
    for environment in [&production, &staging] {
        for (flag, segment) in [("limit", "staff"), ("limit", "pro"), ("banner", "staff")] {
            let path = format!("{}/flags/{flag}/segments/{segment}", environment.path());
            admin.put(&path, json!({"enabled": false})).await;
        }
    }
    admin.delete(&format!("{SEGMENTS}/staff")).await;
    for environment in [&production, &staging] {
        let of = async |flag: &str| {
            let path = format!("{}/flags/{flag}/segments", environment.path());
            each(&admin.get(&path).await, "segment")
        };
        assert_eq!((of("limit").await, of("banner").await), (vec![json!("pro")], vec![]));
    }
    let events = admin.get("/audit?action=segment.deleted").await;
    assert_eq!(each(&events, "environment"), ["staging", "production"]);
    let overrides = &events["items"][0]["before"]["overrides"];
    assert_eq!(overrides.as_array().unwrap().len(), 2, "the trail keeps what went: {overrides}");
    assert_eq!(overrides[1], json!({"flag": "limit", "enabled": false, "value": 10}));
    // The strongest of those that are left is still the strongest.
    let path = format!("{}/flags/limit/segments", production.path());
    assert_eq!(each(&admin.get(&path).await, "priority"), [0]);
}

#[tokio::test]
async fn what_is_no_segment_is_refused_by_its_place() {
    let (gateway, production, _) = shop().await;
    let before = gateway.admin().revision(&production).await;
    let condition = |inner: &str| {
        format!(r#"{{"key":"k","rules":[{{"type":"ALL","conditions":[{{{inner}}}]}}]}}"#)
    };
    let long = format!(r#"{{"key":"k","name":"{}"}}"#, "x".repeat(201));
    let nested = |depth: usize| {
        let rule = r#"{"type":"ALL","rules":["#.repeat(depth);
        format!(r#"{{"key":"k","rules":[{rule}{}]}}"#, "]}".repeat(depth))
    };
    for (body, named) in [
        (r#"{"key":"A b"}"#.to_owned(), "`key`"),
        (r#"{"name":"x"}"#.to_owned(), "key"),
        (r#"{"key":"identity_overrides"}"#.to_owned(), "identity_overrides"),
        (r#"{"key":"k","name":" "}"#.to_owned(), "`name`"),
        (long, "`name`"),
        (nested(100), "rules[0].rules[0].rules[0].rules[0]"),
        (nested(10_000), "rules[0].rules[0].rules[0].rules[0]"),
        (nested(11), "10 deep"),
        (r#"{"key":"k","colour":1}"#.to_owned(), "colour"),
        (r#"{"key":"k","rules":{}}"#.to_owned(), "rules"),
        (r#"{"key":"k","rules":[{"type":"SOME"}]}"#.to_owned(), "one of `ALL`, `ANY`, `NONE`"),
        (r#"{"key":"k","rules":[{"conditions":[]}]}"#.to_owned(), "rules[0]"),
        (
            r#"{"key":"k","rules":[{"type":"ALL","rules":[{"type":1}]}]}"#.to_owned(),
            "rules[0].rules[0].type",
        ),
        (
            condition(r#""property":"a","operator":"LIKE","value":"b""#),
            "`PERCENTAGE_SPLIT`, `MODULO`",
        ),
        (condition(r#""property":"a","operator":"EQUAL","value":7"#), "conditions[0].value"),
        (condition(r#""property":"a","value":"b""#), "rules[0].conditions[0]"),
        (
            condition(r#""property":"a","operator":"EQUAL","value":"b","not":1"#),
            "conditions[0].not",
        ),
    ] {
        refused(&gateway, (Method::POST, SEGMENTS, &body), FIELD, named).await;
    }
    let taken = (Method::POST, SEGMENTS, r#"{"key":"staff"}"#);
    refused(&gateway, taken, (409, "already_exists"), "segment `staff`").await;
    let path = format!("{SEGMENTS}/staff");
    refused(&gateway, (Method::PATCH, &path, r#"{"key":"x"}"#), FIELD, "key").await;
    assert_eq!(gateway.admin().revision(&production).await, before);
}

#[tokio::test]
async fn a_project_has_no_more_segments_than_the_limit() {
    let gateway = Gateway::builder().set("limits.segments_per_project", 1).start().await;
    gateway.shop().await;
    gateway.admin().create_segment("web", "first", ("a", "b")).await;
    let second = (Method::POST, SEGMENTS, r#"{"key":"second"}"#);
    refused(&gateway, second, (409, "limit_reached"), "limits.segments_per_project").await;
}
