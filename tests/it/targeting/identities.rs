//! Identities with their traits, as people see and change them.

use reqwest::Method;
use serde_json::{Value, json};

use super::{each, refused, shop};
use crate::harness::Gateway;

const FIELD: (u16, &str) = (400, "invalid_field");

#[tokio::test]
async fn an_identity_is_kept_while_it_carries_something() {
    let (gateway, production, _) = shop().await;
    let admin = gateway.admin();
    let anna = format!("{}/identities/anna", production.path());
    let before = admin.revision(&production).await;
    refused(&gateway, (Method::GET, &anna, ""), (404, "not_found"), "identity `anna`").await;
    let traits = json!({"plan": "pro", "age": 32, "score": 0.5, "whole": 7.0, "beta": true});
    let made = admin.patch(&anna, json!({ "traits": traits })).await;
    assert_eq!((&made["traits"], &made["revision"]), (&traits, &json!(before + 1)));
    assert!(made["created_at"].as_str().unwrap().ends_with('Z'));
    let changed = admin.patch(&anna, json!({"traits": {"plan": "team", "beta": null}})).await;
    let left = json!({"plan": "team", "age": 32, "score": 0.5, "whole": 7.0});
    assert_eq!(changed["traits"], left);
    let same = admin.patch(&anna, json!({"traits": {"plan": "team", "nothing": null}})).await;
    assert_eq!(same["revision"], before + 2, "nothing changed");

    let flag = format!("{}/flags/limit/identities/anna", production.path());
    admin.put(&flag, json!({"value": 1})).await;
    let read = admin.get(&anna).await;
    assert_eq!(read["traits"], left);
    assert_eq!(read["overrides"], json!({"limit": {"enabled": true, "value": 1}}));
    let none = json!({"plan": null, "age": null, "score": null, "whole": null});
    admin.patch(&anna, json!({ "traits": none })).await;
    assert_eq!(admin.get(&anna).await["traits"], json!({}), "its override is left");
    admin.delete(&flag).await;
    refused(&gateway, (Method::GET, &anna, ""), (404, "not_found"), "anna").await;

    admin.patch(&anna, json!({"traits": {"a": 1}})).await;
    let nobody = admin.patch(&anna, json!({"traits": {"a": null}})).await;
    assert_eq!((&nobody["created_at"], &nobody["traits"]), (&Value::Null, &json!({})));
    refused(&gateway, (Method::GET, &anna, ""), (404, "not_found"), "anna").await;
    let revision = nobody["revision"].clone();
    let nothing = admin.patch(&anna, json!({"traits": {"a": null}})).await;
    assert_eq!(nothing["revision"], revision, "nobody had nothing");

    admin.patch(&anna, json!({"traits": {"a": 1}})).await;
    admin.put(&flag, json!({"value": 1})).await;
    let gone = admin.delete(&anna).await;
    assert_eq!(gone["deleted"], "anna");
    let list = format!("{}/flags/limit/identities", production.path());
    assert_eq!(admin.get(&list).await["items"], json!([]), "its overrides went with it");
    refused(&gateway, (Method::DELETE, &anna, ""), (404, "not_found"), "anna").await;
}

