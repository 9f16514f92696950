//! Accepts connections at a pace that the machine bears, and takes back those whose stream ended.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::backlog::Backlog;
use super::connection::{Gate, drive};
use super::front::Front;
use super::tls::Tls;
use crate::metrics::ListenerMetrics;
use crate::places::{Place, Places};
use crate::shutdown::Shutdown;
use crate::stream::{Returned, Shards};

/// Connections that the kernel keeps waiting for us, as far as `net.core.somaxconn` lets it: a storm
/// of reconnects comes within a second, and who finds no room tries again only after another one.
const BACKLOG: u32 = 65_535;

/// How often we look how many wait there.
const BACKLOG_LOOK: Duration = Duration::from_secs(1);

/// Rest after a failed accept. It fails when descriptors run out, and at once would fail again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener allows its connections.
#[derive(Clone, Debug)]
pub struct Connections {
    /// Open at a time; more wait in the kernel's backlog.
    pub max: usize,
    /// Accepted in a second; more wait in the kernel's backlog. 0: no limit.
    pub accepts_per_second: u32,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Time for a request's head, and for a kept-alive connection without one.
    pub header_timeout: Duration,
    /// Time after which an answer is given up that an HTTP/2 client does not take.
    pub answer_timeout: Duration,
    /// Time after which the kernel gives a connection up whose peer takes nothing.
    pub stall_timeout: Duration,
}

/// Opens a listening socket. `address` is `host:port`; port 0 takes a free one.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Where the streams of a listener go, and where their connections come back.
#[derive(Debug)]
pub struct Streams {
    /// Without shards streams are bodies.
    pub shards: Shards,
    /// Connections whose stream has ended.
    pub returned: mpsc::Receiver<Returned>,
}

impl Streams {
    /// For a listener without streams.
    #[must_use]
    pub fn none() -> Self {
        Self { shards: Shards::default(), returned: mpsc::channel(1).1 }
    }
}

/// Accepts connections, with TLS or without, until the drain begins, then waits for those that are
/// open.
pub async fn serve(
    listener: TcpListener,
    front: Front,
    connections: Connections,
    tls: Option<Tls>,
    streams: Streams,
    metrics: ListenerMetrics,
    shutdown: Shutdown,
) {
    let places = Places::new(connections.max, metrics.clone());
    shutdown.spawn(watch_backlog(listener.local_addr(), metrics.clone(), shutdown.clone()));
    let Streams { shards, mut returned } = streams;
    let mut accepts = Pace::new(connections.accepts_per_second);
    if let Some(tls) = &tls {
        shutdown.spawn(tls.clone().follow(shutdown.clone()));
    }
    let gate = Arc::new(Gate {
        front,
        connections,
        tls,
        shards,
        errors: metrics.errors.clone(),
        shutdown: shutdown.clone(),
    });
    let spawn = |stream, unread, peer, place| {
        shutdown.spawn(drive(Arc::clone(&gate), stream, unread, peer, place));
    };
    loop {
        tokio::select! {
            () = shutdown.drained() => return,
            Some(Returned { socket, unread, place }) = returned.recv() => {
                // A socket that has no peer any more, or that cannot be watched, is closed.
                if let Ok(peer) = socket.peer_addr()
                    && let Ok(stream) = TcpStream::from_std(socket)
                {
                    spawn(stream, unread, peer, place);
                }
            }
            accepted = accept(&listener, &places) => match accepted {
                Ok((stream, peer, place)) => {
                    metrics.accepts.increment(1);
                    spawn(stream, Bytes::new(), peer, place);
                    if let Some(accepts) = &mut accepts {
                        accepts.count().await;
                    }
                }
                Err(error) => {
                    metrics.refusals.increment(1);
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Shows operators how many connections wait in the kernel.
async fn watch_backlog(
    address: std::io::Result<SocketAddr>,
    metrics: ListenerMetrics,
    shutdown: Shutdown,
) {
    let backlog = match address.and_then(Backlog::of) {
        Ok(backlog) => backlog,
        Err(error) => {
            tracing::info!(%error, "flagcast_accept_queue stays 0: the kernel does not tell");
            return;
        }
    };
    loop {
        tokio::select! {
            () = shutdown.drained() => return,
            () = tokio::time::sleep(BACKLOG_LOOK) => {}
        }
        match backlog.waiting() {
            Ok(waiting) => metrics.queue.set(f64::from(waiting)),
            Err(error) => tracing::debug!(%error, "the kernel does not tell who waits"),
        }
    }
}

/// How fast connections are accepted. They are counted in portions of a hundredth of a second,
/// because no timer is finer than a millisecond.
struct Pace {
    limiter: DefaultDirectRateLimiter,
    portion: NonZeroU32,
    accepted: u32,
}

impl Pace {
    /// With 0 there is no limit. A tenth of a second's connections may come at once: sockets become
    /// ready in bursts.
    fn new(per_second: u32) -> Option<Self> {
        let per_second = NonZeroU32::new(per_second)?;
        let share = |of: u32| NonZeroU32::new(per_second.get() / of).unwrap_or(NonZeroU32::MIN);
        let limiter = RateLimiter::direct(Quota::per_second(per_second).allow_burst(share(10)));
        Some(Self { limiter, portion: share(100), accepted: 0 })
    }

    /// Counts a connection, and waits when a portion is full until the next one may come.
    async fn count(&mut self) {
        self.accepted += 1;
        if self.accepted == self.portion.get() {
            self.accepted = 0;
            if self.limiter.until_n_ready(self.portion).await.is_err() {
                tracing::error!("a portion of accepts is larger than their burst");
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Places,
) -> std::io::Result<(TcpStream, SocketAddr, Place)> {
    let place = places.free().await;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place.take()))
}
