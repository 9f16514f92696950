//! The other side of TLS and HTTP/2: an authority that signs, the files that a gateway reads, and a
//! client of which the test sees each connection.
//!
//! What speaks plain HTTP/1.1 (the other hands of a test, among them a connection as bytes) goes
//! through a [`Tunnel`].

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

use super::wire::revision;
use super::{Builder, Gateway, SOON};

/// Who signs certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, both in PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    /// A new certificate for this machine.
    pub(crate) fn sign(&self) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Its own certificate, which clients trust.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A client that trusts only this authority, and offers `protocols`.
    pub(crate) fn client(&self, protocols: &[&str]) -> ClientConfig {
        self.client_of(protocols, &[&version::TLS13, &version::TLS12])
    }

    /// The same without TLS 1.3 and without ALPN.
    pub(crate) fn only_tls12(&self) -> ClientConfig {
        self.client_of(&[], &[&version::TLS12])
    }

    fn client_of(
        &self,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut trusted = RootCertStore::empty();
        trusted.add(self.issuer.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

/// The files of a gateway, in a directory that is a link, as certbot and Kubernetes make it.
pub(crate) struct Files {
    directory: TempDir,
}

impl Files {
    pub(crate) fn new(pair: &Pair) -> Self {
        let files = Self { directory: TempDir::with_prefix("flagcast-tls-").unwrap() };
        files.swap("first", pair);
        files
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("live/tls.crt")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("live/tls.key")
    }

    /// Writes over the files, one after the other.
    pub(crate) fn overwrite(&self, pair: &Pair) {
        write(&self.directory.path().join("live"), pair);
    }

    /// Puts other files beside the old ones and swaps the link.
    pub(crate) fn swap(&self, name: &str, pair: &Pair) {
        let next = self.directory.path().join(name);
        fs::create_dir(&next).unwrap();
        write(&next, pair);
        let link = self.directory.path().join("next");
        std::os::unix::fs::symlink(&next, &link).unwrap();
        fs::rename(link, self.directory.path().join("live")).unwrap();
    }

    /// Lets a gateway use them.
    pub(crate) fn name_in(&self, builder: Builder) -> Builder {
        let (certificate, key) = (self.certificate(), self.key());
        let builder = builder.set("server.tls_certificate", certificate.to_str().unwrap());
        builder.set("server.tls_key", key.to_str().unwrap())
    }
}

fn write(directory: &Path, pair: &Pair) {
    fs::write(directory.join("tls.crt"), &pair.certificate).unwrap();
    fs::write(directory.join("tls.key"), &pair.key).unwrap();
}

/// Connects by TLS.
pub(crate) async fn greet(
    address: SocketAddr,
    client: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    let name = address.ip().into();
    let greeting = TlsConnector::from(Arc::clone(client)).connect(name, socket);
    timeout(SOON, greeting).await.expect("the gateway greets or refuses")
}

/// The certificate that the other side has shown.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// Passes plain connections on by TLS. Dropping it takes no new ones.
pub(crate) struct Tunnel {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Tunnel {
    pub(crate) async fn to(gateway: &Gateway, client: ClientConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (upstream, client) = (gateway.public(), Arc::new(client));
        let accepting = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                near.set_nodelay(true).unwrap();
                let client = Arc::clone(&client);
                tokio::spawn(async move {
                    if let Ok(mut far) = greet(upstream, &client).await {
                        drop(copy_bidirectional(&mut near, &mut far).await);
                    }
                });
            }
        });
        Self { address, accepting }
    }

    /// Where plain clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An HTTP/2 connection.
pub(crate) struct Http2 {
    requests: http2::SendRequest<Full<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
    origin: String,
}

impl Http2 {
    /// Connects by TLS to a gateway that must choose HTTP/2.
    pub(crate) async fn secure(gateway: &Gateway, authority: &Authority) -> Self {
        let client = Arc::new(authority.client(&["h2", "http/1.1"]));
        let stream = greet(gateway.public(), &client).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(stream, format!("https://{}", gateway.public()), &client_limits()).await
    }

    /// Connects without TLS and begins with HTTP/2 at once.
    pub(crate) async fn plain(gateway: &Gateway) -> Self {
        let stream = TcpStream::connect(gateway.public()).await.unwrap();
        Self::over(stream, format!("http://{}", gateway.public()), &client_limits()).await
    }

    /// Speaks HTTP/2 over `stream`.
    pub(crate) async fn over<S>(
        stream: S,
        origin: String,
        limits: &http2::Builder<TokioExecutor>,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (requests, connection) = limits.handshake(TokioIo::new(stream)).await.unwrap();
        Self { requests, connection: tokio::spawn(connection), origin }
    }

    /// A request for `path`, for what the other methods do not offer.
    pub(crate) fn request(&self, path: &str) -> hyper::http::request::Builder {
        Request::builder().uri(format!("{}{path}", self.origin))
    }

    /// Sends a request; an error when no answer came.
    pub(crate) async fn try_send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        self.requests.ready().await?;
        let answer = self.requests.send_request(request);
        timeout(SOON, answer).await.expect("an answer")
    }

    /// Asks for `path`; the answer must be 200 by HTTP/2, without what HTTP/2 forbids.
    pub(crate) async fn get(&mut self, path: &str) -> Response<Incoming> {
        let request = self.request(path).header("accept", "text/event-stream");
        let answer = self.try_send(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_2, 200), "{path}");
        for forbidden in ["connection", "transfer-encoding", "keep-alive", "upgrade"] {
            assert!(!answer.headers().contains_key(forbidden), "{:?}", answer.headers());
        }
        answer
    }

    /// Reads the flags of an environment; tells their revision.
    pub(crate) async fn read_flags(&mut self, client_key: &str) -> u64 {
        let answer = self.get(&format!("/sdk/v1/environments/{client_key}/flags")).await;
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let flags: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(flags["environment"], client_key);
        flags["revision"].as_u64().unwrap()
    }

    /// Opens a stream.
    pub(crate) async fn stream(&mut self, client_key: &str) -> Http2Stream {
        let answer = self.get(&format!("/sse/environments/{client_key}/stream")).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Http2Stream { body: answer.into_body() }
    }

    /// Waits for the gateway to end the connection.
    pub(crate) async fn ended(self) -> hyper::Result<()> {
        timeout(SOON, self.connection).await.expect("the connection ends").unwrap()
    }

    /// Whether the connection has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.connection.is_finished()
    }
}

/// What a client allows the other side; a test may choose less.
pub(crate) fn client_limits() -> http2::Builder<TokioExecutor> {
    http2::Builder::new(TokioExecutor::new())
}

/// An event stream that shares its connection. Dropping it cancels it.
pub(crate) struct Http2Stream {
    body: Incoming,
}

impl Http2Stream {
    /// The next event or comment; nothing at the clean end. Panics when the stream breaks off.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            let next = timeout(SOON, self.body.frame()).await.expect("an event or the end");
            // What is no data is a trailer, and tells nothing.
            if let Ok(data) = next?.expect("the stream was cut, not ended").into_data()
                && !data.is_empty()
            {
                return Some(String::from_utf8(data.to_vec()).unwrap());
            }
        }
    }

    /// The revision of the next ping; nothing at the clean end. Comments are skipped.
    pub(crate) async fn next_revision(&mut self) -> Option<u64> {
        loop {
            let event = self.next().await?;
            if event.contains("data:") {
                return Some(revision(&event));
            }
        }
    }

    /// Reads to the clean end; tells what came last.
    pub(crate) async fn last(&mut self) -> String {
        let mut last = String::new();
        while let Some(event) = self.next().await {
            last = event;
        }
        last
    }
}
