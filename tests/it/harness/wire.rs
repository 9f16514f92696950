//! One connection as bytes: the test chooses what is sent and when, no library does.
//!
//! Reads are bounded: each waits for the gateway's next bytes, or for the end of the connection, and
//! panics when neither comes.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Gateway, SOON};

/// The header of a client that reads events as they come.
pub(crate) const ASKS: &str = "Accept: text/event-stream\r\n";

/// The request that opens a stream; each of `headers` ends with its line.
pub(crate) fn stream_request(client_key: &str, headers: &str) -> String {
    format!("GET /sse/environments/{client_key}/stream HTTP/1.1\r\nHost: test\r\n{headers}\r\n")
}

/// The request that reads the flags; each of `headers` ends with its line.
pub(crate) fn flags_request(client_key: &str, headers: &str) -> String {
    format!("GET /sdk/v1/environments/{client_key}/flags HTTP/1.1\r\nHost: test\r\n{headers}\r\n")
}

/// An HTTP/1 connection.
pub(crate) struct Wire {
    socket: TcpStream,
    unread: Vec<u8>,
    /// The head that was read last, lower-cased.
    pub(crate) head: String,
}

impl Wire {
    /// Connects and sends nothing yet.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        // A test that sends pieces means pieces.
        socket.set_nodelay(true).unwrap();
        Self { socket, unread: Vec::new(), head: String::new() }
    }

    /// Opens a stream on a connection of its own and reads the answer's head.
    pub(crate) async fn open(gateway: &Gateway, client_key: &str, headers: &str) -> Self {
        let mut wire = Self::connect(gateway.public()).await;
        wire.send(stream_request(client_key, headers)).await;
        wire.read_head().await;
        wire
    }

    /// Sends `bytes` in one write.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends `bytes` to a gateway that may have closed the connection.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        timeout(SOON, self.socket.write_all(bytes.as_ref())).await.expect("the gateway takes it")
    }

    /// Reads the next head into `head`.
    pub(crate) async fn read_head(&mut self) {
        let end = self.find(b"\r\n\r\n").await.expect("a head, not the end of the connection");
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        self.head = String::from_utf8(head).unwrap().to_lowercase();
    }

    /// Reads the next head, which must be that of a stream.
    pub(crate) async fn read_stream_head(&mut self) {
        self.read_head().await;
        assert!(self.head.starts_with("http/1.1 200 ok\r\n"), "{}", self.head);
        assert!(self.head.contains("content-type: text/event-stream\r\n"), "{}", self.head);
    }

    /// Reads the next answer, which must be JSON of a known length; tells its status.
    pub(crate) async fn read_answer(&mut self) -> (u16, Value) {
        self.read_head().await;
        let status = self.head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut lines = self.head.lines();
        let length = lines.find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let length = length.parse().unwrap();
        while self.unread.len() < length {
            assert!(self.read().await > 0, "the answer was cut");
        }
        let body: Vec<u8> = self.unread.drain(..length).collect();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Reads the next answer, which must be 200 with JSON.
    pub(crate) async fn read_json(&mut self) -> Value {
        let (status, answer) = self.read_answer().await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Reads the flags of an environment on this connection; tells their revision.
    pub(crate) async fn read_flags(&mut self, client_key: &str) -> u64 {
        self.send(flags_request(client_key, "")).await;
        let flags = self.read_json().await;
        assert_eq!(flags["environment"], client_key);
        flags["revision"].as_u64().unwrap()
    }

    /// The next chunk; nothing at the clean end. Panics when the stream breaks off.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let line = self.find(b"\r\n").await.expect("the stream was cut, not ended");
        let size: Vec<u8> = self.unread.drain(..line + 2).collect();
        let size = std::str::from_utf8(&size).unwrap().trim();
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("no size: {size:?}"));
        while self.unread.len() < size + 2 {
            assert!(self.read().await > 0, "the stream was cut inside a chunk");
        }
        let end: Vec<u8> = self.unread.drain(size..size + 2).collect();
        assert_eq!(end, b"\r\n", "a chunk is as long as it says");
        let chunk: Vec<u8> = self.unread.drain(..size).collect();
        (size > 0).then(|| String::from_utf8(chunk).unwrap())
    }

    /// The revision of the next ping; nothing at the clean end. Comments are skipped.
    pub(crate) async fn next_revision(&mut self) -> Option<u64> {
        loop {
            let chunk = self.chunk().await?;
            if chunk.contains("data:") {
                return Some(revision(&chunk));
            }
        }
    }

    /// Reads until a ping tells of `wanted` or a later revision; none may go back.
    pub(crate) async fn reaches(&mut self, wanted: u64) {
        let mut last = 0;
        while last < wanted {
            let next = self.next_revision().await.expect("the stream goes on");
            assert!(next >= last, "{next} after {last}");
            last = next;
        }
    }

    /// Reads pings and comments to the clean end.
    pub(crate) async fn stream_ends(&mut self) {
        while self.chunk().await.is_some() {}
    }

    /// Reads to the end of the stream and tells whether that is clean; the other way is being cut.
    pub(crate) async fn ends_cleanly(&mut self) -> bool {
        while !self.unread.ends_with(b"0\r\n\r\n") {
            let read = self.socket.read_buf(&mut self.unread);
            let read = timeout(SOON, read).await.expect("the stream goes on or ends");
            if read.map_or(true, |length| length == 0) {
                return false;
            }
        }
        true
    }

    /// Reads up to and with `pattern`; for answers without chunks.
    pub(crate) async fn until(&mut self, pattern: &str) -> String {
        let at = self.find(pattern.as_bytes()).await;
        let at = at.unwrap_or_else(|| panic!("the connection ended before {pattern:?}"));
        let text: Vec<u8> = self.unread.drain(..at + pattern.len()).collect();
        String::from_utf8(text).unwrap()
    }

    /// Everything to the end of the connection; a reset is an end, too.
    pub(crate) async fn rest(&mut self) -> String {
        let end = self.socket.read_to_end(&mut self.unread);
        drop(timeout(SOON, end).await.expect("the gateway closes the connection"));
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// Sends no more, but goes on reading.
    pub(crate) async fn half_close(&mut self) {
        self.socket.shutdown().await.unwrap();
    }

    /// Ends the connection at once, as a process that is killed with unread bytes does.
    pub(crate) fn reset(self) {
        self.socket.set_zero_linger().unwrap();
    }

    async fn find(&mut self, pattern: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = self.unread.windows(pattern.len()).position(|part| part == pattern) {
                return Some(at);
            }
            if self.read().await == 0 {
                return None;
            }
        }
    }

    async fn read(&mut self) -> usize {
        let read = self.socket.read_buf(&mut self.unread);
        timeout(SOON, read).await.expect("the connection goes on or ends").unwrap()
    }
}

/// The revision that an event tells of.
pub(crate) fn revision(event: &str) -> u64 {
    let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let facts: Value = serde_json::from_str(data).unwrap();
    facts["revision"].as_u64().unwrap()
}
