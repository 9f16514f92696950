//! Whether the gateway is what its OpenAPI document says: Schemathesis asks every operation in right
//! and wrong ways and holds each answer against the document.

use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::harness::Gateway;
use crate::harness::admin::Environment;
use crate::harness::process::Process;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/openapi-venv/bin/st");
const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi");

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

/// Runs Schemathesis over the document at `location`; it must find nothing.
async fn finds_nothing(config: &str, location: &str, token: &str, arguments: &[&str]) {
    let mut command = Command::new(PROGRAM);
    command.args(["--config-file", &format!("{ASSETS}/{config}"), "run", location]);
    command.args(["--header", &format!("Authorization: Bearer {token}")]);
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
    let token = token(&gateway).await;
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
