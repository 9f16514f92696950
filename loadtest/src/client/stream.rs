//! One client of an event stream: it connects, reads the head, then pings. A record of about a
//! hundred bytes, because there are many.

use std::cmp::Ordering;
use std::io::{ErrorKind, Write as _};
use std::net::Shutdown;

use anyhow::{Context as _, ensure};
use mio::net::TcpStream;
use nix::errno::Errno;

use super::http::{end_of_head, header, status};
use super::scanner::Scanner;
use super::silence::Silence;
use super::socket::{receive, reset_on_close};
use super::streams::Arrival;
use super::tally::Tally;
use crate::machine::now;

/// How a client reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    /// All that there is.
    #[default]
    Promptly,
    /// One byte whenever it is told to.
    ByBytes,
    /// Nothing.
    Never,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It closes.
    Close,
    /// It resets the connection.
    Reset,
    /// It ends its own direction and goes on reading.
    Half,
}

/// What handling a socket led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing to tell of.
    Same,
    /// The head came to its end: the stream is open.
    Opened,
    /// The connection is gone, or was never made.
    Lost,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Closed,
    Connecting,
    Head,
    Open,
}

/// A client, connected or not.
#[derive(Debug, Default)]
pub(super) struct Stream {
    socket: Option<TcpStream>,
    pub(super) state: State,
    pub(super) reading: Reading,
    /// No ping came since it connected: the next one tells the present state.
    fresh: bool,
    head: Vec<u8>,
    scanner: Scanner,
    /// Bytes of the body that are to come. A stream has no length; what a cache replays has one.
    left: usize,
    /// The newest revision, also of earlier connections; 0 before the first.
    pub(super) newest: u64,
    /// When the newest revision came: to the socket, and to this program.
    pub(super) kernel_at: i64,
    pub(super) user_at: i64,
    /// When anything came last.
    pub(super) heard_at: i64,
}

/// What all clients share while they read.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) buffer: Vec<u8>,
    pub(super) control: Vec<u8>,
    pub(super) tally: Tally,
    /// Every ping that told something new, while somebody wants to know.
    pub(super) log: Option<Vec<Arrival>>,
    pub(super) silence: Silence,
}

