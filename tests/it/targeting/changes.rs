//! What every change of targeting shares: one transaction, one revision and one ping for each
//! environment that it touches, an entry in the audit trail, and who may do it under which conditions.

use reqwest::Method;
use serde_json::{Value, json};

use super::shop;
use crate::harness::Gateway;
use crate::harness::admin::Environment;
use crate::harness::ask::Ask;
use crate::harness::stream::Subscription;

/// A change: method, path, body, what the trail calls it, about what.
type Step = (Method, String, &'static str, &'static str, &'static str);

/// Every kind of change that touches every environment of the project, in an order that works.
fn wide() -> Vec<Step> {
    let path = |path: &str| format!("/projects/web/{path}");
    let rules =
        r#"{"rules":[{"type":"ANY","conditions":[{"property":"eu","operator":"IS_SET"}]}]}"#;
    let made = r#"{"key":"eu","rules":[]}"#;
    vec![
        (Method::POST, path("segments"), made, "segment.created", "eu"),
        (Method::PATCH, path("segments/eu"), rules, "segment.updated", "eu"),
        (Method::DELETE, path("segments/eu"), "", "segment.deleted", "eu"),
        (Method::PUT, path("features/limit/variants/a"), "{}", "variant.set", "limit"),
        (Method::PUT, path("features/limit/variants/a"), r#"{"value":1}"#, "variant.set", "limit"),
        (Method::DELETE, path("features/limit/variants/a"), "", "variant.removed", "limit"),
        (
            Method::PATCH,
            path("features/limit"),
            r#"{"server_key_only":true}"#,
            "feature.updated",
            "limit",
        ),
    ]
}

/// Every kind of change that touches one environment, in an order that works.
fn narrow(environment: &Environment) -> Vec<Step> {
    let path = |path: &str| format!("{}{path}", environment.path());
    let (segment, identity) = ("/flags/colour/segments/staff", "/flags/colour/identities/anna");
    let traits = r#"{"traits":{"plan":"pro"}}"#;
    let off = r#"{"enabled":false}"#;
    vec![
        (
            Method::PATCH,
            path("/flags/colour"),
            r#"{"weights":{"blue":1}}"#,
            "flag.updated",
            "colour",
        ),
        (Method::PUT, path(segment), "{}", "segment_override.set", "colour"),
        (Method::PUT, path(segment), off, "segment_override.set", "colour"),
        (Method::DELETE, path(segment), "", "segment_override.removed", "colour"),
        (Method::PUT, path(identity), "{}", "identity_override.set", "colour"),
        (Method::PUT, path(identity), off, "identity_override.set", "colour"),
        (Method::DELETE, path(identity), "", "identity_override.removed", "colour"),
        (Method::PATCH, path("/identities/anna"), traits, "identity.updated", "anna"),
        (Method::DELETE, path("/identities/anna"), "", "identity.deleted", "anna"),
        (
            Method::PATCH,
            path(""),
            r#"{"hide_disabled_flags":true}"#,
            "environment.updated",
            "production",
        ),
    ]
}

async fn done(gateway: &Gateway, step: &Step) -> Value {
    let (method, path, body, ..) = step;
    let (status, answer, _) = Ask { body, ..Ask::new(method.clone(), path) }.send(gateway).await;
    assert!(status < 300, "{step:?}: {status} {answer}");
    answer
}

#[tokio::test]
async fn a_change_of_one_environment_pings_it_once_and_no_other() {
    let (gateway, production, staging) = shop().await;
    let mut stream = Subscription::open(gateway.public(), &production.client_key).await;
    let mut other = Subscription::open(gateway.public(), &staging.client_key).await;
    let mut revision = stream.next_ping().await.unwrap()["revision"].as_u64().unwrap();
    let there = other.next_ping().await.unwrap()["revision"].clone();
    for step in narrow(&production) {
        let answer = done(&gateway, &step).await;
        revision += 1;
        assert_eq!(answer["revision"], revision, "{step:?}");
        assert_eq!(stream.next_ping().await.unwrap()["revision"], revision, "{step:?}");
        let (_, _, _, action, subject) = step;
        let events = gateway.admin().get("/audit?limit=2&environment=production").await;
        let event = &events["items"][0];
        assert_eq!((&event["action"], &event["subject"]), (&json!(action), &json!(subject)));
        assert_eq!((&event["revision"], &event["project"]), (&json!(revision), &json!("web")));
        assert_ne!(event["before"], event["after"], "{event}");
        assert_eq!(
            events["items"][1]["revision"],
            revision - 1,
            "one event, one revision: {events}"
        );
    }
    // Nothing came to the other: its next ping is of its own next change.
    let next = gateway.admin().switch(&staging, "limit", false).await;
    assert_eq!(next, there.as_u64().unwrap() + 1);
    assert_eq!(other.next_ping().await.unwrap()["revision"], next);
}

#[tokio::test]
async fn a_change_of_the_project_pings_every_environment_once() {
    let (gateway, production, staging) = shop().await;
    let mut streams = [
        Subscription::open(gateway.public(), &production.client_key).await,
        Subscription::open(gateway.public(), &staging.client_key).await,
    ];
    let mut revisions = [0, 0];
    for (stream, revision) in streams.iter_mut().zip(&mut revisions) {
        *revision = stream.next_ping().await.unwrap()["revision"].as_u64().unwrap();
    }
    for step in wide() {
        let answer = done(&gateway, &step).await;
        revisions = revisions.map(|revision| revision + 1);
        let told = json!({"production": revisions[0], "staging": revisions[1]});
        assert_eq!(answer["revisions"], told, "{step:?}");
        for (stream, revision) in streams.iter_mut().zip(revisions) {
            assert_eq!(stream.next_ping().await.unwrap()["revision"], revision, "{step:?}");
        }
        let (_, _, _, action, subject) = step;
        let events = &gateway.admin().get("/audit?limit=3").await["items"];
        for (event, environment) in [(&events[1], "production"), (&events[0], "staging")] {
            assert_eq!((&event["action"], &event["subject"]), (&json!(action), &json!(subject)));
            assert_eq!(
                (&event["environment"], &event["revision"]),
                (&json!(environment), &told[environment])
            );
        }
        assert_eq!(events[0]["at"], events[1]["at"], "one transaction");
        assert_ne!(events[2]["at"], events[1]["at"], "one event for each environment");
    }
}

#[tokio::test]
async fn a_rollout_can_be_stopped_without_waiting_for_a_pace() {
    let (gateway, production, _) = shop().await;
    let admin = gateway.admin();
    let path = format!("{}/flags/limit/segments/staff", production.path());
    for (path, body) in [
        (path.as_str(), json!({"enabled": true})),
        (&path, json!({"enabled": false, "urgent": true})),
    ] {
        admin.put(path, body.clone()).await;
        let event = &admin.get("/audit?limit=1").await["items"][0];
        assert_eq!(event["urgent"], body["urgent"] == true, "{event}");
    }
    admin.patch("/projects/web/segments/staff", json!({"rules": [], "urgent": true})).await;
    let events = &admin.get("/audit?limit=2").await["items"];
    assert!(events[0]["urgent"] == true && events[1]["urgent"] == true, "{events}");
}

#[tokio::test]
async fn if_match_holds_where_one_environment_changes() {
    let (gateway, production, _) = shop().await;
    for step in narrow(&production) {
        let revision = gateway.admin().revision(&production).await;
        let (stale, fresh) = (format!("\"{}\"", revision - 1), format!("\"{revision}\""));
        let (method, path, body, ..) = &step;
        let headers = [("if-match", stale.as_str())];
        let ask = Ask { headers: &headers, body, ..Ask::new(method.clone(), path) };
        let problem = ask.refused(&gateway, 412, "revision_conflict").await;
        assert_eq!(problem["revision"], revision);
        let headers = [("if-match", fresh.as_str())];
        let ask = Ask { headers: &headers, body, ..Ask::new(method.clone(), path) };
        let (status, answer, headers) = ask.send(&gateway).await;
        assert!(status < 300, "{step:?}: {answer}");
        assert_eq!(headers["etag"], format!("\"{}\"", revision + 1));
    }
    for (method, path, body, ..) in wide() {
        let headers = [("if-match", "\"1\"")];
        let ask = Ask { headers: &headers, body, ..Ask::new(method, &path) };
        ask.refused(&gateway, 400, "invalid_header").await;
    }
}

#[tokio::test]
async fn a_repeated_change_is_done_once() {
    let (gateway, production, _) = shop().await;
    let steps = [narrow(&production), wide()].concat();
    for (index, (method, path, body, ..)) in steps.iter().enumerate() {
        let key = format!("step-{index}");
        let headers = [("idempotency-key", key.as_str())];
        let ask = || Ask { headers: &headers, body, ..Ask::new(method.clone(), path) };
        let (status, first, _) = ask().send(&gateway).await;
        assert!(status < 300, "{method} {path}: {first}");
        let revision = gateway.admin().revision(&production).await;
        let (again, second, replayed) = ask().send(&gateway).await;
        assert_eq!((again, second), (status, first), "{method} {path}");
        assert_eq!(replayed["idempotency-replayed"], "true");
        assert_eq!(gateway.admin().revision(&production).await, revision, "{method} {path}");
    }
}

#[tokio::test]
async fn roles_and_scopes_hold_on_every_route() {
    let (gateway, production, staging) = shop().await;
    let admin = gateway.admin();
    let viewer = admin.token(json!({"name": "v", "role": "viewer"})).await;
    let inside = json!({"name": "e", "role": "editor", "project": "web", "environment": "staging"});
    let inside = admin.token(inside).await;
    let editor = admin.token(json!({"name": "w", "role": "editor", "project": "web"})).await;
    for (method, path, body, ..) in [narrow(&production), wide()].concat() {
        for (token, code) in [(&viewer, "role_too_small"), (&inside, "outside_scope")] {
            let ask = Ask { token, body, ..Ask::new(method.clone(), &path) };
            ask.refused(&gateway, 403, code).await;
        }
    }
    let reads = |environment: &Environment| {
        ["/flags/colour/segments", "/flags/colour/identities", "/identities"]
            .map(|part| format!("{}{part}", environment.path()))
    };
    for path in reads(&production) {
        let ask = Ask { token: &inside, ..Ask::new(Method::GET, &path) };
        ask.refused(&gateway, 403, "outside_scope").await;
    }
    let project = ["/projects/web/segments", "/projects/web/segments/staff"].map(str::to_owned);
    for path in reads(&staging).iter().chain(&project) {
        for token in [&viewer, &inside] {
            let (status, answer, _) =
                Ask { token, ..Ask::new(Method::GET, path) }.send(&gateway).await;
            assert_eq!(status, 200, "{path}: {answer}");
        }
    }
    // An editor may do all of it, but for the settings of an environment, which an admin chooses.
    let settings = narrow(&production).pop().unwrap();
    for step in [narrow(&production), wide()].concat() {
        let (method, path, body, ..) = &step;
        let ask = Ask { token: &editor, body, ..Ask::new(method.clone(), path) };
        if step == settings {
            ask.refused(&gateway, 403, "role_too_small").await;
        } else {
            let (status, answer, _) = ask.send(&gateway).await;
            assert!(status < 300, "{step:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn the_trail_tells_from_what_to_what() {
    let (gateway, production, _) = shop().await;
    let admin = gateway.admin();
    let flag = format!("{}/flags/colour", production.path());
    let newest = async || admin.get("/audit?limit=1").await["items"][0].clone();
    admin.put(&format!("{flag}/segments/pro"), json!({})).await;
    admin.put(&format!("{flag}/segments/staff"), json!({"value": 1, "weights": {"red": 5}})).await;
    let first = json!({"segment": "staff", "enabled": true, "value": 1, "priority": 1,
        "weights": {"blue": 30.0, "red": 5.0}});
    let event = newest().await;
    assert_eq!((&event["before"], &event["after"]), (&Value::Null, &first));
    admin.put(&format!("{flag}/segments/staff"), json!({"enabled": false, "priority": 0})).await;
    let event = newest().await;
    assert_eq!(event["before"], first);
    assert_eq!(
        (&event["after"]["enabled"], &event["after"]["priority"]),
        (&json!(false), &json!(0))
    );

    admin.put(&format!("{flag}/identities/anna"), json!({"value": "x"})).await;
    let event = newest().await;
    let anna = json!({"identity": "anna", "enabled": true, "value": "x"});
    assert_eq!((&event["before"], &event["after"]), (&Value::Null, &anna));
    let identity = format!("{}/identities/anna", production.path());
    admin.patch(&identity, json!({"traits": {"plan": "pro"}})).await;
    admin.delete(&identity).await;
    let event = newest().await;
    assert_eq!(
        event["before"],
        json!({"traits": {"plan": "pro"},
        "overrides": {"colour": {"enabled": true, "value": "x"}}})
    );

    let blue = "/projects/web/features/colour/variants/blue";
    admin.put(blue, json!({"weight": 1})).await;
    let event = newest().await;
    assert_eq!(
        (&event["action"], &event["environment"], &event["revision"]),
        (&json!("variant.set"), &Value::Null, &Value::Null),
        "it touched no environment"
    );
    assert_eq!(event["before"]["variants"][0]["weight"], 30.0);
    assert_eq!(event["after"]["variants"][0]["weight"], 1.0);
}
