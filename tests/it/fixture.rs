//! `serve --fixture`: fixed flags for the tests of apps, through every door, and nothing on disk.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::ask::Ask;
use crate::harness::process::Process;
use crate::harness::stream::Subscription;
use crate::harness::{Gateway, http, read_json};

/// A flag of each kind, a segment, and an identity with something of its own.
fn flags() -> Value {
    json!({
        "flags": {
            "dark-mode": true,
            "old-checkout": false,
            "page-size": 24,
            "banner": { "value": "Hello", "segments": [{ "segment": "vip", "value": "Hello, VIP" }] },
        },
        "segments": { "vip": { "rules": [{ "type": "ALL", "conditions": [
            { "property": "plan", "operator": "EQUAL", "value": "pro" }] }] } },
        "identities": { "user-1": {
            "traits": { "plan": "pro" }, "flags": { "dark-mode": false } } },
    })
}

/// What Flagsmith's SDKs get for an identity: enabled and value, by flag.
async fn identity(gateway: &Gateway, identifier: &str) -> Value {
    let url = gateway.url(&format!("/api/v1/identities/?identifier={identifier}"));
    let answer = http().get(url).header("x-environment-key", "test").send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    let flags = answer["flags"].as_array().unwrap().iter().map(|flag| {
        let name = flag["feature"]["name"].as_str().unwrap().to_owned();
        (name, json!([flag["enabled"], flag["feature_state_value"]]))
    });
    Value::Object(flags.collect())
}

#[tokio::test]
async fn every_door_serves_the_file() {
    let gateway = Gateway::fixture(flags().to_string()).start().await;
    let read = gateway.flags("test").await;
    assert_eq!(read["flags"]["page-size"], json!({ "enabled": true, "value": 24 }));
    assert_eq!(read["flags"]["old-checkout"]["enabled"], false);

    let mut stream = Subscription::open(gateway.public(), "test").await;
    assert_eq!(stream.next_ping().await.unwrap()["revision"], read["revision"]);

    let nobody = identity(&gateway, "somebody").await;
    assert_eq!(nobody["banner"], json!([true, "Hello"]));
    assert_eq!(nobody["dark-mode"], json!([true, null]));
    let known = identity(&gateway, "user-1").await;
    assert_eq!(known["banner"], json!([true, "Hello, VIP"]));
    assert_eq!(known["dark-mode"], json!([false, null]));

    let url = gateway.url("/ofrep/v1/evaluate/flags/banner");
    let context = json!({ "context": { "targetingKey": "anybody", "plan": "pro" } });
    let answer =
        http().post(url).bearer_auth("test").body(context.to_string()).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["value"], "Hello, VIP", "{answer}");

    let url = gateway.url("/api/v1/environment-document/");
    let document = http().get(url).header("x-environment-key", "ser.test").send().await.unwrap();
    assert_eq!(document.status(), 200);
}

