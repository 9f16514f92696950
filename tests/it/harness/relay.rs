//! A network between the gateway and its database that a test can break.
//!
//! It passes bytes on and knows no protocol. It can cut every connection, turn new ones away, lead
//! them to another server, and hold what the server answers, as a network does that loses packets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running relay. Dropping it cuts everything that goes through it.
pub(crate) struct Relay {
    address: SocketAddr,
    network: Arc<Network>,
    accepting: JoinHandle<()>,
}

/// What all connections share.
struct Network {
    /// Where connections lead; nowhere while they are turned away.
    upstream: Mutex<Option<SocketAddr>>,
    /// Changes when all connections are to be cut.
    cuts: watch::Sender<u32>,
    /// Whether answers are held.
    holds: watch::Sender<bool>,
}

impl Relay {
    /// Starts a relay in front of `upstream`.
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::new(Network {
            upstream: Mutex::new(Some(upstream)),
            cuts: watch::Sender::new(0),
            holds: watch::Sender::new(false),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&network)));
        Self { address, network, accepting }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection and turns new ones away.
    pub(crate) fn break_down(&self) {
        *self.network.upstream.lock().unwrap() = None;
        self.network.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Leads connections that are made from now on to `upstream`.
    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        *self.network.upstream.lock().unwrap() = Some(upstream);
    }

    /// Holds what the server answers, on connections that are there and on new ones, or lets it pass
    /// again. What clients say arrives in any case.
    pub(crate) fn hold_answers(&self, hold: bool) {
        self.network.holds.send_replace(hold);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.network.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn accept(listener: TcpListener, network: Arc<Network>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let upstream = *network.upstream.lock().unwrap();
        if let Some(upstream) = upstream {
            let (cuts, holds) = (network.cuts.subscribe(), network.holds.subscribe());
            tokio::spawn(join(client, upstream, cuts, holds));
        }
    }
}

/// Passes on in both directions until one side ends or the connection is cut.
async fn join(
    client: TcpStream,
    upstream: SocketAddr,
    mut cuts: watch::Receiver<u32>,
    holds: watch::Receiver<bool>,
) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Nothing ever holds what clients say.
    let (_open, never) = watch::channel(false);
    tokio::select! {
        () = pass_on(from_client, to_server, never) => {}
        () = pass_on(from_server, to_client, holds) => {}
        _ = cuts.changed() => {}
    }
}

async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        // An error means that the relay is gone.
        if held.wait_for(|held| !held).await.is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
