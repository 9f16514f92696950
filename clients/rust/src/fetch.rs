//! Asks the gateway, over connections that are kept. An app may bring a client of its own.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// An answer on its way.
pub type Fetching = Pin<Box<dyn Future<Output = Result<Response<Bytes>, BoxError>> + Send>>;

/// An HTTP client. The receiver's own needs no setting up; one of the app's is for proxies, client
/// certificates, or tests.
///
/// It must not follow redirects and must not turn a status into an error. How long an answer may take
/// is the receiver's business.
pub trait Fetch: Send + Sync + 'static {
    /// Sends a `GET` with these headers and returns the whole answer.
    fn fetch(&self, request: Request<()>) -> Fetching;
}

/// Bytes of an answer at most.
const ANSWER_MAX: usize = 32 << 20;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_mins(1);

/// The client of a receiver that was given none.
pub(crate) enum Own {
    Plain(Client<HttpConnector, Empty<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>),
}

impl Own {
    /// For plain HTTP: it needs no certificates of the system.
    pub(crate) fn plain() -> Self {
        Self::Plain(client(connector()))
    }

    /// For HTTPS, trusting whom the system trusts.
    pub(crate) fn tls() -> io::Result<Self> {
        let mut connector = connector();
        connector.enforce_http(false);
        // Named, because an app may have several, and the library panics when none was chosen.
        let provider = rustls::crypto::ring::default_provider();
        let builder = hyper_rustls::HttpsConnectorBuilder::new();
        let builder = builder.with_provider_and_native_roots(provider)?;
        Ok(Self::Tls(client(builder.https_only().enable_http1().wrap_connector(connector))))
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_nodelay(true);
    connector
}

fn client<C: Connect + Clone>(connector: C) -> Client<C, Empty<Bytes>> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(1)
        .build(connector)
}

impl Fetch for Own {
    fn fetch(&self, request: Request<()>) -> Fetching {
        let request = request.map(|()| Empty::new());
        let asked = match self {
            Self::Plain(client) => client.request(request),
            Self::Tls(client) => client.request(request),
        };
        Box::pin(async move {
            let (parts, body) = asked.await.map_err(Told)?.into_parts();
            let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
            Ok(Response::from_parts(parts, body))
        })
    }
}

/// hyper's errors keep to themselves what happened; a log should say it.
#[derive(Debug)]
struct Told(hyper_util::client::legacy::Error);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl Error for Told {}
