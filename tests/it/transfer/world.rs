//! A project with one of everything, whose numbers have gaps.

use serde_json::{Value, json};

use crate::harness::admin::{Admin, Environment};
use crate::harness::rollout::{condition, only, rule};
use crate::harness::{Builder, Gateway};

/// A gateway whose webhooks may reach loopback.
pub(crate) fn builder() -> Builder {
    Gateway::builder().set("webhook.allowed_targets", "127.0.0.0/8")
}

/// Makes the project `web`; its environments are `production` and `staging`.
pub(crate) async fn build(admin: &Admin) -> [Environment; 2] {
    // What is deleted leaves gaps, so that no number fits by chance.
    admin.create_project("gone").await;
    admin.create_environment("gone", "gone").await;
    for key in ["a", "b", "c"] {
        admin.create_feature("gone", key, true, Value::Null).await;
    }
    admin.create_segment_of("gone", "gone", &only("t", "EQUAL", "1")).await;
    admin.delete("/projects/gone").await;

    admin.create_project("web").await;
    let production = admin.create_environment("web", "production").await;
    features(admin).await;
    segments(admin).await;
    let staging = admin.create_environment("web", "staging").await;
    states(admin, &production).await;
    webhooks(admin, &production).await;
    admin.switch(&staging, "dark-mode", true).await;
    let settings =
        json!({ "name": "Staging", "hide_disabled_flags": true, "persist_traits": false });
    admin.patch(&staging.path(), settings).await;
    [production, staging]
}

async fn features(admin: &Admin) {
    for body in [
        json!({ "key": "dark-mode", "description": "Night\nand day.", "tags": ["ui", "new"] }),
        json!({ "key": "Limit.max", "enabled": true, "value": 9_007_199_254_740_991_i64 }),
        json!({ "key": "layout", "value": "{\"columns\":3}", "value_type": "json" }),
        json!({ "key": "secret-plan", "enabled": true, "value": "x", "server_key_only": true }),
        json!({ "key": "banner", "enabled": true, "value": "control text", "variants": [
            { "key": "blue", "value": "Blue ♥", "weight": 33.333 },
            { "key": "red", "value": "Red", "weight": 20 },
            { "key": "none", "value": null, "weight": 0 },
        ] }),
        json!({ "key": "search", "enabled": true, "value": 0, "variants": [
            { "key": "one", "value": 1, "weight": 50 }, { "key": "two", "value": 2, "weight": 50 },
        ] }),
    ] {
        admin.create_feature_as("web", &body).await;
    }
}

async fn segments(admin: &Admin) {
    let in_list = condition("country", "IN", "de,at,ch");
    let half = condition("", "PERCENTAGE_SPLIT", "40");
    let mail = condition("email", "REGEX", r".+@example\.com");
    admin.create_segment_of("web", "vip", &only("plan", "EQUAL", "pro")).await;
    admin.create_segment_of("web", "some", &[rule("ALL", &[half])]).await;
    admin.create_segment_of("web", "near", &[rule("ANY", &[in_list, mail])]).await;
    let path = "/projects/web/segments/near";
    admin.patch(path, json!({ "name": "Near us", "description": "Neighbours" })).await;
}

async fn states(admin: &Admin, at: &Environment) {
    admin.set_weights(at, "banner", &json!({ "blue": 10.5, "red": 60 })).await;
    for (flag, segment, state) in [
        ("banner", "vip", json!({ "weights": { "blue": 50, "red": 25 } })),
        ("banner", "some", json!({ "enabled": false, "priority": 0 })),
        ("dark-mode", "some", json!({ "enabled": true })),
        ("layout", "near", json!({ "enabled": true, "value": "{\"columns\":1}" })),
    ] {
        admin.override_for_segment(at, flag, segment, &state).await;
    }
    for number in 0..30 {
        let traits = json!({ "plan": if number % 3 == 0 { "pro" } else { "free" }, "age": number,
            "ratio": 0.5, "beta": number % 2 == 0 });
        admin.set_traits(at, &format!("user-{number}"), &traits).await;
    }
    let state = json!({ "enabled": true, "value": "mine" });
    admin.override_for_identity(at, "banner", "user-7", &state).await;
    admin
        .override_for_identity(at, "dark-mode", "somebody/else ü", &json!({ "enabled": true }))
        .await;
}

async fn webhooks(admin: &Admin, at: &Environment) {
    let path = format!("{}/webhooks", at.path());
    // Nobody listens there: what is owed waits.
    admin.post(&path, json!({ "url": "http://127.0.0.1:9/state?key=1" })).await;
    let events = json!({ "url": "http://127.0.0.1:9/events", "mode": "events",
        "format": "flagsmith", "events": ["flag.*"], "description": "The old one",
        "headers": { "Authorization": "Bearer hush-hush" } });
    let made = admin.post(&path, events).await;
    admin.patch(&format!("{path}/{}", made["id"]), json!({ "paused": true })).await;
}
