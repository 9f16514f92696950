//! Streams as part of a connection: what comes before, behind and with one. The bytes of a stream
//! itself are in `wire`, the ways to leave it in `departures`, many connections at once in `crowds`.
//!
//! Each test stands for a client or a box between; its comment names it.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::harness::admin::Environment;
use crate::harness::wire::{ASKS, Wire, flags_request, revision, stream_request};
use crate::harness::{Gateway, eventually};

/// A gateway that says nothing but changes.
async fn quiet() -> (Gateway, Environment) {
    let gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    (gateway, environment)
}

/// A gateway whose streams end after about `seconds` for who does not ask for events.
async fn short_lived(seconds: u64) -> (Gateway, Environment) {
    let builder = Gateway::builder().set("stream.short_life_seconds", seconds);
    let gateway = builder.set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    (gateway, environment)
}

/// A pooling client: Node's agent, a browser, a reverse proxy with kept-alive upstreams.
#[tokio::test]
async fn a_stream_comes_on_a_connection_that_has_read_before() {
    let (gateway, environment) = quiet().await;
    let key = &environment.client_key;
    let mut wire = Wire::connect(gateway.public()).await;
    let known = wire.read_flags(key).await;
    assert_eq!(wire.read_flags(key).await, known);
    wire.send(stream_request(key, ASKS)).await;
    wire.read_stream_head().await;
    assert_eq!(wire.next_revision().await, Some(known), "the present state comes first");
    for on in [true, false, true] {
        let revision = gateway.admin().switch(&environment, "dark-mode", on).await;
        assert_eq!(wire.next_revision().await, Some(revision));
    }
    let route = ["route=\"/sse/environments/{client_key}/stream\"", "status=\"200\""];
    gateway.metric_becomes("flagcast_http_request_duration_seconds_count", &route, 1).await;
    gateway.metric_becomes("flagcast_ping_frames_total", &[], 4).await;
}

/// A client or proxy that pipelines: the stream's request is read together with the one before it.
#[tokio::test]
async fn requests_sent_together_are_answered_in_order() {
    let (gateway, environment) = quiet().await;
    let key = &environment.client_key;
    let mut wire = Wire::connect(gateway.public()).await;
    wire.send(flags_request(key, "") + &flags_request(key, "") + &stream_request(key, ASKS)).await;
    for _ in 0..2 {
        assert_eq!(wire.read_json().await["environment"], *key);
    }
    wire.read_stream_head().await;
    let known = wire.next_revision().await.unwrap();
    gateway.admin().switch(&environment, "dark-mode", true).await;
    assert_eq!(wire.next_revision().await, Some(known + 1));
}

/// A pipelining client whose next request is read together with the stream's: bytes that come
/// behind a request belong to the connection, not to the stream.
#[tokio::test]
async fn a_request_behind_a_stream_is_answered_after_it() {
    let (gateway, environment) = short_lived(1).await;
    let key = &environment.client_key;
    let mut wire = Wire::connect(gateway.public()).await;
    let stream = stream_request(key, "");
    wire.send(stream.clone() + &flags_request(key, "") + &stream + &flags_request(key, "")).await;
    for _ in 0..2 {
        wire.read_stream_head().await;
        assert!(wire.next_revision().await.is_some());
        wire.stream_ends().await;
        assert_eq!(wire.read_json().await["environment"], *key);
    }
}

/// The same, with a request that comes while the stream is open, and comes in pieces.
#[tokio::test]
async fn a_request_sent_during_a_stream_is_answered_after_it() {
    let (gateway, environment) = short_lived(4).await;
    let key = &environment.client_key;
    let mut wire = Wire::open(&gateway, key, "").await;
    let known = wire.next_revision().await.unwrap();
    let request = flags_request(key, "");
    let (first, second) = request.split_at(20);
    wire.send(first).await;
    // A ping between the pieces, so that the gateway sees them apart.
    gateway.admin().switch(&environment, "dark-mode", true).await;
    assert_eq!(wire.next_revision().await, Some(known + 1));
    wire.send(second).await;
    gateway.admin().switch(&environment, "dark-mode", false).await;
    assert_eq!(wire.next_revision().await, Some(known + 2), "the stream goes on");
    wire.stream_ends().await;
    assert_eq!(wire.read_json().await["revision"], known + 2);
}

