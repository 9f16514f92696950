//! An endpoint of webhooks, played by the test: it keeps what it gets and answers as it is told.
//!
//! It speaks HTTP over plain sockets, so that it can also do what no server should: hang, drip, reset.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::eventually;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// The bytes that are signed.
    pub(crate) body: String,
}

/// What an endpoint does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Answers with this status.
    Status(u16),
    /// The same, with further headers.
    With(u16, Vec<(&'static str, String)>),
    /// Answers with this status and body.
    Saying(u16, &'static str),
    /// 200, and says that it has applied this revision.
    Applied(u64),
    /// 200 and a body that is larger than anybody wants.
    Huge,
    /// 200 and a body that comes a byte at a time, for ever.
    Drip,
    /// The head of an answer, a byte at a time, for ever.
    DripHead,
    /// Says nothing.
    Hang,
    /// 200, once the test opens the gate.
    AtTheGate,
    /// Resets the connection.
    Reset,
    /// Something that is not HTTP.
    Garbage,
}

/// A running endpoint. Dropping it closes it.
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    deliveries: Mutex<Vec<Delivery>>,
    /// Answers to the next requests; then `always`.
    next: Mutex<VecDeque<Reply>>,
    always: Mutex<Option<Reply>>,
    gate: tokio::sync::Notify,
    /// Requests under way now, and the most there were at a time.
    busy: Mutex<(usize, usize)>,
}

impl Delivery {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Its name, the same in every attempt.
    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The revision that it tells.
    pub(crate) fn revision(&self) -> u64 {
        self.json()["data"]["revision"].as_u64().unwrap()
    }

    /// What it is about.
    pub(crate) fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }
}

impl Receiver {
    /// Opens an endpoint that confirms everything.
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// Where it wants deliveries.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    /// From now on it does this.
    pub(crate) fn always(&self, reply: Reply) {
        *self.shared.always.lock().unwrap() = Some(reply);
    }

    /// It does this with the requests that come next, one by one.
    pub(crate) fn next(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.next.lock().unwrap().extend(replies);
    }

    /// Lets a request through that waits at the gate, or the next that comes there.
    pub(crate) fn open_gate(&self) {
        self.shared.gate.notify_one();
    }

    /// Every request so far.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.shared.deliveries.lock().unwrap().clone()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.shared.deliveries.lock().unwrap().len()
    }

    /// The most requests that were under way at a time.
    pub(crate) fn most_at_a_time(&self) -> usize {
        self.shared.busy.lock().unwrap().1
    }

    /// Waits for the request with this number, from 1 on.
    pub(crate) async fn delivery(&self, number: usize) -> Delivery {
        eventually(&format!("delivery {number} comes"), async || {
            self.deliveries().get(number - 1).cloned()
        })
        .await
    }

    /// Waits until it was told of a revision.
    pub(crate) async fn told(&self, revision: u64) -> Delivery {
        eventually(&format!("the receiver is told of revision {revision}"), async || {
            self.deliveries().into_iter().find(|delivery| delivery.revision() >= revision)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

/// Answers the requests of one connection until either side has enough.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut bytes = Vec::new();
    while let Some(delivery) = read(&mut stream, &mut bytes).await {
        {
            let mut busy = shared.busy.lock().unwrap();
            busy.0 += 1;
            busy.1 = busy.1.max(busy.0);
        }
        shared.deliveries.lock().unwrap().push(delivery);
        let next = shared.next.lock().unwrap().pop_front();
        let always = || shared.always.lock().unwrap().clone();
        let reply = next.or_else(always).unwrap_or(Reply::Status(200));
        let goes_on = answer(&mut stream, &shared, reply).await;
        shared.busy.lock().unwrap().0 -= 1;
        if !goes_on {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Delivery> {
    loop {
        if let Some(delivery) = parse(bytes) {
            return Some(delivery);
        }
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
        bytes.extend_from_slice(&chunk[..length]);
    }
}

/// Takes a whole request off the front of `bytes`.
fn parse(bytes: &mut Vec<u8>) -> Option<Delivery> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let headers: BTreeMap<_, _> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    if bytes.len() < end + length {
        return None;
    }
    let body = String::from_utf8(bytes[end..end + length].to_vec()).unwrap();
    bytes.drain(..end + length);
    Some(Delivery { headers, body })
}

/// Whether the connection can be used again.
async fn answer(stream: &mut TcpStream, shared: &Shared, reply: Reply) -> bool {
    let mut body = "note";
    let (status, headers) = match reply {
        Reply::Saying(status, text) => {
            body = text;
            (status, vec![("content-type", "text/html".to_owned())])
        }
        Reply::Status(status) => (status, Vec::new()),
        Reply::With(status, headers) => (status, headers),
        Reply::Applied(revision) => {
            (200, vec![("x-flagcast-applied-revision", revision.to_string())])
        }
        Reply::AtTheGate => {
            shared.gate.notified().await;
            (200, Vec::new())
        }
        Reply::Huge => {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").await);
            while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
            return false;
        }
        Reply::Drip => {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").await);
            drip(stream).await;
            return false;
        }
        Reply::DripHead => {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nx-a: ").await);
            drip(stream).await;
            return false;
        }
        Reply::Hang => {
            // Until the other side has enough.
            drop(stream.read(&mut [0]).await);
            return false;
        }
        Reply::Reset => {
            drop(stream.set_zero_linger());
            return false;
        }
        Reply::Garbage => {
            drop(stream.write_all(b"220 mail.example.com ESMTP\r\n").await);
            return false;
        }
    };
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.extend([name, ": ", &value, "\r\n"]);
    }
    text.extend(["\r\n", body]);
    stream.write_all(text.as_bytes()).await.is_ok()
}

async fn drip(stream: &mut TcpStream) {
    while stream.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
