//! Flagsmith's doors for single people: what they are told, and what is kept of them.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, SqliteConnection};

use crate::harness::Gateway;
use crate::harness::admin::Environment;
use crate::harness::answer::{Answer, get, send};

const IDENTITIES: &str = "/api/v1/identities/";

async fn shop() -> (Gateway, Environment) {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    (gateway, environment)
}

/// Sends `body` with `key`.
async fn ask(gateway: &Gateway, key: &str, (method, path): (Method, &str), body: &Value) -> Answer {
    let headers = [("x-environment-key", key), ("content-type", "application/json")];
    send(gateway, (method, path), &headers, Some(body.to_string())).await
}

/// Posts an identity with the client key; the answer must be 200, which is all that SDKs take.
async fn identify(gateway: &Gateway, environment: &Environment, body: &Value) -> Value {
    let answer = ask(gateway, &environment.client_key, (Method::POST, IDENTITIES), body).await;
    assert_eq!(answer.status, 200, "{body}");
    answer.json()
}

/// What an identity is told when it only says its name.
async fn known(gateway: &Gateway, environment: &Environment, identifier: &str) -> Value {
    let path = format!("{IDENTITIES}?identifier={identifier}");
    let answer = get(gateway, &path, &[("x-environment-key", &environment.client_key)]).await;
    assert_eq!(answer.status, 200);
    answer.json()
}

/// Traits of an answer, by name.
fn traits(answer: &Value) -> Value {
    let traits = answer["traits"].as_array().unwrap().iter();
    let pair =
        |one: &Value| (one["trait_key"].as_str().unwrap().to_owned(), one["trait_value"].clone());
    Value::Object(traits.map(pair).collect())
}

/// The rows that are kept of identities.
async fn kept(gateway: &Gateway) -> Vec<(String, String)> {
    let mut store = SqliteConnection::connect(&gateway.store_url()).await.unwrap();
    let query = "SELECT identifier, traits FROM identities ORDER BY identifier";
    sqlx::query_as(query).fetch_all(&mut store).await.unwrap()
}

fn one(key: &str, value: impl Into<Value>) -> Value {
    json!({"trait_key": key, "trait_value": value.into()})
}

#[tokio::test]
async fn traits_are_kept_and_laid_over_one_another() {
    let (gateway, environment) = shop().await;
    let before = gateway.admin().revision(&environment).await;
    let first = json!({"identifier": "ann", "traits": [
        one("plan", "pro"), one("age", 41), one("score", 2.5), one("staff", true), one("old", "x")]});
    let expected = json!({"age": 41, "old": "x", "plan": "pro", "score": 2.5, "staff": true});
    assert_eq!(traits(&identify(&gateway, &environment, &first).await), expected);
    assert_eq!(traits(&known(&gateway, &environment, "ann").await), expected);
    // A null takes a trait away; what is not named stays.
    let second = json!({"identifier": "ann", "traits": [one("age", 42), one("old", Value::Null)]});
    let expected = json!({"age": 42, "plan": "pro", "score": 2.5, "staff": true});
    assert_eq!(traits(&identify(&gateway, &environment, &second).await), expected);
    assert_eq!(traits(&known(&gateway, &environment, "ann").await), expected);
    assert_eq!(traits(&known(&gateway, &environment, "bob").await), json!({}));
    // N clients that tell their traits must not make N clients read again.
    assert_eq!(gateway.admin().revision(&environment).await, before);
}

/// Only who has something to keep is kept.
#[tokio::test]
async fn a_read_leaves_nothing() {
    let (gateway, environment) = shop().await;
    known(&gateway, &environment, "ann").await;
    for body in [
        json!({"identifier": "ann"}),
        json!({"identifier": "ann", "traits": []}),
        json!({"identifier": "ann", "traits": [one("gone", Value::Null)]}),
        json!({"identifier": "ann", "traits": [one("plan", "pro")], "transient": true}),
        json!({"traits": [one("plan", "pro")]}),
        json!({"identifier": "", "traits": [one("plan", "pro")]}),
        json!({"identifier": null, "traits": [one("plan", "pro")]}),
        json!({"identifier": " ", "traits": null}),
        json!({"identifier": "ann", "traits": [
            {"trait_key": "plan", "trait_value": "pro", "transient": true}]}),
    ] {
        identify(&gateway, &environment, &body).await;
        assert_eq!(kept(&gateway).await, [], "{body}");
    }
}

