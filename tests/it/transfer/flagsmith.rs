//! Features from Flagsmith's own export.

use serde_json::{Value, json};

use super::command::{complaint, feed, text};
use super::world::builder;
use crate::harness::eventually;

/// As Flagsmith writes it: one of each type of value, and variants.
fn features() -> Value {
    json!([
        { "name": "dark_mode", "default_enabled": false, "is_server_key_only": false,
          "initial_value": null, "value": null, "type": "unicode", "enabled": true,
          "multivariate": [] },
        { "name": "limit", "default_enabled": true, "is_server_key_only": false,
          "initial_value": "10", "value": 25, "type": "int", "enabled": true, "multivariate": [] },
        { "name": "beta", "default_enabled": true, "is_server_key_only": true,
          "initial_value": "true", "value": false, "type": "bool", "enabled": true,
          "multivariate": [] },
        { "name": "Banner", "default_enabled": true, "is_server_key_only": false,
          "initial_value": "hello", "value": "hi", "type": "unicode", "enabled": false,
          "multivariate": [
            { "percentage_allocation": 100.0, "default_percentage_allocation": 12.5,
              "value": "blue", "type": "unicode" },
            { "percentage_allocation": 0, "default_percentage_allocation": 50,
              "value": "red", "type": "unicode" } ] },
    ])
}

const TO: [&str; 7] =
    ["import", "--format", "flagsmith", "--project", "web", "--environment", "production"];

#[tokio::test]
async fn features_of_flagsmith_become_a_project_or_join_one() {
    let gateway = builder().start().await;
    let (admin, store) = (gateway.admin(), gateway.store_url());
    let said = text(&feed(&store, &TO, &features().to_string()));
    assert!(said.contains("new server key `first` (shown only now): ser."), "{said}");
    let environment = admin.get("/projects/web/environments/production").await;
    let client_key = environment["client_key"].as_str().unwrap().to_owned();
    let flags = eventually("the environment is served", async || {
        let path = format!("/sdk/v1/environments/{client_key}/flags");
        let answer = crate::harness::http().get(gateway.url(&path)).send().await.unwrap();
        if answer.status().is_success() { answer.json::<Value>().await.ok() } else { None }
    })
    .await;
    assert_eq!(flags["flags"]["limit"], json!({ "enabled": true, "value": 25 }));
    assert_eq!(flags["flags"]["dark_mode"], json!({ "enabled": true, "value": null }));
    assert!(flags["flags"].get("beta").is_none(), "it is for server keys only");
    let banner = admin.get("/projects/web/environments/production/flags/Banner").await;
    assert_eq!(
        banner["variants"][0],
        json!({ "key": "variant-1", "value": "blue", "weight": 100.0 })
    );

    // What new environments begin with, in the types that Flagsmith would give it.
    admin.create_environment("web", "staging").await;
    for (flag, enabled, value) in
        [("limit", true, json!(10)), ("beta", true, json!(true)), ("Banner", true, json!("hello"))]
    {
        let flag = admin.get(&format!("/projects/web/environments/staging/flags/{flag}")).await;
        assert_eq!((&flag["enabled"], &flag["value"]), (&json!(enabled), &value), "{flag}");
    }

    let more = json!([{ "name": "more", "default_enabled": false, "is_server_key_only": false,
        "initial_value": "x", "value": "y", "type": "unicode", "enabled": true,
        "multivariate": [] }]);
    let said = text(&feed(&store, &TO, &more.to_string()));
    assert!(!said.contains("ser."), "the environment was there: {said}");
    eventually("the new flag is served", async || {
        let flags = gateway.flags(&client_key).await;
        (flags["flags"]["more"] == json!({ "enabled": true, "value": "y" })).then_some(())
    })
    .await;

    for (pointer, value, says) in [
        ("/0/name", json!("a b"), "`[0].name`: `key` may hold only letters"),
        ("/1/value", json!(0.5), "`[1].value`: a value must be"),
        ("/1/name", json!("DARK_mode"), "`[1].name`: there are two features"),
        ("/3/multivariate/1/percentage_allocation", json!(1), "`[3]`: `multivariate`: the weights"),
        ("/0/enabled", json!(null), "`[0].enabled`"),
        ("/0/name", json!("x"), "`[1].name`: feature `limit` exists already in project `web`"),
    ] {
        let mut wrong = features();
        *wrong.pointer_mut(pointer).unwrap() = value;
        let said = complaint(&feed(&store, &TO, &wrong.to_string()));
        assert!(said.contains(says), "{pointer}: {said}");
    }
    let (status, _) =
        admin.send(reqwest::Method::GET, "/projects/web/features/x", None).await.unwrap();
    assert_eq!(status, 404, "nothing of a refused file is there");
}
