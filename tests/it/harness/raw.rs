//! An HTTP/1.1 exchange as bytes, for clients that must live with whatever comes back: every failure
//! is an answer here, and nothing panics.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a client waits for a head, or for the next sign of life of a stream.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer of which the head has been read.
pub(crate) struct Raw {
    pub(crate) status: u16,
    /// Names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    socket: BufReader<TcpStream>,
    /// What is left of a body whose length was told; nothing when it comes in chunks.
    left: Option<usize>,
}

impl Raw {
    /// Sends `request` on a connection of its own and reads the head of the answer.
    pub(crate) async fn ask(address: SocketAddr, request: &str) -> io::Result<Self> {
        timeout(PATIENCE, Self::exchange(address, request)).await?
    }

    async fn exchange(address: SocketAddr, request: &str) -> io::Result<Self> {
        let mut socket = BufReader::new(TcpStream::connect(address).await?);
        socket.write_all(request.as_bytes()).await?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if socket.read_line(&mut head).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        let status = status.ok_or(ErrorKind::InvalidData)?;
        let headers: BTreeMap<_, _> =
            headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let is_chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let left = if is_chunked { None } else { Some(length.unwrap_or(0)) };
        Ok(Self { status, headers, socket, left })
    }

    /// A header of the answer; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The next part of the body; nothing at the clean end, an error when the answer breaks off.
    pub(crate) async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        timeout(PATIENCE, self.next_chunk()).await?
    }

    async fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(left) = &mut self.left {
            let mut body = vec![0; std::mem::take(left)];
            self.socket.read_exact(&mut body).await?;
            return Ok((!body.is_empty()).then_some(body));
        }
        let mut line = String::new();
        if self.socket.read_line(&mut line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let size = usize::from_str_radix(line.trim(), 16).map_err(|_| ErrorKind::InvalidData)?;
        let mut chunk = vec![0; size + 2];
        self.socket.read_exact(&mut chunk).await?;
        chunk.truncate(size);
        Ok((size > 0).then_some(chunk))
    }

    /// The whole body, decompressed.
    pub(crate) async fn body(mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(mut part) = self.chunk().await? {
            body.append(&mut part);
        }
        if self.header("content-encoding") != "gzip" {
            return Ok(body);
        }
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut plain)?;
        Ok(plain)
    }

    /// The whole body as JSON.
    pub(crate) async fn json(self) -> io::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.body().await?)?)
    }
}
