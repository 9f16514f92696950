//! Whether the gateway is what OpenAPI documents say: Schemathesis asks every operation in right and
//! wrong ways and holds each answer against the document. The management API has its own document;
//! OFREP's two endpoints are described in `tests/ofrep/openapi.yaml`.

use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::harness::Gateway;
use crate::harness::admin::Environment;
use crate::harness::process::Process;
use crate::identities::target;
use crate::push_only::{KEY, announce_at};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/openapi-venv/bin/st");
const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi");
const OFREP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ofrep/openapi.yaml");

/// How long a run may take beside other tests; alone it takes about half a minute.
const RUN: Duration = Duration::from_mins(5);

/// Tokens before the one that asks: deletions try small numbers first.
const DECOYS: usize = 5;

/// A token that the check itself will hardly hit upon and revoke.
async fn token(gateway: &Gateway) -> String {
    let mut token = String::new();
    for _ in 0..=DECOYS {
        let body = json!({"name": "openapi", "role": "admin"});
        let made = gateway.admin().call(Method::POST, "/tokens", Some(&body)).await;
        made["token"].as_str().unwrap().clone_into(&mut token);
    }
    token
}

/// Runs Schemathesis over the document at `location`, with `key` as its header; it must find nothing.
async fn finds_nothing(config: &str, location: &str, key: &str, arguments: &[&str]) {
    let mut command = Command::new(PROGRAM);
    command.args(["--config-file", &format!("{ASSETS}/{config}"), "run", location]);
    command.args(["--header", key]);
    // The same questions in every run; no files beside the sources.
    command.args(["--checks", "all", "--generation-deterministic", "--no-color"]);
    command.args(arguments);
    command.env("PYTHONPATH", ASSETS).env("SCHEMATHESIS_HOOKS", "hooks");
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(env!("CARGO_TARGET_TMPDIR"));
    let mut process = Process::spawn("schemathesis", command);
    let status = process.exited_within(RUN).await;
    assert!(status.success(), "{}", process.stdout.tail(150));
}

/// What there is to ask about: beside flags, one of everything.
async fn full_shop(gateway: &Gateway) -> Environment {
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let rules = json!([{"type": "ALL", "conditions": [
        {"property": "plan", "operator": "EQUAL", "value": "pro"}]}]);
    let segment = json!({"key": "staff", "rules": rules});
    admin.call(Method::POST, "/projects/web/segments", Some(&segment)).await;
    let variant = json!({"value": "blue", "weight": 20});
    admin.call(Method::PUT, "/projects/web/features/banner/variants/blue", Some(&variant)).await;
    let flag = format!("{}/flags/banner", environment.path());
    let on = json!({"enabled": true});
    admin.call(Method::PUT, &format!("{flag}/segments/staff"), Some(&on)).await;
    admin.call(Method::PUT, &format!("{flag}/identities/user-1"), Some(&on)).await;
    let webhooks = format!("{}/webhooks", environment.path());
    let endpoint = json!({"url": "http://127.0.0.1:1/", "mode": "events"});
    admin.call(Method::POST, &webhooks, Some(&endpoint)).await;
    admin.call(Method::PUT, &format!("{flag}/identities/user-2"), Some(&on)).await;
    environment
}

#[tokio::test]
async fn the_management_api_is_what_its_document_says() {
    let gateway = Gateway::builder().set("webhook.allowed_targets", "127.0.0.0/8").start().await;
    let environment = full_shop(&gateway).await;
    let token = format!("Authorization: Bearer {}", token(&gateway).await);
    let document = gateway.url("/admin/v1/openapi.json");

    // Things that exist: nearly every question gets through to the work.
    let before = gateway.admin().revision(&environment).await;
    let known = ["--exclude-method", "DELETE", "--phases", "coverage,fuzzing", "-n", "10"];
    finds_nothing("known.toml", &document, &token, &known).await;
    let after = gateway.admin().revision(&environment).await;
    assert!(after > before + 20, "only {} changes got through", after - before);

    // Things that mostly do not, and what is made and deleted on the way.
    finds_nothing("management.toml", &document, &token, &["-n", "10"]).await;
    gateway.admin().get("/token").await;
}

/// Flags of every kind, for everybody and for some.
async fn targeted_shop(gateway: &Gateway) -> Environment {
    let environment = gateway.shop().await;
    target(gateway, &environment).await;
    environment
}

/// Asks OFREP's door; the run must have seen each of `answers`, of all flags and of one.
async fn ofrep_finds_nothing(
    gateway: &Gateway,
    key: &str,
    answers: &[(u16, bool, bool)],
    arguments: &[&str],
) {
    let url = gateway.url("");
    let mut all = vec!["--url", url.trim_end_matches('/')];
    all.extend_from_slice(arguments);
    finds_nothing("ofrep.toml", OFREP, key, &all).await;
    for &(status, of_all, of_one) in answers {
        let status = format!("status=\"{status}\"");
        for (route, expected) in [("/flags", of_all), ("/flags/{key}", of_one)] {
            let route = format!("route=\"/ofrep/v1/evaluate{route}\"");
            let labels = [status.as_str(), route.as_str()];
            let seen =
                gateway.metric("flagcast_http_request_duration_seconds_count", &labels).await;
            assert_eq!(seen > 0.0, expected, "{labels:?}: {seen}");
        }
    }
}

#[tokio::test]
async fn the_door_of_ofrep_is_what_its_description_says() {
    let gateway = Gateway::builder().start().await;
    let environment = targeted_shop(&gateway).await;
    let key = format!("Authorization: Bearer {}", environment.client_key);
    let answers = [
        (200, true, true),
        (304, true, false),
        (400, true, true),
        (401, true, true),
        (404, false, true),
    ];
    ofrep_finds_nothing(&gateway, &key, &answers, &["-n", "200"]).await;
    // The other header, the other kind of key. The tool would add a senseless `Authorization` to what
    // opens the door, and wonder that it is open.
    let key = format!("X-API-Key: {}", environment.server_key);
    ofrep_finds_nothing(&gateway, &key, &[], &["-n", "20", "--exclude-checks", "ignored_auth"])
        .await;
}

#[tokio::test]
async fn so_it_is_where_there_are_no_flags() {
    let gateway = Gateway::builder().start().await;
    announce_at(&gateway, "2026-08-21T12:00:00.5+00:00").await;
    let key = format!("Authorization: Bearer {KEY}");
    let answers = [(200, false, false), (403, true, true)];
    ofrep_finds_nothing(&gateway, &key, &answers, &["-n", "10"]).await;
}

#[tokio::test]
async fn so_it_is_when_it_is_asked_too_often() {
    let gateway = Gateway::builder().set("limits.evaluations_per_second", 1).start().await;
    let environment = targeted_shop(&gateway).await;
    let key = format!("Authorization: Bearer {}", environment.client_key);
    ofrep_finds_nothing(&gateway, &key, &[(429, true, true)], &["-n", "10"]).await;
}
