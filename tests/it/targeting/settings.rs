//! Settings of environments, and what a clone takes over.

use reqwest::Method;
use serde_json::{Value, json};

use super::{each, refused, shop};

const SETTINGS: [(&str, bool); 4] = [
    ("hide_disabled_flags", false),
    ("allow_client_traits", true),
    ("hide_sensitive_data", false),
    ("persist_traits", true),
];

#[tokio::test]
async fn an_environment_has_settings() {
    let (gateway, production, _) = shop().await;
    let admin = gateway.admin();
    let mut revision = admin.revision(&production).await;
    for (setting, default) in SETTINGS {
        assert_eq!(admin.get(&production.path()).await[setting], default, "{setting}");
        revision += 1;
        let changed = admin.patch(&production.path(), json!({ setting: !default })).await;
        assert_eq!((&changed[setting], &changed["revision"]), (&json!(!default), &json!(revision)));
        let event = &admin.get("/audit?limit=1").await["items"][0];
        assert_eq!(
            (&event["action"], &event["before"][setting], &event["after"][setting]),
            (&json!("environment.updated"), &json!(default), &json!(!default))
        );
    }
    let same = admin.patch(&production.path(), json!({"persist_traits": false})).await;
    assert_eq!(same["revision"], revision, "nothing changed");
    let both = admin.patch(&production.path(), json!({"name": "P", "persist_traits": true})).await;
    assert_eq!((&both["name"], &both["revision"]), (&json!("P"), &json!(revision + 1)));
    for (body, named) in [
        ("{}", "nothing to change"),
        (r#"{"persist_traits":"no"}"#, "persist_traits"),
        (r#"{"key":"x"}"#, "key"),
        (r#"{"name":""}"#, "`name`"),
    ] {
        let ask = (Method::PATCH, production.path());
        refused(&gateway, (ask.0, &ask.1, body), (400, "invalid_field"), named).await;
    }
}

#[tokio::test]
async fn a_clone_has_settings_weights_and_segment_overrides_but_no_identities() {
    let (gateway, production, _) = shop().await;
    let admin = gateway.admin();
    admin.patch(&production.path(), json!({"hide_disabled_flags": true})).await;
    let flag = format!("{}/flags/colour", production.path());
    admin.patch(&flag, json!({"weights": {"blue": 1.5}, "value": "#123"})).await;
    admin.put(&format!("{flag}/segments/staff"), json!({"enabled": false})).await;
    let pro = json!({"value": "#fff", "weights": {"red": 77}, "priority": 0});
    admin.put(&format!("{flag}/segments/pro"), pro).await;
    admin.put(&format!("{flag}/identities/anna"), json!({"enabled": false})).await;
    let before = admin.revision(&production).await;
    let path = format!("{}/clone", production.path());
    let copy = admin.post(&path, json!({"key": "copy", "name": "Copy"})).await;
    assert_eq!((&copy["revision"], &copy["hide_disabled_flags"]), (&json!(1), &json!(true)));
    assert_eq!(admin.revision(&production).await, before, "the original stays where it was");
    let copied = "/projects/web/environments/copy";
    let read = async |path: &str| {
        let mut list = admin.get(path).await;
        list["revision"] = Value::Null;
        list["updated_at"] = Value::Null;
        list
    };
    for part in ["/flags/colour", "/flags/colour/segments"] {
        let (from, to) = (format!("{}{part}", production.path()), format!("{copied}{part}"));
        assert_eq!(read(&from).await, read(&to).await, "{part}");
    }
    let overrides = admin.get(&format!("{copied}/flags/colour/segments")).await;
    assert_eq!(each(&overrides, "segment"), ["pro", "staff"]);
    for part in ["/flags/colour/identities", "/identities"] {
        assert_eq!(admin.get(&format!("{copied}{part}")).await["items"], json!([]), "{part}");
    }
    // They are states of their own.
    let weights = json!({"weights": {"blue": 0}});
    admin.put(&format!("{copied}/flags/colour/segments/pro"), weights).await;
    let original = admin.get(&format!("{flag}/segments")).await;
    assert_eq!(original["items"][0]["weights"], json!({"blue": 1.5, "red": 77.0}));
}
