//! The canary: what the gateway itself sees at its public URL, through whatever is in front.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::harness::admin::Environment;
use crate::harness::proxy::Proxy;
use crate::harness::{Builder, Gateway, eventually};

const ARRIVALS: &str = "flagcast_canary_arrival_seconds_count";
const REFETCHES: &str = "flagcast_canary_refetch_seconds_count";
const OPEN: &str = "flagcast_canary_streams_open";
const ENDS: &str = "flagcast_canary_stream_ends_total";

fn builder() -> Builder {
    Gateway::builder().set("cdn.canary", true).set("stream.echo_seconds", 0)
}

/// Waits until `metric` is above `before`. The shop's own changes may still be under way.
async fn grows(gateway: &Gateway, metric: &str, before: f64) {
    eventually(&format!("{metric} grows"), async || {
        (gateway.metric(metric, &[]).await > before + 0.5).then_some(())
    })
    .await;
}

/// Changes a flag and waits until the canary has measured it.
async fn flip_is_measured(gateway: &Gateway, environment: &Environment, value: u32) {
    let before = gateway.metric(ARRIVALS, &[]).await;
    let refetches = gateway.metric(REFETCHES, &[]).await;
    gateway.admin().set_value(environment, "limit", value).await;
    grows(gateway, ARRIVALS, before).await;
    grows(gateway, REFETCHES, refetches).await;
}

/// An address that is free for now.
fn free_address() -> SocketAddr {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn it_measures_every_flip_of_what_changed_last_and_holds_up_no_drain() {
    let mut gateway = builder().set("cdn.canary_streams", 2).start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    gateway.metric_becomes(OPEN, &[], 1).await;
    for step in 1..=3 {
        flip_is_measured(&gateway, &environment, step).await;
    }
    let sum = gateway.metric("flagcast_canary_arrival_seconds_sum", &[]).await;
    assert!(sum > 0.0 && sum < 3.0, "{sum} s for a few flips on loopback");
    // A third environment takes the place of the one that has not changed for longest.
    for key in ["staging", "testing"] {
        let other = admin.create_environment("web", key).await;
        admin.set_value(&other, "limit", 77).await;
    }
    gateway.metric_becomes(OPEN, &[], 2).await;
    assert_eq!(admin.open_streams(&environment).await, 0);
    for (counter, labels) in [
        ("flagcast_canary_missed_total", &[][..]),
        ("flagcast_canary_stale_total", &[]),
        ("flagcast_canary_read_failures_total", &[]),
        (ENDS, &["replayed"]),
        (ENDS, &["refused"]),
    ] {
        let count = gateway.metric(counter, labels).await;
        assert!(count.abs() < f64::EPSILON, "{counter} {labels:?}: {count}");
    }
    let asked = Instant::now();
    gateway.terminate();
    assert_eq!(gateway.exited().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

/// A restarted gateway looks at once, before anything changes.
#[tokio::test]
async fn it_begins_with_what_changed_last_before_it_started() {
    let mut gateway = builder().start().await;
    let environment = gateway.shop().await;
    gateway.kill();
    gateway.restart().await;
    gateway.metric_becomes(OPEN, &[], 1).await;
    flip_is_measured(&gateway, &environment, 3).await;
}

/// The public URL does not answer: changes go on, and the canary says that they do not arrive.
#[tokio::test]
async fn what_does_not_arrive_is_counted() {
    let listen = free_address();
    let proxy = Proxy::start(listen).await;
    let gateway = builder()
        .set("server.listen", listen)
        .set("server.public_url", format!("http://{}", proxy.address()).as_str())
        .start()
        .await;
    let environment = gateway.shop().await;
    gateway.metric_becomes(OPEN, &[], 1).await;
    flip_is_measured(&gateway, &environment, 77).await;
    let before = gateway.metric(ARRIVALS, &[]).await;
    let waited = gateway.metric("flagcast_canary_arrival_seconds_sum", &[]).await;
    proxy.break_down();
    gateway.metric_becomes(OPEN, &[], 0).await;
    assert!(gateway.metric(ENDS, &["cut"]).await >= 1.0);
    gateway.admin().set_value(&environment, "limit", 1).await;
    eventually("it is turned away", async || {
        (gateway.metric(ENDS, &["refused"]).await >= 1.0).then_some(())
    })
    .await;
    // It comes back by itself, and what happened meanwhile has arrived with its first event.
    proxy.restore();
    grows(&gateway, ARRIVALS, before).await;
    let sum = gateway.metric("flagcast_canary_arrival_seconds_sum", &[]).await - waited;
    assert!(sum > 0.5, "a reconnect is part of the wait: {sum} s");
}

/// A cache that a test plays: it tells the revision that it is given, and serves older flags.
struct BadCache {
    address: SocketAddr,
    told: watch::Sender<u64>,
    /// Whether streams end as soon as they have begun.
    replays: watch::Sender<bool>,
}

impl BadCache {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, replays) = (watch::Sender::new(0), watch::Sender::new(false));
        let cache = Self { address, told: told.clone(), replays: replays.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (told, replays) = (told.subscribe(), replays.subscribe());
                tokio::spawn(async move { drop(answer(stream, told, replays).await) });
            }
        });
        cache
    }
}

async fn answer(
    mut stream: TcpStream,
    mut told: watch::Receiver<u64>,
    mut replays: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut request = vec![0; 4096];
    let length = stream.read(&mut request).await?;
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    if !request.contains("/streams/") {
        let body = "{\"revision\":1}";
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        return stream.write_all(format!("{head}{body}").as_bytes()).await;
    }
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    loop {
        let revision = *told.borrow_and_update();
        let event = format!(
            "id: {revision}\nevent: message\ndata: {{\"type\":\"refetchEvaluation\",\"revision\":{revision}}}\n\n"
        );
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
        let replay = *replays.borrow_and_update();
        if replay {
            return stream.write_all(b"0\r\n\r\n").await;
        }
        tokio::select! {
            _ = told.changed() => {}
            _ = replays.changed() => {}
        }
    }
}

/// An older body under a newer name, and a recording instead of a stream: the two ways in which a
/// cache can break the promise.
#[tokio::test]
async fn a_cache_that_breaks_the_promise_is_found_out() {
    let cache = BadCache::start().await;
    let url = format!("http://{}", cache.address);
    let gateway = builder().set("server.public_url", url.as_str()).start().await;
    let environment = gateway.shop().await;
    gateway.metric_becomes(OPEN, &[], 1).await;
    let revision = gateway.admin().set_value(&environment, "limit", 1).await;
    cache.told.send_replace(revision);
    grows(&gateway, "flagcast_canary_stale_total", 0.0).await;
    grows(&gateway, ARRIVALS, 0.0).await;
    assert!(gateway.logged("older flags than asked for"));
    let before = Instant::now();
    cache.replays.send_replace(true);
    eventually("recordings are counted", async || {
        (gateway.metric(ENDS, &["replayed"]).await >= 2.0).then_some(())
    })
    .await;
    assert!(before.elapsed() > Duration::from_secs(1), "it backs off: {:?}", before.elapsed());
}

#[tokio::test]
async fn it_is_off_unless_it_is_wanted() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    gateway.admin().set_value(&environment, "limit", 1).await;
    assert_eq!(gateway.admin().open_streams(&environment).await, 0);
    let open = gateway.metric(OPEN, &[]).await;
    assert!(open.abs() < f64::EPSILON, "{open}");
}