/// Ruby's and Go's clients keep a connection whose answer has ended cleanly. Streams of unknown keys
/// and streams beyond a limit end cleanly, too.
#[tokio::test]
async fn a_connection_is_used_again_after_its_streams() {
    let gateway = Gateway::builder()
        .set("stream.short_life_seconds", 1)
        .set("stream.refusal_seconds", 1)
        .set("limits.streams_per_environment", 1)
        .start()
        .await;
    let environment = gateway.shop().await;
    let key = &environment.client_key;
    let mut wire = Wire::open(&gateway, key, "").await;
    assert!(wire.next_revision().await.is_some());
    wire.stream_ends().await;
    wire.read_flags(key).await;

    wire.send(stream_request("nobody-has-this-key", ASKS)).await;
    wire.read_stream_head().await;
    wire.stream_ends().await;
    wire.read_flags(key).await;

    let mut other = Wire::open(&gateway, key, ASKS).await;
    assert!(other.next_revision().await.is_some());
    wire.send(stream_request(key, ASKS)).await;
    wire.read_stream_head().await;
    assert!(wire.chunk().await.unwrap().starts_with("retry: "), "beyond the limit");
    wire.stream_ends().await;
    wire.read_flags(key).await;
    drop(other);

    eventually("the place of who left is free", async || {
        wire.send(stream_request(key, "")).await;
        wire.read_stream_head().await;
        let is_served = wire.chunk().await.unwrap().contains("data:");
        wire.stream_ends().await;
        is_served.then_some(())
    })
    .await;
    wire.read_flags(key).await;
}

/// A script or an old proxy that wants the connection closed: the end must be clean before it.
#[tokio::test]
async fn a_connection_that_is_to_close_closes_after_its_stream() {
    let (gateway, environment) = short_lived(1).await;
    let mut wire = Wire::open(&gateway, &environment.client_key, "Connection: close\r\n").await;
    assert!(wire.head.contains("connection: close\r\n"), "{}", wire.head);
    assert!(wire.next_revision().await.is_some());
    wire.stream_ends().await;
    assert_eq!(wire.rest().await, "");
}

/// nginx speaks HTTP/1.0 to its upstreams unless told otherwise: no chunks, and the end of the
/// connection is the end of the stream, whatever the client says about keeping it.
#[tokio::test]
async fn http_1_0_gets_events_without_chunks() {
    let (gateway, environment) = short_lived(4).await;
    let mut wires = Vec::new();
    for headers in ["", "Connection: close\r\n", "Connection: keep-alive\r\n"] {
        let request = stream_request(&environment.client_key, headers);
        let mut wire = Wire::connect(gateway.public()).await;
        wire.send(request.replace("HTTP/1.1", "HTTP/1.0")).await;
        wire.read_head().await;
        assert!(wire.head.starts_with("http/1.0 200 ok\r\n"), "{}", wire.head);
        assert!(!wire.head.contains("transfer-encoding"), "{}", wire.head);
        let first = wire.until("\n\n").await;
        assert!(first.starts_with("event: environment_updated\ndata: "), "{first:?}");
        wires.push(wire);
    }
    let changed = gateway.admin().switch(&environment, "dark-mode", true).await;
    for mut wire in wires {
        let second = wire.until("\n\n").await;
        assert!(second.starts_with("event: environment_updated\ndata: "), "{second:?}");
        assert_eq!(revision(&second), changed);
        assert_eq!(wire.rest().await, "");
    }
}

/// Health checks of load balancers ask with HEAD: they get a head and hold no stream open.
#[tokio::test]
async fn head_gets_a_head_and_opens_no_stream() {
    let (gateway, environment) = quiet().await;
    let key = &environment.client_key;
    let mut wire = Wire::connect(gateway.public()).await;
    wire.send(stream_request(key, ASKS).replace("GET", "HEAD")).await;
    wire.read_stream_head().await;
    // Right behind the head comes the next answer: there was no body.
    wire.read_flags(key).await;
    assert_eq!(gateway.admin().open_streams(&environment).await, 0);
    gateway.metric_becomes("flagcast_streams_open", &[], 0).await;
    wire.send(stream_request(key, ASKS)).await;
    wire.read_stream_head().await;
    assert!(wire.next_revision().await.is_some());
    assert_eq!(gateway.admin().open_streams(&environment).await, 1);
}

