//! The stream client: thousands of sockets in one thread, and the kernel's word for when a ping
//! arrived.
//!
//! Each socket asks the kernel for the time at which bytes came in (`SO_TIMESTAMPNS`). So it does
//! not matter when we read them: the client sleeps while a change is told, takes no time from the
//! servers, and cannot be the bottleneck. It then reads in batches, with a nap between them.

use std::io::{ErrorKind, IoSliceMut, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use crate::http::{end_of_head, status};

/// Keeps the kernel stamping while it is held. The kernel turns stamping on and off a moment after
/// the first socket asks for it and the last one is gone; what comes in that moment has no stamp.
#[derive(Debug)]
pub(crate) struct Stamping {
    _socket: UdpSocket,
}

impl Stamping {
    /// Asks for stamps on a socket that nobody writes to.
    pub(crate) fn keep_on() -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").context("cannot open a socket")?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)
            .context("the kernel does not stamp what it receives")?;
        Ok(Self { _socket: socket })
    }
}

/// Connections that may be on their way at a time; more would overflow a listen backlog.
const OPENING_MAX: usize = 100;

/// How long it may take to open all streams.
const OPEN_MAX: Duration = Duration::from_mins(1);

/// Rest between two reads: arrivals are stamped by the kernel, so haste would only disturb.
const NAP: Duration = Duration::from_millis(2);

/// What stands before the revision in every server's ping.
const MARKER: &[u8] = b"\"revision\": ";

/// Many open streams.
#[derive(Debug)]
pub(crate) struct Streams {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    control: Vec<u8>,
    /// Streams opened per second.
    pub(crate) open_rate: f64,
}

#[derive(Debug)]
struct Client {
    stream: Option<TcpStream>,
    state: State,
    scanner: Scanner,
    /// The newest revision and when it came.
    newest: Option<(u64, i64)>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Head(Vec<u8>),
    Open,
}

/// Finds revisions in what a stream says, however it is cut into pieces.
#[derive(Debug, Default)]
struct Scanner {
    tail: Vec<u8>,
}

/// What became of a ping.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// When it arrived at each client that got it.
    pub(crate) times: Vec<i64>,
    /// Clients that did not get it in time.
    pub(crate) missed: usize,
}

impl Streams {
    /// Opens `count` streams with `request`, the whole head of a request.
    pub(crate) fn open(address: SocketAddr, request: &str, count: usize) -> anyhow::Result<Self> {
        let mut streams = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            clients: Vec::with_capacity(count),
            buffer: vec![0; 16 * 1024],
            control: nix::cmsg_space!(TimeSpec),
            open_rate: 0.0,
        };
        let began = Instant::now();
        let mut open = 0;
        while open < count {
            while streams.clients.len() < count && streams.clients.len() - open < OPENING_MAX {
                streams.connect(address)?;
            }
            open += streams.turn(Some(Duration::from_millis(100)), request)?;
            let lost = streams.lost();
            ensure!(lost == 0, "{address} closed {lost} of {count} streams while they were opened");
            ensure!(
                began.elapsed() < OPEN_MAX,
                "only {open} of {count} streams opened within {OPEN_MAX:?}"
            );
        }
        let count = u64::try_from(count)?;
        streams.open_rate = crate::stats::real(count) / began.elapsed().as_secs_f64();
        Ok(streams)
    }

    /// Reads until every client has `revision`, or `limit` is over.
    pub(crate) fn wait(&mut self, revision: u64, limit: Duration) -> anyhow::Result<Arrivals> {
        let deadline = Instant::now() + limit;
        let has = |client: &Client| client.newest.is_some_and(|(newest, _)| newest >= revision);
        loop {
            self.turn(Some(NAP), "")?;
            if self.clients.iter().all(has) || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(NAP);
        }
        let times: Vec<i64> = self
            .clients
            .iter()
            .filter_map(|client| client.newest)
            .filter(|(newest, _)| *newest == revision)
            .map(|(_, at)| at)
            .collect();
        let missed = self.clients.len() - times.len();
        Ok(Arrivals { times, missed })
    }

    /// Streams that the server ended.
    pub(crate) fn lost(&self) -> usize {
        self.clients.iter().filter(|client| client.stream.is_none()).count()
    }

    fn connect(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let mut stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        setsockopt(&stream, sockopt::ReceiveTimestampns, &true)
            .context("the kernel does not stamp what it receives")?;
        let token = Token(self.clients.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, token, interest)?;
        self.clients.push(Client {
            stream: Some(stream),
            state: State::Connecting,
            scanner: Scanner::default(),
            newest: None,
        });
        Ok(())
    }

    /// Handles what is ready. Tells how many streams it opened.
    fn turn(&mut self, wait: Option<Duration>, request: &str) -> anyhow::Result<usize> {
        let mut opened = 0;
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(0),
            polled => polled?,
        }
        for event in &self.events {
            let client = &mut self.clients[event.token().0];
            if client.state == State::Connecting && event.is_writable() {
                client.ask(request)?;
            }
            if event.is_readable() {
                opened += usize::from(client.read(&mut self.buffer, &mut self.control)?);
            }
        }
        Ok(opened)
    }
}

