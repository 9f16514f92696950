//! Variants of features, and their weights in flags.

use reqwest::Method;
use serde_json::json;

use super::{FEATURES, refused, shop};
use crate::harness::Gateway;
use crate::harness::ask::Ask;

const COLOUR: &str = "/projects/web/features/colour";
const FIELD: (u16, &str) = (400, "invalid_field");

#[tokio::test]
async fn a_feature_is_made_with_variants_that_begin_with_their_shares() {
    let (gateway, production, staging) = shop().await;
    let admin = gateway.admin();
    let variants = json!([
        {"key": "blue", "value": "#00f", "weight": 30.0},
        {"key": "red", "value": "#f00", "weight": 20.0},
    ]);
    let feature = admin.get(COLOUR).await;
    assert_eq!(feature["variants"], variants);
    assert_eq!(
        (&feature["value_type"], &feature["server_key_only"]),
        (&json!("plain"), &json!(false))
    );
    for environment in [&production, &staging] {
        let flag = admin.get(&format!("{}/flags/colour", environment.path())).await;
        assert_eq!(flag["variants"], variants);
    }
    assert_eq!(admin.get(&format!("{FEATURES}/limit")).await["variants"], json!([]));
    let secret =
        json!({"key": "secret", "server_key_only": true, "value_type": "json", "value": "{}"});
    let secret = admin.post(FEATURES, secret).await;
    assert_eq!((&secret["value_type"], &secret["server_key_only"]), (&json!("json"), &json!(true)));
    let open = admin.patch(&format!("{FEATURES}/secret"), json!({"server_key_only": false})).await;
    assert_eq!(open["server_key_only"], false);
    assert_eq!(open["revisions"].as_object().unwrap().len(), 2, "who sees it has changed");
}

