//! A relay as its clients see it: what a gateway says, a moment later, and for as long as the gateway is away.

mod away;
mod chaos;
mod cold;
mod fresh;
mod links;
mod taking_up;

use reqwest::Method;
use serde_json::json;

use crate::harness::admin::Environment;
use crate::harness::answer::{get, send};
use crate::harness::stream::Subscription;
use crate::harness::wire::{ASKS, Wire};
use crate::harness::{ADMIN_TOKEN, Builder, Gateway, eventually, http};

/// A gateway with a shop, and a relay in front of it.
struct Scene {
    // Before the gateway: it follows it.
    relay: Gateway,
    gateway: Gateway,
    environment: Environment,
}

async fn scene(choose: impl FnOnce(Builder) -> Builder) -> Scene {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let relay = choose(Gateway::relay(&gateway.url(""))).start().await;
    Scene { relay, gateway, environment }
}

/// The path of the flags as the browser client reads them.
fn flags_of(environment: &Environment) -> String {
    format!("/sdk/v1/environments/{}/flags", environment.client_key)
}

/// Waits until the link of the only environment of a relay is in `state`.
async fn link_is(relay: &Gateway, state: &str) -> serde_json::Value {
    eventually(&format!("the link is {state}"), async || {
        let line = relay.relay_status().await["environments"][0].clone();
        (line["state"] == state).then_some(line)
    })
    .await
}

#[tokio::test]
async fn every_read_answers_as_the_gateway_does() {
    let Scene { relay, gateway, environment } = scene(|relay| relay).await;
    let admin = gateway.admin();
    admin.create_segment("web", "paying", ("plan", "pro")).await;
    let thanks = json!({ "enabled": true, "value": "thank you" });
    admin.override_for_segment(&environment, "banner", "paying", &thanks).await;
    let revision = admin.set_value(&environment, "limit", 42).await;
    let Environment { client_key, server_key, .. } = &environment;
    let person = json!({
        "identifier": "ann",
        "traits": [{ "trait_key": "plan", "trait_value": "pro" }],
    });
    let context = json!({ "context": { "targetingKey": "bob", "plan": "pro" } });
    let pinned = format!("{}?rev={revision}", flags_of(&environment));
    let by_client = [("x-environment-key", client_key.as_str())];
    let by_server = [("x-environment-key", server_key.as_str())];
    let for_flipper = [("flipper-cloud-token", server_key.as_str())];
    let for_ofrep = [("x-api-key", client_key.as_str()), ("content-type", "application/json")];
    let identities = "/api/v1/identities/";
    for (method, path, headers, body) in [
        (Method::GET, pinned.as_str(), &[][..], None),
        (Method::GET, &flags_of(&environment), &[], None),
        (Method::GET, "/api/v1/flags/", &by_client, None),
        (Method::GET, "/api/v1/flags/?feature=banner", &by_client, None),
        (Method::GET, "/api/v1/environment-document/", &by_server, None),
        (Method::POST, identities, &by_client, Some(&person)),
        (Method::GET, "/api/v1/identities/?identifier=ann", &by_server, None),
        (Method::POST, "/ofrep/v1/evaluate/flags/banner", &for_ofrep, Some(&context)),
        (Method::GET, "/flipper/features", &for_flipper, None),
        (Method::GET, "/client.js", &[], None),
    ] {
        let body = body.map(ToString::to_string);
        let asked = (method, path);
        let there = send(&gateway, asked.clone(), headers, body.clone()).await;
        let here = send(&relay, asked, headers, body).await;
        assert_eq!(here.status, there.status, "{path}");
        assert_eq!(
            String::from_utf8_lossy(&here.body),
            String::from_utf8_lossy(&there.body),
            "{path}"
        );
        for name in ["etag", "cache-control", "vary", "x-flagsmith-document-updated-at"] {
            assert_eq!(here.header(name), there.header(name), "{name} of {path}");
        }
    }
}

#[tokio::test]
async fn a_change_reaches_streams_of_both_dialects_and_every_read_behind_it() {
    let Scene { relay, gateway, environment } = scene(|relay| relay).await;
    let client_key = &environment.client_key;
    let first = gateway.admin().revision(&environment).await;
    // Nobody has asked for it before: the stream is a stranger's until the relay knows the key.
    let mut stream = Subscription::open(relay.public(), client_key).await;
    assert_eq!(stream.next_ping().await.unwrap()["revision"], first);
    let ofrep = relay.url(&format!("/ofrep/v1/streams/{client_key}"));
    let ofrep = http().get(&ofrep).header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(ofrep.headers()["content-type"], "text/event-stream");
    for on in [true, false, true] {
        let revision = gateway.admin().switch(&environment, "dark-mode", on).await;
        let ping = stream.reaches(revision).await;
        assert_eq!(ping["revision"], revision);
        // It names the relay, not the gateway.
        let url = ping["flags_url"].as_str().unwrap();
        assert!(url.starts_with(&relay.url("/sdk/")), "{url}");
        let flags = relay.flags(client_key).await;
        assert_eq!(flags["revision"], revision, "a ping never runs ahead of reads");
        assert_eq!(flags["flags"]["dark-mode"]["enabled"], on);
    }
    // The echo for SDKs that were reading.
    let echo = stream.next_ping().await.unwrap();
    assert_eq!(echo["revision"], relay.flags(client_key).await["revision"]);
}

#[tokio::test]
async fn operators_see_each_environment_and_its_link() {
    let Scene { relay, gateway, environment } = scene(|relay| relay).await;
    let mut wire = Wire::open(&relay, &environment.client_key, ASKS).await;
    wire.reaches(gateway.admin().revision(&environment).await).await;
    let line = link_is(&relay, "live").await;
    assert_eq!(line["client_key"], environment.client_key);
    assert_eq!(line["revision"], line["upstream_revision"]);
    assert_eq!((&line["streams"], &line["stale_seconds"]), (&json!(1), &json!(0.0)));
    assert_eq!(line["error"], json!(null));
    assert_eq!(relay.relay_status().await["upstream"], gateway.url(""));
    relay.metric_becomes("flagcast_relay_environments", &["state=\"live\""], 1).await;
    relay.metric_becomes("flagcast_relay_upstream_streams", &[], 1).await;
    let ready = http().get(relay.ops_url("/readyz?verbose")).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    let text = ready.text().await.unwrap();
    assert!(text.contains("[+]upstream: 1 of 1 environments are followed"), "{text}");
    // A gateway is no relay.
    let none = http().get(gateway.ops_url("/relay/status")).send().await.unwrap();
    assert_eq!(none.status(), 404);
}

#[tokio::test]
async fn there_is_nothing_to_manage_here() {
    let Scene { relay, environment, .. } = scene(|relay| relay).await;
    let headers = [("authorization", &*format!("Bearer {ADMIN_TOKEN}"))];
    let answer = get(&relay, "/admin/v1/projects", &headers).await;
    assert_eq!(answer.status, 404);
    assert!(answer.json()["detail"].as_str().unwrap().contains("at its gateway"));
    assert_eq!(get(&relay, "/", &[]).await.status, 404);
    let announced = format!("/sse/environments/{}/queue-change", environment.client_key);
    let body = json!({ "updated_at": "2026-01-01T00:00:00Z" }).to_string();
    let answer = send(&relay, (Method::POST, &announced), &[], Some(body)).await;
    assert_eq!(answer.status, 403, "without a token of its own nobody announces anything");
}
