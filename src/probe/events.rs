//! Reads the bytes of an event stream, chunk by chunk, and drops nothing: libraries keep comments
//! to themselves, but a comment is the heartbeat.
//!
//! Grammar: WHATWG HTML, section 9.2. What comes from a network has bounds here: a line or an event
//! that is longer is told as such and skipped.

use std::time::Duration;

/// Bytes of a line, and of the data of one event. A ping has some 200.
const LENGTH_MAX: usize = 64 * 1024;

/// What a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An event, complete.
    Event(Event),
    /// A line that begins with a colon, without the colon.
    Comment(String),
    /// How long to wait before coming back; told when its line is read, as browsers obey it.
    Retry(Duration),
    /// Something longer than any event of ours; it is skipped.
    TooLong,
}

/// An event as `EventSource` dispatches it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` when the stream names none.
    pub name: String,
    /// Its data; lines are joined by line feeds.
    pub data: String,
    /// The last id that the stream has told so far.
    pub id: String,
}

/// Turns chunks into items.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The line that is not complete yet; of one that is too long, a byte more than is allowed.
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed behind it belongs to it.
    is_behind_return: bool,
    is_begun: bool,
    name: String,
    /// Each line with its line feed; no more lines once it is too long.
    data: String,
    id: String,
}

impl Scanner {
    /// Reads the next bytes and returns what they complete.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<Item> {
        let mut items = Vec::new();
        for &byte in chunk {
            let is_rest_of_break = std::mem::take(&mut self.is_behind_return) && byte == b'\n';
            match byte {
                b'\n' if is_rest_of_break => {}
                b'\n' | b'\r' => {
                    self.is_behind_return = byte == b'\r';
                    self.end_line(&mut items);
                }
                _ if self.line.len() <= LENGTH_MAX => self.line.push(byte),
                _ => {}
            }
        }
        items
    }

    fn end_line(&mut self, items: &mut Vec<Item>) {
        let bytes = std::mem::take(&mut self.line);
        if bytes.len() > LENGTH_MAX {
            items.push(Item::TooLong);
            return;
        }
        let text = String::from_utf8_lossy(&bytes);
        // Only the very first line may begin with a byte order mark.
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        let line = text.strip_prefix('\u{feff}').filter(|_| is_first).unwrap_or(&text);
        if line.is_empty() {
            self.dispatch(items);
        } else if let Some(comment) = line.strip_prefix(':') {
            items.push(Item::Comment(comment.to_owned()));
        } else {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            self.field(field, value.strip_prefix(' ').unwrap_or(value), items);
        }
        // The buffer is kept, unless one long line has made it large.
        self.line = bytes;
        self.line.clear();
        self.line.shrink_to(1024);
    }

    fn field(&mut self, field: &str, value: &str, items: &mut Vec<Item>) {
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" if self.data.len() <= LENGTH_MAX => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                if let Ok(milliseconds) = value.parse() {
                    items.push(Item::Retry(Duration::from_millis(milliseconds)));
                }
            }
            _ => {}
        }
    }

    fn dispatch(&mut self, items: &mut Vec<Item>) {
        let (mut name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if data.len() > LENGTH_MAX {
            items.push(Item::TooLong);
        } else if data.pop().is_some() {
            if name.is_empty() {
                "message".clone_into(&mut name);
            }
            items.push(Item::Event(Event { name, data, id: self.id.clone() }));
        }
    }
}

#[cfg(test)]
mod tests {
    use eventsource_stream::Eventsource as _;
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use proptest::prelude::*;

    use super::*;

    fn scan(bytes: &[u8], size: usize) -> Vec<Item> {
        let mut scanner = Scanner::default();
        bytes.chunks(size).flat_map(|chunk| scanner.push(chunk)).collect()
    }

    fn event(name: &str, data: &str, id: &str) -> Item {
        let own = str::to_owned;
        Item::Event(Event { name: own(name), data: own(data), id: own(id) })
    }

    #[test]
    fn comments_and_waits_are_told_in_their_order() {
        let bytes = b"\xef\xbb\xbf: ok\n\n:\n\nevent: ping\ndata: 1\nretry: 250\n\n\
            id: 7\ndata\n\nretry: x\n\n";
        let expected = vec![
            Item::Comment(" ok".to_owned()),
            Item::Comment(String::new()),
            Item::Retry(Duration::from_millis(250)),
            event("ping", "1", ""),
            event("message", "", "7"),
        ];
        for size in 1..=bytes.len() {
            assert_eq!(scan(bytes, size), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_incomplete_at_the_end_was_not_told() {
        assert_eq!(scan(b"data: 1\n\ndata: 2\n", 3), [event("message", "1", "")]);
    }

    #[test]
    fn what_is_too_long_is_skipped_and_costs_no_memory() {
        let mut scanner = Scanner::default();
        for _ in 0..100 {
            assert_eq!(scanner.push(&[b'x'; 10_000]), []);
        }
        assert!(scanner.line.capacity() <= 2 * LENGTH_MAX);
        assert_eq!(scanner.push(b"\n\ndata: 1\n\n"), [Item::TooLong, event("message", "1", "")]);
        assert!(scanner.line.capacity() <= 1024);

        let line = format!("data: {}\n", "x".repeat(40_000));
        let items = scanner.push(format!("{line}{line}{line}\ndata: 2\n\n").as_bytes());
        assert_eq!(items, [Item::TooLong, event("message", "2", "")]);
    }

    /// What the independent parser makes of the same bytes.
    fn reference(bytes: &[u8], size: usize) -> Vec<Item> {
        let chunks = bytes.chunks(size).map(|c| Ok::<_, std::io::Error>(c.to_vec()));
        let events = stream::iter(chunks).eventsource().map(Result::unwrap).collect::<Vec<_>>();
        let events = events.now_or_never().expect("everything is there");
        events.into_iter().map(|told| event(&told.event, &told.data, &told.id)).collect()
    }

    proptest! {
        #[test]
        fn events_are_those_of_an_independent_parser(
            lines in proptest::collection::vec(
                prop_oneof![
                    Just(String::new()),
                    "(data|event|id|other|:)(: ?)?[a-zé€: ]{0,6}",
                    "retry: [0-9]{1,5}",
                ],
                0..30,
            ),
            line_break in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
            size in 1_usize..40,
        ) {
            let mut text = lines.join(line_break);
            // The other parser waits for what may follow a carriage return.
            text.push_str("\n\n:");
            let events: Vec<Item> = scan(text.as_bytes(), size)
                .into_iter()
                .filter(|item| matches!(item, Item::Event(_)))
                .collect();
            prop_assert_eq!(events, reference(text.as_bytes(), size), "{:?}", text);
        }

        /// Whatever comes, in whatever pieces: no panic, and the pieces make no difference.
        #[test]
        fn pieces_make_no_difference(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            size in 1_usize..50,
        ) {
            prop_assert_eq!(scan(&bytes, size), scan(&bytes, 1000));
        }
    }
}