#[tokio::test]
async fn a_variant_added_later_has_no_share_where_people_have_theirs() {
    let (gateway, production, _) = shop().await;
    let admin = gateway.admin();
    let green = format!("{COLOUR}/variants/green");
    let before = admin.revision(&production).await;
    let put = || Ask { body: r#"{"value":"lime","weight":50}"#, ..Ask::new(Method::PUT, &green) };
    let (status, made, _) = put().send(&gateway).await;
    assert_eq!(status, 201);
    assert_eq!(made["revisions"]["production"], before + 1);
    assert_eq!(made["variants"][2], json!({"key": "green", "value": "lime", "weight": 50.0}));
    let flag = format!("{}/flags/colour", production.path());
    assert_eq!(admin.get(&flag).await["variants"][2]["weight"], 0.0);
    let fresh = admin.create_environment("web", "fresh").await;
    let there = admin.get(&format!("{}/flags/colour", fresh.path())).await;
    assert_eq!(there["variants"][2]["weight"], 50.0, "a new environment begins with it");

    let (status, same, _) = put().send(&gateway).await;
    assert_eq!((status, &same["revisions"]), (200, &json!({})), "nothing changed");
    let weight = admin.put(&green, json!({"weight": 10})).await;
    assert_eq!(weight["variants"][2], json!({"key": "green", "value": "lime", "weight": 10.0}));
    assert_eq!(weight["revisions"], json!({}), "it is for new environments only");
    let value = admin.put(&green, json!({"value": null})).await;
    assert_eq!(value["variants"][2], json!({"key": "green", "value": null, "weight": 10.0}));
    assert_eq!(value["revisions"].as_object().unwrap().len(), 3);

    let blue = format!("{COLOUR}/variants/blue");
    let less = admin.delete(&blue).await;
    assert_eq!(less["revisions"].as_object().unwrap().len(), 3);
    let flag = admin.get(&flag).await;
    assert_eq!(flag["variants"][0], json!({"key": "red", "value": "#f00", "weight": 20.0}));
    refused(&gateway, (Method::DELETE, &blue, ""), (404, "not_found"), "variant `blue`").await;
    let again = admin.put(&blue, json!({"value": "#009"})).await;
    assert_eq!(again["variants"][2]["key"], "blue", "it comes back as another, the last");
}

#[tokio::test]
async fn weights_are_shared_out_in_each_environment() {
    let (gateway, production, staging) = shop().await;
    let admin = gateway.admin();
    let flag = format!("{}/flags/colour", production.path());
    let changed = admin.patch(&flag, json!({"weights": {"blue": 33.333}})).await;
    assert_eq!(changed["variants"][0]["weight"], 33.333);
    assert_eq!(changed["variants"][1]["weight"], 20.0, "those that are not named stay");
    let same = admin.patch(&flag, json!({"weights": {"blue": 33.333}})).await;
    assert_eq!(same["revision"], changed["revision"]);
    let there = admin.get(&format!("{}/flags/colour", staging.path())).await;
    assert_eq!(there["variants"][0]["weight"], 30.0);
    let event = &admin.get("/audit?limit=1&environment=production").await["items"][0];
    assert_eq!(event["action"], "flag.updated");
    assert_eq!(event["before"]["weights"], json!({"blue": 30.0, "red": 20.0}));
    assert_eq!(event["after"]["weights"], json!({"blue": 33.333, "red": 20.0}));

    let batch = format!("{}/flags:batch", production.path());
    let items = json!({"flags": [
        {"key": "limit", "value": 1},
        {"key": "colour", "weights": {"blue": 0, "red": 100}, "enabled": false},
    ]});
    let answer = admin.post(&batch, items).await;
    assert_eq!(answer["flags"][1]["variants"][1]["weight"], 100.0);
    for (body, named) in [
        (r#"{"weights":{"green":1}}"#, "no variant `green`"),
        (r#"{"weights":{"blue":0.001}}"#, "at most 100"),
        (r#"{"weights":{"blue":-1}}"#, "weights.blue"),
        (r#"{"weights":{"blue":100.001}}"#, "weights.blue"),
        (r#"{"weights":{"blue":0.0001}}"#, "weights.blue"),
        (r#"{"weights":{"blue":"10"}}"#, "weights.blue"),
        (r#"{"weights":{"blue":null}}"#, "weights.blue"),
        (r#"{"weights":[10]}"#, "weights"),
    ] {
        refused(&gateway, (Method::PATCH, &flag, body), FIELD, named).await;
    }
    let body = r#"{"flags":[{"key":"limit","value":2},{"key":"colour","weights":{"green":1}}]}"#;
    refused(&gateway, (Method::POST, &batch, body), FIELD, "`flags[1].weights`").await;
    let limit = admin.get(&format!("{}/flags/limit", production.path())).await;
    assert_eq!(limit["value"], 1, "nothing half-written");
}

#[tokio::test]
async fn what_is_no_variant_is_refused_by_its_place() {
    let (gateway, production, _) = shop().await;
    let before = gateway.admin().revision(&production).await;
    let huge =
        format!(r#"{{"key":"k","variants":[{{"key":"a","value":"{}"}}]}}"#, "x".repeat(20_001));
    for (body, named) in [
        (r#"{"key":"k","variants":[{"key":"a b"}]}"#, "variants[0]"),
        (r#"{"key":"k","variants":[{"key":"a"},{"key":"a"}]}"#, "variants[1].key"),
        (r#"{"key":"k","variants":[{"key":"control"}]}"#, "control"),
        (r#"{"key":"k","variants":[{"key":"a","value":1.5}]}"#, "variants[0].value"),
        (r#"{"key":"k","variants":[{"key":"a","weight":101}]}"#, "variants[0].weight"),
        (
            r#"{"key":"k","variants":[{"key":"a","weight":60},{"key":"b","weight":41}]}"#,
            "at most 100",
        ),
        (r#"{"key":"k","variants":[{"key":"a","colour":1}]}"#, "variants[0].colour"),
        (huge.as_str(), "limits.value_bytes"),
        (r#"{"key":"k","value_type":"yaml"}"#, "value_type"),
        (r#"{"key":"k","server_key_only":"yes"}"#, "server_key_only"),
    ] {
        refused(&gateway, (Method::POST, FEATURES, body), FIELD, named).await;
    }
    let green = format!("{COLOUR}/variants/green");
    for (path, body, named) in [
        (green.as_str(), r#"{"weight":50.001}"#, "at most 100"),
        (&green, r#"{"value":{}}"#, "value"),
        (&green, r#"{"name":"x"}"#, "name"),
        (&format!("{COLOUR}/variants/control"), "{}", "control"),
        (&format!("{COLOUR}/variants/a%20b"), "{}", "key"),
    ] {
        refused(&gateway, (Method::PUT, path, body), FIELD, named).await;
    }
    let nobody = format!("{FEATURES}/nobody/variants/a");
    refused(&gateway, (Method::PUT, &nobody, "{}"), (404, "not_found"), "nobody").await;
    assert_eq!(gateway.admin().revision(&production).await, before);
}

#[tokio::test]
async fn texts_of_a_json_feature_are_json_wherever_they_are_written() {
    let (gateway, production, _) = shop().await;
    let admin = gateway.admin();
    let create = r#"{"key":"theme","value_type":"json","value":"dark"}"#;
    refused(&gateway, (Method::POST, FEATURES, create), FIELD, "`value`").await;
    let create = r#"{"key":"theme","value_type":"json","variants":[{"key":"a","value":"[]"}]}"#;
    refused(&gateway, (Method::POST, FEATURES, create), FIELD, "`variants[0].value`").await;
    let theme = json!({"key": "theme", "value_type": "json", "value": "{\"dark\":true}",
        "variants": [{"key": "wide", "value": "2.5", "weight": 1}]});
    admin.post(FEATURES, theme).await;
    let flag = format!("{}/flags/theme", production.path());
    for (path, body) in [
        (format!("{FEATURES}/theme/variants/wide"), r#"{"value":"wide"}"#),
        (format!("{FEATURES}/theme/variants/new"), r#"{"value":"wide"}"#),
        (format!("{flag}/segments/staff"), r#"{"value":"wide"}"#),
        (format!("{flag}/identities/anna"), r#"{"value":"wide"}"#),
    ] {
        refused(&gateway, (Method::PUT, &path, body), FIELD, "`value`").await;
        admin.put(&path, json!({"value": "{}"})).await;
    }
    refused(&gateway, (Method::PATCH, &flag, r#"{"value":"true"}"#), FIELD, "JSON object").await;
    let batch = format!("{}/flags:batch", production.path());
    let body = r#"{"flags":[{"key":"theme","value":"x"}]}"#;
    refused(&gateway, (Method::POST, &batch, body), FIELD, "`flags[0].value`").await;
    for value in [json!("-1e3"), json!("{\"a\":[]}"), json!(7), json!(null), json!(true)] {
        assert_eq!(admin.patch(&flag, json!({ "value": value })).await["value"], value);
    }
}

#[tokio::test]
async fn a_feature_has_no_more_variants_than_the_limit() {
    let gateway = Gateway::builder().set("limits.variants_per_feature", 2).start().await;
    gateway.shop().await;
    let full = (409, "limit_reached");
    let create = r#"{"key":"k","variants":[{"key":"a"},{"key":"b"},{"key":"c"}]}"#;
    refused(&gateway, (Method::POST, FEATURES, create), full, "limits.variants_per_feature").await;
    for (variant, status) in [("a", 201), ("b", 201), ("c", 409), ("b", 200)] {
        let path = format!("{FEATURES}/limit/variants/{variant}");
        let (got, answer, _) =
            Ask { body: "{}", ..Ask::new(Method::PUT, &path) }.send(&gateway).await;
        assert_eq!(got, status, "{variant}: {answer}");
    }
}
