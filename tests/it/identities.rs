//! Flagsmith's doors for single people: what they are told, and what is kept of them.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Executor as _;

use crate::harness::Gateway;
use crate::harness::admin::Environment;
use crate::harness::answer::{Answer, get, send};
use crate::harness::store::begin_alone;

const IDENTITIES: &str = "/api/v1/identities/";

async fn shop() -> (Gateway, Environment) {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    (gateway, environment)
}

/// The shop with a flag of each kind of targeting: `banner` is another one for those who pay and for
/// Ann, `colour` is shared out, `secret` is for server keys.
pub(crate) async fn target(gateway: &Gateway, environment: &Environment) {
    let admin = gateway.admin();
    let post = async |path: &str, body: Value| admin.call(Method::POST, path, Some(&body)).await;
    let conditions = json!([{"property": "plan", "operator": "EQUAL", "value": "pro"}]);
    let rules = json!([{"type": "ALL", "conditions": conditions, "rules": []}]);
    post("/projects/web/segments", json!({"key": "paying", "rules": rules})).await;
    let variants = json!([{"key": "red", "value": "#f00", "weight": 50},
        {"key": "blue", "value": "#00f", "weight": 30.125}]);
    let colour = json!({"key": "colour", "enabled": true, "value": "grey", "variants": variants});
    post("/projects/web/features", colour).await;
    let secret = json!({"key": "secret", "enabled": true, "value": 1, "server_key_only": true});
    post("/projects/web/features", secret).await;
    let flag = format!("{}/flags/banner", environment.path());
    for (path, value) in [("segments/paying", "thank you"), ("identities/ann", "only you")] {
        let state = json!({"enabled": true, "value": value});
        admin.call(Method::PUT, &format!("{flag}/{path}"), Some(&state)).await;
    }
}

async fn targeted() -> (Gateway, Environment) {
    let (gateway, environment) = shop().await;
    target(&gateway, &environment).await;
    (gateway, environment)
}

/// Changes settings of an environment.
async fn set(gateway: &Gateway, environment: &Environment, settings: Value) {
    gateway.admin().call(Method::PATCH, &environment.path(), Some(&settings)).await;
}

/// A flag of an answer.
fn flag<'a>(answer: &'a Value, key: &str) -> Option<&'a Value> {
    let list = answer.get("flags").unwrap_or(answer);
    list.as_array().unwrap().iter().find(|flag| flag["feature"]["name"] == key)
}

