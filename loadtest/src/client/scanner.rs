//! Finds the revisions in what a server says, however it is cut into pieces.

/// What stands before the revision in every server's ping.
const MARKER: &[u8] = b"\"revision\": ";

/// What was left of the last piece: the beginning of a marker or of its number. It is empty, and
/// holds no memory, nearly always.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    tail: Vec<u8>,
}

impl Scanner {
    /// Takes in a piece. Hands each revision that became whole to `found`.
    pub(super) fn feed(&mut self, bytes: &[u8], found: impl FnMut(u64)) {
        if self.tail.is_empty() {
            let used = scan(bytes, found);
            self.tail = bytes[used..].to_vec();
        } else {
            self.tail.extend_from_slice(bytes);
            let used = scan(&self.tail, found);
            self.tail = self.tail.split_off(used);
        }
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
    let longest = (bytes.len() - from).min(MARKER.len() - 1);
    let kept = (1..=longest).rev().find(|kept| bytes.ends_with(&MARKER[..*kept]));
    bytes.len() - kept.unwrap_or(0)
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
    fn only_what_may_go_on_is_kept() {
        let mut scanner = Scanner::default();
        scanner.feed(b":\n\n", |_| panic!("a heartbeat is no ping"));
        assert!(scanner.tail.is_empty());
        scanner.feed(b"\"revi", |_| panic!("not whole"));
        assert_eq!(scanner.tail, b"\"revi");
        scanner.feed(b"ew\": 7,", |_| panic!("another word"));
        assert!(scanner.tail.is_empty());
    }
}
