//! One client's connection for its reads, and how an answer is told apart.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;

use super::http::{end_of_head, header, status};

/// What stands before the revision in the body of a flag set.
const MARKER: &[u8] = b"\"revision\":";

#[derive(Debug, Default)]
pub(super) struct Fetcher {
    pub(super) socket: Option<TcpStream>,
    pub(super) link: Link,
    /// The revision of the newest ping, and of the request under way.
    pub(super) wanted: u64,
    pub(super) asked: Option<u64>,
    /// It waits after this many failures, one upon the other.
    pub(super) rests: bool,
    pub(super) failures: u32,
    /// The answer so far.
    pub(super) answer: Vec<u8>,
    /// The newest revision in a body, and when it was whole, in nanoseconds since the epoch.
    pub(super) has: u64,
    pub(super) at: i64,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    #[default]
    Connecting,
    /// It has answered nothing yet.
    New,
    /// It was kept after an answer, and the server may close it at any moment.
    Kept,
}

/// What an answer is, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Partial,
    /// A flag set of this revision.
    Flags(u64),
    /// Another status.
    TurnedAway,
    /// Nobody can tell where it ends, or it has no revision.
    Unreadable,
}

impl Fetcher {
    /// Tells whether the connection was made.
    pub(super) fn connected(&mut self) -> bool {
        let Some(socket) = &self.socket else { return false };
        if socket.take_error().is_ok_and(|error| error.is_none()) && socket.peer_addr().is_ok() {
            self.link = Link::New;
        }
        self.link == Link::New
    }

    /// Tells whether the request could be sent.
    pub(super) fn send(&mut self, host: SocketAddr, path: &str) -> bool {
        let (Some(socket), Some(asked)) = (&mut self.socket, self.asked) else { return false };
        let request = format!("GET {path}{asked} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        socket.write_all(request.as_bytes()).is_ok()
    }

    /// Reads what there is, 0 bytes if nothing is; nothing if the connection is gone.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            return match self.socket.as_mut()?.read(buffer) {
                Ok(0) => None,
                Ok(length) => Some(length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => None,
            };
        }
    }
}

/// What has come of an answer.
pub(super) fn whole_answer(answer: &[u8]) -> Reply {
    let Some(end) = end_of_head(answer) else { return Reply::Partial };
    let head = String::from_utf8_lossy(&answer[..end]);
    let length = header(&head, "content-length").and_then(|length| length.parse::<usize>().ok());
    let Some(length) = length else { return Reply::Unreadable };
    let body = &answer[end..];
    if body.len() < length {
        return Reply::Partial;
    }
    if status(&head) != Some(200) {
        return Reply::TurnedAway;
    }
    revision(body).map_or(Reply::Unreadable, Reply::Flags)
}

fn revision(body: &[u8]) -> Option<u64> {
    let found = body.windows(MARKER.len()).position(|window| window == MARKER)?;
    let digits = body[found + MARKER.len()..].iter().skip_while(|byte| **byte == b' ');
    let digits: Vec<u8> = digits.take_while(|byte| byte.is_ascii_digit()).copied().collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_when_it_is_whole() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"revision\": 42}";
        for cut in 0..text.len() {
            assert_eq!(whole_answer(&text[..cut]), Reply::Partial);
        }
        assert_eq!(whole_answer(text), Reply::Flags(42));
        let other = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(whole_answer(other), Reply::TurnedAway);
        assert_eq!(whole_answer(b"HTTP/1.1 200 OK\r\n\r\n"), Reply::Unreadable);
    }
}
