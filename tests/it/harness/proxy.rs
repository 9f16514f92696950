//! A network between clients and the gateway that a test can break.
//!
//! It passes HTTP/1.1 on byte by byte, keeps a ledger of requests and streams, and can cut all
//! connections, turn new ones away, and hold answers back. The gateway does not know that it is there.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::eventually;
use super::ledger::{Ledger, Passing};

/// A running proxy. Dropping it cuts everything that goes through it.
pub(crate) struct Proxy {
    address: SocketAddr,
    network: Arc<Network>,
    accepting: JoinHandle<()>,
}

/// What all connections of a proxy share.
struct Network {
    upstream: Mutex<SocketAddr>,
    /// Changes when all connections are to be cut.
    cuts: watch::Sender<u32>,
    is_refusing: AtomicBool,
    /// Answers to requests that begin with this text are held for this long.
    slow: Mutex<Option<(String, Duration)>>,
    /// The answers that were held so far, counted when the gateway has given them.
    held: AtomicUsize,
    connections: AtomicUsize,
    ledger: Arc<Ledger>,
}

/// What both directions of a connection know of the request that is being answered.
#[derive(Default)]
struct Exchange {
    delay: Mutex<Duration>,
    stream: Mutex<Option<Passing>>,
}

impl Proxy {
    /// Starts a proxy in front of `upstream`.
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::new(Network {
            upstream: Mutex::new(upstream),
            cuts: watch::Sender::new(0),
            is_refusing: AtomicBool::new(false),
            slow: Mutex::new(None),
            held: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            ledger: Arc::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&network)));
        Self { address, network, accepting }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads connections that are made from now on to `upstream`.
    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        *self.network.upstream.lock().unwrap() = upstream;
    }

    /// Cuts every connection and turns new ones away.
    pub(crate) fn break_down(&self) {
        self.network.is_refusing.store(true, Ordering::SeqCst);
        self.network.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets connections through again.
    pub(crate) fn restore(&self) {
        self.network.is_refusing.store(false, Ordering::SeqCst);
    }

    /// Holds every answer to requests that begin with `prefix` for `delay`. The gateway answers at
    /// once: the answer grows old on its way.
    pub(crate) fn slow_down(&self, prefix: &str, delay: Duration) {
        *self.network.slow.lock().unwrap() = Some((prefix.to_owned(), delay));
    }

    /// Waits until the gateway has given `count` of the answers that are held.
    pub(crate) async fn holds(&self, count: usize) {
        let held = async || (self.network.held.load(Ordering::SeqCst) >= count).then_some(());
        eventually("the proxy holds an answer", held).await;
    }

    /// How many connections have been made so far, those turned away included.
    pub(crate) fn connections(&self) -> usize {
        self.network.connections.load(Ordering::SeqCst)
    }

    /// How many requests have begun with `prefix` so far.
    pub(crate) fn requests(&self, prefix: &str) -> usize {
        self.network.ledger.requests(prefix).len()
    }

    /// What has gone through so far.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.network.ledger
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.network.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn accept(listener: TcpListener, network: Arc<Network>) {
    while let Ok((client, _)) = listener.accept().await {
        network.connections.fetch_add(1, Ordering::SeqCst);
        let mut cuts = network.cuts.subscribe();
        if network.is_refusing.load(Ordering::SeqCst) {
            continue;
        }
        let network = Arc::clone(&network);
        tokio::spawn(async move {
            tokio::select! {
                _ = relay(client, &network) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn relay(client: TcpStream, network: &Network) -> io::Result<()> {
    let address = *network.upstream.lock().unwrap();
    let upstream = TcpStream::connect(address).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_upstream, to_upstream) = upstream.into_split();
    let exchange = Exchange::default();
    tokio::select! {
        ended = pass_requests(from_client, to_upstream, network, &exchange) => ended,
        ended = pass_answers(from_upstream, to_client, network, &exchange) => ended,
    }
}

/// Passes requests on, head by head, because the answer's delay depends on the request.
async fn pass_requests(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    network: &Network,
    exchange: &Exchange,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    loop {
        let head = read_head(&mut from).await?;
        if head.is_empty() {
            return Ok(());
        }
        *exchange.delay.lock().unwrap() = network.delay_of(&head);
        *exchange.stream.lock().unwrap() = network.ledger.note(&head);
        to.write_all(head.as_bytes()).await?;
        let mut body = (&mut from).take(content_length(&head));
        tokio::io::copy(&mut body, &mut to).await?;
    }
}

async fn pass_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    network: &Network,
    exchange: &Exchange,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let delay = std::mem::take(&mut *exchange.delay.lock().unwrap());
        if !delay.is_zero() {
            network.held.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(delay).await;
        }
        to.write_all(&buffer[..length]).await?;
        exchange.stream.lock().unwrap().take_if(|stream| stream.finishes_with(&buffer[..length]));
    }
}

impl Network {
    /// How long the answer to a request is to be held.
    fn delay_of(&self, head: &str) -> Duration {
        let slow = self.slow.lock().unwrap();
        let slow = slow.as_ref().filter(|(prefix, _)| head.starts_with(prefix.as_str()));
        slow.map_or(Duration::ZERO, |(_, delay)| *delay)
    }
}

/// Reads to the empty line that ends a request's head; an empty text at the end of the connection.
async fn read_head(from: &mut BufReader<OwnedReadHalf>) -> io::Result<String> {
    let mut head = String::new();
    loop {
        let length = from.read_line(&mut head).await?;
        if length == 0 || head.ends_with("\r\n\r\n") {
            return Ok(head);
        }
    }
}

fn content_length(head: &str) -> u64 {
    let mut lengths = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    lengths.next_back().unwrap_or(0)
}