/// Nothing of a transient identity is kept, but what is known of it already counts.
#[tokio::test]
async fn what_passes_by_counts_and_is_not_kept() {
    let (gateway, environment) = shop().await;
    identify(&gateway, &environment, &json!({"identifier": "ann", "traits": [one("plan", "pro")]}))
        .await;
    let passing = json!({"identifier": "ann", "transient": true, "traits": [one("age", 41)]});
    let told = traits(&identify(&gateway, &environment, &passing).await);
    assert_eq!(told, json!({"age": 41, "plan": "pro"}));
    let mixed = json!({"identifier": "ann", "traits": [one("city", "Köln"),
        {"trait_key": "plan", "trait_value": "free", "transient": true}]});
    let told = traits(&identify(&gateway, &environment, &mixed).await);
    assert_eq!(told, json!({"city": "Köln", "plan": "free"}));
    let told = traits(&known(&gateway, &environment, "ann").await);
    assert_eq!(told, json!({"city": "Köln", "plan": "pro"}));
}

#[tokio::test]
async fn whoever_says_no_name_gets_one() {
    let (gateway, environment) = shop().await;
    let name = async |body: Value| {
        identify(&gateway, &environment, &body).await["identifier"].as_str().unwrap().to_owned()
    };
    let traits = json!([one("plan", "pro"), one("age", 32)]);
    let named = name(json!({"traits": traits})).await;
    assert_eq!(named.len(), 64);
    assert_eq!(name(json!({"identifier": "", "traits": traits})).await, named);
    assert_ne!(name(json!({})).await, name(json!({})).await);
    assert_eq!(name(json!({"identifier": 7})).await, "7");
}

/// What is no single value is text, to SDKs and to conditions.
#[tokio::test]
async fn any_json_is_a_trait() {
    let (gateway, environment) = shop().await;
    let body = json!({"identifier": "ann", "traits": [
        one("list", json!(["a", 1])), one("object", json!({"b": null})), one("large", u64::MAX)]});
    let told = traits(&identify(&gateway, &environment, &body).await);
    let expected =
        json!({"large": "18446744073709551615", "list": "[\"a\",1]", "object": "{\"b\":null}"});
    assert_eq!(told, expected);
    assert_eq!(traits(&known(&gateway, &environment, "ann").await), expected);
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_told() {
    let (gateway, environment) = shop().await;
    let long = "x".repeat(2001);
    for (body, word) in [
        (json!({"identifier": {}}), "identifier"),
        (json!({"identifier": long}), "limits.identifier_bytes"),
        (json!({"identifier": "ann", "traits": {}}), "traits"),
        (json!({"identifier": "ann", "traits": [{}]}), "trait_key"),
        (json!({"identifier": "ann", "traits": [one("", 1)]}), "1 to 200 characters"),
        (json!({"identifier": "ann", "traits": [one("k", long.clone())]}), "limits.trait_bytes"),
    ] {
        let path = (Method::POST, IDENTITIES);
        let answer = ask(&gateway, &environment.client_key, path, &body).await;
        assert_eq!(answer.status, 400, "{word}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(word), "{detail}");
    }
    assert_eq!(kept(&gateway).await, []);
}

#[tokio::test]
async fn one_flag_of_an_identity_can_be_asked_for() {
    let (gateway, environment) = shop().await;
    let list = known(&gateway, &environment, "ann").await["flags"].clone();
    let banner = list.as_array().unwrap().iter().find(|flag| flag["feature"]["name"] == "banner");
    let single = known(&gateway, &environment, "ann&feature=banner").await;
    assert_eq!(Some(&single), banner);
    assert_eq!(single["variant"], Value::Null);
    let path = format!("{IDENTITIES}?identifier=ann&feature=nothing");
    let key = [("x-environment-key", environment.client_key.as_str())];
    let absent = get(&gateway, &path, &key).await;
    assert_eq!(
        (absent.status.as_u16(), absent.json()),
        (404, json!({"detail": "Given feature not found"}))
    );
}

#[tokio::test]
async fn traits_have_doors_of_their_own() {
    let (gateway, environment) = shop().await;
    let before = gateway.admin().revision(&environment).await;
    let key = environment.client_key.as_str();
    let told = |who: &str, trait_key: &str, value: Value| json!({"identity": {"identifier": who}, "trait_key": trait_key, "trait_value": value});
    let set = told("ann", "plan", "pro".into());
    let answer = ask(&gateway, key, (Method::POST, "/api/v1/traits/"), &set).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, set));
    let bulk = json!([
        told("ann", "plan", Value::Null),
        told("ann", "age", json!(41)),
        told("bob", "tags", json!(["a"])),
    ]);
    let answer = ask(&gateway, key, (Method::PUT, "/api/v1/traits/bulk/"), &bulk).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()[2], told("bob", "tags", "[\"a\"]".into()));
    assert_eq!(traits(&known(&gateway, &environment, "ann").await), json!({"age": 41}));
    let path = "/api/v1/traits/increment-value/";
    let add = json!({"identifier": "ann", "trait_key": "age", "increment_by": -2});
    let answer = ask(&gateway, key, (Method::POST, path), &add).await;
    let sum = json!({"trait_key": "age", "trait_value": 39, "identifier": "ann"});
    assert_eq!((answer.status.as_u16(), answer.json()), (200, sum));
    let add = json!({"identifier": "eve", "trait_key": "visits", "increment_by": 1});
    assert_eq!(ask(&gateway, key, (Method::POST, path), &add).await.json()["trait_value"], 1);
    assert_eq!(gateway.admin().revision(&environment).await, before);

    let text = json!({"identifier": "bob", "trait_key": "tags", "increment_by": 1});
    for (path, body) in [
        ((Method::POST, path), text),
        ((Method::POST, "/api/v1/traits/"), json!({"trait_key": "plan", "trait_value": 1})),
        ((Method::POST, "/api/v1/traits/"), told("", "plan", json!(1))),
        ((Method::PUT, "/api/v1/traits/bulk/"), json!({})),
        ((Method::PUT, "/api/v1/traits/bulk/"), json!([told("ann", "", json!(1))])),
    ] {
        let answer = ask(&gateway, key, path, &body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.json()["detail"].is_string(), "{body}");
    }
    let many: Vec<Value> = (0..101).map(|who| told(&who.to_string(), "k", json!(1))).collect();
    let answer =
        ask(&gateway, key, (Method::PUT, "/api/v1/traits/bulk/"), &Value::from(many)).await;
    assert_eq!(answer.status, 400);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("limits.identities_per_request"), "{detail}");
}

