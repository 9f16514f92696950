//! Finds the revisions in what a server says, and its end, however it is cut into pieces.

/// What stands before the revision in every server's ping.
const MARKER: &[u8] = b"\"revision\": ";

/// The last chunk: the stream is over, but a cache keeps the connection open for another request. No
/// chunk of events looks like it, because those end with line feeds alone.
const LAST: &[u8] = b"0\r\n\r\n";

/// What was left of the last piece: the beginning of a marker, of its number, or of the last chunk. It
/// is empty, and holds no memory, nearly always.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    tail: Vec<u8>,
}

impl Scanner {
    /// Takes in a piece. Hands each revision that became whole to `found`. Tells whether the stream has
    /// come to its end.
    pub(super) fn feed(&mut self, bytes: &[u8], found: impl FnMut(u64)) -> bool {
        if self.tail.is_empty() {
            let used = scan(bytes, found);
            self.tail = bytes[used..].to_vec();
            return bytes.ends_with(LAST);
        }
        self.tail.extend_from_slice(bytes);
        let ended = self.tail.ends_with(LAST);
        let used = scan(&self.tail, found);
        self.tail = self.tail.split_off(used);
        ended
    }
}

/// Tells how many bytes need not be seen again.
fn scan(bytes: &[u8], mut found: impl FnMut(u64)) -> usize {
    let mut from = 0;
    while let Some(position) = find(&bytes[from..], MARKER) {
        let digits = from + position + MARKER.len();
        let rest = &bytes[digits..];
        let Some(length) = rest.iter().position(|byte| !byte.is_ascii_digit()) else {
            // The number may go on in the next piece.
            return from + position;
        };
        let number = std::str::from_utf8(&rest[..length]).ok();
        if let Some(revision) = number.and_then(|number| number.parse().ok()) {
            found(revision);
        }
        from = digits + length;
    }
    let kept = [MARKER, LAST].map(|wanted| {
        let longest = (bytes.len() - from).min(wanted.len() - 1);
        (1..=longest).rev().find(|kept| bytes.ends_with(&wanted[..*kept])).unwrap_or(0)
    });
    bytes.len() - kept[0].max(kept[1])
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_found_however_the_stream_is_cut() {
        let text = b"data: {\"updated_at\": 1.5, \"revision\": 41, \"x\": 1}\n\n\
            data: {\"revision\": 42, \"flags_url\": \"f?rev=42\"}\n\n";
        for size in 1..=text.len() {
            let mut scanner = Scanner::default();
            let mut found = Vec::new();
            for piece in text.chunks(size) {
                scanner.feed(piece, |revision| found.push(revision));
            }
            assert_eq!(found, [41, 42], "pieces of {size}");
            assert_eq!(scanner.tail.capacity(), 0, "nothing is kept");
        }
    }

    #[test]
    fn the_end_is_found_however_the_stream_is_cut() {
        let text = b"7\r\ndata: 0\n\n\r\n10\r\n{\"revision\": 42}\r\n3\r\n:\n\n\r\n0\r\n\r\n";
        for size in 1..=text.len() {
            let mut scanner = Scanner::default();
            let ends = text.chunks(size).map(|piece| scanner.feed(piece, |_| ()));
            let ends: Vec<bool> = ends.collect();
            let (last, others) = ends.split_last().unwrap();
            assert!(*last && !others.contains(&true), "pieces of {size}");
        }
    }

    #[test]
    fn only_what_may_go_on_is_kept() {
        let mut scanner = Scanner::default();
        assert!(!scanner.feed(b":\n\n", |_| panic!("a heartbeat is no ping")));
        assert!(scanner.tail.is_empty());
        scanner.feed(b"\"revi", |_| panic!("not whole"));
        assert_eq!(scanner.tail, b"\"revi");
        scanner.feed(b"ew\": 7,", |_| panic!("another word"));
        assert!(scanner.tail.is_empty());
    }
}
