//! The database fails in every way that it can: what is known goes on being served, the operators are told
//! the truth, what was acknowledged stays, and all is well by itself when the database is. The table in
//! `docs/RELIABILITY.md` names these tests.
//!
//! Each test has servers of its own, because it breaks them.

mod away;
mod commits;
mod failover;
mod refused;
mod silence;
mod start;

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::admin::Environment;
use crate::harness::ask::Ask;
use crate::harness::{Builder, Gateway, eventually, http};

/// What a proxy adds to a request.
const THROUGH_A_CACHE: &str = "Accept: text/event-stream\r\nVia: 1.1 cache (Varnish/7.1)\r\n";

/// Time for what a person would call at once, on a busy machine.
const QUICK: Duration = Duration::from_secs(5);

/// A gateway that loses its patience within a second.
fn impatient() -> Builder {
    Gateway::builder()
        .set("store.busy_timeout_ms", 1000)
        .set("store.check_timeout_ms", 500)
        .set("store.poll_ms", 100)
        .set("store.lost_after_seconds", 2)
        .set("stream.echo_seconds", 0)
}

/// Whether `/readyz` says so, and its words.
async fn readiness(gateway: &Gateway) -> (bool, String) {
    let answer = http().get(gateway.ops_url("/readyz")).send().await.unwrap();
    let ready = answer.status() == StatusCode::OK;
    assert!(ready || answer.status() == StatusCode::SERVICE_UNAVAILABLE, "{}", answer.status());
    (ready, answer.text().await.unwrap())
}

/// Waits until `/readyz` says this.
async fn readiness_becomes(gateway: &Gateway, wanted: bool) -> String {
    eventually(&format!("ready: {wanted}"), async || {
        let (ready, words) = readiness(gateway).await;
        (ready == wanted).then_some(words)
    })
    .await
}

/// Asks for a change; what came back.
async fn change(
    gateway: &Gateway,
    environment: &Environment,
    value: u64,
) -> (u16, Value, HeaderMap) {
    change_as(gateway, environment, value, &[]).await
}

/// The same with headers.
async fn change_as(
    gateway: &Gateway,
    environment: &Environment,
    value: u64,
    headers: &[(&str, &str)],
) -> (u16, Value, HeaderMap) {
    let path = format!("{}/flags/limit", environment.path());
    let body = json!({ "value": value }).to_string();
    let ask = Ask { headers, body: &body, ..Ask::new(Method::PATCH, &path) };
    ask.send(gateway).await
}

/// Asks for a change until it is made; the revision that it made.
async fn change_at_last(gateway: &Gateway, environment: &Environment, value: u64) -> u64 {
    eventually("changes are made again", async || {
        let (status, answer, _) = change(gateway, environment, value).await;
        assert!(status == 200 || status == 503, "{status} {answer}");
        (status == 200).then(|| answer["revision"].as_u64().unwrap())
    })
    .await
}

/// A change must be refused in time, with word to come back.
async fn change_is_refused(gateway: &Gateway, environment: &Environment, code: &str) {
    let began = Instant::now();
    let (status, problem, headers) = change(gateway, environment, 666).await;
    assert_eq!((status, problem["code"].as_str()), (503, Some(code)), "{problem}");
    assert!(headers.contains_key("retry-after"), "{headers:?}");
    // The bound is the wait for the store (here 1 s) and 5 s.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// Every kind of read must answer with `revision`, at once.
async fn everything_is_read(gateway: &Gateway, environment: &Environment, revision: u64) {
    let key = &environment.client_key;
    let flags = format!("/sdk/v1/environments/{key}/flags");
    for path in [flags.clone(), format!("{flags}?rev={revision}")] {
        let answer = quickly(http().get(gateway.url(&path))).await;
        assert_eq!(answer["revision"], revision, "{path}");
    }
    let ofrep = http().post(gateway.url("/ofrep/v1/evaluate/flags")).header("x-api-key", key);
    let answer = quickly(ofrep.json(&json!({"context": {"targetingKey": "bob"}}))).await;
    assert_eq!(answer["flags"].as_array().unwrap().len(), 3, "{answer}");
    for path in ["/api/v1/flags/", "/api/v1/identities/?identifier=bob"] {
        let flagsmith = http().get(gateway.url(path)).header("x-environment-key", key);
        let answer = quickly(flagsmith).await;
        let flags = answer.get("flags").unwrap_or(&answer);
        assert_eq!(flags.as_array().unwrap().len(), 3, "{path}: {answer}");
    }
}

async fn quickly(request: reqwest::RequestBuilder) -> Value {
    let began = Instant::now();
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.url());
    let answer = answer.json().await.unwrap();
    assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
    answer
}
