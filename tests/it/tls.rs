//! TLS and HTTP/2 on the public listener: the same answers and streams as without, the certificate
//! and its renewal, and what happens to those who do not get that far.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, ProtocolVersion};

use crate::harness::admin::{Admin, Environment};
use crate::harness::secure::{Authority, Files, Http2, Tunnel, client_limits, greet, shown};
use crate::harness::stream::Subscription;
use crate::harness::wire::{ASKS, Wire, flags_request, stream_request};
use crate::harness::{ADMIN_TOKEN, Builder, Gateway, SOON, eventually};

/// A gateway with a certificate, and the hands to reach it.
struct Secured {
    gateway: Gateway,
    authority: Authority,
    files: Files,
    tunnel: Tunnel,
    admin: Admin,
    environment: Environment,
}

/// No echoes: each ping is a change.
async fn secured(choose: impl FnOnce(Builder) -> Builder) -> Secured {
    let authority = Authority::new("first authority");
    let files = Files::new(&authority.sign());
    let builder = Gateway::builder().set("stream.echo_seconds", 0);
    let gateway = files.name_in(choose(builder)).start().await;
    let tunnel = Tunnel::to(&gateway, authority.client(&["http/1.1"])).await;
    let admin = Admin::new(format!("http://{}/admin/v1", tunnel.address()), ADMIN_TOKEN);
    let environment = admin.create_shop().await;
    Secured { gateway, authority, files, tunnel, admin, environment }
}

fn settings(builder: Builder) -> Builder {
    builder
}

/// Server SDKs and `EventSource` of an old browser: everything as without TLS, byte by byte.
#[tokio::test]
async fn http_1_1_is_the_same_inside_tls() {
    let choose = |builder: Builder| {
        let builder = builder.set("stream.short_life_seconds", 3).set("stream.echo_seconds", 1);
        builder.set("limits.streams_per_environment", 1).set("stream.refusal_seconds", 1)
    };
    let all = secured(choose).await;
    let Secured { gateway, tunnel, admin, environment, .. } = &all;
    let key = &environment.client_key;
    let mut wire = Wire::connect(tunnel.address()).await;
    let known = wire.read_flags(key).await;
    // Without `Accept`, for a short life.
    wire.send(stream_request(key, "")).await;
    wire.read_stream_head().await;
    assert!(wire.head.contains("transfer-encoding: chunked\r\n"), "{}", wire.head);
    assert_eq!(wire.next_revision().await, Some(known));
    admin.switch(environment, "dark-mode", true).await;
    assert_eq!(wire.next_revision().await, Some(known + 1));
    assert_eq!(wire.next_revision().await, Some(known + 1), "the echo");

    let mut refused = Wire::connect(tunnel.address()).await;
    refused.send(stream_request(key, ASKS)).await;
    refused.read_stream_head().await;
    assert!(refused.chunk().await.unwrap().starts_with("retry: "), "beyond the limit");
    refused.stream_ends().await;
    refused.send(stream_request("nobody-has-this-key", ASKS)).await;
    refused.read_stream_head().await;
    assert_eq!(refused.chunk().await.unwrap(), ": ok\n\n");

    wire.stream_ends().await;
    assert_eq!(wire.read_flags(key).await, known + 1, "the connection is used again");
    wire.send(flags_request(key, "Connection: close\r\n")).await;
    assert_eq!(wire.read_json().await["revision"], known + 1);
    assert_eq!(wire.rest().await, "");
    gateway.metric_becomes("flagcast_streams_opened_total", &["path=\"body\""], 2).await;
    gateway.metric_becomes("flagcast_streams_opened_total", &["path=\"shard\""], 0).await;
}

