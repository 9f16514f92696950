//! Clients that read the flags again when a ping tells them to, each on a kept-alive connection of
//! its own, all in one thread.
//!
//! They do what our own clients do: one read at a time, of the newest revision they heard of; again on
//! a new connection if the kept one was closed meanwhile; again a little later after any other failure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use mio::event::Event;
use mio::{Events, Poll};

use super::dice::Dice;
use super::fetcher::{Fetcher, Link, Reply, whole_answer};
use super::followers::Seen;
use super::returns::pause;
use super::socket::begin;
use super::stream::register;
use crate::machine::now;

/// After a failure a client waits 0.5 to 1.5 times this, and longer after the next.
const RETRY: Duration = Duration::from_millis(200);

/// How long connecting all of them may take.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// Connections that read flags.
#[derive(Debug)]
pub(crate) struct Refetchers {
    poll: Poll,
    events: Events,
    host: SocketAddr,
    /// The path of the flags, up to the number of the revision.
    path: String,
    fetchers: Vec<Fetcher>,
    /// Who failed, and when it tries again.
    resting: BinaryHeap<Reverse<(Instant, usize)>>,
    dice: Dice,
    buffer: Vec<u8>,
    /// Every flag set that was newer than the one before.
    log: Vec<Seen>,
    tally: Reads,
}

/// What became of the reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    /// Flag sets that came.
    pub(crate) answers: u64,
    /// Flag sets older than the revision that was asked for.
    pub(crate) stale: u64,
    /// Answers with another status than 200.
    pub(crate) turned_away: u64,
    /// Connections that were refused, or closed instead of an answer.
    pub(crate) broken: u64,
}

