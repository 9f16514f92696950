//! The stream as bytes: what SDKs that parse by hand rely on.
//!
//! Each test here stands for a client that breaks otherwise; its comment names the client.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::stream::Subscription;
use crate::harness::wire::{ASKS, Wire};
use crate::harness::{Gateway, http};

/// Python's SDK needs chunks, browsers the media type, nginx the word not to buffer, and caches
/// must neither keep nor split the direct stream.
#[tokio::test]
async fn the_head_of_a_stream_is_the_contract() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let wire = Wire::open(&gateway, &environment.client_key, ASKS).await;
    for line in [
        "http/1.1 200 ok\r\n",
        "content-type: text/event-stream\r\n",
        "transfer-encoding: chunked\r\n",
        "cache-control: no-store, no-transform\r\n",
        "x-accel-buffering: no\r\n",
        "access-control-allow-origin: *\r\n",
    ] {
        assert!(wire.head.contains(line), "{line:?} in {}", wire.head);
    }
    for absent in ["etag:", "vary:", "set-cookie:", "content-encoding:", "content-length:"] {
        assert!(!wire.head.contains(absent), "{absent} in {}", wire.head);
    }
}

/// iOS parses each chunk by itself; Go and Ruby want `data: ` with its space; JavaScript would put
/// an `id:` into its URL; Flutter ignores an instant without a fraction.
#[tokio::test]
async fn each_event_is_one_chunk_with_the_bytes_of_the_contract() {
    let gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    let mut wire = Wire::open(&gateway, &environment.client_key, ASKS).await;
    let mut check = async |revision: u64| {
        let event = wire.chunk().await.unwrap();
        let lines: Vec<&str> = event.split('\n').collect();
        let [name, data, retry, "", ""] = lines[..] else { panic!("{event:?}") };
        assert_eq!((name, retry), ("event: environment_updated", "retry: 15000"));
        let facts: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(facts["revision"], revision);
        assert_eq!(facts["heartbeat_s"], 15);
        let updated_at = facts["updated_at"].as_f64().unwrap();
        let printed = data.split(['{', ',']).nth(1).unwrap();
        assert_eq!(printed, format!("\"updated_at\": {updated_at:?}"), "with its fraction");
        assert!((updated_at * 64.0).fract() == 0.0, "a multiple of 1/64 s");
        let suffix =
            format!("/sdk/v1/environments/{}/flags?rev={revision}", environment.client_key);
        assert!(facts["flags_url"].as_str().unwrap().ends_with(&suffix));
    };
    let first = gateway.admin().revision(&environment).await;
    check(first).await;
    for step in 1..=3 {
        gateway.admin().switch(&environment, "dark-mode", step % 2 == 1).await;
        check(first + step).await;
    }
}

/// Ruby's SDK reads to the end before it looks; Android's never comes back after anything but a
/// clean end; Go and curl do not ask for events at all.
#[tokio::test]
async fn streams_end_cleanly_and_soon_for_those_who_do_not_ask_for_events() {
    let gateway = Gateway::builder().set("stream.short_life_seconds", 1).start().await;
    let environment = gateway.shop().await;
    let mut ruby = Wire::open(&gateway, &environment.client_key, "").await;
    let began = Instant::now();
    assert!(ruby.chunk().await.unwrap().contains("environment_updated"));
    assert_eq!(ruby.chunk().await, None, "a clean end");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let ends = gateway.metric("flagcast_stream_ends_total", &["reason=\"life\""]).await;
    assert!((ends - 1.0).abs() < f64::EPSILON, "{ends}");
}

/// A silent stream must not look dead to proxies, and its heartbeats must not look like changes:
/// Python, Go, Ruby and iOS take any `data:` line for one.
#[tokio::test]
async fn heartbeats_are_comments() {
    let gateway = Gateway::builder()
        .set("stream.heartbeat_seconds", 1)
        .set("stream.echo_seconds", 0)
        .start()
        .await;
    let environment = gateway.shop().await;
    let mut wire = Wire::open(&gateway, &environment.client_key, ASKS).await;
    assert!(wire.chunk().await.unwrap().contains("\"heartbeat_s\": 1}"));
    for _ in 0..2 {
        assert_eq!(wire.chunk().await.unwrap(), ":\n\n");
    }
}

/// Python hot-loops on errors and on an instant end, hundreds of times a second; a browser gives
/// up for ever. So a key that nobody has gets a silent stream.
#[tokio::test]
async fn an_unknown_environment_is_held_open_and_says_nothing() {
    let gateway = Gateway::builder().set("stream.short_life_seconds", 2).start().await;
    let began = Instant::now();
    let mut wire = Wire::open(&gateway, "nobody-has-this-key", ASKS).await;
    assert!(wire.head.starts_with("http/1.1 200"), "{}", wire.head);
    assert_eq!(wire.chunk().await.unwrap(), ": ok\n\n");
    assert_eq!(wire.chunk().await, None);
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
}