/// Clients without ALPN and with an older TLS are served; those that resume need no signature.
#[tokio::test]
async fn old_and_returning_clients_are_greeted() {
    let all = secured(settings).await;
    let Secured { gateway, authority, environment, .. } = &all;
    let read = async |client: &Arc<ClientConfig>| {
        let mut stream = greet(gateway.public(), client).await.unwrap();
        let request = flags_request(&environment.client_key, "Connection: close\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let session = stream.get_ref().1;
        assert_eq!(session.alpn_protocol(), None);
        (session.protocol_version().unwrap(), session.handshake_kind().unwrap())
    };
    let client = Arc::new(authority.client(&[]));
    assert_eq!(read(&client).await, (ProtocolVersion::TLSv1_3, HandshakeKind::Full));
    assert_eq!(read(&client).await, (ProtocolVersion::TLSv1_3, HandshakeKind::Resumed));
    let old = Arc::new(authority.only_tls12());
    assert_eq!(read(&old).await.0, ProtocolVersion::TLSv1_2);
}

/// A browser: reads, changes and a stream on one connection, and the end of the stream is the end of
/// nothing else.
#[tokio::test]
async fn http_2_reads_changes_and_streams_on_one_connection() {
    let choose = |builder: Builder| builder.set("stream.life_seconds", 4);
    let all = secured(choose).await;
    let Secured { gateway, authority, environment, .. } = &all;
    let key = &environment.client_key;
    let mut client = Http2::secure(gateway, authority).await;
    let known = client.read_flags(key).await;
    let mut stream = client.stream(key).await;
    assert_eq!(stream.next_revision().await, Some(known));

    let path = format!("/admin/v1{}/flags/dark-mode", environment.path());
    let request = client.request(&path).method(Method::PATCH);
    let request = request.header("authorization", format!("Bearer {ADMIN_TOKEN}"));
    let body = Full::from(json!({"enabled": true}).to_string());
    let answer = client.try_send(request.body(body).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let ping = stream.next().await.unwrap();
    let data = ping.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["revision"], known + 1);
    let flags_url = data["flags_url"].as_str().unwrap();
    assert!(flags_url.starts_with(&format!("https://{}/", gateway.public())), "{flags_url}");

    let answer = client.get(&format!("/sdk/v1/environments/{key}/flags?rev={}", known + 1)).await;
    let etag = answer.headers()["etag"].clone();
    assert!(!answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    let request = client.request(&format!("/sdk/v1/environments/{key}/flags"));
    let request = request.header("if-none-match", etag).body(Full::default()).unwrap();
    assert_eq!(client.try_send(request).await.unwrap().status(), 304);

    let mut stranger = client.stream("nobody-has-this-key").await;
    assert_eq!(stranger.next().await.unwrap(), ": ok\n\n");
    assert_eq!(stream.next_revision().await, None, "a clean end");
    assert_eq!(client.read_flags(key).await, known + 1);
    assert!(!client.has_ended());
    gateway.metric_becomes("flagcast_connection_errors_total", &["listener=\"public\""], 0).await;
}

/// A proxy or a browser with many tabs.
#[tokio::test]
async fn many_streams_share_one_connection() {
    let all = secured(settings).await;
    let Secured { gateway, authority, admin, environment, .. } = &all;
    let mut client = Http2::secure(gateway, authority).await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut stream = client.stream(&environment.client_key).await;
        assert!(stream.next_revision().await.is_some());
        streams.push(stream);
    }
    gateway.metric_becomes("flagcast_streams_open", &[], 50).await;
    for on in [true, false] {
        let revision = admin.switch(environment, "dark-mode", on).await;
        for stream in &mut streams {
            assert_eq!(stream.next_revision().await, Some(revision));
        }
    }
    streams.truncate(10);
    gateway.metric_becomes("flagcast_streams_open", &[], 10).await;
    gateway.metric_becomes("flagcast_stream_ends_total", &["reason=\"client\""], 40).await;
    let revision = admin.switch(environment, "dark-mode", true).await;
    for stream in &mut streams {
        assert_eq!(stream.next_revision().await, Some(revision));
    }
    drop(client);
    drop(streams);
    gateway.metric_becomes("flagcast_streams_open", &[], 0).await;
}

/// More requests at a time than a connection may have wait for their turn.
#[tokio::test]
async fn what_is_too_much_for_one_connection_waits() {
    let choose = |builder: Builder| builder.set("stream.short_life_seconds", 2);
    let all = secured(choose).await;
    let Secured { gateway, authority, .. } = &all;
    let mut client = Http2::secure(gateway, authority).await;
    // The first answer comes behind the gateway's limits.
    let mut streams = vec![client.stream("nobody-has-this-key").await];
    let began = Instant::now();
    for _ in 0..128 {
        streams.push(client.stream("nobody-has-this-key").await);
    }
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    for stream in &mut streams {
        assert_eq!(stream.next().await.unwrap(), ": ok\n\n");
        stream.last().await;
    }
}

/// A client that opens no window for a stream: it is alive, but its stream must not stay for ever.
#[tokio::test]
async fn a_stream_that_is_not_taken_is_given_up() {
    let choose = |builder: Builder| {
        let builder = builder.set("stream.life_seconds", 1).set("stream.stall_seconds", 1);
        let builder = builder.set("stream.cached_life_seconds", 10);
        builder.set("stream.short_life_seconds", 1).set("stream.refusal_seconds", 1)
    };
    let all = secured(choose).await;
    let Secured { gateway, authority, environment, .. } = &all;
    let offer = Arc::new(authority.client(&["h2"]));
    let stream = greet(gateway.public(), &offer).await.unwrap();
    let mut limits = client_limits();
    limits.initial_stream_window_size(0);
    let origin = format!("https://{}", gateway.public());
    let mut client = Http2::over(stream, origin, &limits).await;
    let _untaken =
        client.get(&format!("/sse/environments/{}/stream", environment.client_key)).await;
    gateway.metric_becomes("flagcast_streams_open", &[], 1).await;
    gateway.metric_becomes("flagcast_streams_open", &[], 0).await;
}

/// SIGTERM: each stream is told when to come back, whatever carries it.
#[tokio::test]
async fn a_drain_ends_all_streams_cleanly() {
    let grace = Duration::from_secs(4);
    let choose = |builder: Builder| builder.set("server.grace_seconds", 4);
    let mut all = secured(choose).await;
    let Secured { gateway, authority, tunnel, environment, .. } = &mut all;
    let key = &environment.client_key;
    let mut client = Http2::secure(gateway, authority).await;
    let idle = Http2::secure(gateway, authority).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = client.stream(key).await;
        assert!(stream.next_revision().await.is_some());
        streams.push(stream);
    }
    let mut wire = Wire::connect(tunnel.address()).await;
    wire.send(stream_request(key, ASKS)).await;
    wire.read_stream_head().await;
    assert!(wire.next_revision().await.is_some());
    // One that has not said a word yet.
    let _silent = TcpStream::connect(gateway.public()).await.unwrap();

    let asked = Instant::now();
    gateway.terminate();
    for stream in &mut streams {
        let last = stream.last().await;
        assert!(last.starts_with("retry: "), "{last}");
    }
    let mut last = String::new();
    while let Some(chunk) = wire.chunk().await {
        last = chunk;
    }
    assert!(last.starts_with("retry: "), "{last}");
    client.ended().await.unwrap();
    idle.ended().await.unwrap();
    assert_eq!(gateway.exited().await.code(), Some(0));
    assert!(asked.elapsed() < grace + Duration::from_secs(2), "{:?}", asked.elapsed());
    assert!(!gateway.logged("connections are cut"));
}