#[tokio::test]
async fn identities_are_found_by_how_they_begin() {
    let (gateway, production, staging) = shop().await;
    let admin = gateway.admin();
    let list = format!("{}/identities", production.path());
    for name in ["user_2", "user_10", "User_1", "%25", "u", "%C3%A4nne", "user_1%2Fx"] {
        admin.patch(&format!("{list}/{name}"), json!({"traits": {"n": 1}})).await;
    }
    let found = async |query: &str| each(&admin.get(&format!("{list}{query}")).await, "identifier");
    let all = ["%", "User_1", "u", "user_1/x", "user_10", "user_2", "änne"];
    assert_eq!(found("").await, all, "in the order of their bytes");
    assert_eq!(found("?prefix=user_").await, ["user_1/x", "user_10", "user_2"]);
    assert_eq!(found("?prefix=%25").await, ["%"], "a prefix is no pattern");
    assert_eq!(found("?prefix=%C3%A4").await, ["änne"]);
    assert_eq!(found("?prefix=user_9").await, Vec::<Value>::new());
    let paged = admin.list(&format!("{list}?limit=2&prefix=u")).await;
    let names: Vec<&str> = paged.iter().map(|one| one["identifier"].as_str().unwrap()).collect();
    assert_eq!(names, ["u", "user_1/x", "user_10", "user_2"]);
    assert_eq!(admin.get(&format!("{}/identities", staging.path())).await["items"], json!([]));
    for (query, code) in [
        ("?cursor=nonsense", "invalid_cursor"),
        ("?limit=0", "invalid_query"),
        ("?suffix=x", "invalid_query"),
    ] {
        let path = format!("{list}{query}");
        refused(&gateway, (Method::GET, &path, ""), (400, code), "").await;
    }
}

#[tokio::test]
async fn what_is_no_trait_is_refused() {
    let gateway = Gateway::builder()
        .set("limits.identities_per_environment", 1)
        .set("limits.traits_per_identity", 2)
        .set("limits.trait_bytes", 8)
        .start()
        .await;
    let production = gateway.shop().await;
    let anna = format!("{}/identities/anna", production.path());
    let long = format!(r#"{{"traits":{{"{}":1}}}}"#, "k".repeat(201));
    for (body, named) in [
        ("{}", "traits"),
        (r#"{"traits":[]}"#, "traits"),
        (r#"{"traits":{"a":[1]}}"#, "traits.a"),
        (r#"{"traits":{"a":{}}}"#, "traits.a"),
        (r#"{"traits":{"a":18446744073709551615}}"#, "traits.a"),
        (r#"{"traits":{"":1}}"#, "name"),
        (&long, "name"),
        (r#"{"traits":{"a":"123456789"}}"#, "limits.trait_bytes"),
        (r#"{"traits":{"a":"\u0000"}}"#, "NUL"),
        (r#"{"traits":{"a":1},"identifier":"x"}"#, "identifier"),
    ] {
        refused(&gateway, (Method::PATCH, &anna, body), FIELD, named).await;
    }
    let full = (409, "limit_reached");
    let three = r#"{"traits":{"a":1,"b":2,"c":3}}"#;
    let setting = "limits.traits_per_identity";
    refused(&gateway, (Method::PATCH, &anna, three), full, setting).await;
    gateway.admin().patch(&anna, json!({"traits": {"a": 1, "b": 2}})).await;
    let swapped = gateway.admin().patch(&anna, json!({"traits": {"a": null, "c": 3}})).await;
    assert_eq!(swapped["traits"], json!({"b": 2, "c": 3}), "what goes makes room");
    let bert = format!("{}/identities/bert", production.path());
    let one = r#"{"traits":{"a":1}}"#;
    let setting = "limits.identities_per_environment";
    refused(&gateway, (Method::PATCH, &bert, one), full, setting).await;
    // Whoever is forgotten makes room, in whichever way it came to be.
    let admin = gateway.admin();
    for forget in [r#"{"traits":{"a":null,"b":null,"c":null}}"#, ""] {
        let method = if forget.is_empty() { Method::DELETE } else { Method::PATCH };
        let path = if forget.is_empty() { &bert } else { &anna };
        let body = serde_json::from_str(forget).ok();
        admin.call(method, path, body.as_ref()).await;
        let next = if forget.is_empty() { &anna } else { &bert };
        admin.patch(next, json!({"traits": {"a": 1}})).await;
        let third = format!("{}/identities/third", production.path());
        refused(&gateway, (Method::PATCH, &third, one), full, setting).await;
    }
    let long = format!("{}/identities/{}", production.path(), "x".repeat(2001));
    refused(&gateway, (Method::PATCH, &long, one), FIELD, "limits.identifier_bytes").await;
}
