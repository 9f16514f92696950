//! Clients that do not behave: garbage, slowness, excess. Each gets a clear end, and nobody else
//! notices.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{ADMIN_TOKEN, Gateway, SOON, http};

/// Sends `bytes`, leaves the connection open, and reads until the gateway closes it.
async fn send_and_wait(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(gateway.public()).await.unwrap();
    // The gateway may close before it has read everything; that is an end like any other.
    drop(socket.write_all(bytes).await);
    let mut answer = Vec::new();
    let read = timeout(SOON, socket.read_to_end(&mut answer)).await;
    drop(read.expect("the gateway closes the connection"));
    String::from_utf8_lossy(&answer).into_owned()
}

async fn is_well(gateway: &Gateway) {
    let health = http().get(gateway.ops_url("/readyz")).send().await.unwrap();
    assert_eq!(health.status(), 200);
    gateway.admin().get("/projects").await;
}

#[tokio::test]
async fn garbage_is_answered_with_an_error_or_an_end() {
    let gateway = Gateway::builder().set("limits.header_seconds", 2).start().await;
    let long_line = format!("GET /{}", "a".repeat(100_000));
    let payloads: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n\r\n\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"BREW /\x01pot HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        long_line.as_bytes(),
    ];
    for payload in payloads {
        let answer = send_and_wait(&gateway, payload).await;
        let is_refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(60)]);
        assert!(is_refused, "{shown:?}: {answer}");
        is_well(&gateway).await;
    }
}

#[tokio::test]
async fn slow_headers_are_cut_off() {
    let gateway = Gateway::builder().set("limits.header_seconds", 1).start().await;
    let started = Instant::now();
    let answer = send_and_wait(&gateway, b"GET /sdk/v1/ HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let took = started.elapsed();
    assert!(took > Duration::from_millis(500) && took < Duration::from_secs(10), "{took:?}");
    is_well(&gateway).await;
}

/// One byte now and then is no progress: the limit is on the whole head.
#[tokio::test]
async fn trickled_headers_are_cut_off() {
    let gateway = Gateway::builder().set("limits.header_seconds", 1).start().await;
    let mut socket = TcpStream::connect(gateway.public()).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").await.unwrap();
    let started = Instant::now();
    let mut byte = [0];
    loop {
        assert!(started.elapsed() < Duration::from_secs(10), "still open");
        let is_cut = socket.write_all(b"a").await.is_err();
        let closed = timeout(Duration::from_millis(200), socket.read(&mut byte)).await;
        if is_cut || closed.is_ok_and(|read| read.unwrap_or(0) == 0) {
            break;
        }
    }
    is_well(&gateway).await;
}

#[tokio::test]
async fn a_slow_body_is_cut_off_and_writes_nothing() {
    let gateway = Gateway::builder().set("limits.body_seconds", 1).start().await;
    let request = format!(
        "POST /admin/v1/projects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: 200\r\n\r\n{{\"key\":\"slow\",\"name\":"
    );
    let started = Instant::now();
    let answer = send_and_wait(&gateway, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_too_slow"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(gateway.admin().get("/projects").await["items"], json!([]));
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_with_or_without_its_length() {
    let gateway = Gateway::builder().set("limits.body_bytes", 10_000).start().await;
    let name = "n".repeat(10_000);
    let body = json!({"key": "big", "name": name}).to_string();
    let chunks = vec![Ok::<_, std::io::Error>(body.clone())];
    let unsized_body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    for body in [reqwest::Body::from(body), unsized_body] {
        let request = http().post(gateway.url("/admin/v1/projects")).bearer_auth(ADMIN_TOKEN);
        let request = request.header("content-type", "application/json").body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["code"], "body_too_large");
    }
    assert_eq!(gateway.admin().get("/projects").await["items"], json!([]));
}

#[tokio::test]
async fn a_head_above_the_limit_is_refused() {
    let gateway = Gateway::builder().start().await;
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Big: {}\r\n\r\n", "a".repeat(100_000));
    let answer = send_and_wait(&gateway, request.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    is_well(&gateway).await;
}

/// A crowd of half-open requests must not keep others from working.
#[tokio::test]
async fn a_crowd_of_slow_clients_holds_nobody_up() {
    let gateway = Gateway::builder().start().await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        let mut socket = TcpStream::connect(gateway.public()).await.unwrap();
        socket.write_all(b"POST /admin/v1/projects HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        crowd.push(socket);
    }
    let started = Instant::now();
    gateway.admin().create_project("quick").await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let (status, _) = gateway.admin().send(Method::GET, "/projects/quick", None).await.unwrap();
    assert_eq!(status, 200);
}