impl Stream {
    /// Whether it is on its way.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.state, State::Connecting | State::Head)
    }

    /// Takes a socket that is on its way.
    pub(super) fn begin(&mut self, socket: TcpStream) {
        self.socket = Some(socket);
        self.state = State::Connecting;
        self.fresh = true;
        self.head = Vec::new();
        self.scanner = Scanner::default();
    }

    /// Sends the request once the socket is connected.
    pub(super) fn ask(&mut self, request: &str, tally: &mut Tally) -> Outcome {
        let Some(socket) = self.socket.as_mut() else { return Outcome::Same };
        let connected = socket.take_error().and_then(|error| error.map_or(Ok(()), Err));
        match connected.and_then(|()| socket.write_all(request.as_bytes())) {
            Ok(()) => {
                self.state = State::Head;
                Outcome::Same
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Outcome::Same,
            Err(error) => {
                let is_refusal = error.kind() == ErrorKind::ConnectionRefused;
                let count = if is_refusal { &mut tally.refused } else { &mut tally.reset };
                *count += 1;
                self.close();
                Outcome::Lost
            }
        }
    }

    /// Reads all that there is; to the very end, if the server has `ended` its direction.
    pub(super) fn read(
        &mut self,
        index: usize,
        ended: bool,
        desk: &mut Desk,
    ) -> anyhow::Result<Outcome> {
        let most = desk.buffer.len();
        let mut whole = Outcome::Same;
        loop {
            let (length, outcome) = self.read_once(index, most, desk)?;
            match outcome {
                Outcome::Lost => return Ok(Outcome::Lost),
                Outcome::Opened => whole = Outcome::Opened,
                Outcome::Same => {}
            }
            // A read that does not fill the buffer has emptied the socket.
            if length == 0 || (length < most && !ended) {
                return Ok(whole);
            }
        }
    }

    /// Reads a single byte, as a client on a very bad line would.
    pub(super) fn read_a_byte(&mut self, index: usize, desk: &mut Desk) -> anyhow::Result<Outcome> {
        Ok(self.read_once(index, 1, desk)?.1)
    }

    /// Tells how many bytes came, `most` or fewer, and what they led to.
    fn read_once(
        &mut self,
        index: usize,
        most: usize,
        desk: &mut Desk,
    ) -> anyhow::Result<(usize, Outcome)> {
        let Some(socket) = &self.socket else { return Ok((0, Outcome::Same)) };
        let count = match receive(socket, &mut desk.buffer[..most], &mut desk.control) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok((0, Outcome::Same)),
            Ok((0, _)) => &mut desk.tally.ended,
            Err(_) => &mut desk.tally.reset,
            Ok((length, stamp)) => return Ok((length, self.take(index, length, stamp, desk)?)),
        };
        *count += 1;
        self.close();
        Ok((0, Outcome::Lost))
    }

    /// Leaves. Tells whether the connection is gone.
    pub(super) fn cut(&mut self, how: Cut) -> anyhow::Result<bool> {
        let Some(socket) = &self.socket else { return Ok(false) };
        match how {
            Cut::Close => {}
            Cut::Reset => reset_on_close(socket)?,
            Cut::Half => {
                // The server may have ended it a moment ago.
                drop(socket.shutdown(Shutdown::Write));
                return Ok(false);
            }
        }
        self.close();
        Ok(true)
    }

    fn close(&mut self) {
        self.socket = None;
        self.state = State::Closed;
        self.head = Vec::new();
    }

    /// Takes in what is at the beginning of the desk's buffer.
    fn take(
        &mut self,
        index: usize,
        length: usize,
        stamp: Option<i64>,
        desk: &mut Desk,
    ) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::Same;
        let mut begin = 0;
        let came_at = stamp.unwrap_or_else(now);
        if self.state == State::Open {
            desk.silence.broken(came_at - self.heard_at);
        }
        self.heard_at = came_at;
        if self.state != State::Open {
            let known = self.head.len();
            self.head.extend_from_slice(&desk.buffer[..length]);
            let Some(end) = end_of_head(&self.head) else { return Ok(outcome) };
            let text = String::from_utf8_lossy(&self.head[..end]);
            if status(&text) != Some(200) {
                desk.tally.turned_away += 1;
                self.close();
                return Ok(Outcome::Lost);
            }
            begin = end - known;
            let length = header(&text, "content-length").and_then(|length| length.parse().ok());
            self.left = length.unwrap_or(usize::MAX);
            self.head = Vec::new();
            self.state = State::Open;
            desk.tally.opened += 1;
            outcome = Outcome::Opened;
        }
        let mut scanner = std::mem::take(&mut self.scanner);
        let Desk { buffer, tally, log, .. } = desk;
        let kernel = stamp.unwrap_or_default();
        let arrival = Arrival { stream: index, revision: 0, kernel, user: now(), greets: false };
        let known = tally.pings;
        self.left = self.left.saturating_sub(length - begin);
        let ended = scanner.feed(&buffer[begin..length], |revision| {
            self.note(Arrival { revision, ..arrival }, tally, log.as_mut());
        });
        self.scanner = scanner;
        ensure!(tally.pings == known || stamp.is_some(), "the kernel did not stamp a ping");
        if ended || self.left == 0 {
            desk.tally.ended += 1;
            self.close();
            return Ok(Outcome::Lost);
        }
        Ok(outcome)
    }

    fn note(&mut self, arrival: Arrival, tally: &mut Tally, log: Option<&mut Vec<Arrival>>) {
        let Arrival { revision, .. } = arrival;
        tally.pings += 1;
        let fresh = std::mem::take(&mut self.fresh);
        match revision.cmp(&self.newest) {
            Ordering::Less => tally.went_back += 1,
            Ordering::Equal => tally.repeated += u64::from(!fresh),
            Ordering::Greater => {
                self.newest = revision;
                self.kernel_at = arrival.kernel;
                self.user_at = arrival.user;
                if let Some(log) = log {
                    log.push(Arrival { greets: fresh, ..arrival });
                }
            }
        }
    }
}

/// The request of a stream at `path`.
pub(super) fn request(host: std::net::SocketAddr, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n\r\n")
}

/// Registers a socket for what streams wait for.
pub(super) fn register(
    poll: &mio::Poll,
    socket: &mut TcpStream,
    index: usize,
) -> anyhow::Result<()> {
    let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
    poll.registry().register(socket, mio::Token(index), interest).context("cannot watch a socket")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(stream: &mut Stream, revision: u64, tally: &mut Tally) {
        let arrival = Arrival { stream: 0, revision, kernel: 5, user: 6, greets: false };
        stream.note(arrival, tally, None);
    }

    #[test]
    fn a_record_stays_small() {
        assert!(size_of::<Stream>() <= 120, "{}", size_of::<Stream>());
    }

    #[test]
    fn a_revision_that_comes_again_counts_unless_it_greets() {
        let (mut stream, mut tally) =
            (Stream { fresh: true, ..Stream::default() }, Tally::default());
        for revision in [4, 5, 5] {
            ping(&mut stream, revision, &mut tally);
        }
        assert_eq!((tally.repeated, tally.went_back, stream.newest), (1, 0, 5));
        stream.fresh = true;
        ping(&mut stream, 5, &mut tally);
        assert_eq!(tally.repeated, 1, "the first ping of a connection tells the present state");
        stream.fresh = true;
        ping(&mut stream, 3, &mut tally);
        assert_eq!((tally.went_back, stream.newest), (1, 5), "an older state is never all right");
    }
}