/// A connection without requests is as good as a kept-alive one; one with a stream is not idle.
#[tokio::test]
async fn an_idle_http_2_connection_is_closed() {
    let choose = |builder: Builder| builder.set("limits.header_seconds", 1);
    let all = secured(choose).await;
    let Secured { gateway, authority, admin, environment, .. } = &all;
    let mut listening = Http2::secure(gateway, authority).await;
    let mut stream = listening.stream(&environment.client_key).await;
    let known = stream.next_revision().await.unwrap();
    let mut idle = Http2::secure(gateway, authority).await;
    idle.read_flags(&environment.client_key).await;
    let began = Instant::now();
    idle.ended().await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(800), "{:?}", began.elapsed());
    admin.switch(environment, "dark-mode", true).await;
    assert_eq!(stream.next_revision().await, Some(known + 1));
    drop(stream);
    listening.ended().await.unwrap();
}

/// certbot and Kubernetes swap links. Whoever is connected stays so.
#[tokio::test]
async fn a_renewed_certificate_is_taken_into_use() {
    let all = secured(settings).await;
    let Secured { gateway, authority, files, environment, tunnel, .. } = &all;
    let mut client = Http2::secure(gateway, authority).await;
    let mut http2 = client.stream(&environment.client_key).await;
    let mut http1 = Subscription::open(tunnel.address(), &environment.client_key).await;
    let known = http2.next_revision().await.unwrap();
    http1.next_ping().await.unwrap();

    let other = Authority::new("second authority");
    let renewed = other.sign();
    files.swap("second", &renewed);
    let offer = Arc::new(other.client(&["h2"]));
    eventually("who trusts the new authority is greeted", async || {
        greet(gateway.public(), &offer).await.ok()
    })
    .await;
    let old = Arc::new(authority.client(&["h2"]));
    assert!(greet(gateway.public(), &old).await.is_err());
    gateway.metric_becomes("flagcast_tls_reloads_total", &["outcome=\"loaded\""], 1).await;
    assert!(gateway.logged("renewed TLS certificate"));

    let mut renewed = Http2::secure(gateway, &other).await;
    // The tunnel trusts the old authority, and goes on with the connection that it has.
    let tunnel = Tunnel::to(gateway, other.client(&["http/1.1"])).await;
    let moved = Admin::new(format!("http://{}/admin/v1", tunnel.address()), ADMIN_TOKEN);
    moved.switch(environment, "dark-mode", true).await;
    assert_eq!(http2.next_revision().await, Some(known + 1));
    http1.reaches(known + 1).await;
    assert_eq!(renewed.read_flags(&environment.client_key).await, known + 1);
}

