//! The contract of streams and reads that come through a cache, as bytes: a cache can only keep its
//! part if every head, life and end is right. `cdn` shows the same with real caches.

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::admin::Environment;
use crate::harness::secure::Http2;
use crate::harness::wire::{ASKS, Wire, revision};
use crate::harness::{Builder, Gateway, eventually, http};

/// What Varnish, and any proxy that follows the standard, adds to a request.
const THROUGH_A_CACHE: &str = "Via: 1.1 cache (Varnish/7.1)\r\n";

/// Streams of some ten seconds, with a heartbeat each.
fn builder() -> Builder {
    Gateway::builder()
        .set("stream.cached_life_seconds", 10)
        .set("stream.cached_heartbeat_seconds", 1)
        .set("stream.echo_seconds", 0)
}

/// Opens the OFREP stream of an environment.
async fn open_ofrep(gateway: &Gateway, client_key: &str, headers: &str) -> Wire {
    let mut wire = Wire::connect(gateway.public()).await;
    let path = format!("/ofrep/v1/streams/{client_key}");
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await;
    wire.read_stream_head().await;
    wire
}

/// For how many seconds a cache may share the stream with this head.
fn fresh_seconds(head: &str) -> u64 {
    let value = head.split("s-maxage=").nth(1).unwrap_or_else(|| panic!("no freshness: {head}"));
    value.split(',').next().unwrap().parse().unwrap()
}

/// Whatever a client sends is the first of many: what only concerns it changes nothing.
#[tokio::test]
async fn a_cached_stream_lives_three_seconds_longer_than_it_is_fresh_and_ends_cleanly() {
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    // Not asking for events, with a place to go on from, a coding and a validator.
    let odd = format!(
        "{THROUGH_A_CACHE}Last-Event-ID: 1\r\nAccept-Encoding: gzip\r\nIf-None-Match: *\r\n\
         Cookie: a=b\r\nRange: bytes=0-\r\nOrigin: https://a.example\r\n"
    );
    let began = Instant::now();
    let mut wire = Wire::open(&gateway, &environment.client_key, &odd).await;
    for line in [
        "http/1.1 200 ok\r\n",
        "transfer-encoding: chunked\r\n",
        "access-control-allow-origin: *\r\n",
        &format!("surrogate-key: sse env-{}\r\n", environment.client_key.to_lowercase()),
        "stale-while-revalidate=0, stale-if-error=0, no-transform\r\n",
        "\r\ndate: ",
    ] {
        assert!(wire.head.contains(line), "{line:?} in {}", wire.head);
    }
    for absent in ["etag:", "last-modified:", "vary:", "set-cookie:", "content-encoding:", "age:"] {
        assert!(!wire.head.contains(absent), "{absent} in {}", wire.head);
    }
    let fresh = fresh_seconds(&wire.head);
    let first = wire.chunk().await.unwrap();
    assert!(first.contains("\"heartbeat_s\": 1}\nretry: 1000\n"), "{first}");
    gateway.metric_becomes("flagcast_streams_open", &["flagsmith", "cached"], 1).await;
    let mut heartbeats = 0;
    while let Some(chunk) = wire.chunk().await {
        assert_eq!(chunk, ":\n\n");
        heartbeats += 1;
    }
    let life = began.elapsed().as_secs_f64();
    assert!((5..=9).contains(&fresh), "a life of 8 to 12 s: {fresh}");
    let margin = life - f64::from(u32::try_from(fresh).unwrap());
    assert!((3.0..4.5).contains(&margin), "fresh for {fresh} s of {life} s");
    assert!(heartbeats >= fresh, "{heartbeats} heartbeats in {life} s");
    gateway.metric_becomes("flagcast_stream_ends_total", &["reason=\"life\""], 1).await;
}

