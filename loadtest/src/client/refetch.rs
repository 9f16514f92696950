//! Clients that read the flags again when a ping tells them to, each on a kept-alive connection of
//! its own, all in one thread.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::http::{end_of_head, header, status};
use crate::machine::now;

/// What stands before the revision in the body of a flag set.
const MARKER: &[u8] = b"\"revision\":";

/// Connections that read flags.
#[derive(Debug)]
pub(crate) struct Refetchers {
    poll: Poll,
    events: Events,
    host: SocketAddr,
    /// The path of the flags, up to the number of the revision.
    path: String,
    fetchers: Vec<Fetcher>,
    buffer: Vec<u8>,
    /// Answers that were whole.
    pub(crate) answers: u64,
}

#[derive(Debug)]
struct Fetcher {
    socket: TcpStream,
    /// The revision of the newest ping, and of the request under way.
    wanted: u64,
    asked: Option<u64>,
    /// The answer so far.
    answer: Vec<u8>,
    /// The newest revision in a body, and when it was whole, in nanoseconds since the epoch.
    has: u64,
    at: i64,
}

impl Refetchers {
    /// Connects `count` of them to `host`. `path` ends where the revision's number goes.
    pub(crate) fn connect(host: SocketAddr, path: String, count: usize) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut fetchers = Vec::with_capacity(count);
        for index in 0..count {
            let socket =
                std::net::TcpStream::connect(host).context("a refetcher cannot connect")?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            poll.registry().register(&mut socket, Token(index), Interest::READABLE)?;
            let answer = Vec::new();
            fetchers.push(Fetcher { socket, wanted: 0, asked: None, answer, has: 0, at: 0 });
        }
        let (events, buffer) = (Events::with_capacity(1024), vec![0; 64 * 1024]);
        Ok(Self { poll, events, host, path, fetchers, buffer, answers: 0 })
    }

    /// Tells a client of a revision: it reads that one, after the answer that is under way.
    pub(crate) fn want(&mut self, index: usize, revision: u64) -> anyhow::Result<()> {
        let fetcher = &mut self.fetchers[index];
        fetcher.wanted = revision.max(fetcher.wanted);
        fetcher.ask(self.host, &self.path)
    }

    /// Handles the answers that have come, waiting for one if there is none.
    pub(crate) fn turn(&mut self, wait: Duration) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        for event in &self.events {
            let fetcher = &mut self.fetchers[event.token().0];
            self.answers += fetcher.read(&mut self.buffer)?;
            fetcher.ask(self.host, &self.path)?;
        }
        Ok(())
    }

    /// How many do not have `revision` yet.
    pub(crate) fn behind(&self, revision: u64) -> usize {
        self.fetchers.iter().filter(|fetcher| fetcher.has < revision).count()
    }

    /// When the last of them had its newest body.
    pub(crate) fn last(&self) -> i64 {
        self.fetchers.iter().map(|fetcher| fetcher.at).max().unwrap_or_default()
    }
}

impl Fetcher {
    fn ask(&mut self, host: SocketAddr, path: &str) -> anyhow::Result<()> {
        if self.asked.is_some() || self.wanted <= self.has {
            return Ok(());
        }
        let request = format!("GET {path}{} HTTP/1.1\r\nhost: {host}\r\n\r\n", self.wanted);
        self.asked = Some(self.wanted);
        self.socket.write_all(request.as_bytes()).context("a refetcher cannot send its request")
    }

    /// Reads what there is. Tells how many answers became whole.
    fn read(&mut self, buffer: &mut [u8]) -> anyhow::Result<u64> {
        let mut whole = 0;
        loop {
            let length = match self.socket.read(buffer) {
                Ok(0) => bail!("the server closed a refetcher's connection"),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(whole),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("a refetcher's connection broke"),
            };
            self.answer.extend_from_slice(&buffer[..length]);
            if let Some(revision) = whole_answer(&self.answer)? {
                let asked = self.asked.take().unwrap_or_default();
                ensure!(revision >= asked, "revision {asked} was asked for, {revision} came");
                (self.has, self.at, self.answer) = (revision, now(), Vec::new());
                whole += 1;
            }
        }
    }
}

/// The revision in an answer, once all of it is there.
fn whole_answer(answer: &[u8]) -> anyhow::Result<Option<u64>> {
    let Some(end) = end_of_head(answer) else { return Ok(None) };
    let head = String::from_utf8_lossy(&answer[..end]);
    ensure!(status(&head) == Some(200), "a refetch failed: {head}");
    let length = header(&head, "content-length").context("an answer has no content-length")?;
    let body = &answer[end..];
    if body.len() < length.parse()? {
        return Ok(None);
    }
    let found = body.windows(MARKER.len()).position(|window| window == MARKER);
    let digits = found.map(|found| &body[found + MARKER.len()..]).unwrap_or_default();
    let digits = digits.iter().skip_while(|byte| **byte == b' ');
    let digits: Vec<u8> = digits.take_while(|byte| byte.is_ascii_digit()).copied().collect();
    let revision = std::str::from_utf8(&digits)?.parse().context("a body has no revision")?;
    Ok(Some(revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_when_it_is_whole() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"revision\": 42}";
        for cut in 0..text.len() {
            assert_eq!(whole_answer(&text[..cut]).unwrap(), None);
        }
        assert_eq!(whole_answer(text).unwrap(), Some(42));
        assert!(whole_answer(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