/// A renewal that went wrong must not take the gateway down, nor fill its log.
#[tokio::test]
async fn a_broken_renewal_changes_nothing() {
    let all = secured(settings).await;
    let Secured { gateway, authority, files, .. } = &all;
    let offer = Arc::new(authority.client(&["h2"]));
    let before = shown(&greet(gateway.public(), &offer).await.unwrap());
    let refused = ["outcome=\"refused\""];
    let mut mixed = authority.sign();
    mixed.key = authority.sign().key;
    files.overwrite(&mixed);
    gateway.metric_becomes("flagcast_tls_reloads_total", &refused, 1).await;
    assert!(gateway.logged("the TLS certificate in use stays"));
    assert_eq!(shown(&greet(gateway.public(), &offer).await.unwrap()), before);

    std::fs::remove_file(files.key()).unwrap();
    gateway.metric_becomes("flagcast_tls_reloads_total", &refused, 2).await;
    // Some more looks at the same: nothing new to tell.
    tokio::time::sleep(Duration::from_secs(5)).await;
    gateway.metric_becomes("flagcast_tls_reloads_total", &refused, 2).await;
    assert_eq!(shown(&greet(gateway.public(), &offer).await.unwrap()), before);

    files.overwrite(&authority.sign());
    gateway.metric_becomes("flagcast_tls_reloads_total", &["outcome=\"loaded\""], 1).await;
    assert_ne!(shown(&greet(gateway.public(), &offer).await.unwrap()), before);
}

/// One clear line that names the setting, and an exit code that scripts can tell. No store is made.
#[test]
fn a_pair_that_cannot_be_used_stops_the_start() {
    let authority = Authority::new("authority");
    let pair = authority.sign();
    let files = Files::new(&pair);
    let other = Files::new(&authority.sign());
    let text = TempDir::new().unwrap();
    let text = text.path().join("text.pem");
    let (certificate, key) = (files.certificate(), files.key());
    let absent = text.with_file_name("absent.pem");
    std::fs::write(&text, "-----BEGIN NOTHING-----\n").unwrap();
    let empty = std::path::PathBuf::new();
    let foreign = other.key();
    for (certificate, key, says) in [
        (&certificate, &empty, "server.tls_certificate needs server.tls_key beside it"),
        (&empty, &key, "server.tls_key needs server.tls_certificate beside it"),
        (&absent, &key, "server.tls_certificate must name a file that this process may read"),
        (&certificate, &absent, "server.tls_key must name a file that this process may read"),
        (&text, &key, "server.tls_certificate must be PEM"),
        (&key, &key, "server.tls_certificate must be PEM"),
        (&certificate, &certificate, "server.tls_key must be a private key in PEM"),
        (&certificate, &foreign, "server.tls_key must belong to server.tls_certificate"),
    ] {
        let directory = TempDir::new().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_flagcast"))
            .args(["serve", "--no-demo"])
            .env("FLAGCAST_SERVER__LISTEN", "127.0.0.1:0")
            .env("FLAGCAST_SERVER__OPS_LISTEN", "127.0.0.1:0")
            .env("FLAGCAST_SERVER__TLS_CERTIFICATE", certificate)
            .env("FLAGCAST_SERVER__TLS_KEY", key)
            .current_dir(directory.path())
            .output()
            .unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{says}: {complaint}");
        assert!(complaint.contains(says), "{says}: {complaint}");
        assert!(!complaint.contains("PRIVATE KEY"), "{complaint}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{says}");
    }
}

