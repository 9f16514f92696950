//! Purges: behind the new flag set, before the ping, within their bound, whatever the cache does.

use std::time::{Duration, Instant};

use crate::harness::purged::PurgeDoor;
use crate::harness::stream::Subscription;
use crate::harness::{Builder, Gateway, eventually};

const PURGES: &str = "flagcast_purge_duration_seconds_count";

/// The token that must be in no log.
const TOKEN: &str = "secret-fastly-token";

fn varnish(urls: &str) -> Builder {
    Gateway::builder()
        .set("cdn.purge", "varnish")
        .set("cdn.purge_urls", urls)
        .set("stream.echo_seconds", 0)
}

/// Who was told of a change and reads without a revision finds a cache that has forgotten, and a
/// gateway that knows better.
#[tokio::test]
async fn caches_forget_in_order_before_the_ping_and_before_its_echo() {
    let (shield, edge) = (PurgeDoor::open().await, PurgeDoor::open().await);
    let urls = format!("{},{}", shield.url(), edge.url());
    let gateway = varnish(&urls).set("stream.echo_seconds", 1).start().await;
    let environment = gateway.shop().await;
    // The shop's own changes have purges and echoes of their own; let them pass.
    eventually("the echo of the last change has its purge", async || {
        (edge.requests().len() >= 5).then_some(())
    })
    .await;
    let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
    stream.next_ping().await.unwrap();
    shield.answers(200, Duration::from_millis(150));
    let (before, asked) = (edge.requests().len(), Instant::now());
    let admin = gateway.admin();
    let change = tokio::spawn({
        let environment = environment.clone();
        async move { admin.switch(&environment, "dark-mode", true).await }
    });
    let asks = shield.requests().len();
    eventually("the shield is asked", async || (shield.requests().len() > asks).then_some(()))
        .await;
    let served = gateway.flags(&environment.client_key).await["revision"].as_u64().unwrap();
    let revision = change.await.unwrap();
    assert_eq!(served, revision, "whoever refills a cache gets the new state");
    stream.reaches(revision).await;
    assert!(asked.elapsed() >= Duration::from_millis(150), "the ping waits for the shield");
    assert_eq!(edge.requests().len(), before + 1, "and for the edge behind it");
    let path = format!("purge /sdk/v1/environments/{}/flags http/1.1", environment.client_key);
    let request = edge.requests().pop().unwrap();
    assert!(request.starts_with(&path.to_lowercase()), "{request}");
    let key = format!("surrogate-key: flags-{}", environment.client_key.to_lowercase());
    assert!(request.contains(&key), "{request}");
    stream.reaches(revision).await;
    assert_eq!(edge.requests().len(), before + 2, "once more before the echo");
    assert!(gateway.metric(PURGES, &["done"]).await >= 2.0);
}

/// A cache that does not answer, or says no, delays a ping by the bound at most, and only its own.
#[tokio::test]
async fn a_broken_cache_does_not_hold_pings_up() {
    let door = PurgeDoor::open().await;
    let gateway = varnish(&door.url()).set("cdn.purge_timeout_ms", 800).start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let staging = admin.create_environment("web", "staging").await;
    let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
    let mut other = Subscription::open(gateway.public(), &staging.client_key).await;
    stream.next_ping().await.unwrap();
    other.next_ping().await.unwrap();

    door.answers(503, Duration::ZERO);
    let revision = admin.switch(&environment, "dark-mode", true).await;
    stream.reaches(revision).await;
    assert!(gateway.metric(PURGES, &["failed"]).await >= 1.0);
    assert!(gateway.logged("a cache was not purged"));

    door.answers(200, Duration::from_mins(1));
    let began = Instant::now();
    // Both at once: the second does not queue behind the first.
    let (first, second) = tokio::join!(
        admin.switch(&environment, "dark-mode", false),
        admin.switch(&staging, "dark-mode", true),
    );
    stream.reaches(first).await;
    other.reaches(second).await;
    let took = began.elapsed();
    let bound = Duration::from_millis(800);
    assert!(took >= bound && took < bound * 2, "{took:?}");
    gateway.metric_becomes(PURGES, &["timeout"], 2).await;

    // A burst folds as ever: the last state is told within the bound of its own purge.
    let mut last = 0;
    let began = Instant::now();
    for value in 0..5 {
        let (_, answer) = admin
            .send(
                reqwest::Method::PATCH,
                &format!("{}/flags/limit", environment.path()),
                Some(&serde_json::json!({ "value": value + 100 })),
            )
            .await
            .unwrap();
        last = answer["revision"].as_u64().unwrap();
    }
    stream.reaches(last).await;
    assert!(began.elapsed() < bound * 7, "{:?}", began.elapsed());
}

#[tokio::test]
async fn fastly_is_asked_with_its_token_which_no_log_shows() {
    let api = PurgeDoor::open().await;
    let mut gateway = Gateway::builder()
        .set("cdn.purge", "fastly")
        .set("cdn.purge_urls", api.url().as_str())
        .set("cdn.fastly_service", "SU1Z0isxPaozGVKXdv0eY")
        .set("cdn.fastly_token", TOKEN)
        .set("log.level", "debug")
        .start()
        .await;
    let environment = gateway.shop().await;
    api.answers(401, Duration::ZERO);
    gateway.admin().switch(&environment, "dark-mode", true).await;
    let request = api.requests().pop().unwrap();
    let key = environment.client_key.to_lowercase();
    let line = format!("post /service/su1z0isxpaozgvkxdv0ey/purge/flags-{key} http/1.1");
    assert!(request.starts_with(&line), "{request}");
    assert!(request.contains(&format!("fastly-key: {TOKEN}")), "{request}");
    gateway.metric_becomes("flagcast_logins_refused_total", &[], 0).await;
    assert!(gateway.logged("a cache was not purged"));
    let log = gateway.process().stderr.tail(usize::MAX);
    assert!(!log.contains(TOKEN), "{log}");
}

#[tokio::test]
async fn another_cache_is_asked_as_its_operator_wants() {
    let api = PurgeDoor::open().await;
    let gateway = Gateway::builder()
        .set("cdn.purge", "http")
        .set("cdn.purge_urls", format!("{}/zones/z/purge_cache", api.url()).as_str())
        .set("cdn.purge_header", "Authorization: Bearer t")
        .set("cdn.purge_body", "{\"tags\":[\"{surrogate_key}\"]}")
        .start()
        .await;
    let environment = gateway.shop().await;
    let request = api.requests().pop().unwrap();
    assert!(request.starts_with("post /zones/z/purge_cache http/1.1"), "{request}");
    assert!(request.contains("authorization: bearer t"), "{request}");
    let body = format!("{{\"tags\":[\"flags-{}\"]}}", environment.client_key);
    assert!(request.ends_with(&body), "{request}");
}

/// Of an environment whose flags live elsewhere no cache holds anything of ours.
#[tokio::test]
async fn announcements_purge_nothing() {
    let door = PurgeDoor::open().await;
    let gateway = varnish(&door.url()).start().await;
    let mut stream = Subscription::open(gateway.public(), "core-key").await;
    let announced = crate::harness::http()
        .post(gateway.url("/sse/environments/core-key/queue-change"))
        .header("authorization", format!("Token {}", crate::harness::PUSH_TOKEN))
        .json(&serde_json::json!({"updated_at": "2026-08-21T12:00:00.5+00:00"}))
        .send();
    assert_eq!(announced.await.unwrap().status(), 200);
    stream.reaches(1).await;
    assert_eq!(door.requests(), Vec::<String>::new());
}