impl Refetchers {
    /// Makes `count` of them, which connect to `host` when they first read. `path` ends where the
    /// revision's number goes.
    pub(crate) fn new(host: SocketAddr, path: String, count: usize) -> anyhow::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            host,
            path,
            fetchers: std::iter::repeat_with(Fetcher::default).take(count).collect(),
            resting: BinaryHeap::new(),
            dice: Dice::new(u64::from(host.port())),
            buffer: vec![0; 64 * 1024],
            log: Vec::new(),
            tally: Reads::default(),
        })
    }

    /// Connects all of them before they are needed.
    pub(crate) fn connect(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        for index in 0..self.fetchers.len() {
            ensure!(self.open(index)?, "nobody listens at {}", self.host);
        }
        while self.fetchers.iter().any(|fetcher| fetcher.link == Link::Connecting) {
            ensure!(began.elapsed() < CONNECT_MAX, "the refetchers cannot all connect");
            self.turn(Duration::from_millis(10))?;
        }
        Ok(())
    }

    /// Tells a client of a revision: it reads that one, after the answer that is under way.
    pub(crate) fn want(&mut self, index: usize, revision: u64) -> anyhow::Result<()> {
        let fetcher = &mut self.fetchers[index];
        fetcher.wanted = revision.max(fetcher.wanted);
        self.ask(index)
    }

    /// Handles the answers that have come, waiting for one if there is none.
    pub(crate) fn turn(&mut self, wait: Duration) -> anyhow::Result<()> {
        let now = Instant::now();
        while let Some(Reverse((due, index))) = self.resting.peek().copied()
            && due <= now
        {
            self.resting.pop();
            self.fetchers[index].rests = false;
            self.ask(index)?;
        }
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        let events: Vec<Event> = self.events.iter().cloned().collect();
        for event in events {
            self.handle(&event)?;
        }
        Ok(())
    }

    /// How many do not have `revision` yet.
    pub(crate) fn behind(&self, revision: u64) -> usize {
        self.fetchers.iter().filter(|fetcher| fetcher.has < revision).count()
    }

    /// The revision that all of them have, or a newer one.
    pub(crate) fn least(&self) -> u64 {
        self.fetchers.iter().map(|fetcher| fetcher.has).min().unwrap_or_default()
    }

    /// When the last of them had its newest body.
    pub(crate) fn last(&self) -> i64 {
        self.fetchers.iter().map(|fetcher| fetcher.at).max().unwrap_or_default()
    }

    pub(crate) fn tally(&self) -> Reads {
        self.tally
    }

    /// The flag sets since this was taken.
    pub(crate) fn take_log(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.log)
    }

    /// Begins to connect. Tells whether somebody listens.
    fn open(&mut self, index: usize) -> anyhow::Result<bool> {
        let Some(mut socket) = begin(self.host, index, false)? else { return Ok(false) };
        register(&self.poll, &mut socket, index)?;
        let fetcher = &mut self.fetchers[index];
        (fetcher.socket, fetcher.link) = (Some(socket), Link::Connecting);
        fetcher.answer = Vec::new();
        Ok(true)
    }

    /// Sends a client's request, if it has one.
    fn ask(&mut self, index: usize) -> anyhow::Result<()> {
        let fetcher = &mut self.fetchers[index];
        if fetcher.asked.is_some() || fetcher.rests || fetcher.wanted <= fetcher.has {
            return Ok(());
        }
        fetcher.asked = Some(fetcher.wanted);
        if fetcher.socket.is_none() {
            if !self.open(index)? {
                self.fail(index);
            }
            return Ok(());
        }
        if fetcher.link != Link::Connecting && !fetcher.send(self.host, &self.path) {
            self.closed(index)?;
        }
        Ok(())
    }

    fn handle(&mut self, event: &Event) -> anyhow::Result<()> {
        let index = event.token().0;
        let fetcher = &mut self.fetchers[index];
        let mut is_open = true;
        if fetcher.link == Link::Connecting && event.is_writable() {
            is_open = fetcher.connected();
            if is_open && fetcher.asked.is_some() {
                is_open = fetcher.send(self.host, &self.path);
            }
        }
        while is_open && fetcher.link != Link::Connecting {
            let Some(length) = fetcher.receive(&mut self.buffer) else {
                is_open = false;
                break;
            };
            fetcher.answer.extend_from_slice(&self.buffer[..length]);
            // A read that does not fill the buffer has emptied the socket.
            if length == 0 || (length < self.buffer.len() && !event.is_read_closed()) {
                break;
            }
        }
        self.settle(index);
        if !is_open {
            self.closed(index)?;
        }
        self.ask(index)
    }

    /// Takes in a client's answer, if it is whole.
    fn settle(&mut self, index: usize) {
        let fetcher = &mut self.fetchers[index];
        let reply = whole_answer(&fetcher.answer);
        if reply == Reply::Partial {
            return;
        }
        fetcher.answer = Vec::new();
        fetcher.link = Link::Kept;
        let asked = fetcher.asked.take().unwrap_or_default();
        match reply {
            Reply::Flags(revision) => {
                self.tally.answers += 1;
                fetcher.failures = 0;
                if revision > fetcher.has {
                    (fetcher.has, fetcher.at) = (revision, now());
                    self.log.push(Seen { client: index, revision, at: fetcher.at });
                }
                if revision < asked {
                    self.tally.stale += 1;
                    self.rest(index);
                }
            }
            Reply::TurnedAway => {
                self.tally.turned_away += 1;
                self.rest(index);
            }
            Reply::Unreadable | Reply::Partial => {
                fetcher.socket = None;
                self.fail(index);
            }
        }
    }

    /// Takes in that a client's connection is gone. One that was kept is replaced at once.
    fn closed(&mut self, index: usize) -> anyhow::Result<()> {
        let fetcher = &mut self.fetchers[index];
        fetcher.socket = None;
        if fetcher.asked.is_none() {
            return Ok(());
        }
        if fetcher.link == Link::Kept && fetcher.answer.is_empty() {
            fetcher.asked = None;
            return self.ask(index);
        }
        self.fail(index);
        Ok(())
    }

    fn fail(&mut self, index: usize) {
        self.tally.broken += 1;
        self.fetchers[index].asked = None;
        self.rest(index);
    }

    fn rest(&mut self, index: usize) {
        let fetcher = &mut self.fetchers[index];
        let rest = pause(RETRY, fetcher.failures, &mut self.dice);
        fetcher.failures += 1;
        fetcher.rests = true;
        self.resting.push(Reverse((Instant::now() + rest, index)));
    }
}

impl Reads {
    /// What has happened since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            answers: self.answers - before.answers,
            stale: self.stale - before.stale,
            turned_away: self.turned_away - before.turned_away,
            broken: self.broken - before.broken,
        }
    }

    /// Adds those of others.
    pub(super) fn join(&mut self, other: Self) {
        self.answers += other.answers;
        self.stale += other.stale;
        self.turned_away += other.turned_away;
        self.broken += other.broken;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request on each connection, then closes it.
    fn serve(listener: &TcpListener, answers: &[&str]) {
        for answer in answers {
            let (mut socket, _) = listener.accept().unwrap();
            let lines = BufReader::new(socket.try_clone().unwrap()).lines();
            assert!(lines.map_while(Result::ok).any(|line| line.is_empty()));
            socket.write_all(answer.as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_read_that_fails_is_made_again() {
        let flags = |revision: u64| {
            format!("HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{{\"revision\":{revision}}}")
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let away = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
            serve(&listener, &["", away, &flags(6), &flags(7)]);
        });
        let mut refetchers = Refetchers::new(host, "/flags?rev=".to_owned(), 1).unwrap();
        refetchers.want(0, 7).unwrap();
        while refetchers.behind(7) > 0 {
            refetchers.turn(Duration::from_millis(10)).unwrap();
        }
        server.join().unwrap();
        let expected = Reads { answers: 2, stale: 1, turned_away: 1, broken: 1 };
        assert_eq!(refetchers.tally(), expected);
        let bodies = refetchers.take_log();
        assert_eq!(bodies.iter().map(|body| body.revision).collect::<Vec<_>>(), [6, 7]);
    }
}
