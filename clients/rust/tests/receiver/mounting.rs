//! The apps that it is mounted in, over real connections; and the receiver's own HTTP client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use flagcast_receiver::Receiver;
use http::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use crate::KEY;
use crate::gateway::{Fake, body, flags};
use crate::sender::{Answer, Clock, Delivery, SECRET, send};

const SECOND: Duration = Duration::from_secs(1);

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn receiver() -> Receiver {
    let receiver = crate::builder(&Fake::at(42, 101.0, "blue"), &Clock::new()).start().unwrap();
    assert!(receiver.wait_ready(10 * SECOND).await);
    receiver
}

/// Sends a delivery as bytes; the head and the body of the answer.
async fn post(address: SocketAddr, path: &str, delivery: &Delivery) -> String {
    let headers = delivery.headers();
    let headers =
        headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
    let (headers, length) = (headers.collect::<String>(), delivery.body.len());
    let text = format!(
        "POST {path} HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\
         {headers}content-length: {length}\r\n\r\n"
    );
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(text.as_bytes()).await.unwrap();
    connection.write_all(&delivery.body).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

fn assert_applied(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("x-flagcast-applied-revision: 42\r\n"), "{answer}");
}

#[tokio::test]
async fn in_axum_it_is_one_line() {
    let receiver = receiver().await;
    let (listener, address) = listener().await;
    let app: Router = Router::new()
        .nest_service("/flagcast", receiver.service())
        .route_service("/hooks/flags", receiver.service())
        .route("/", get(async || "the app"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    for path in ["/flagcast", "/flagcast/", "/flagcast/anything", "/hooks/flags"] {
        assert_applied(&post(address, path, &Delivery::of(42, 101.0)).await);
    }
    let answer = post(address, "/elsewhere", &Delivery::of(42, 101.0)).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let mut huge = Delivery::of(42, 101.0);
    huge.body = vec![b' '; 300 << 10].into();
    let answer = post(address, "/flagcast", &huge).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn in_hyper_it_is_a_service() {
    let receiver = receiver().await;
    let (listener, address) = listener().await;
    let by_tower = receiver.service();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(by_tower.clone());
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service);
            tokio::spawn(connection);
        }
    });
    assert_applied(&post(address, "/", &Delivery::of(42, 101.0)).await);
}

/// Without tower: an app with its own routes.
#[tokio::test]
async fn in_hyper_it_is_a_function() {
    let receiver = receiver().await;
    let (listener, address) = listener().await;
    let service = receiver.service();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let service = service.clone();
            let route = move |request: Request<hyper::body::Incoming>| {
                let service = service.clone();
                async move { Ok::<_, Infallible>(service.handle(request).await) }
            };
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), hyper::service::service_fn(route));
            tokio::spawn(connection);
        }
    });
    assert_applied(&post(address, "/flagcast", &Delivery::of(42, 101.0)).await);
}

#[tokio::test]
async fn for_tower_it_is_a_service_that_is_always_ready() {
    let service = receiver().await.service();
    let answer = service.oneshot(Delivery::of(42, 101.0).request()).await.unwrap();
    assert_eq!(Answer::from(answer).await.applied(), Some(42));
}

/// What a real gateway would answer.
async fn read(
    State(revision): State<u64>,
    Path(key): Path<String>,
    Query(query): Query<std::collections::HashMap<String, u64>>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    let agent = headers["user-agent"].to_str().unwrap();
    assert!(agent.starts_with("flagcast-receiver-rust/"), "{agent}");
    if key != KEY || query.get("rev").is_some_and(|rev| *rev > revision) {
        return Err(StatusCode::NOT_FOUND);
    }
    Ok(body(revision, 100.0, &flags("red")))
}

fn gateway(revision: u64) -> Router {
    Router::new().route("/flags/sdk/v1/environments/{key}/flags", get(read)).with_state(revision)
}

#[tokio::test]
async fn it_reads_by_itself() {
    let (listener, address) = listener().await;
    tokio::spawn(async move { axum::serve(listener, gateway(41)).await });
    let url = format!("http://{address}/flags/");
    let clock = Clock::new();
    let builder = Receiver::builder(&url, KEY).secret(SECRET).clock(clock.reader());
    let receiver = builder.start().unwrap();
    assert!(receiver.wait_ready(10 * SECOND).await);
    assert_eq!(receiver.revision(), Some(41));
    let answer = Delivery::of(41, 100.0).send(&receiver).await;
    assert_eq!((answer.status, answer.applied()), (200, Some(41)));
}

/// Redirects are not followed: the address is the app's word.
#[tokio::test]
async fn it_does_not_follow_elsewhere() {
    let (listener, address) = listener().await;
    let app = gateway(41).route(
        "/moved/sdk/v1/environments/{key}/flags",
        get(async |Path(key): Path<String>| {
            axum::response::Redirect::temporary(&format!("/flags/sdk/v1/environments/{key}/flags"))
        }),
    );
    tokio::spawn(async move { axum::serve(listener, app).await });
    let builder = Receiver::builder(format!("http://{address}/moved"), KEY).secret(SECRET);
    let receiver = builder.start().unwrap();
    assert!(!receiver.wait_ready(SECOND / 2).await);
}

/// A gateway with a certificate of its own; the certificate as PEM.
fn certificate() -> (tokio_rustls::TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (tokio_rustls::TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

/// Whom the system does not trust is not believed.
#[tokio::test]
async fn over_tls_strangers_are_not_believed() {
    let (acceptor, _) = certificate();
    let (listener, address) = listener().await;
    let (sender, mut handshakes) = tokio::sync::mpsc::channel(10);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            sender.send(acceptor.accept(socket).await.map(drop)).await.unwrap();
        }
    });
    let url = format!("https://localhost:{}", address.port());
    let receiver = Receiver::builder(url, KEY).secret(SECRET).start().unwrap();
    let handshake = tokio::time::timeout(20 * SECOND, handshakes.recv()).await.unwrap();
    let error = handshake.unwrap().unwrap_err();
    assert!(error.to_string().contains("UnknownCA"), "{error}");
    assert!(!receiver.is_ready());
    // Deliveries are still answered.
    let answer = send(&receiver.service(), Delivery::of(1, 1.0).request()).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
}

/// Says to the test below, when it runs again as a process of its own, where the gateway is.
const TLS_URL: &str = "FLAGCAST_TEST_TLS_URL";

/// Whom the system trusts is read: a process of its own has another system's certificates.
#[tokio::test]
async fn over_tls_it_trusts_whom_the_system_trusts() {
    if let Ok(url) = std::env::var(TLS_URL) {
        let receiver = Receiver::builder(url, KEY).secret(SECRET).start().unwrap();
        assert!(receiver.wait_ready(20 * SECOND).await);
        return;
    }
    let (acceptor, pem) = certificate();
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(socket).await else { continue };
            let app = TowerToHyperService::new(gateway(41));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), app);
            tokio::spawn(connection);
        }
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "mounting::over_tls_it_trusts_whom_the_system_trusts"]);
    again.env(TLS_URL, format!("https://localhost:{}/flags", address.port()));
    again.env("SSL_CERT_FILE", file.path()).env_remove("SSL_CERT_DIR");
    let output = tokio::task::spawn_blocking(move || again.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
