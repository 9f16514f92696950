//! A network between two processes, such as a gateway and its database, that a test can break.
//!
//! It passes bytes on and knows no protocol. It can cut every connection, turn new ones away, lead
//! them to another server, and hold what the server answers or everything, as a network does that loses
//! packets.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running link. Dropping it cuts everything that goes through it.
pub(crate) struct Link {
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
    /// What is held.
    holds: watch::Sender<Held>,
    /// Changes when all connections are to be silent for ever.
    losses: watch::Sender<u32>,
    /// When a client says this, answers are held from then on.
    trap: Mutex<Option<&'static str>>,
}

/// What does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    Answers,
    Everything,
}

impl Link {
    /// Starts a link to `upstream`.
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::new(Network {
            upstream: Mutex::new(Some(upstream)),
            cuts: watch::Sender::new(0),
            holds: watch::Sender::new(Held::Nothing),
            losses: watch::Sender::new(0),
            trap: Mutex::default(),
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
        self.network.holds.send_replace(if hold { Held::Answers } else { Held::Nothing });
    }

    /// Holds what the server answers as soon as a client says `word`.
    pub(crate) fn hold_answers_to(&self, word: &'static str) {
        *self.network.trap.lock().unwrap() = Some(word);
    }

    /// Holds everything, or lets it pass again. Nobody is told, and connections seem to be open.
    pub(crate) fn hold_everything(&self, hold: bool) {
        self.network.holds.send_replace(if hold { Held::Everything } else { Held::Nothing });
    }

    /// Delivers nothing more on the connections that are there; new ones work. A firewall that has
    /// forgotten them does so.
    pub(crate) fn forget_connections(&self) {
        self.network.losses.send_modify(|losses| *losses += 1);
    }
}

impl Network {
    /// Whether a client says what answers are to be held to; once.
    fn springs(&self, said: &[u8]) -> bool {
        let mut trap = self.trap.lock().unwrap();
        let word = trap.map(str::as_bytes);
        let springs = word.is_some_and(|word| said.windows(word.len()).any(|part| part == word));
        if springs {
            *trap = None;
        }
        springs
    }
}

impl Drop for Link {
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
            tokio::spawn(join(client, upstream, Arc::clone(&network)));
        }
    }
}

/// Passes on in both directions until one side ends or the connection is cut.
async fn join(client: TcpStream, upstream: SocketAddr, network: Arc<Network>) {
    let (mut cuts, mut losses) = (network.cuts.subscribe(), network.losses.subscribe());
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let asks = pass_on(from_client, to_server, &network, &[Held::Everything]);
    let answers = pass_on(from_server, to_client, &network, &[Held::Everything, Held::Answers]);
    let (mut asks, mut answers) = (pin!(asks), pin!(answers));
    tokio::select! {
        () = &mut asks => {}
        () = &mut answers => {}
        _ = cuts.changed() => {}
        // Both sockets stay open, and nobody reads them.
        _ = losses.changed() => drop(cuts.changed().await),
    }
}

/// Passes on what is not held.
async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    network: &Network,
    holding: &[Held],
) {
    let mut held = network.holds.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let holds_answers = holding.contains(&Held::Answers);
        if !holds_answers && network.springs(&buffer[..count]) {
            network.holds.send_replace(Held::Answers);
        }
        // An error means that the link is gone.
        if held.wait_for(|held| !holding.contains(held)).await.is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
