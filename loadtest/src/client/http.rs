//! A plain HTTP/1.1 client for one kept-alive connection: blocking, so that the time of the last
//! byte of an answer is taken by the thread that waits for it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::machine::now;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that was idle for longer is replaced before it is used: servers close such ones.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    stream: TcpStream,
    /// Lines that go with every request.
    headers: String,
    used: Instant,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers, as sent.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// When the request was sent, and when the last byte of the answer was read.
    pub(crate) sent: i64,
    pub(crate) answered: i64,
}

impl Client {
    /// Connects. `headers` are whole lines, each with its line end.
    pub(crate) fn connect(address: SocketAddr, headers: String) -> anyhow::Result<Self> {
        Ok(Self { address, stream: connected(address)?, headers, used: Instant::now() })
    }

    /// Sends a request and reads its answer.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        more: &str,
        body: &str,
    ) -> anyhow::Result<Answer> {
        let request = self.text(method, path, more, body);
        if self.used.elapsed() > IDLE_MAX {
            self.stream = connected(self.address)?;
        }
        let sent = now();
        self.stream.write_all(request.as_bytes())?;
        let mut answer =
            self.read(method).with_context(|| format!("no answer to {method} {path}"))?;
        answer.answered = now();
        self.used = Instant::now();
        answer.sent = sent;
        Ok(answer)
    }

    fn text(&self, method: &str, path: &str, more: &str, body: &str) -> String {
        let Self { address, headers, .. } = self;
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len())
        };
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n{headers}{more}{length}\r\n{body}")
    }

    fn read(&mut self, method: &str) -> anyhow::Result<Answer> {
        let mut bytes = Vec::with_capacity(4096);
        let end = loop {
            if let Some(end) = end_of_head(&bytes) {
                break end;
            }
            self.read_some(&mut bytes)?;
        };
        let mut body = bytes.split_off(end);
        let head = String::from_utf8(bytes).context("the head is no text")?;
        let status = status(&head).context("the answer has no status")?;
        let empty = method == "HEAD" || status == 204 || status == 304;
        let length = if empty {
            0
        } else {
            let length =
                header(&head, "content-length").context("the answer has no content-length")?;
            length.parse().context("content-length is no number")?
        };
        while body.len() < length {
            self.read_some(&mut body)?;
        }
        ensure!(body.len() == length, "the answer is longer than its content-length");
        Ok(Answer { status, head, body, sent: 0, answered: 0 })
    }

    fn read_some(&mut self, into: &mut Vec<u8>) -> anyhow::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => bail!("the server closed the connection"),
            length => into.extend_from_slice(&buffer[..length]),
        }
        Ok(())
    }
}

fn connected(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The body as JSON, when the status says success.
    pub(crate) fn json(&self) -> anyhow::Result<serde_json::Value> {
        let text = String::from_utf8_lossy(&self.body);
        ensure!(self.status < 300, "status {}: {text}", self.status);
        serde_json::from_slice(&self.body).with_context(|| format!("the answer is no JSON: {text}"))
    }
}

/// Opens one stream, reads its first ping and returns what it says.
pub(crate) fn first_ping(address: SocketAddr, path: &str) -> anyhow::Result<serde_json::Value> {
    let mut client = Client::connect(address, "accept: text/event-stream\r\n".to_owned())?;
    let request = client.text("GET", path, "", "");
    client.stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    loop {
        client.read_some(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.split_once("\ndata: ").and_then(|(_, rest)| rest.split_once('\n'));
        if let Some((data, _)) = line {
            return serde_json::from_str(data).with_context(|| format!("{data} is no JSON"));
        }
    }
}

/// The position behind the empty line that ends a head.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let position = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(position + 4)
}

/// The status code of a head.
pub(crate) fn status(head: &str) -> Option<u16> {
    head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// The value of a header of a head.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_taken_apart() {
        let text = "HTTP/1.1 304 Not Modified\r\nETag: W/\"a.1\"\r\n\r\nrest";
        assert_eq!(end_of_head(text.as_bytes()), Some(text.len() - 4));
        assert_eq!(status(text), Some(304));
        assert_eq!(header(text, "etag"), Some("W/\"a.1\""));
        assert_eq!(header(text, "content-length"), None);
        assert_eq!(end_of_head(b"HTTP/1.1 200 OK\r\n"), None);
        assert_eq!(status("SSH-2.0-x"), None);
    }
}