/// Load balancers that were told the wrong scheme, scanners, and clients that fall silent.
#[tokio::test]
async fn whoever_does_not_get_through_the_greeting_is_let_go() {
    let choose = |builder: Builder| builder.set("limits.header_seconds", 1);
    let all = secured(choose).await;
    let Secured { gateway, authority, environment, .. } = &all;
    let errors = ["listener=\"public\""];
    let mut before = gateway.metric("flagcast_connection_errors_total", &errors).await;
    for said in [
        flags_request(&environment.client_key, "").into_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![0; 10_000],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        Vec::new(),
    ] {
        let began = Instant::now();
        let mut socket = TcpStream::connect(gateway.public()).await.unwrap();
        socket.write_all(&said).await.unwrap();
        let mut answer = Vec::new();
        drop(timeout(SOON, socket.read_to_end(&mut answer)).await.expect("it is closed"));
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1"), "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // Counted once the socket is gone, so perhaps a moment behind the end that was seen here.
        before = eventually("an error is counted", async || {
            let counted = gateway.metric("flagcast_connection_errors_total", &errors).await;
            (counted > before).then_some(counted)
        })
        .await;
    }
    // Greeted, but silent: as HTTP/1.1 and as HTTP/2.
    for protocol in ["http/1.1", "h2"] {
        let client = Arc::new(authority.client(&[protocol]));
        let mut stream = greet(gateway.public(), &client).await.unwrap();
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        drop(timeout(Duration::from_secs(5), end).await.expect("it is closed"));
    }
    // A protocol that we do not speak.
    let client = Arc::new(authority.client(&["imap"]));
    assert!(greet(gateway.public(), &client).await.is_err());
    Http2::secure(gateway, authority).await.read_flags(&environment.client_key).await;
}

/// A head that is too large is refused on HTTP/2 as elsewhere, and costs only its own request.
#[tokio::test]
async fn http_2_heads_have_the_same_limit() {
    let all = secured(settings).await;
    let Secured { gateway, authority, environment, .. } = &all;
    let mut client = Http2::secure(gateway, authority).await;
    let known = client.read_flags(&environment.client_key).await;
    let large = client.request("/").header("x-large", "x".repeat(20_000));
    let refused = client.try_send(large.body(Full::default()).unwrap()).await;
    let status = refused.map(|answer| answer.status().as_u16());
    assert!(matches!(status, Ok(431) | Err(_)), "{status:?}");
    assert_eq!(client.read_flags(&environment.client_key).await, known);
}

/// A load balancer that speaks HTTP/2 to what is behind it, without TLS; and beside it plain HTTP/1.1,
/// whose streams go to the shards as ever.
#[tokio::test]
async fn http_2_is_spoken_without_tls_to_who_begins_with_it() {
    let gateway = Gateway::builder().set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    let key = &environment.client_key;
    let mut client = Http2::plain(&gateway).await;
    let known = client.read_flags(key).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = client.stream(key).await;
        assert_eq!(stream.next_revision().await, Some(known));
        streams.push(stream);
    }
    let mut wire = Wire::open(&gateway, key, ASKS).await;
    assert_eq!(wire.next_revision().await, Some(known));
    gateway.admin().switch(&environment, "dark-mode", true).await;
    assert_eq!(wire.next_revision().await, Some(known + 1));
    for stream in &mut streams {
        assert_eq!(stream.next_revision().await, Some(known + 1));
    }
    gateway.metric_becomes("flagcast_connections_open", &["listener=\"public\""], 2).await;
    gateway.admin().delete_environment(&environment).await;
    for stream in &mut streams {
        stream.last().await;
    }
    gateway.metric_becomes("flagcast_stream_ends_total", &["reason=\"gone\""], 21).await;
    gateway.metric_becomes("flagcast_connection_errors_total", &["listener=\"public\""], 0).await;
}

/// What a person sees: the greeting of a first start, curl with either version, the health check.
#[tokio::test]
async fn people_and_containers_find_the_way() {
    let authority = Authority::new("authority");
    let files = Files::new(&authority.sign());
    let trusted = files.certificate().with_file_name("authority.pem");
    std::fs::write(&trusted, authority.pem()).unwrap();
    let mut gateway = files.name_in(Gateway::first_start()).start().await;
    let base = format!("https://{}/", gateway.public());
    let (ops, process) = (gateway.ops().to_string(), gateway.process());
    let command = eventually("the greeting tells how to read", async || {
        let lines = process.stdout.all();
        lines.iter().find(|line| line.contains("/flags")).map(|line| line.trim().to_owned())
    })
    .await;
    let (_, url) = command.rsplit_once(' ').unwrap();
    assert!(url.starts_with(&base), "{command}");
    for (version, number) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", version]);
        curl.args(["--write-out", "\n%{http_version} %{response_code}", url, "--cacert"]);
        let output = curl.arg(&trusted).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.ends_with(&format!("\n{number} 200")), "{version}: {shown} {output:?}");
    }
    let health = Command::new(env!("CARGO_BIN_EXE_flagcast"))
        .arg("healthcheck")
        .env("FLAGCAST_SERVER__OPS_LISTEN", ops)
        .env("FLAGCAST_SERVER__TLS_CERTIFICATE", files.certificate())
        .env("FLAGCAST_SERVER__TLS_KEY", files.key())
        .output()
        .unwrap();
    assert_eq!(health.status.code(), Some(0), "{health:?}");
}
