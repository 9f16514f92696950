//! Accepts connections and drives them: limits, timeouts, and an orderly end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::front::Front;
use crate::metrics::{GaugeGuard, ListenerMetrics};
use crate::shutdown::Shutdown;

/// Connections that the kernel keeps waiting for us: a storm of reconnects comes within a second.
const BACKLOG: u32 = 4096;

/// Rest after a failed accept. It fails when descriptors run out, and at once would fail again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener allows its connections.
#[derive(Clone, Debug)]
pub struct Connections {
    /// Open at a time; more wait in the kernel's backlog.
    pub max: usize,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Time for a request's head, and for a kept-alive connection without one.
    pub header_timeout: Duration,
}

/// Opens a listening socket. `address` is `host:port`; port 0 takes a free one.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until the drain begins, then waits for those that are open.
pub async fn serve(
    listener: TcpListener,
    front: Front,
    connections: Connections,
    metrics: ListenerMetrics,
    shutdown: Shutdown,
) {
    let front = Arc::new(front);
    let places = Arc::new(Semaphore::new(connections.max));
    loop {
        let accepted = tokio::select! {
            () = shutdown.drained() => return,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        metrics.accepts.increment(1);
        let open = GaugeGuard::new(metrics.connections.clone());
        let errors = metrics.errors.clone();
        let (front, connections) = (Arc::clone(&front), connections.clone());
        let stop = shutdown.clone();
        shutdown.spawn(async move {
            let _held = (open, place);
            if let Err(error) = drive(stream, peer, front, &connections, &stop).await {
                errors.increment(1);
                tracing::debug!(%error, %peer, "connection ended with an error");
            }
        });
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, Place)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn drive(
    stream: TcpStream,
    peer: SocketAddr,
    front: Arc<Front>,
    connections: &Connections,
    shutdown: &Shutdown,
) -> Result<(), hyper::Error> {
    // Each event is one small write that must not wait for the next.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot turn off Nagle's algorithm");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&front).answer(request, peer);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(connections.header_timeout)
        .max_buf_size(connections.header_bytes)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.drained() => {
            // The answer under way is finished, a stream by its own end; then the connection closes.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
