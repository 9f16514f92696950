//! The upstream is away: what was last known is served, from memory and from the disk, and afterwards
//! everything is new again by itself.

use serde_json::json;

use super::{Scene, flags_of, link_is, scene};
use crate::harness::answer::get;
use crate::harness::stream::Subscription;
use crate::harness::{ADMIN_TOKEN, Gateway, eventually, http, read_json};

/// Whether the operators' listener says that traffic may come.
async fn is_ready(relay: &Gateway) -> bool {
    http().get(relay.ops_url("/readyz")).send().await.unwrap().status() == 200
}

#[tokio::test]
async fn what_was_last_known_is_served_and_streams_stay_open() {
    let Scene { relay, mut gateway, environment } = scene(|relay| relay).await;
    let client_key = &environment.client_key;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    let mut stream = Subscription::open(relay.public(), client_key).await;
    stream.reaches(revision).await;
    gateway.kill();
    let line = link_is(&relay, "away").await;
    assert!(!line["error"].as_str().unwrap().is_empty());
    let known = relay.flags(client_key).await;
    assert_eq!(
        (&known["revision"], &known["flags"]["dark-mode"]["enabled"]),
        (&json!(revision), &json!(true))
    );
    // Ahead of what is held, and nobody can be asked: not found for a second, as at a gateway.
    let path = format!("{}?rev={}", flags_of(&environment), revision + 1);
    let ahead = get(&relay, &path, &[]).await;
    assert_eq!((ahead.status.as_u16(), ahead.header("cache-control")), (404, "public, max-age=1"));
    // Ready: old flags are better than none, unless the operator thinks otherwise.
    assert!(is_ready(&relay).await);
    eventually("staleness is measured", async || {
        (relay.metric("flagcast_relay_stale_seconds", &[]).await > 0.0).then_some(())
    })
    .await;

    gateway.restart().await;
    let next = gateway.admin().switch(&environment, "dark-mode", false).await;
    // On the same stream: clients have noticed nothing.
    stream.reaches(next).await;
    assert_eq!(relay.flags(client_key).await["revision"], next);
    let line = link_is(&relay, "live").await;
    assert_eq!(line["stale_seconds"], json!(0.0));
}