/// OFREP's providers queue what comes while they read, so nothing is echoed; heartbeats tell the
/// state, so that a lost ping heals.
#[tokio::test]
async fn ofrep_streams_speak_their_dialect_under_both_contracts() {
    let gateway =
        builder().set("stream.heartbeat_seconds", 1).set("stream.echo_seconds", 2).start().await;
    let environment = gateway.shop().await;
    let key = &environment.client_key;
    let ping = async |revision: u64, retry: &str| {
        let url = gateway.url(&format!("/sdk/v1/environments/{key}/flags?rev={revision}"));
        let answer = gateway.admin().get(&environment.path()).await;
        let seconds = answer["updated_at"].as_f64().unwrap().floor();
        format!(
            "id: {revision}\nevent: message\ndata: {{\"type\":\"refetchEvaluation\",\
             \"etag\":\"\\\"{key}.{revision}\\\"\",\"lastModified\":{seconds},\
             \"revision\":{revision},\"flags_url\":\"{url}\",\"spread_ms\":0,\
             \"heartbeat_s\":1}}\n{retry}\n"
        )
    };
    for (headers, retry) in [(ASKS, ""), (THROUGH_A_CACHE, "retry: 1000\n")] {
        let mut wire = open_ofrep(&gateway, key, headers).await;
        let present = gateway.admin().revision(&environment).await;
        assert_eq!(wire.chunk().await.unwrap(), ping(present, retry).await);
        let changed = gateway.admin().set_value(&environment, "limit", present).await;
        let mut chunk = wire.chunk().await.unwrap();
        while chunk.contains("\"state\"") {
            chunk = wire.chunk().await.unwrap();
        }
        assert_eq!(chunk, ping(changed, retry).await);
        // For longer than the echo takes: heartbeats and nothing else.
        let state =
            format!("data: {{\"type\":\"state\",\"revision\":{changed},\"heartbeat_s\":1}}\n\n");
        for _ in 0..4 {
            assert_eq!(wire.chunk().await.unwrap(), state);
        }
    }
    gateway.metric_becomes("flagcast_streams_open", &["ofrep", "direct"], 0).await;
}

#[tokio::test]
async fn the_setting_decides_where_the_request_does_not_say() {
    for (contract, headers, shared) in [
        ("auto", "", false),
        ("auto", "CDN-Loop: fastly\r\n", true),
        ("auto", "X-Varnish: 3\r\n", true),
        ("direct", THROUGH_A_CACHE, false),
        ("cached", "", true),
    ] {
        let gateway = builder().set("stream.contract", contract).start().await;
        let environment = gateway.shop().await;
        for wire in [
            Wire::open(&gateway, &environment.client_key, headers).await,
            open_ofrep(&gateway, &environment.client_key, headers).await,
        ] {
            assert_eq!(wire.head.contains("s-maxage="), shared, "{contract} {headers}");
            assert_eq!(wire.head.contains("no-store"), !shared, "{contract} {headers}");
        }
    }
}

/// On HTTP/1.0 a stream ends with its connection, however it ends: a cache would take one that breaks
/// off for the whole. And what HEAD says of a stream is not worth keeping.
#[tokio::test]
async fn what_could_not_be_cut_visibly_is_not_shared() {
    let gateway = builder().set("stream.contract", "cached").start().await;
    let environment = gateway.shop().await;
    let path = format!("/sse/environments/{}/stream", environment.client_key);
    for request in [format!("GET {path} HTTP/1.0"), format!("HEAD {path} HTTP/1.1")] {
        let mut wire = Wire::connect(gateway.public()).await;
        wire.send(format!("{request}\r\nHost: test\r\n{THROUGH_A_CACHE}\r\n")).await;
        wire.read_head().await;
        assert!(wire.head.contains("cache-control: no-store, no-transform\r\n"), "{}", wire.head);
        drop(wire);
    }
    gateway.metric_becomes("flagcast_streams_open", &["flagsmith"], 0).await;
}

/// Deletes the environment while `wire` listens; what it reads then, to the end of the connection.
async fn rest_after_deletion(
    gateway: &Gateway,
    environment: &Environment,
    wire: &mut Wire,
) -> String {
    wire.chunk().await.unwrap();
    let change = json!({"value": 7});
    let path = format!("{}/flags/limit", environment.path());
    gateway.admin().call(Method::PATCH, &path, Some(&change)).await;
    gateway.admin().delete_environment(environment).await;
    wire.rest().await
}

/// A clean end would be stored, and handed out until it is no longer fresh.
#[tokio::test]
async fn a_cached_stream_of_a_deleted_environment_breaks_off() {
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let mut direct = Wire::open(&gateway, &environment.client_key, ASKS).await;
    let mut cached = Wire::open(&gateway, &environment.client_key, THROUGH_A_CACHE).await;
    let mut ofrep = open_ofrep(&gateway, &environment.client_key, THROUGH_A_CACHE).await;
    direct.chunk().await.unwrap();
    ofrep.chunk().await.unwrap();
    let text = rest_after_deletion(&gateway, &environment, &mut cached).await;
    assert!(text.contains("\"revision\": ") && !text.contains("\r\n0\r\n"), "{text:?}");
    assert!(text.ends_with("retry: 1000\n\n\r\n") || text.ends_with(":\n\n\r\n"), "{text:?}");
    let text = ofrep.rest().await;
    assert!(text.ends_with("\n\r\n") && !text.contains("\r\n0\r\n"), "{text:?}");
    // The same end is a clean one where no cache listens.
    direct.stream_ends().await;
    gateway.metric_becomes("flagcast_stream_ends_total", &["reason=\"gone\""], 3).await;
}

