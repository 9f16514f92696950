//! Overrides of flags for segments and for single identities.

use reqwest::Method;
use serde_json::json;

use super::{FEATURES, each, refused, shop};
use crate::harness::Gateway;
use crate::harness::ask::Ask;

const FIELD: (u16, &str) = (400, "invalid_field");

#[tokio::test]
async fn an_override_begins_as_the_flag_and_keeps_what_a_change_does_not_name() {
    let (gateway, production, _) = shop().await;
    let admin = gateway.admin();
    let path = format!("{}/flags/colour/segments/staff", production.path());
    let before = admin.revision(&production).await;
    let put = |body| Ask { body, ..Ask::new(Method::PUT, &path) };
    let (status, made, headers) = put("{}").send(&gateway).await;
    assert_eq!(status, 201);
    assert_eq!(headers["etag"], format!("\"{}\"", before + 1));
    let updated_at = made["updated_at"].clone();
    assert_eq!(
        made,
        json!({"segment": "staff", "enabled": true, "value": "#000", "priority": 0,
            "weights": {"blue": 30.0, "red": 20.0}, "revision": before + 1, "updated_at": updated_at})
    );
    let (status, changed, _) = put(r#"{"value":null,"weights":{"red":70}}"#).send(&gateway).await;
    assert_eq!((status, &changed["revision"]), (200, &json!(before + 2)));
    assert_eq!((&changed["enabled"], &changed["value"]), (&json!(true), &json!(null)));
    assert_eq!(changed["weights"], json!({"blue": 30.0, "red": 70.0}));
    let (status, same, _) = put(r#"{"value":null,"priority":0}"#).send(&gateway).await;
    assert_eq!((status, &same["revision"]), (200, &json!(before + 2)), "nothing changed");
    let flag = admin.get(&format!("{}/flags/colour", production.path())).await;
    assert_eq!((&flag["value"], &flag["variants"][1]["weight"]), (&json!("#000"), &json!(20.0)));

    let gone = admin.delete(&path).await;
    assert_eq!((&gone["deleted"], &gone["revision"]), (&json!("staff"), &json!(before + 3)));
    refused(&gateway, (Method::DELETE, &path, ""), (404, "not_found"), "segment `staff`").await;
    let list = admin.get(&format!("{}/flags/colour/segments", production.path())).await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn overrides_stand_in_an_order_that_people_choose() {
    let (gateway, production, _) = shop().await;
    let admin = gateway.admin();
    for key in ["one", "two", "three", "four"] {
        admin.create_segment("web", key, ("n", key)).await;
    }
    let list = format!("{}/flags/limit/segments", production.path());
    let put = async |segment: &str, body: serde_json::Value| {
        admin.put(&format!("{list}/{segment}"), body).await["priority"].clone()
    };
    assert_eq!(put("one", json!({})).await, 0);
    assert_eq!(put("two", json!({})).await, 1, "a new one becomes the last");
    assert_eq!(put("three", json!({"priority": 0})).await, 0, "others make room");
    let order = async || each(&admin.get(&list).await, "segment");
    assert_eq!(order().await, ["three", "one", "two"]);
    assert_eq!(put("three", json!({"priority": 1})).await, 1);
    assert_eq!(order().await, ["one", "three", "two"]);
    assert_eq!(put("one", json!({"value": 7})).await, 0, "it stays");
    assert_eq!(put("one", json!({"priority": 99})).await, 2, "no further than the last");
    assert_eq!(order().await, ["three", "two", "one"]);
    // One that goes leaves no place that a new one could fall into.
    admin.delete(&format!("{list}/two")).await;
    assert_eq!(put("four", json!({})).await, 2);
    assert_eq!(put("two", json!({"priority": 1})).await, 1);
    assert_eq!(order().await, ["three", "two", "one", "four"]);
    let pages = admin.list(&format!("{list}?limit=3")).await;
    assert_eq!(
        pages.iter().map(|item| item["priority"].as_u64()).collect::<Vec<_>>(),
        [Some(0), Some(1), Some(2), Some(3)]
    );
}

#[tokio::test]
async fn an_identity_gets_an_override_of_its_own() {
    let (gateway, production, staging) = shop().await;
    let admin = gateway.admin();
    let list = format!("{}/flags/limit/identities", production.path());
    let before = admin.revision(&production).await;
    // What an app calls its users may hold anything.
    let path = format!("{list}/anna%2Fb%C3%A4r%20%3F");
    let put = |body| Ask { body, ..Ask::new(Method::PUT, &path) };
    let (status, made, _) = put(r#"{"value":99}"#).send(&gateway).await;
    assert_eq!((status, &made["revision"]), (201, &json!(before + 1)));
    assert_eq!(made["identifier"], "anna/bär ?");
    assert_eq!((&made["enabled"], &made["value"]), (&json!(true), &json!(99)));
    let (status, changed, _) = put(r#"{"enabled":false}"#).send(&gateway).await;
    assert_eq!((status, &changed["value"]), (200, &json!(99)), "what is not named stays");
    let (_, same, _) = put("{}").send(&gateway).await;
    assert_eq!(same["revision"], before + 2, "nothing changed");
    for name in ["bert", "carl"] {
        admin.put(&format!("{list}/{name}"), json!({"enabled": false})).await;
    }
    let names: Vec<_> = admin
        .list(&format!("{list}?limit=2"))
        .await
        .into_iter()
        .map(|item| item["identifier"].clone())
        .collect();
    assert_eq!(names, ["anna/bär ?", "bert", "carl"]);
    let there = format!("{}/flags/limit/identities", staging.path());
    assert_eq!(admin.get(&there).await["items"], json!([]));

    let gone = admin.delete(&path).await;
    assert_eq!((&gone["deleted"], &gone["revision"]), (&json!("anna/bär ?"), &json!(before + 5)));
    refused(&gateway, (Method::DELETE, &path, ""), (404, "not_found"), "anna/bär").await;
    let anna = format!("{}/identities/anna%2Fb%C3%A4r%20%3F", production.path());
    refused(&gateway, (Method::GET, &anna, ""), (404, "not_found"), "identity").await;
}

#[tokio::test]
async fn a_feature_takes_its_overrides_with_it() {
    let (gateway, production, _) = shop().await;
    let admin = gateway.admin();
    let flag = |key: &str| format!("{}/flags/{key}", production.path());
    admin.put(&format!("{}/segments/staff", flag("limit")), json!({})).await;
    admin.put(&format!("{}/identities/anna", flag("limit")), json!({})).await;
    admin.put(&format!("{}/identities/bert", flag("limit")), json!({})).await;
    admin.put(&format!("{}/identities/bert", flag("banner")), json!({})).await;
    let carl = format!("{}/identities/carl", production.path());
    admin.patch(&carl, json!({"traits": {"plan": "pro"}})).await;
    admin.put(&format!("{}/identities/carl", flag("limit")), json!({})).await;
    admin.delete(&format!("{FEATURES}/limit")).await;
    let known = admin.get(&format!("{}/identities", production.path())).await;
    assert_eq!(each(&known, "identifier"), ["bert", "carl"], "who carries nothing is forgotten");
    admin.create_feature("web", "limit", true, 1.into()).await;
    let list = format!("{}/segments", flag("limit"));
    assert_eq!(admin.get(&list).await["items"], json!([]), "a namesake is another feature");
}

#[tokio::test]
async fn what_is_no_override_is_refused() {
    let (gateway, production, _) = shop().await;
    let flag = |key: &str| format!("{}/flags/{key}", production.path());
    let segment = format!("{}/segments/staff", flag("colour"));
    let identity = format!("{}/identities/anna", flag("colour"));
    let before = gateway.admin().revision(&production).await;
    let huge = format!(r#"{{"value":"{}"}}"#, "x".repeat(20_001));
    for (path, body, named) in [
        (&segment, r#"{"weights":{"green":1}}"#, "no variant `green`"),
        (&segment, r#"{"weights":{"blue":81}}"#, "at most 100"),
        (&segment, r#"{"weights":{"blue":1e9}}"#, "weights.blue"),
        (&segment, r#"{"priority":-1}"#, "priority"),
        (&segment, r#"{"priority":"first"}"#, "priority"),
        (&segment, r#"{"value":1.5}"#, "value"),
        (&segment, huge.as_str(), "limits.value_bytes"),
        (&segment, r#"{"segment":"x"}"#, "segment"),
        (&identity, r#"{"weights":{"blue":1}}"#, "weights"),
        (&identity, r#"{"enabled":1}"#, "enabled"),
        (&identity, huge.as_str(), "limits.value_bytes"),
        (
            &format!("{}/identities/{}", flag("colour"), "x".repeat(2001)),
            "{}",
            "limits.identifier_bytes",
        ),
        (&format!("{}/identities/a%00b", flag("colour")), "{}", "NUL"),
    ] {
        refused(&gateway, (Method::PUT, path, body), FIELD, named).await;
    }
    for (path, named) in [
        (format!("{}/segments/nobody", flag("colour")), "segment `nobody`"),
        (format!("{}/segments/staff", flag("nobody")), "feature `nobody`"),
        (format!("{}/identities/anna", flag("nobody")), "feature `nobody`"),
        ("/projects/web/environments/nowhere/flags/colour/segments/staff".to_owned(), "nowhere"),
    ] {
        refused(&gateway, (Method::PUT, &path, "{}"), (404, "not_found"), named).await;
    }
    let gone = (404, "not_found");
    refused(&gateway, (Method::DELETE, &identity, ""), gone, "identity `anna`").await;
    assert_eq!(gateway.admin().revision(&production).await, before);
}

#[tokio::test]
async fn overrides_are_as_many_as_the_limits_allow() {
    let gateway = Gateway::builder()
        .set("limits.segment_overrides_per_environment", 1)
        .set("limits.identity_overrides_per_environment", 2)
        .set("limits.identities_per_environment", 2)
        .start()
        .await;
    let production = gateway.shop().await;
    let admin = gateway.admin();
    admin.create_segment("web", "staff", ("a", "b")).await;
    let flag = |key: &str| format!("{}/flags/{key}", production.path());
    let full = (409, "limit_reached");
    admin.put(&format!("{}/segments/staff", flag("limit")), json!({})).await;
    let second = format!("{}/segments/staff", flag("banner"));
    let setting = "limits.segment_overrides_per_environment";
    refused(&gateway, (Method::PUT, &second, "{}"), full, setting).await;
    for name in ["anna", "bert"] {
        admin.put(&format!("{}/identities/{name}", flag("limit")), json!({})).await;
    }
    let third = format!("{}/identities/carl", flag("limit"));
    let setting = "limits.identities_per_environment";
    refused(&gateway, (Method::PUT, &third, "{}"), full, setting).await;
    let third = format!("{}/identities/anna", flag("banner"));
    let setting = "limits.identity_overrides_per_environment";
    refused(&gateway, (Method::PUT, &third, "{}"), full, setting).await;
    let changed = format!("{}/identities/anna", flag("limit"));
    admin.put(&changed, json!({"value": 1})).await;
}