/// Beyond a limit there is no error either: a silent stream, then word to come back later.
#[tokio::test]
async fn a_stream_beyond_a_limit_is_asked_to_come_back_later() {
    let gateway = Gateway::builder()
        .set("limits.streams_per_environment", 1)
        .set("stream.refusal_seconds", 1)
        .start()
        .await;
    let environment = gateway.shop().await;
    let mut first = Wire::open(&gateway, &environment.client_key, ASKS).await;
    assert!(first.chunk().await.unwrap().contains("environment_updated"));
    let mut second = Wire::open(&gateway, &environment.client_key, ASKS).await;
    assert!(second.head.starts_with("http/1.1 200"), "{}", second.head);
    let word = second.chunk().await.unwrap();
    let millis: u64 = word.strip_prefix("retry: ").unwrap().trim().parse().unwrap();
    assert!((10_000..30_000).contains(&millis), "{word:?}");
    assert_eq!(second.chunk().await, None);
    let hits =
        gateway.metric("flagcast_limit_hits_total", &["limit=\"streams_per_environment\""]).await;
    assert!((hits - 1.0).abs() < f64::EPSILON, "{hits}");
    drop(first);
}

/// The echo: the same ping once more, after the last change of a burst.
#[tokio::test]
async fn a_burst_is_echoed_once() {
    let gateway = Gateway::builder().set("stream.echo_seconds", 1).start().await;
    let environment = gateway.shop().await;
    let mut wire = Wire::open(&gateway, &environment.client_key, ASKS).await;
    wire.chunk().await.unwrap();
    let mut last = 0;
    for step in 0..5 {
        last = gateway.admin().set_value(&environment, "limit", step).await;
    }
    let wanted = format!("\"revision\": {last},");
    let mut told = 0;
    let mut heartbeat_free = Instant::now();
    while heartbeat_free.elapsed() < Duration::from_secs(3) && told < 2 {
        if wire.chunk().await.unwrap().contains(&wanted) {
            told += 1;
            heartbeat_free = Instant::now();
        }
    }
    assert_eq!(told, 2, "the ping and its echo");
    // Nothing more comes: the next chunk would be a heartbeat, 15 s later.
    let more = timeout(Duration::from_secs(3), wire.chunk()).await;
    assert!(more.is_err(), "{more:?}");
    // Changes that the shop was made of may have had their own echo before the stream began.
    assert!(gateway.metric("flagcast_echoes_total", &[]).await >= 1.0);
}

/// A ping never runs ahead of what a read would answer: whoever hears of N reads at least N, at
/// every door, also without naming N.
#[tokio::test]
async fn whoever_hears_of_a_revision_reads_it() {
    let gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
    stream.next_ping().await.unwrap();
    let path = format!("{}/flags/limit", environment.path());
    let writer = tokio::spawn(async move {
        for step in 0..300 {
            admin.call(Method::PATCH, &path, Some(&json!({"value": step}))).await;
        }
    });
    let client = http();
    let sdk = gateway.url(&format!("/sdk/v1/environments/{}/flags", environment.client_key));
    let flags = gateway.url("/api/v1/flags/");
    let document = gateway.url("/api/v1/environment-document/");
    loop {
        let ping = stream.next_ping().await.unwrap();
        let (revision, instant) =
            (ping["revision"].as_u64().unwrap(), ping["updated_at"].as_f64().unwrap());
        let read: Value = client.get(&sdk).send().await.unwrap().json().await.unwrap();
        assert!(read["revision"].as_u64().unwrap() >= revision, "{read} after {ping}");
        let pinned = client.get(ping["flags_url"].as_str().unwrap()).send().await.unwrap();
        let pinned: Value = pinned.json().await.unwrap();
        assert!(pinned["revision"].as_u64().unwrap() >= revision, "{pinned} after {ping}");
        for (url, key) in [(&flags, &environment.client_key), (&document, &environment.server_key)]
        {
            let answer = client.get(url).header("x-environment-key", key).send().await.unwrap();
            let header = answer.headers()["x-flagsmith-document-updated-at"].to_str().unwrap();
            assert!(header.parse::<f64>().unwrap() >= instant, "{header} after {ping}");
        }
        if read["flags"]["limit"]["value"] == 299 {
            break;
        }
    }
    writer.await.unwrap();
}
