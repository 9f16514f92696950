//! Which environments a relay holds: taken up on first use, let go when idle, unknown for a while.

use serde_json::json;

use super::{Scene, flags_of, link_is, scene};
use crate::harness::answer::get;
use crate::harness::stream::Subscription;
use crate::harness::wire::{ASKS, Wire};
use crate::harness::{Gateway, PUSH_TOKEN, eventually, http};

/// Questions for snapshots that a gateway has answered with `status`.
pub(super) async fn questions(gateway: &Gateway, status: u16) -> f64 {
    let route = "route=\"/sdk/v1/environments/{client_key}/snapshot\"";
    let labels = [route, &*format!("status=\"{status}\"")];
    gateway.metric("flagcast_http_request_duration_seconds_count", &labels).await
}

#[tokio::test]
async fn unknown_keys_do_not_reach_the_gateway_again_and_again() {
    let choose = |relay: crate::harness::Builder| relay.set("relay.unknown_seconds", 3600);
    let Scene { relay, gateway, .. } = scene(choose).await;
    for _ in 0..20 {
        let by_client = get(&relay, "/sdk/v1/environments/nobodyhasthis/flags", &[]).await;
        assert_eq!(
            (by_client.status.as_u16(), by_client.header("cache-control")),
            (404, "public, max-age=5")
        );
        let headers = [("x-environment-key", "ser.nobodyhasthat")];
        assert_eq!(get(&relay, "/api/v1/flags/", &headers).await.status, 403);
        // What can be no key is not asked about at all, and a server key in a URL is not either.
        for odd in ["no%20key", "ser.nobodyhasthat"] {
            let path = format!("/sdk/v1/environments/{odd}/flags");
            assert_eq!(get(&relay, &path, &[]).await.status, 404);
        }
    }
    let asked = questions(&gateway, 404).await;
    assert!((asked - 2.0).abs() < f64::EPSILON, "{asked} questions for two keys");
    relay.metric_becomes("flagcast_relay_unknown_keys", &[], 2).await;
}

/// An environment of another system, which only pings: it becomes known by its first announcement.
#[tokio::test]
async fn a_key_that_becomes_known_is_taken_up_and_who_waits_for_it_hears() {
    let choose = |relay: crate::harness::Builder| {
        relay.set("relay.unknown_seconds", 1).set("stream.short_life_seconds", 2)
    };
    let Scene { relay, gateway, .. } = scene(choose).await;
    let key = "laterkey12345";
    // Its streams are short, and it comes back.
    let first = Wire::open(&relay, key, ASKS).await;
    announce(&gateway, key, "2026-01-01T00:00:00Z").await;
    let mut wire = eventually("the stream tells a state", async || {
        let mut wire = Wire::open(&relay, key, ASKS).await;
        let told = wire.next_revision().await;
        told.is_some().then_some(wire)
    })
    .await;
    drop(first);
    announce(&gateway, key, "2026-01-01T00:00:01Z").await;
    assert_eq!(wire.next_revision().await, Some(2));
    let path = format!("/sdk/v1/environments/{key}/flags");
    let answer = get(&relay, &path, &[]).await;
    assert_eq!(answer.status, 404);
    assert!(answer.json()["detail"].as_str().unwrap().contains("only pings"));
}

async fn announce(gateway: &Gateway, key: &str, at: &str) {
    let url = gateway.url(&format!("/sse/environments/{key}/queue-change"));
    let token = format!("Token {PUSH_TOKEN}");
    let request = http().post(url).header("authorization", token);
    let answer = request.body(json!({ "updated_at": at }).to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn idle_environments_are_let_go_and_come_back() {
    let choose = |relay: crate::harness::Builder| relay.set("relay.idle_seconds", 1);
    let Scene { relay, mut gateway, environment } = scene(choose).await;
    let path = flags_of(&environment);
    let mut stream = Subscription::open(relay.public(), &environment.client_key).await;
    stream.next_ping().await.unwrap();
    let none = async |relay: &Gateway| {
        relay.relay_status().await["environments"].as_array().unwrap().is_empty().then_some(())
    };
    // Who listens uses it.
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    stream.reaches(revision).await;
    drop(stream);
    eventually("it is let go", async || none(&relay).await).await;
    relay.metric_becomes("flagcast_relay_upstream_streams", &[], 0).await;
    assert_eq!(get(&relay, &path, &[]).await.json()["revision"], revision);
    link_is(&relay, "live").await;
    // Let go again; then the gateway goes, and what was known comes from the disk.
    eventually("it is let go again", async || none(&relay).await).await;
    gateway.kill();
    assert_eq!(get(&relay, &path, &[]).await.json()["revision"], revision);
}

#[tokio::test]
async fn there_are_no_more_environments_than_the_operator_allows() {
    let choose = |relay: crate::harness::Builder| relay.set("relay.environments_max", 1);
    let Scene { relay, gateway, environment } = scene(choose).await;
    let other = gateway.admin().create_environment("web", "staging").await;
    assert_eq!(get(&relay, &flags_of(&environment), &[]).await.status, 200);
    let refused = get(&relay, &flags_of(&other), &[]).await;
    assert_eq!(refused.status, 503);
    let hits = relay.metric("flagcast_limit_hits_total", &["environments_max"]).await;
    assert!(hits > 0.0);
}

#[tokio::test]
async fn a_server_key_that_was_revoked_stops_working() {
    let choose = |relay: crate::harness::Builder| relay.set("relay.poll_seconds", 1);
    let Scene { relay, gateway, environment } = scene(choose).await;
    let headers = [("x-environment-key", environment.server_key.as_str())];
    let path = "/api/v1/environment-document/";
    assert_eq!(
        get(&relay, path, &headers).await.status,
        200,
        "the first word of it is a server key"
    );
    let admin = gateway.admin();
    let keys = format!("{}/server-keys", environment.path());
    let old = admin.list(&keys).await;
    let fresh = admin.post(&keys, json!({ "name": "new" })).await;
    admin.delete(&format!("{keys}/{}", old[0]["id"])).await;
    eventually("the old key is refused", async || {
        (get(&relay, path, &headers).await.status == 403).then_some(())
    })
    .await;
    let fresh = [("x-environment-key", fresh["server_key"].as_str().unwrap())];
    assert_eq!(get(&relay, path, &fresh).await.status, 200);
}

#[tokio::test]
async fn an_environment_that_is_deleted_is_forgotten_when_that_is_sure() {
    let choose = |relay: crate::harness::Builder| relay.set("relay.forget_seconds", 2);
    let Scene { mut relay, gateway, environment } = scene(choose).await;
    let path = flags_of(&environment);
    let mut stream = Subscription::open(relay.public(), &environment.client_key).await;
    stream.next_ping().await.unwrap();
    gateway.admin().delete_environment(&environment).await;
    link_is(&relay, "missing").await;
    assert_eq!(get(&relay, &path, &[]).await.status, 200, "until it is sure");
    stream.ended().await;
    eventually("it is forgotten", async || {
        (get(&relay, &path, &[]).await.status == 404).then_some(())
    })
    .await;
    relay.kill();
    relay.restart().await;
    assert_eq!(get(&relay, &path, &[]).await.status, 404, "on the disk, too");
}