/// What a smuggler hides in a body. Its answer would be a 404.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n";

/// Reads a stream to its clean end, asks for the flags, and checks that the only answer is that one,
/// if the connection was not closed.
async fn only_its_own_answer(mut wire: Wire, key: &str, case: &str) {
    wire.stream_ends().await;
    // The connection may be closed by now.
    drop(wire.try_send(flags_request(key, "Connection: close\r\n")).await);
    let rest = wire.rest().await;
    let own = rest.starts_with("HTTP/1.1 200 OK\r\n")
        && rest.matches("HTTP/1.1").count() == 1
        && rest.contains(&format!("\"environment\":\"{key}\""));
    assert!(rest.is_empty() || own, "{case}: {rest}");
}

/// A proxy that forwards a body with GET, and an attacker who hopes that the proxy and we disagree
/// about where a request ends.
#[tokio::test]
async fn a_body_is_never_taken_for_a_request() {
    let (gateway, environment) = short_lived(1).await;
    let key = &environment.client_key;
    let length = SMUGGLED.len();
    let sized = format!("Content-Length: {length}\r\n");
    let cut = format!("Content-Length: {}\r\n", 2 * length);
    let large = format!("Content-Length: {}\r\n", 3_000 * length);
    let chunked = "Transfer-Encoding: chunked\r\n".to_owned();
    let both = format!("Content-Length: 5\r\n{chunked}");
    let chunk = format!("{length:x}\r\n{SMUGGLED}\r\n");
    let cases = [
        ("a short body", "Content-Length: 5\r\n".to_owned(), "hello".to_owned()),
        ("a request in a body", sized, SMUGGLED.to_owned()),
        ("half a body", cut, SMUGGLED.to_owned()),
        ("a large body", large, SMUGGLED.repeat(3_000)),
        ("chunks", chunked.clone(), chunk.clone() + "0\r\n\r\n"),
        ("chunks without an end", chunked, chunk),
        ("two lengths", both, "0\r\n\r\n".to_owned() + SMUGGLED),
    ];
    // With the head, and when the stream is open already. All side by side: each lives a second.
    let mut wires = Vec::new();
    for (case, headers, body) in &cases {
        let mut wire = Wire::connect(gateway.public()).await;
        wire.send(stream_request(key, headers) + body).await;
        wire.read_stream_head().await;
        assert!(wire.next_revision().await.is_some(), "{case}");
        let mut late = Wire::open(&gateway, key, headers).await;
        assert!(late.next_revision().await.is_some(), "{case}, late");
        late.send(body).await;
        wires.extend([(wire, (*case).to_owned()), (late, format!("{case}, late"))]);
    }
    for (wire, case) in wires {
        only_its_own_answer(wire, key, &case).await;
    }
    gateway.metric_becomes("flagcast_streams_open", &[], 0).await;
}

/// curl and .NET may ask whether to go on before they send anything.
#[tokio::test]
async fn who_expects_a_word_first_gets_its_stream() {
    let (gateway, environment) = quiet().await;
    let key = &environment.client_key;
    for length in ["", "Content-Length: 5\r\n"] {
        let headers = format!("{ASKS}Expect: 100-continue\r\n{length}");
        let mut wire = Wire::open(&gateway, key, &headers).await;
        if wire.head.starts_with("http/1.1 100") {
            wire.read_head().await;
        }
        assert!(wire.head.starts_with("http/1.1 200 ok\r\n"), "{}", wire.head);
        let known = wire.next_revision().await.unwrap();
        gateway.admin().switch(&environment, "dark-mode", length.is_empty()).await;
        assert_eq!(wire.next_revision().await, Some(known + 1));
    }
}