/// The same on HTTP/2, where a stream that breaks off is reset.
#[tokio::test]
async fn a_cached_stream_on_http_2_is_reset_behind_its_last_event() {
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let mut client = Http2::plain(&gateway).await;
    let path = format!("/sse/environments/{}/stream", environment.client_key);
    let request = client.request(&path).header("via", "2 cache");
    let request = request.body(http_body_util::Full::default()).unwrap();
    let answer = client.try_send(request).await.unwrap();
    let mut stream = answer.into_body();
    let mut text = String::new();
    let failed = loop {
        match http_body_util::BodyExt::frame(&mut stream).await {
            Some(Ok(frame)) => {
                let first = text.is_empty();
                text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
                if first {
                    gateway.admin().set_value(&environment, "limit", 8).await;
                    gateway.admin().delete_environment(&environment).await;
                }
            }
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(failed, "reset, not ended: {text}");
    assert!(text.matches("environment_updated").count() >= 2, "{text}");
}

/// A drain lets streams live to their planned, clean end as far as the grace period reaches, and
/// only then breaks the rest off. What is changed meanwhile is told.
#[tokio::test]
async fn a_drain_lets_cached_streams_live_as_planned() {
    let grace = Duration::from_secs(16);
    let mut gateway = builder().set("server.grace_seconds", grace.as_secs()).start().await;
    let environment = gateway.shop().await;
    let mut wire = Wire::open(&gateway, &environment.client_key, THROUGH_A_CACHE).await;
    let began = Instant::now();
    let life = Duration::from_secs(fresh_seconds(&wire.head) + 3);
    wire.chunk().await.unwrap();
    gateway.terminate();
    eventually("it takes no new connection", async || {
        http().get(gateway.url("/")).send().await.is_err().then_some(())
    })
    .await;
    while let Some(chunk) = wire.chunk().await {
        assert!(!chunk.contains("retry"), "no word of going: {chunk}");
    }
    assert!(began.elapsed() + Duration::from_millis(200) >= life, "{:?}", began.elapsed());
    assert_eq!(gateway.exited().await.code(), Some(0));
}

#[tokio::test]
async fn the_end_of_a_drain_breaks_cached_streams_off() {
    let grace = Duration::from_secs(4);
    let mut gateway = builder().set("server.grace_seconds", grace.as_secs()).start().await;
    let environment = gateway.shop().await;
    let mut wire = Wire::open(&gateway, &environment.client_key, THROUGH_A_CACHE).await;
    wire.chunk().await.unwrap();
    let asked = Instant::now();
    gateway.terminate();
    let text = wire.rest().await;
    assert!(text.ends_with(":\n\n\r\n"), "without a last chunk: {text:?}");
    assert!(asked.elapsed() >= grace.mul_f64(0.7), "{:?}", asked.elapsed());
    assert_eq!(gateway.exited().await.code(), Some(0));
    assert!(!gateway.logged("connections are cut"), "it was done before the grace was over");
}

/// A cache shares the stream of a key that nobody has, too; it must not stay silent for all who come
/// when the key becomes known.
#[tokio::test]
async fn a_cached_stranger_joins_when_its_key_becomes_known() {
    let gateway = builder().set("stream.short_life_seconds", 20).start().await;
    let mut wire = Wire::open(&gateway, "core-key", THROUGH_A_CACHE).await;
    assert!((13..=21).contains(&fresh_seconds(&wire.head)), "{}", wire.head);
    assert_eq!(wire.chunk().await.unwrap(), ": ok\n\n");
    let announced = http()
        .post(gateway.url("/sse/environments/core-key/queue-change"))
        .header("authorization", format!("Token {}", crate::harness::PUSH_TOKEN))
        .json(&json!({"updated_at": "2026-08-21T12:00:00.5+00:00"}))
        .send()
        .await
        .unwrap();
    assert_eq!(announced.status(), StatusCode::OK);
    let ping = loop {
        let chunk = wire.chunk().await.unwrap();
        if chunk != ":\n\n" {
            break chunk;
        }
    };
    assert_eq!(revision(&ping), 1, "{ping}");
}

/// A refusal is an answer like any other: the cache may share it for as long as it does not end.
#[tokio::test]
async fn a_refused_stream_outlives_its_freshness() {
    let gateway = builder()
        .set("limits.streams_per_environment", 1)
        .set("stream.refusal_seconds", 1)
        .start()
        .await;
    let environment = gateway.shop().await;
    let mut first = Wire::open(&gateway, &environment.client_key, THROUGH_A_CACHE).await;
    first.chunk().await.unwrap();
    let began = Instant::now();
    let mut second = Wire::open(&gateway, &environment.client_key, THROUGH_A_CACHE).await;
    let fresh = fresh_seconds(&second.head);
    assert!(second.chunk().await.unwrap().starts_with("retry: "));
    assert_eq!(second.chunk().await, None);
    assert!(began.elapsed() >= Duration::from_secs(fresh + 3), "{:?}", began.elapsed());
}

async fn head_of(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> HeaderMap {
    let mut request = http().get(gateway.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.headers().clone()
}

/// What a change makes old is shared for a second where the echo heals that, and never where the
/// cache does not say that it keeps environments apart.
#[tokio::test]
async fn reads_without_a_revision_are_shared_for_a_second_through_a_cache() {
    const SHARED: &str =
        "public, max-age=0, s-maxage=1, stale-while-revalidate=0, stale-if-error=0";
    let healing = Gateway::builder().set("stream.echo_seconds", 2).start().await;
    let silent = Gateway::builder().set("stream.echo_seconds", 1).start().await;
    for (gateway, heals) in [(&healing, true), (&silent, false)] {
        let environment = gateway.shop().await;
        let key = environment.client_key.as_str();
        let path = format!("/sdk/v1/environments/{key}/flags");
        let via = ("via", "1.1 varnish");
        let direct = head_of(gateway, &path, &[]).await;
        assert_eq!(direct["cache-control"], "public, max-age=0, must-revalidate");
        assert!(!direct.contains_key("surrogate-key"));
        let shared = head_of(gateway, &path, &[via]).await;
        assert_eq!(shared["cache-control"] == SHARED, heals, "{shared:?}");
        assert_eq!(shared.contains_key("surrogate-key"), heals, "{shared:?}");
        assert_eq!(shared["vary"], "accept-encoding");
        if heals {
            assert_eq!(shared["surrogate-key"], format!("flags-{key}"));
        }

        // The environment is named by a header: private to every cache but those that run our rules.
        let own = ("x-environment-key", key);
        for (headers, may) in [(vec![own], false), (vec![own, via], heals)] {
            let head = head_of(gateway, "/api/v1/flags/", &headers).await;
            assert_eq!(head["cache-control"], "private, no-cache", "{headers:?}");
            assert_eq!(head["vary"], "x-environment-key, accept-encoding");
            assert_eq!(head.contains_key("flagcast-keep"), may, "{headers:?}");
            assert_eq!(head.contains_key("surrogate-key"), may, "{headers:?}");
        }
        // What is made for one identity, and documents with everything in them, are never shared.
        for (path, key) in [
            ("/api/v1/identities/?identifier=ann", key),
            ("/api/v1/environment-document/", environment.server_key.as_str()),
            ("/api/v1/flags/?feature=limit", key),
        ] {
            let head = head_of(gateway, path, &[("x-environment-key", key), via]).await;
            let control = head["cache-control"].to_str().unwrap();
            assert!(control.starts_with("private"), "{path}: {control}");
            assert!(!head.contains_key("flagcast-keep"), "{path}");
        }
        let pinned = head_of(gateway, &format!("{path}?rev=1"), &[via]).await;
        assert_eq!(pinned["cache-control"], "public, max-age=31536000, immutable");
        assert!(!pinned.contains_key("surrogate-key"), "never purged");
    }
}

/// A client that was told of N elsewhere may ask before N is here.
#[tokio::test]
async fn a_read_ahead_of_its_revision_waits_a_moment_for_it() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let next = gateway.admin().revision(&environment).await + 1;
    let url = gateway.url(&format!("/sdk/v1/environments/{}/flags?rev=", environment.client_key));
    let began = Instant::now();
    let early = tokio::spawn(http().get(format!("{url}{next}")).send());
    let far = tokio::spawn(http().get(format!("{url}{}", u64::MAX)).send());
    gateway.metric_becomes("flagcast_reads_waiting", &[], 2).await;
    gateway.admin().switch(&environment, "dark-mode", true).await;
    let answer = early.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(
        (answer["revision"].as_u64(), &answer["flags"]["dark-mode"]["enabled"]),
        (Some(next), &json!(true))
    );
    let refused = far.await.unwrap().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    assert_eq!(refused.headers()["cache-control"], "public, max-age=1");
}

/// Who asks for revisions that never were holds nobody up.
#[tokio::test]
async fn reads_that_wait_are_bounded() {
    let gateway = Gateway::builder().set("limits.reads_waiting", 2).start().await;
    let environment = gateway.shop().await;
    let url =
        gateway.url(&format!("/sdk/v1/environments/{}/flags?rev=999", environment.client_key));
    let asked: Vec<_> = (0..10).map(|_| tokio::spawn(http().get(&url).send())).collect();
    for answer in asked {
        assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::NOT_FOUND);
    }
    let hits = gateway.metric("flagcast_limit_hits_total", &["limit=\"reads_waiting\""]).await;
    assert!(hits >= 1.0, "{hits}");
}
