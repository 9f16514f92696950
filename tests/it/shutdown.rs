//! SIGTERM ends the gateway in order; a second one ends it at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::stream::Subscription;
use crate::harness::{Gateway, eventually, http};

/// A stream read as bytes: how it ends is what matters here.
async fn open_raw_stream(address: SocketAddr, client_key: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /sse/environments/{client_key}/stream HTTP/1.1\r\nHost: {address}\r\n\
         Accept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    // The first byte says that the gateway has taken the stream.
    stream.peek(&mut [0]).await.unwrap();
    stream
}

async fn ready_status(gateway: &Gateway) -> u16 {
    let answer = http().get(gateway.ops_url("/readyz")).send().await;
    answer.map_or(0, |answer| answer.status().as_u16())
}

#[tokio::test]
async fn sigterm_ends_streams_cleanly_within_the_grace_period() {
    let grace = Duration::from_secs(4);
    let mut gateway = Gateway::builder().set("server.grace_seconds", grace.as_secs()).start().await;
    let environment = gateway.shop().await;
    assert_eq!(ready_status(&gateway).await, 200);
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(open_raw_stream(gateway.public(), &environment.client_key).await);
    }

    let asked = Instant::now();
    gateway.terminate();
    eventually("the gateway says that it is not ready", async || {
        (ready_status(&gateway).await == 503).then_some(())
    })
    .await;
    let mut ends = Vec::new();
    for mut stream in streams {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        ends.push(asked.elapsed());
        assert!(text.ends_with("\r\n0\r\n\r\n"), "a clean end: {text:?}");
        let (_, farewell) = text.rsplit_once("data:").unwrap();
        let retries = farewell.lines().filter(|line| line.starts_with("retry:")).count();
        assert!(retries >= 2, "a last `retry:` says when to come back: {farewell:?}");
    }
    assert_eq!(gateway.exited().await.code(), Some(0));
    let took = asked.elapsed();
    assert!(took < grace + Duration::from_secs(2), "{took:?} for a grace period of {grace:?}");
    // They end one after the other: their clients must not all come back in the same instant.
    let last = ends.iter().max().unwrap();
    assert!(*last > Duration::from_millis(300), "all streams ended at once: {ends:?}");
}

#[tokio::test]
async fn a_draining_gateway_takes_no_new_connections() {
    let mut gateway = Gateway::builder().set("server.grace_seconds", 3).start().await;
    let environment = gateway.shop().await;
    let _open = Subscription::open(gateway.public(), &environment.client_key).await;
    gateway.terminate();
    eventually("new connections are turned away", async || {
        let answer = http().get(gateway.url("/")).send().await;
        answer.is_err().then_some(())
    })
    .await;
    assert_eq!(gateway.exited().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut gateway = Gateway::builder().set("server.grace_seconds", 600).start().await;
    let environment = gateway.shop().await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(Subscription::open(gateway.public(), &environment.client_key).await);
    }
    gateway.terminate();
    eventually("the gateway drains", async || (ready_status(&gateway).await == 503).then_some(()))
        .await;
    let asked = Instant::now();
    gateway.terminate();
    gateway.exited().await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?} after the second signal");
}

#[tokio::test]
async fn what_was_written_before_sigterm_is_there_after_it() {
    let mut gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let revision = gateway.admin().set_value(&environment, "banner", "kept").await;
    gateway.terminate();
    assert_eq!(gateway.exited().await.code(), Some(0));
    gateway.restart().await;
    let flags: Value = gateway.flags(&environment.client_key).await;
    assert_eq!(flags["revision"], revision);
    assert_eq!(flags["flags"]["banner"]["value"], "kept");
}