impl Client {
    fn ask(&mut self, request: &str) -> anyhow::Result<()> {
        let Some(stream) = self.stream.as_mut() else {
            return Ok(());
        };
        if let Some(error) = stream.take_error()? {
            return Err(error).context("a stream cannot connect");
        }
        stream.write_all(request.as_bytes()).context("a stream cannot send its request")?;
        self.state = State::Head(Vec::new());
        Ok(())
    }

    /// Reads all that there is. Tells whether the head came to its end.
    fn read(&mut self, buffer: &mut [u8], control: &mut [u8]) -> anyhow::Result<bool> {
        let mut opened = false;
        while let Some(stream) = &self.stream {
            let (length, stamp) = match receive(stream, buffer, control) {
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(_) | Ok((0, _)) => {
                    self.stream = None;
                    break;
                }
                Ok(received) => received,
            };
            opened |= self.take(&buffer[..length], stamp)?;
            // A read that does not fill the buffer has emptied the socket.
            if length < buffer.len() {
                break;
            }
        }
        Ok(opened)
    }

    fn take(&mut self, bytes: &[u8], stamp: Option<i64>) -> anyhow::Result<bool> {
        let mut opened = false;
        let newest = match &mut self.state {
            State::Connecting => None,
            State::Open => self.scanner.feed(bytes),
            State::Head(head) => {
                head.extend_from_slice(bytes);
                let Some(end) = end_of_head(head) else {
                    return Ok(false);
                };
                let text = String::from_utf8_lossy(&head[..end]).into_owned();
                if status(&text) != Some(200) {
                    bail!("a stream was refused: {text}");
                }
                let rest = head.split_off(end);
                self.state = State::Open;
                opened = true;
                self.scanner.feed(&rest)
            }
        };
        if let Some(revision) = newest
            && self.newest.is_none_or(|(known, _)| known < revision)
        {
            let at = stamp.context("the kernel did not stamp a ping")?;
            self.newest = Some((revision, at));
        }
        Ok(opened)
    }
}

impl Scanner {
    /// Takes in a piece. Returns the last revision that became whole.
    fn feed(&mut self, bytes: &[u8]) -> Option<u64> {
        self.tail.extend_from_slice(bytes);
        let mut newest = None;
        let mut from = 0;
        while let Some(found) = find(&self.tail[from..], MARKER) {
            let digits = from + found + MARKER.len();
            let rest = &self.tail[digits..];
            let Some(length) = rest.iter().position(|byte| !byte.is_ascii_digit()) else {
                // The number may go on in the next piece.
                self.tail.drain(..from + found);
                return newest;
            };
            let number = std::str::from_utf8(&rest[..length]).ok();
            newest = number.and_then(|number| number.parse().ok()).or(newest);
            from = digits + length;
        }
        // What could be the beginning of a marker stays.
        let keep = (self.tail.len() - from).min(MARKER.len() - 1);
        self.tail.drain(..self.tail.len() - keep);
        newest
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Receives bytes and the time at which the last of them came in.
fn receive(
    stream: &TcpStream,
    buffer: &mut [u8],
    control: &mut [u8],
) -> Result<(usize, Option<i64>), Errno> {
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(control), MsgFlags::empty())?;
    let stamp = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => Some(nanoseconds(at)),
        _ => None,
    });
    Ok((message.bytes, stamp))
}

fn nanoseconds(at: TimeSpec) -> i64 {
    at.tv_sec() * 1_000_000_000 + at.tv_nsec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_found_however_the_stream_is_cut() {
        let text = b"data: {\"updated_at\": 1.5, \"revision\": 41, \"x\": 1}\n\n\
            data: {\"revision\": 42, \"flags_url\": \"f?rev=42\"}\n\n";
        for size in 1..text.len() {
            let mut scanner = Scanner::default();
            let found: Vec<u64> =
                text.chunks(size).filter_map(|piece| scanner.feed(piece)).collect();
            assert_eq!(found.last(), Some(&42), "pieces of {size}");
            assert!(scanner.tail.len() < MARKER.len());
        }
        assert_eq!(Scanner::default().feed(b":\n\n"), None);
    }
}