/// Who only wants something kept is told when it is not; an evaluation goes on.
#[tokio::test]
async fn what_does_not_fit_counts_and_is_not_kept() {
    let gateway = Gateway::builder().set("limits.traits_per_identity", 1).start().await;
    let environment = gateway.shop().await;
    let body = json!({"identifier": "ann", "traits": [one("a", 1), one("b", 2)]});
    let told = traits(&identify(&gateway, &environment, &body).await);
    assert_eq!(told, json!({"a": 1, "b": 2}));
    assert_eq!(traits(&known(&gateway, &environment, "ann").await), json!({"a": 1}));
    let labels = ["limit=\"traits_per_identity\""];
    assert!(gateway.metric("flagcast_limit_hits_total", &labels).await >= 1.0);
    let set = json!({"identity": {"identifier": "ann"}, "trait_key": "c", "trait_value": 3});
    let path = (Method::POST, "/api/v1/traits/");
    let answer = ask(&gateway, &environment.client_key, path, &set).await;
    assert_eq!(answer.status, 409);
}

/// SDKs give up after a few seconds, and a person without flags is worse off than one of whom less is
/// known.
#[tokio::test]
async fn an_evaluation_does_not_wait_for_a_store_that_is_busy() {
    let (gateway, environment) = shop().await;
    let mut other = SqliteConnection::connect(&gateway.store_url()).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let began = std::time::Instant::now();
    let body = json!({"identifier": "ann", "traits": [one("plan", "pro")]});
    let answer = identify(&gateway, &environment, &body).await;
    assert!(began.elapsed() < std::time::Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(traits(&answer), json!({"plan": "pro"}));
    assert_eq!(answer["flags"].as_array().unwrap().len(), 3);
    gateway.metric_becomes("flagcast_evaluations_without_store_total", &[], 1).await;
    other.execute("ROLLBACK").await.unwrap();
    identify(&gateway, &environment, &body).await;
    assert_eq!(kept(&gateway).await.len(), 1);
}
