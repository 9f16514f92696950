//! Push-only environments: a Flagsmith core announces its changes and we tell its clients.

use serde_json::{Value, json};

use crate::harness::stream::Subscription;
use crate::harness::{Gateway, PUSH_TOKEN, http};

/// The environment that is announced.
pub(crate) const KEY: &str = "npfo95nMwUw8cjHXdHi2hG";

async fn announce(gateway: &Gateway, token: &str, body: &str) -> (u16, Value) {
    let response = http()
        .post(gateway.url(&format!("/sse/environments/{KEY}/queue-change")))
        .header("authorization", format!("Token {token}"))
        .header("content-type", "application/json")
        .body(body.to_owned())
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Announces a change that must be taken.
pub(crate) async fn announce_at(gateway: &Gateway, instant: &str) {
    let body = json!({ "updated_at": instant }).to_string();
    assert_eq!(announce(gateway, PUSH_TOKEN, &body).await, (200, Value::Null), "{instant}");
}

#[tokio::test]
async fn an_announcement_is_a_ping_and_the_state_of_late_subscribers() {
    let mut gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    announce_at(&gateway, "2026-08-21T12:00:00.123456+00:00").await;
    let mut early = Subscription::open(gateway.public(), KEY).await;
    let first = early.next_ping().await.unwrap();
    // Exactly the core's instant, to the microsecond: SDKs compare it with what the core tells.
    let expected = json!({"updated_at": 1_787_313_600.123_456, "revision": 1, "heartbeat_s": 15});
    assert_eq!(first, expected, "and no flags_url");

    announce_at(&gateway, "2026-08-21T12:00:01+00:00").await;
    assert_eq!(early.next_ping().await.unwrap()["revision"], 2);

    gateway.kill();
    gateway.restart().await;
    let mut late = Subscription::open(gateway.public(), KEY).await;
    let state = late.next_ping().await.unwrap();
    assert_eq!((&state["revision"], &state["updated_at"]), (&json!(2), &json!(1_787_313_601.0)));
}

/// Clients are there before the other system has announced anything: they are told, too.
#[tokio::test]
async fn who_listens_before_the_first_announcement_hears_it() {
    let gateway = Gateway::builder().start().await;
    let mut early = Subscription::open(gateway.public(), KEY).await;
    announce_at(&gateway, "2026-08-21T12:00:00Z").await;
    assert_eq!(early.next_ping().await.unwrap()["revision"], 1);
    announce_at(&gateway, "2026-08-21T12:00:01Z").await;
    assert_eq!(early.reaches(2).await["revision"], 2);
}

/// A task queue delivers late, twice and out of order. None of it may silence or confuse anybody.
#[tokio::test]
async fn times_in_any_order_are_harmless() {
    let gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    announce_at(&gateway, "2026-08-21T12:00:05").await;
    let mut stream = Subscription::open(gateway.public(), KEY).await;
    assert_eq!(stream.next_ping().await.unwrap()["revision"], 1);
    for old in ["2026-08-21T12:00:05+00:00", "2026-08-21T12:00:04Z", "1970-01-01T00:00:00Z"] {
        announce_at(&gateway, old).await;
    }
    // A clock that is far ahead counts as now, so that the next true instant is still news.
    announce_at(&gateway, "2100-01-01T00:00:00Z").await;
    let ping = stream.next_ping().await.unwrap();
    assert_eq!(ping["revision"], 2, "the old ones were no news");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let ahead = ping["updated_at"].as_f64().unwrap() - now.as_secs_f64();
    assert!(ahead.abs() < 61.0, "it counts as now, and no old one came before it: {ping}");
    announce_at(&gateway, &soon_iso()).await;
    assert_eq!(stream.next_ping().await.unwrap()["revision"], 3);
}

/// An instant half a minute ahead, as a clock that is a little fast would say.
fn soon_iso() -> String {
    (jiff::Timestamp::now() + std::time::Duration::from_secs(30)).to_string()
}

#[tokio::test]
async fn who_may_announce_what_is_checked() {
    let gateway = Gateway::builder().start().await;
    let good = r#"{"updated_at":"2026-08-21T12:00:00Z"}"#;
    let refused = json!({"detail": "Invalid authorization header"});
    assert_eq!(announce(&gateway, "wrong", good).await, (401, refused));
    for bad in ["{", "{}", "[]", r#"{"updated_at":1763790000}"#, r#"{"updated_at":"soon"}"#] {
        let (status, answer) = announce(&gateway, PUSH_TOKEN, bad).await;
        assert_eq!(status, 400, "{bad}: {answer}");
        assert!(answer["detail"].is_string(), "{bad}");
    }
    // An environment of our own is changed through the management API.
    let environment = gateway.shop().await;
    let url = gateway.url(&format!("/sse/environments/{}/queue-change", environment.client_key));
    let request = http().post(url).header("authorization", format!("Token {PUSH_TOKEN}"));
    assert_eq!(request.body(good).send().await.unwrap().status(), 409);

    let closed = Gateway::builder().set("auth.push_token", "").start().await;
    let (status, answer) = announce(&closed, "", good).await;
    assert_eq!(status, 403);
    assert!(answer["detail"].as_str().unwrap().contains("auth.push_token"), "{answer}");
}

/// Its flags live elsewhere: our reads say so instead of serving an empty set.
#[tokio::test]
async fn there_is_nothing_to_read_here() {
    let gateway = Gateway::builder().start().await;
    announce_at(&gateway, "2026-08-21T12:00:00Z").await;
    let url = gateway.url(&format!("/sdk/v1/environments/{KEY}/flags"));
    assert_eq!(http().get(url).send().await.unwrap().status(), 404);
    let url = gateway.url("/api/v1/flags/");
    let answer = http().get(url).header("x-environment-key", KEY).send().await.unwrap();
    assert_eq!(answer.status(), 403);
}

#[tokio::test]
async fn the_number_of_push_only_environments_is_bounded() {
    let gateway = Gateway::builder().set("limits.push_environments", 1).start().await;
    announce_at(&gateway, "2026-08-21T12:00:00Z").await;
    let url = gateway.url("/sse/environments/another/queue-change");
    let request = http().post(url).header("authorization", format!("Token {PUSH_TOKEN}"));
    let answer = request.body(r#"{"updated_at":"2026-08-21T12:00:00Z"}"#).send().await.unwrap();
    assert_eq!(answer.status(), 409);
    assert!(answer.text().await.unwrap().contains("limits.push_environments"));
}