#[tokio::test]
async fn a_relay_starts_from_its_disk() {
    let Scene { mut relay, mut gateway, environment } = scene(|relay| relay).await;
    let client_key = &environment.client_key;
    let revision = gateway.admin().set_value(&environment, "limit", 77).await;
    let mut stream = Subscription::open(relay.public(), client_key).await;
    stream.reaches(revision).await;
    let document = async |relay: &Gateway| {
        let headers = [("x-environment-key", environment.server_key.as_str())];
        get(relay, "/api/v1/environment-document/", &headers).await.body
    };
    let known = document(&relay).await;
    // It is on the disk before anybody is told.
    gateway.kill();
    relay.kill();
    relay.restart().await;
    assert_eq!(relay.flags(client_key).await["flags"]["limit"]["value"], 77);
    assert_eq!(document(&relay).await, known, "by a server key, too");
    let mut stream = Subscription::open(relay.public(), client_key).await;
    assert_eq!(stream.next_ping().await.unwrap()["revision"], revision);
    let line = relay.relay_status().await["environments"][0].clone();
    assert_eq!((&line["state"], &line["revision"]), (&json!("disk"), &json!(revision)));
    // A key that it does not hold cannot be asked about: that is no "unknown".
    let stranger = get(&relay, "/sdk/v1/environments/anotherkey123/flags", &[]).await;
    assert_eq!(
        (stranger.status.as_u16(), &stranger.json()["code"]),
        (503, &json!("upstream_away"))
    );

    gateway.restart().await;
    let next = gateway.admin().set_value(&environment, "limit", 78).await;
    stream.reaches(next).await;
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_is_put_aside() {
    let Scene { mut relay, gateway, environment } = scene(|relay| relay).await;
    relay.flags(&environment.client_key).await;
    let folder = relay.path("flagcast-relay");
    let file = eventually("a snapshot is written", async || {
        let mut files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
        files.find(|file| file.extension().is_some_and(|ending| ending == "json"))
    })
    .await;
    relay.kill();
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    relay.restart().await;
    assert!(relay.logged("cannot read a snapshot"));
    // The gateway gives a new one.
    let revision = gateway.admin().revision(&environment).await;
    assert_eq!(relay.flags(&environment.client_key).await["revision"], revision);
}

#[tokio::test]
async fn an_operator_may_rather_have_no_flags_than_old_ones() {
    let choose = |relay: crate::harness::Builder| relay.set("relay.ready_stale_seconds", 1);
    let Scene { relay, mut gateway, environment } = scene(choose).await;
    relay.flags(&environment.client_key).await;
    link_is(&relay, "live").await;
    assert!(is_ready(&relay).await);
    gateway.kill();
    eventually("the relay is not ready", async || (!is_ready(&relay).await).then_some(())).await;
    // Whoever comes all the same is served.
    relay.flags(&environment.client_key).await;
    gateway.restart().await;
    eventually("the relay is ready", async || is_ready(&relay).await.then_some(())).await;
}

/// A file that was put back from a backup counts anew from there.
#[tokio::test]
async fn a_history_that_went_back_is_followed() {
    let Scene { relay, mut gateway, environment } = scene(|relay| relay).await;
    let client_key = &environment.client_key;
    let admin = gateway.admin();
    let backed_up = admin.set_value(&environment, "limit", 1).await;
    gateway.terminate();
    gateway.exited().await;
    let file = gateway.path("flagcast.db");
    let backup = std::fs::read(&file).unwrap();
    gateway.restart().await;
    let lost = admin.set_value(&environment, "limit", 2).await;
    let mut stream = Subscription::open(relay.public(), client_key).await;
    stream.reaches(lost).await;

    gateway.terminate();
    gateway.exited().await;
    std::fs::write(&file, &backup).unwrap();
    for rest in ["flagcast.db-wal", "flagcast.db-shm"] {
        std::fs::remove_file(gateway.path(rest)).ok();
    }
    gateway.restart().await;
    eventually("the restored flags are served", async || {
        let flags = relay.flags(client_key).await;
        (flags["revision"] == backed_up && flags["flags"]["limit"]["value"] == 1).then_some(())
    })
    .await;
    // Who listened begins anew with the new history.
    stream.ended().await;
    let mut stream = Subscription::open(relay.public(), client_key).await;
    assert_eq!(stream.next_ping().await.unwrap()["revision"], backed_up);
    let next = admin.set_value(&environment, "limit", 3).await;
    assert_eq!(stream.reaches(next).await["revision"], next);
    assert!((relay.metric("flagcast_relay_histories_total", &[]).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_named_environment_must_be_there() {
    let mut gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    gateway.kill();
    let named = environment.client_key.as_str();
    let relay = Gateway::relay(&gateway.url("")).set("relay.environments", named);
    let relay = relay.start().await;
    let answer = http().get(relay.ops_url("/readyz")).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let text = answer.text().await.unwrap();
    assert!(text.contains(&environment.client_key), "{text}");
    gateway.restart().await;
    eventually("the relay is ready", async || is_ready(&relay).await.then_some(())).await;
    // Held although nobody came.
    let report = read_json(&relay.ops_url("/relay/status")).await;
    assert_eq!(report["environments"][0]["client_key"], environment.client_key);
}

/// A token that was revoked is no reason to lose flags.
#[tokio::test]
async fn a_relay_that_is_not_let_in_serves_what_it_knows() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let made = admin.post("/tokens", json!({ "name": "edge", "role": "relay" })).await;
    let relay = Gateway::relay(&gateway.url(""));
    let relay = relay.set("relay.token", made["token"].as_str().unwrap()).start().await;
    let revision = admin.revision(&environment).await;
    assert_eq!(relay.flags(&environment.client_key).await["revision"], revision);
    admin.delete(&format!("/tokens/{}", made["id"])).await;
    let line = link_is(&relay, "refused").await;
    assert!(line["error"].as_str().unwrap().contains("token"), "{line}");
    assert!(!line.to_string().contains(made["token"].as_str().unwrap()));
    assert_eq!(relay.flags(&environment.client_key).await["revision"], revision);
    assert!(!relay.process_log().any(|line| line.contains(ADMIN_TOKEN)));
}
