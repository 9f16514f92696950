//! A server that plays a part: what it sends on each connection, and when, is written down by the
//! test. It stands for the hop or cache that a gateway would be behind.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One thing to do on a connection. Behind the last one the connection closes.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(String),
    Wait(Duration),
    /// Keeps the connection open and says nothing more.
    Hold,
}

/// A running server. Dropping it takes no new connections.
pub(crate) struct Scripted {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Scripted {
    /// Starts a server that does what `script` says for the request of that number, from 0.
    pub(crate) async fn start(script: impl Fn(usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (script, heads) = (Arc::new(script), Arc::clone(&requests));
        let accepting = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (script, heads) = (Arc::clone(&script), Arc::clone(&heads));
                tokio::spawn(async move {
                    if let Some(head) = read_head(&mut socket).await {
                        let number = note(&heads, head);
                        play(socket, script(number)).await;
                    }
                });
            }
        });
        Self { address, requests, accepting }
    }

    /// The URL of `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The heads of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Reads a request, which has no body; nothing when the client leaves before.
async fn read_head(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// Keeps a head; the answer is its number.
fn note(heads: &Mutex<Vec<String>>, head: String) -> usize {
    let mut heads = heads.lock().unwrap();
    heads.push(head);
    heads.len() - 1
}

/// Does the steps; a client that has left ends them.
async fn play(mut socket: TcpStream, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Send(text) => {
                if socket.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Step::Wait(time) => tokio::time::sleep(time).await,
            Step::Hold => std::future::pending().await,
        }
    }
}

/// The head of a stream with the headers of the direct contract; `headers` are put over them, and
/// an empty value takes one away.
pub(crate) fn stream_head(headers: &[(&str, &str)]) -> Step {
    let date = httpdate::fmt_http_date(SystemTime::now());
    let mut all = vec![
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store, no-transform"),
        ("access-control-allow-origin", "*"),
        ("date", date.as_str()),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
    ];
    all.retain(|(name, _)| headers.iter().all(|(other, _)| other != name));
    all.extend(headers.iter().filter(|(_, value)| !value.is_empty()));
    let lines: Vec<_> = all.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    Step::Send(format!("HTTP/1.1 200 OK\r\n{}\r\n", lines.concat()))
}

/// One chunk of a stream.
pub(crate) fn chunk(text: &str) -> Step {
    Step::Send(format!("{:x}\r\n{text}\r\n", text.len()))
}

/// The clean end of a stream.
pub(crate) fn last_chunk() -> Step {
    Step::Send("0\r\n\r\n".to_owned())
}
