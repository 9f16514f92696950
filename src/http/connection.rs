//! Drives one connection: limits, timeouts, an orderly end, and the departure of a stream's socket.
//!
//! A stream's socket leaves only from plain HTTP/1.1. What the HTTP library has to frame to the end
//! stays with it: TLS here, HTTP/2 in `http2`.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Counter;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::front::Front;
use super::handover::{Handover, Socket, Taken};
use super::listener::Connections;
use super::tls::{self, Tls};
use crate::places::Place;
use crate::shutdown::Shutdown;
use crate::stream::{Adoption, Shards};

/// What the connections of a listener share.
pub(super) struct Gate {
    pub(super) front: Front,
    pub(super) connections: Connections,
    pub(super) tls: Option<Tls>,
    pub(super) shards: Shards,
    pub(super) errors: Counter,
    pub(super) shutdown: Shutdown,
}

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("TLS handshake: {0}")]
    Handshake(io::Error),
    #[error("the TLS handshake took longer than `limits.header_seconds`")]
    SlowHandshake,
}

/// Answers the requests of a connection until it ends or its socket leaves for a shard. `unread` is
/// what an earlier owner of the socket has read already.
pub(super) async fn drive(
    gate: Arc<Gate>,
    stream: TcpStream,
    unread: Bytes,
    peer: SocketAddr,
    place: Place,
) {
    gate.prepare(&stream);
    if unread.is_empty() && !gate.first_byte(&stream).await {
        return;
    }
    // Boxed: a connection should not pay for what it does not use, and one that waits uses nothing.
    let ended = match &gate.tls {
        Some(tls) => Box::pin(gate.secure(tls, stream, peer, place)).await,
        None => Box::pin(gate.plain(stream, unread, peer, place)).await.map_err(Broken::Http),
    };
    if let Err(error) = ended {
        gate.errors.increment(1);
        let cause = error.source().map(tracing::field::display);
        tracing::debug!(%error, cause, %peer, "connection ended with an error");
    }
}

impl Gate {
    fn prepare(&self, stream: &TcpStream) {
        // Each event is one small write that must not wait for the next.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot turn off Nagle's algorithm");
        }
        // A peer that vanished, or that takes nothing, is noticed by the kernel, whoever writes.
        let stall = u32::try_from(self.connections.stall_timeout.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, stall) {
            tracing::debug!(%error, "cannot bound how long a peer may take nothing");
        }
    }

    /// Waits for a client to say something. Tells whether it did: the library would give it a buffer
    /// of 8 kB to wait with, in a storm thousands at a time.
    async fn first_byte(&self, stream: &TcpStream) -> bool {
        let mut byte = [0];
        // Peeked: a new socket counts as readable until somebody has tried.
        let peek = timeout(self.connections.header_timeout, stream.peek(&mut byte));
        tokio::select! {
            peeked = peek => {
                // Who says nothing in time is one; who hangs up is no error.
                self.errors.increment(u64::from(peeked.is_err()));
                matches!(peeked, Ok(Ok(length)) if length > 0)
            }
            // Nothing was asked yet.
            () = self.shutdown.drained() => false,
        }
    }

    async fn plain(
        self: &Arc<Self>,
        stream: TcpStream,
        unread: Bytes,
        peer: SocketAddr,
        place: Place,
    ) -> Result<(), hyper::Error> {
        let handover = Arc::new(Handover::default());
        let service = service_fn(|request: Request<Incoming>| {
            let handover = (!self.shards.is_empty()).then_some(&handover);
            let answer = self.front.answer(request, peer, handover);
            Box::pin(async { Ok::<_, Infallible>(answer.await) })
        });
        let socket = Socket::new(stream, unread, Arc::clone(&handover));
        let mut connection = self.http1().serve_connection(socket, service);
        let ended = tokio::select! {
            ended = run(&mut connection, &handover) => ended,
            () = self.shutdown.drained() => {
                // The answer under way is finished, a stream by its own end; then it closes.
                Pin::new(&mut connection).graceful_shutdown();
                run(&mut connection, &handover).await
            }
        };
        let parts = connection.into_parts();
        let (mut stream, unread) = parts.io.into_parts();
        // What the library has read comes before what it has not even asked for. Copied: even nothing
        // would keep the library's buffer of 8 kB.
        let unread = Bytes::from([parts.read_buf, unread].concat());
        let taken = match ended {
            // A client that knows us begins with HTTP/2, without asking.
            Err(error) if error.is_parse_version_h2() => {
                let socket = Socket::new(stream, unread, Arc::default());
                return Box::pin(self.http2(socket, peer)).await;
            }
            ended => ended?,
        };
        let Some(Taken { opening, close }) = taken else {
            // A peer that is gone already has no use for our goodbye.
            drop(stream.shutdown().await);
            return Ok(());
        };
        match stream.into_std() {
            Ok(socket) => {
                let adoption = Adoption { opening, socket, unread, place, close };
                self.shards.adopt(adoption, &self.shutdown);
            }
            Err(error) => tracing::warn!(%error, "a stream's socket cannot leave"),
        }
        Ok(())
    }

    /// Greets a client by TLS and answers its requests. `_place` is kept until all is over.
    async fn secure(
        self: &Arc<Self>,
        tls: &Tls,
        stream: TcpStream,
        peer: SocketAddr,
        _place: Place,
    ) -> Result<(), Broken> {
        let handshake = timeout(self.connections.header_timeout, tls.acceptor().accept(stream));
        let stream = tokio::select! {
            ended = handshake => match ended {
                Ok(greeted) => greeted.map_err(Broken::Handshake)?,
                Err(_) => return Err(Broken::SlowHandshake),
            },
            // Nothing was asked yet.
            () = self.shutdown.drained() => return Ok(()),
        };
        // Boxed, so that neither pays for the other.
        if stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2) {
            Ok(Box::pin(self.http2(TokioIo::new(stream), peer)).await?)
        } else {
            Ok(Box::pin(self.secure_http1(stream, peer)).await?)
        }
    }

    async fn secure_http1(
        self: &Arc<Self>,
        stream: TlsStream<TcpStream>,
        peer: SocketAddr,
    ) -> hyper::Result<()> {
        let service = service_fn(|request: Request<Incoming>| {
            let answer = self.front.answer(request, peer, None);
            async { Ok::<_, Infallible>(answer.await) }
        });
        let connection = self.http1().serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.shutdown.drained() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.connections.header_timeout)
            .max_buf_size(self.connections.header_bytes);
        builder
    }
}

/// Drives a connection to its end, or until a stream's socket can leave.
async fn run<S>(
    connection: &mut http1::Connection<Socket, S>,
    handover: &Handover,
) -> Result<Option<Taken>, hyper::Error>
where
    S: HttpService<Incoming, ResBody = axum::body::Body> + Unpin,
    S::Future: Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    poll_fn(|cx| match connection.poll_without_shutdown(cx) {
        Poll::Ready(ended) => Poll::Ready(ended.map(|()| None)),
        Poll::Pending => match handover.take() {
            Some(taken) => Poll::Ready(Ok(Some(taken))),
            None => Poll::Pending,
        },
    })
    .await
}
