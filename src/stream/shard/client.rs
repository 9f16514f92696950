//! The record of one stream in a shard, and how bytes get into its socket. There are very many
//! records, so they are small.

use std::io::{ErrorKind, Read as _, Write as _};

use bytes::Bytes;
use mio::net::TcpStream;

use crate::metrics::StreamEnd;
use crate::model::Revision;
use crate::places::Place;
use crate::stream::channel::Newest;
use crate::stream::hub::Subscription;
use crate::stream::manner::Manner;
use crate::stream::wheel::Tick;

/// The group of those who hear of no environment: strangers and refused.
pub(super) const NO_GROUP: u32 = u32::MAX;

/// Reads of [`discard`]: who sends more than that to a stream may lose its end.
const DISCARDS_MAX: usize = 16;

/// One stream.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: TcpStream,
    pub(super) place: Place,
    /// Nothing for a refused client.
    pub(super) subscription: Option<Subscription>,
    /// The newest revision that was handed out; nothing was as long as it is 0.
    pub(super) told: Revision,
    /// Its group, and its place there.
    pub(super) group: u32,
    pub(super) member: u32,
    /// When the next heartbeat is due, and ticks from one to the next.
    pub(super) heartbeat_at: Tick,
    pub(super) heartbeat: Tick,
    pub(super) end_at: Tick,
    /// Where it is on the wheel; an entry elsewhere is an old one.
    pub(super) wheel_at: Tick,
    pub(super) manner: Manner,
    /// Whether the connection ends with the stream.
    pub(super) close: bool,
    /// Whether its end comes before its time, so that a cache must not take it for the whole.
    pub(super) cut: bool,
}

impl Client {
    /// What its environment says now; nothing when it has none.
    pub(super) fn newest(&self) -> Newest {
        let channel = self.subscription.as_ref().map(Subscription::channel);
        channel.map(|channel| channel.newest()).unwrap_or_default()
    }
}

/// What a client has not taken yet.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) rest: Bytes,
    /// When it last took something.
    pub(super) since: Tick,
    /// Whether the stream ends behind it.
    pub(super) last: bool,
}

/// Writes as much as the socket takes and tells how much that was; an error tells why the stream
/// is over.
pub(super) fn send(mut socket: &TcpStream, bytes: &[u8]) -> Result<usize, StreamEnd> {
    let mut written = 0;
    while written < bytes.len() {
        match socket.write(&bytes[written..]) {
            Ok(0) => return Err(StreamEnd::Client),
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(end_of(&error)),
        }
    }
    Ok(written)
}

/// Throws away what a client has sent. The kernel resets a connection that is closed with something
/// unread, and a reset can overtake our last words.
pub(super) fn discard(mut socket: &TcpStream) {
    let mut buffer = [0; 4096];
    for _ in 0..DISCARDS_MAX {
        if !matches!(socket.read(&mut buffer), Ok(length) if length > 0) {
            return;
        }
    }
}

/// Why a socket is over.
pub(super) fn end_of(error: &std::io::Error) -> StreamEnd {
    match error.kind() {
        // The kernel gave up: nothing was acknowledged for `stream.stall_seconds`.
        ErrorKind::TimedOut => StreamEnd::Timeout,
        _ => StreamEnd::Client,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_small() {
        // Without optimization the socket carries something to check.
        let rest = size_of::<Client>() - size_of::<TcpStream>();
        assert!(rest <= 72, "{rest}");
    }
}