fn banner(answer: &Value) -> &Value {
    &flag(answer, "banner").unwrap()["feature_state_value"]
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
    let mut store = gateway.store().await;
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
    let mut other = gateway.store().await;
    begin_alone(&mut other).await;
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

#[tokio::test]
async fn everybody_gets_what_is_for_them() {
    let (gateway, environment) = targeted().await;
    let as_told =
        async |body: Value| banner(&identify(&gateway, &environment, &body).await).clone();
    let pro = json!([one("plan", "pro")]);
    assert_eq!(as_told(json!({"identifier": "bob"})).await, "hello");
    assert_eq!(as_told(json!({"identifier": "bob", "traits": pro})).await, "thank you");
    // What was told once counts the next time, for a read, too.
    assert_eq!(as_told(json!({"identifier": "bob"})).await, "thank you");
    assert_eq!(banner(&known(&gateway, &environment, "bob").await), "thank you");
    assert_eq!(as_told(json!({"identifier": "ann", "traits": pro})).await, "only you");
    assert_eq!(as_told(json!({"identifier": "", "traits": pro})).await, "thank you");
    let passing = json!({"identifier": "ann", "traits": pro, "transient": true});
    assert_eq!(as_told(passing).await, "only you", "overrides count for whoever passes by");
    let passing = json!([{"trait_key": "plan", "trait_value": "free", "transient": true}]);
    assert_eq!(as_told(json!({"identifier": "bob", "traits": passing})).await, "hello");
    // The environment's own list knows no people.
    let key = [("x-environment-key", environment.client_key.as_str())];
    assert_eq!(banner(&get(&gateway, "/api/v1/flags/", &key).await.json()), "hello");
}

#[tokio::test]
async fn variants_are_shared_out_to_identities_only() {
    let (gateway, environment) = targeted().await;
    let key = [("x-environment-key", environment.client_key.as_str())];
    let own = get(&gateway, "/api/v1/flags/", &key).await.json();
    let own = flag(&own, "colour").unwrap();
    assert_eq!(
        (&own["feature"]["type"], &own["feature_state_value"]),
        (&json!("MULTIVARIATE"), &json!("grey"))
    );
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..30 {
        let answer = known(&gateway, &environment, &format!("user-{number}")).await;
        let colour = flag(&answer, "colour").unwrap();
        let value = match colour["variant"].as_str().unwrap() {
            "control" => "grey",
            "red" => "#f00",
            "blue" => "#00f",
            other => panic!("{other}"),
        };
        assert_eq!(colour["feature_state_value"], value);
        assert_eq!(flag(&answer, "banner").unwrap()["variant"], Value::Null);
        seen.insert(value);
        let again = known(&gateway, &environment, &format!("user-{number}")).await;
        assert_eq!(flag(&again, "colour"), Some(colour), "it stays");
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[tokio::test]
async fn what_is_for_servers_is_at_no_public_door() {
    let (gateway, environment) = targeted().await;
    for (key, is_seen) in [(&environment.client_key, false), (&environment.server_key, true)] {
        let headers = [("x-environment-key", key.as_str())];
        for path in ["/api/v1/flags/", "/api/v1/identities/?identifier=bob"] {
            let answer = get(&gateway, path, &headers).await.json();
            assert_eq!(flag(&answer, "secret").is_some(), is_seen, "{path}");
        }
        for path in
            ["/api/v1/flags/?feature=secret", "/api/v1/identities/?identifier=bob&feature=secret"]
        {
            let status = if is_seen { 200 } else { 404 };
            assert_eq!(get(&gateway, path, &headers).await.status, status, "{path}");
        }
    }
    assert_eq!(gateway.flags(&environment.client_key).await["flags"].get("secret"), None);
}

#[tokio::test]
async fn what_is_off_is_hidden_after_evaluation() {
    let (gateway, environment) = targeted().await;
    set(&gateway, &environment, json!({"hide_disabled_flags": true})).await;
    let off = json!({"enabled": false});
    let path = format!("{}/flags/banner", environment.path());
    gateway.admin().call(Method::PATCH, &path, Some(&off)).await;
    for key in [&environment.client_key, &environment.server_key] {
        let headers = [("x-environment-key", key.as_str())];
        let own = get(&gateway, "/api/v1/flags/", &headers).await.json();
        assert!(flag(&own, "banner").is_none() && flag(&own, "dark-mode").is_none());
        let bob = get(&gateway, "/api/v1/identities/?identifier=bob", &headers).await.json();
        assert!(flag(&bob, "banner").is_none());
        let ann = get(&gateway, "/api/v1/identities/?identifier=ann", &headers).await.json();
        assert_eq!(banner(&ann), "only you", "for her it is on");
    }
    let server = [("x-environment-key", environment.server_key.as_str())];
    let document = get(&gateway, "/api/v1/environment-document/", &server).await.json();
    assert_eq!(document["hide_disabled_flags"], true);
    assert_eq!(document["feature_states"].as_array().unwrap().len(), 5, "SDKs filter themselves");
}

#[tokio::test]
async fn what_is_sensitive_is_hidden_from_everybody() {
    let (gateway, environment) = targeted().await;
    set(&gateway, &environment, json!({"hide_sensitive_data": true})).await;
    let body = json!({"identifier": "bob", "traits": [one("plan", "pro")]});
    let answer = identify(&gateway, &environment, &body).await;
    assert_eq!(answer["traits"], json!([]));
    let shown = flag(&answer, "banner").unwrap();
    assert_eq!((&shown["id"], &shown["feature"]["description"]), (&Value::Null, &Value::Null));
    assert_eq!(banner(&answer), "thank you", "what is hidden counts all the same");
}

/// Anybody may have a client key. Evaluations go on without what it tells; who only wants to tell is
/// refused.
#[tokio::test]
async fn traits_by_client_keys_can_be_turned_off() {
    let (gateway, environment) = targeted().await;
    set(&gateway, &environment, json!({"allow_client_traits": false})).await;
    let body = json!({"identifier": "bob", "traits": [one("plan", "pro")]});
    let answer = identify(&gateway, &environment, &body).await;
    assert_eq!((banner(&answer), &answer["traits"]), (&json!("hello"), &json!([])));
    let told =
        json!({"identity": {"identifier": "bob"}, "trait_key": "plan", "trait_value": "pro"});
    let traits_door = || (Method::POST, "/api/v1/traits/");
    let refused = ask(&gateway, &environment.client_key, traits_door(), &told).await;
    assert_eq!(refused.status, 400);
    // A server may; then it counts for the client, too.
    let taken = ask(&gateway, &environment.server_key, traits_door(), &told).await;
    assert_eq!(taken.status, 200);
    assert_eq!(banner(&known(&gateway, &environment, "bob").await), "thank you");
}

#[tokio::test]
async fn keeping_traits_can_be_turned_off() {
    let (gateway, environment) = targeted().await;
    set(&gateway, &environment, json!({"persist_traits": false})).await;
    let body = json!({"identifier": "bob", "traits": [one("plan", "pro")]});
    assert_eq!(banner(&identify(&gateway, &environment, &body).await), "thank you");
    assert_eq!(banner(&known(&gateway, &environment, "bob").await), "hello");
    let told =
        json!({"identity": {"identifier": "bob"}, "trait_key": "plan", "trait_value": "pro"});
    let door = (Method::POST, "/api/v1/traits/");
    assert_eq!(ask(&gateway, &environment.server_key, door, &told).await.status, 400);
}

/// Everything that those need who evaluate by themselves, in one page.
#[tokio::test]
async fn the_document_tells_of_targeting() {
    let (gateway, environment) = targeted().await;
    let headers = [("x-environment-key", environment.server_key.as_str())];
    let answer = get(&gateway, "/api/v1/environment-document/", &headers).await;
    assert_eq!(answer.header("link"), "", "only two SDKs follow a link");
    let document = answer.json();
    let segment = &document["project"]["segments"][0];
    assert_eq!(segment["name"], "paying");
    let condition = json!({"operator": "EQUAL", "property_": "plan", "value": "pro"});
    assert_eq!(segment["rules"][0]["conditions"], json!([condition]));
    assert_eq!(segment["feature_states"][0]["feature_segment"], json!({"priority": 0}));
    assert_eq!(segment["feature_states"][0]["feature_state_value"], "thank you");
    let states = document["feature_states"].as_array().unwrap();
    let colour = states.iter().find(|state| state["feature"]["name"] == "colour").unwrap();
    let shares: Vec<&Value> = colour["multivariate_feature_state_values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|share| &share["percentage_allocation"])
        .collect();
    assert_eq!(shares, [&json!(50.0), &json!(30.125)]);
    assert_eq!(document["identity_overrides"][0]["identifier"], "ann");
    let secret = states.iter().find(|state| state["feature"]["name"] == "secret").unwrap();
    let hidden = json!([secret["feature"]["id"]]);
    assert_eq!(document["project"]["server_key_only_feature_ids"], hidden);
}
