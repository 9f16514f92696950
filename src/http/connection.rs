//! Drives one connection: limits, timeouts, an orderly end, and the departure of a stream's socket.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioTimer;
use metrics::Counter;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::front::Front;
use super::handover::{Handover, Socket, Taken};
use super::listener::Connections;
use crate::places::Place;
use crate::shutdown::Shutdown;
use crate::stream::{Adoption, Shards};

/// What the connections of a listener share.
pub(super) struct Gate {
    pub(super) front: Front,
    pub(super) connections: Connections,
    pub(super) shards: Shards,
    pub(super) errors: Counter,
    pub(super) shutdown: Shutdown,
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
    if let Err(error) = gate.plain(stream, unread, peer, place).await {
        gate.errors.increment(1);
        tracing::debug!(%error, %peer, "connection ended with an error");
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
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.connections.header_timeout)
            .max_buf_size(self.connections.header_bytes)
            .serve_connection(Socket::new(stream, unread, Arc::clone(&handover)), service);
        let ended = tokio::select! {
            ended = run(&mut connection, &handover) => ended,
            () = self.shutdown.drained() => {
                // The answer under way is finished, a stream by its own end; then it closes.
                Pin::new(&mut connection).graceful_shutdown();
                run(&mut connection, &handover).await
            }
        };
        let taken = ended?;
        let parts = connection.into_parts();
        let (mut stream, unread) = parts.io.into_parts();
        let Some(Taken { opening, close }) = taken else {
            // A peer that is gone already has no use for our goodbye.
            drop(stream.shutdown().await);
            return Ok(());
        };
        // What the library has read comes before what it has not even asked for.
        let unread = if unread.is_empty() {
            parts.read_buf
        } else {
            Bytes::from([parts.read_buf, unread].concat())
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