/// Java's `HttpClient` and curl offer HTTP/2 on the first request; proxies and people write requests
/// in every way that the standard allows, and networks split them anywhere.
#[tokio::test]
async fn unusual_requests_get_usual_streams() {
    let (gateway, environment) = quiet().await;
    let key = &environment.client_key;
    let plain = stream_request(key, ASKS);
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                 HTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n";
    let escaped = format!("/%{:02x}{}/stream", key.as_bytes()[0], &key[1..]);
    let requests = [
        stream_request(key, &format!("{ASKS}{offer}")),
        stream_request(key, &format!("{ASKS}Connection: keep-alive\r\n")),
        plain.replace("GET /", "GET http://flags.example/"),
        plain.replace("/stream ", "/stream?cache-buster=1 "),
        plain.replace(&format!("/{key}/stream"), &escaped),
        plain.replace("Accept: text/event-stream", "aCCEPT:application/json , Text/Event-Stream"),
        format!("\r\n{plain}"),
    ];
    for request in &requests {
        let mut wire = Wire::connect(gateway.public()).await;
        wire.send(request).await;
        wire.read_stream_head().await;
        assert!(wire.head.contains("transfer-encoding: chunked\r\n"), "{request}: {}", wire.head);
        assert!(!wire.head.contains("upgrade"), "{request}: {}", wire.head);
        assert!(wire.next_revision().await.is_some(), "{request}");
    }
    let mut wire = Wire::connect(gateway.public()).await;
    for byte in plain.as_bytes() {
        wire.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    wire.read_stream_head().await;
    let known = wire.next_revision().await.unwrap();
    gateway.admin().switch(&environment, "dark-mode", true).await;
    assert_eq!(wire.next_revision().await, Some(known + 1));
}

/// Who watches an environment that is deleted may go on with another on the same connection.
#[tokio::test]
async fn a_connection_outlives_its_environment() {
    let (gateway, environment) = quiet().await;
    let admin = gateway.admin();
    let staging = admin.create_environment("web", "staging").await;
    let mut wires = Vec::new();
    for _ in 0..10 {
        let mut wire = Wire::open(&gateway, &environment.client_key, ASKS).await;
        assert!(wire.next_revision().await.is_some());
        wires.push(wire);
    }
    admin.delete_environment(&environment).await;
    for wire in &mut wires {
        wire.stream_ends().await;
        let known = wire.read_flags(&staging.client_key).await;
        wire.send(stream_request(&staging.client_key, ASKS)).await;
        wire.read_stream_head().await;
        assert_eq!(wire.next_revision().await, Some(known));
    }
    let revision = admin.switch(&staging, "dark-mode", true).await;
    for wire in &mut wires {
        assert_eq!(wire.next_revision().await, Some(revision));
    }
    gateway.metric_becomes("flagcast_stream_ends_total", &["reason=\"gone\""], 10).await;
    gateway.metric_becomes("flagcast_streams_open", &[], 10).await;
}

/// A stream is a connection: it holds one of the places that `limits.connections` counts.
#[tokio::test]
async fn a_stream_keeps_its_connections_place() {
    let gateway = Gateway::builder().set("limits.connections", 3).start().await;
    let environment = gateway.shop().await;
    let key = &environment.client_key;
    let public = ["listener=\"public\""];
    gateway.metric_becomes("flagcast_connections_open", &public, 0).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut wire = Wire::open(&gateway, key, ASKS).await;
        assert!(wire.next_revision().await.is_some());
        streams.push(wire);
    }
    gateway.metric_becomes("flagcast_connections_open", &public, 3).await;
    let mut waiting = Wire::connect(gateway.public()).await;
    waiting.send(flags_request(key, "")).await;
    let silence = timeout(Duration::from_secs(1), waiting.read_head()).await;
    assert!(silence.is_err(), "{}", waiting.head);
    streams.pop().unwrap().reset();
    assert_eq!(waiting.read_json().await["environment"], *key);
}

/// The page and the SDK share a browser's few connections: one change, told on a connection that
/// streams, read on another, and nothing of one in the other.
#[tokio::test]
async fn reads_and_streams_do_not_mix() {
    let (gateway, environment) = quiet().await;
    let key = &environment.client_key;
    let mut stream = Wire::open(&gateway, key, ASKS).await;
    let mut reader = Wire::connect(gateway.public()).await;
    stream.next_revision().await.unwrap();
    let admin = gateway.admin();
    let path = format!("{}/flags/limit", environment.path());
    for step in 0..50 {
        let answer = admin.call(Method::PATCH, &path, Some(&json!({"value": step}))).await;
        let told = stream.next_revision().await.unwrap();
        assert_eq!(told, answer["revision"].as_u64().unwrap());
        assert!(reader.read_flags(key).await >= told);
    }
}