#[tokio::test]
async fn nobody_can_change_it_and_nothing_is_on_disk() {
    let gateway = Gateway::fixture(flags().to_string()).start().await;
    let path = "/projects/fixture/environments/fixture/flags/dark-mode";
    let (status, _, _) = Ask::new(Method::GET, path).send(&gateway).await;
    assert_eq!(status, 200);
    let change = Ask { body: r#"{"enabled":false}"#, ..Ask::new(Method::PATCH, path) };
    let problem = change.refused(&gateway, 403, "read_only").await;
    assert!(problem["detail"].as_str().unwrap().contains("--fixture"), "{problem}");
    // What a test sends must not be there for the next one.
    let url = gateway.url("/api/v1/identities/");
    let traits = json!([{ "trait_key": "plan", "trait_value": "pro" }]);
    let body = json!({ "identifier": "guest", "traits": traits });
    let answer = http()
        .post(url)
        .header("x-environment-key", "test")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert!(answer.to_string().contains("Hello, VIP"), "{answer}");
    assert_eq!(identity(&gateway, "guest").await["banner"], json!([true, "Hello"]));
    assert_eq!(gateway.files(), ["flags.json"]);
}

/// What a production environment serves to server SDKs is a fixture, and puts everybody where
/// production puts them.
#[tokio::test]
async fn the_document_of_production_gives_what_production_gives() {
    let production = Gateway::builder().start().await;
    let shop = production.shop().await;
    let admin = production.admin();
    let here = shop.path();
    let variants = json!([{ "key": "a", "value": "A", "weight": 30 },
        { "key": "b", "value": "B", "weight": 30 }]);
    let split = json!({ "key": "split", "enabled": true, "value": "rest", "variants": variants });
    admin.post(&format!("/projects/{}/features", shop.project), split).await;
    let plain = json!({ "key": "plain", "enabled": true, "value": "own" });
    admin.post(&format!("/projects/{}/features", shop.project), plain).await;
    for (key, percent) in [("first", "40"), ("second", "60")] {
        let rules = json!([{ "type": "ALL", "conditions": [
            { "property": "", "operator": "PERCENTAGE_SPLIT", "value": percent }] }]);
        admin
            .post(
                &format!("/projects/{}/segments", shop.project),
                json!({ "key": key, "rules": rules }),
            )
            .await;
        let path = format!("{here}/flags/plain/segments/{key}");
        admin.put(&path, json!({ "value": key })).await;
    }
    let weights = json!({ "weights": { "a": 50, "b": 50 } });
    admin.put(&format!("{here}/flags/split/segments/first"), weights).await;
    let mine = format!("{here}/flags/plain/identities/user-3");
    admin.put(&mine, json!({ "value": "mine" })).await;

    let url = production.url("/api/v1/environment-document/");
    let read = http().get(url).header("x-environment-key", &shop.server_key).send().await.unwrap();
    let fixture = Gateway::fixture(read.text().await.unwrap()).start().await;
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..40 {
        let path = format!("/api/v1/identities/?identifier=user-{number}&transient=true");
        let mut answers = Vec::new();
        for gateway in [&production, &fixture] {
            let request = http().get(gateway.url(&path));
            let answer =
                request.header("x-environment-key", &shop.client_key).send().await.unwrap();
            let answer: Value = answer.json().await.unwrap();
            let flags =
                answer["flags"].as_array().unwrap().iter().map(|flag| {
                    format!("{} {}", flag["feature"]["name"], flag["feature_state_value"])
                });
            answers.push(flags.collect::<Vec<_>>());
        }
        assert_eq!(answers[0], answers[1], "user-{number}");
        seen.extend(answers.pop().unwrap());
    }
    for value in ["A", "B", "rest", "own", "first", "second", "mine"] {
        let value = json!(value).to_string();
        assert!(seen.iter().any(|flag| flag.ends_with(&value)), "{value}: {seen:?}");
    }
}

#[tokio::test]
async fn a_fault_in_the_file_is_named_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    for (text, place) in [
        ("{", "not JSON"),
        (r#"{"flags":{"a":{"enabeld":true}}}"#, "`flags.a.enabeld`"),
        (r#"{"flags":{"a":{"segments":[{"segment":"vip"}]}}}"#, "no segment `vip`"),
        (
            r#"{"flags":{"a":{"variants":[{"key":"x","value":1,"weight":60},{"key":"y","value":1,"weight":41}]}}}"#,
            "at most 100",
        ),
        (r#"{"flag":{}}"#, "`flag`"),
        (r#"{"environment":{"server_key":"test"},"flags":{}}"#, "`environment.server_key`"),
    ] {
        std::fs::write(directory.path().join("f.json"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_flagcast"));
        command.args(["serve", "--fixture", "f.json"]).current_dir(directory.path());
        let mut process = Process::spawn("flagcast", command);
        assert_eq!(process.exited().await.code(), Some(64), "{text}");
        let lines = process.stderr.all();
        let line = lines.last().unwrap();
        assert!(line.contains("f.json") && line.contains(place), "{text}: {line}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagcast"));
    command.args(["serve", "--fixture", "nowhere.json"]).current_dir(directory.path());
    let mut process = Process::spawn("flagcast", command);
    assert_eq!(process.exited().await.code(), Some(64));
}

/// Tests of one machine run side by side: each has a gateway of its own, on a port of its own.
#[tokio::test]
async fn many_run_side_by_side() {
    let mut gateways = Vec::new();
    for number in 0..4 {
        let fixture = json!({ "flags": { "number": number } });
        gateways.push(Gateway::fixture(fixture.to_string()).start().await);
    }
    for (number, gateway) in gateways.iter().enumerate() {
        let read = read_json(&gateway.url("/sdk/v1/environments/test/flags")).await;
        assert_eq!(read["flags"]["number"]["value"], number);
    }
}
