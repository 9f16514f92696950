//! One stream, opened and read as a client does: through the machine's proxy unless told otherwise,
//! with the headers of a browser, and with the instant of everything that arrives.
//!
//! Nothing is decoded and nothing judged here. A stream has no time limit; only its head has, so
//! that a hop which holds everything back does not hold a caller for ever.

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Version, header};
use reqwest::{Certificate, Client, Response, Url};
use tokio_rustls::rustls::Error as TlsError;

use super::events::{Item, Scanner};
use super::{StreamUrl, UsageError};
use crate::outbound;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the head of an answer may take; a gateway needs milliseconds.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How to subscribe.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Sent in addition to those of a browser, or instead of them.
    pub headers: HeaderMap,
    /// Certificates in PEM that are trusted besides those of the system.
    pub authority: Option<Vec<u8>>,
    /// Connects straight away, whatever proxy the machine's settings name.
    pub no_proxy: bool,
}

/// A client that subscribes to one URL.
#[derive(Clone, Debug)]
pub struct Subscriber {
    client: Client,
    url: Url,
    headers: HeaderMap,
}

/// What an answer begins with.
#[derive(Clone, Debug)]
pub struct Head {
    /// When the request was sent.
    pub asked_at: Instant,
    /// When the head had arrived, by the monotonic clock and by that of the wall.
    pub arrived_at: (Instant, SystemTime),
    /// The HTTP status.
    pub status: u16,
    /// The protocol of the last hop.
    pub version: Version,
    /// All headers.
    pub headers: HeaderMap,
    /// Where the answer came from, behind redirects.
    pub url: Url,
}

impl Head {
    /// The value of a header; several are joined by commas.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        (!values.is_empty()).then(|| String::from_utf8_lossy(&values.join(&b", "[..])).into_owned())
    }

    /// How the body is compressed, if it is.
    #[must_use]
    pub fn compression(&self) -> Option<String> {
        self.header("content-encoding").filter(|encoding| encoding != "identity")
    }
}

/// What a stream brings, one thing after the other.
#[derive(Debug)]
pub struct Events {
    response: Response,
    /// None: the body is compressed and cannot be read.
    scanner: Option<Scanner>,
    ready: VecDeque<Next>,
    has_ended: bool,
}

/// The next thing of a stream, and when it arrived.
#[derive(Clone, Debug)]
pub struct Next {
    /// Everything that one read has brought has the same instant.
    pub at: Instant,
    /// What it is.
    pub what: What,
}

/// What a stream brings.
#[derive(Clone, Debug)]
pub enum What {
    /// Bytes, before what they complete: their number.
    Bytes(usize),
    /// An event, a comment, a wait.
    Item(Item),
    /// The end. Nothing comes behind it.
    End(End),
}

/// How a stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As planned by who wrote it; without chunks (HTTP/1.0) a cut looks the same.
    Clean,
    /// Broken off, with the library's words for it.
    Cut(String),
}

/// No answer came.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Refused {
    /// Where it failed.
    pub kind: RefusedKind,
    /// Why, in the library's words.
    pub cause: String,
}

/// Where a request without an answer has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedKind {
    /// No connection.
    Connect,
    /// A connection, but no trust.
    Tls,
    /// No head within the time for it.
    NoHead,
    /// Anything else, such as a connection that closes without an answer.
    Broken,
}

impl Subscriber {
    /// Prepares to subscribe to `url`; nothing is sent yet.
    pub fn new(url: &StreamUrl, options: &Options) -> Result<Self, UsageError> {
        let unusable =
            |error: reqwest::Error| UsageError(format!("TLS cannot be set up: {}", causes(&error)));
        let mut builder = outbound::client_for([url.url().as_str()]);
        builder = builder.connect_timeout(CONNECT_TIMEOUT);
        if let Some(pem) = options.authority.as_ref().filter(|_| url.url().scheme() == "https") {
            let authority = Certificate::from_pem_bundle(pem).unwrap_or_default();
            if authority.is_empty() {
                return Err(UsageError(
                    "--ca must name a file with certificates in PEM".to_owned(),
                ));
            }
            builder = builder.tls_certs_merge(authority);
        }
        if options.no_proxy {
            builder = builder.no_proxy();
        }
        let mut headers = browser_headers();
        for name in options.headers.keys() {
            headers.remove(name);
        }
        headers.extend(options.headers.clone());
        let client = builder.build().map_err(unusable)?;
        Ok(Self { client, url: url.url().clone(), headers })
    }

    /// Subscribes. A client that comes back names the last id that it was told, as browsers do.
    pub async fn open(&self, last_event_id: &str) -> Result<(Head, Events), Refused> {
        let mut request = self.client.get(self.url.clone()).headers(self.headers.clone());
        if let Ok(id) = HeaderValue::from_str(last_event_id)
            && !id.is_empty()
        {
            request = request.header("last-event-id", id);
        }
        let asked_at = Instant::now();
        let answer = tokio::time::timeout(HEAD_TIMEOUT, request.send()).await;
        let response = answer
            .map_err(|_| Refused {
                kind: RefusedKind::NoHead,
                cause: format!("no head within {HEAD_TIMEOUT:?}"),
            })?
            .map_err(|error| refused(&error))?;
        let head = Head {
            asked_at,
            arrived_at: (Instant::now(), SystemTime::now()),
            status: response.status().as_u16(),
            version: response.version(),
            headers: response.headers().clone(),
            url: response.url().clone(),
        };
        let scanner = head.compression().is_none().then(Scanner::default);
        Ok((head, Events { response, scanner, ready: VecDeque::new(), has_ended: false }))
    }
}

impl Events {
    /// The next thing; nothing behind the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Next> {
        while self.ready.is_empty() && !self.has_ended {
            let chunk = self.response.chunk().await;
            let at = Instant::now();
            let mut tell = |what| self.ready.push_back(Next { at, what });
            match chunk {
                Ok(Some(bytes)) => {
                    tell(What::Bytes(bytes.len()));
                    let items = self.scanner.as_mut().map(|scanner| scanner.push(&bytes));
                    items.into_iter().flatten().map(What::Item).for_each(tell);
                }
                Ok(None) => tell(What::End(End::Clean)),
                Err(error) => tell(What::End(End::Cut(causes(&error)))),
            }
            self.has_ended = matches!(self.ready.back(), Some(Next { what: What::End(_), .. }));
        }
        self.ready.pop_front()
    }
}

/// What `EventSource` in a browser sends from a page of another origin.
fn browser_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (header::ACCEPT, HeaderValue::from_static("text/event-stream")),
        (header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, br")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ORIGIN, HeaderValue::from_static("https://app.example.com")),
        (
            header::USER_AGENT,
            HeaderValue::from_static(concat!("flagcast-listen/", env!("CARGO_PKG_VERSION"))),
        ),
    ])
}

fn refused(error: &reqwest::Error) -> Refused {
    let kind = if chain(error).any(<dyn Error>::is::<TlsError>) {
        RefusedKind::Tls
    } else if error.is_connect() {
        RefusedKind::Connect
    } else {
        RefusedKind::Broken
    };
    Refused { kind, cause: causes(error) }
}

/// What went wrong at the bottom; the layers above only say that something did, and repeat the URL.
fn causes(error: &reqwest::Error) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// An error and its causes. The system's errors hide what they wrap: their source is its source.
fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |&cause| {
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => cause.source(),
        }
    })
}
