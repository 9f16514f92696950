//! The bytes of event streams, in Flagsmith's dialect. The only place that knows them.
//!
//! Each event is one frame, because iOS' SDK parses every chunk by itself. `data: ` has its space,
//! because Go's and Ruby's SDKs want it. There is no `id:`, because JavaScript's SDK would put it
//! into the URL and split a cache's key. Heartbeats are comments: several SDKs take any `data:`
//! line for a change. Grammar: WHATWG HTML, section 9.2.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::model::Stamp;

/// The comment that keeps a silent stream open, as a chunk.
pub(super) const HEARTBEAT_CHUNK: &[u8] = b"3\r\n:\n\n\r\n";

/// The end of a chunked body: the stream ends cleanly.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// An event that is encoded once and shared by all who are told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    chunk: Bytes,
    /// Where the event begins in the chunk.
    begin: usize,
}

impl Frame {
    /// Frames an event as one chunk of an HTTP/1.1 body (RFC 9112, section 7.1).
    pub(super) fn new(event: &str) -> Self {
        let size = format!("{:X}\r\n", event.len());
        // Built to measure: every idle environment keeps one.
        let mut chunk = Vec::with_capacity(size.len() + event.len() + 2);
        for part in [size.as_str(), event, "\r\n"] {
            chunk.extend_from_slice(part.as_bytes());
        }
        Self { chunk: Bytes::from(chunk), begin: size.len() }
    }

    /// The event alone, for whoever frames by itself: HTTP/1.0 and HTTP/2.
    pub(super) fn event(&self) -> Bytes {
        self.chunk.slice(self.begin..self.chunk.len() - 2)
    }

    /// The event as a chunk.
    pub(super) fn chunk(&self) -> &Bytes {
        &self.chunk
    }
}

/// How long a client should wait before it comes back, in milliseconds. Flagsmith's value.
const RETRY_MS: u32 = 15_000;

/// The comment that keeps a silent stream open.
pub(super) const HEARTBEAT: &[u8] = b":\n\n";

/// A comment that says nothing.
const HELLO: &str = ": ok\n\n";

/// What a ping says.
#[derive(Clone, Copy, Debug)]
pub struct PingFacts<'a> {
    /// The newest state.
    pub stamp: Stamp,
    /// Where to read it; push-only environments have no such place here.
    pub flags_url: Option<&'a str>,
    /// Seconds of silence after which a heartbeat comes.
    pub heartbeat_seconds: u64,
    /// Time over which clients should spread their reads, in milliseconds; 0: read at once.
    pub spread_ms: u64,
}

/// "The newest revision is N".
#[must_use]
pub fn ping(facts: &PingFacts<'_>) -> Frame {
    let Stamp { revision, updated_at } = facts.stamp;
    let mut frame = format!(
        "event: environment_updated\ndata: {{\"updated_at\": {updated_at}, \"revision\": {revision}"
    );
    if let Some(url) = facts.flags_url {
        // A JSON string has no line break, so it cannot end the event early.
        let quoted = serde_json::Value::from(url);
        write!(frame, ", \"flags_url\": {quoted}").expect("writing to a string");
    }
    let PingFacts { heartbeat_seconds, spread_ms, .. } = facts;
    write!(frame, ", \"heartbeat_s\": {heartbeat_seconds}").expect("writing to a string");
    // Left out when there is none: the usual ping keeps the bytes of the contract.
    if *spread_ms > 0 {
        write!(frame, ", \"spread_ms\": {spread_ms}").expect("writing to a string");
    }
    write!(frame, "}}\nretry: {RETRY_MS}\n\n").expect("writing to a string");
    Frame::new(&frame)
}

/// The first bytes of a stream that has no state to tell.
pub(super) fn hello() -> Frame {
    Frame::new(HELLO)
}

/// "Come back in a while", before an end that was not due. It is no event: it has no data.
pub(super) fn goodbye(retry_ms: u64) -> Frame {
    Frame::new(&format!("retry: {retry_ms}\n\n"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use eventsource_stream::Eventsource as _;
    use futures_util::{StreamExt as _, stream};
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Revision, UpdatedAt};

    fn stamp(revision: u64, micros: i64) -> Stamp {
        Stamp { revision: Revision(revision), updated_at: UpdatedAt::from_micros(micros) }
    }

    #[test]
    fn a_ping_has_the_bytes_of_the_contract() {
        let facts = PingFacts {
            stamp: stamp(42, 1_763_790_000_015_625),
            flags_url: Some("http://h/f?rev=42"),
            heartbeat_seconds: 15,
            spread_ms: 0,
        };
        assert_eq!(
            ping(&facts).event(),
            "event: environment_updated\ndata: {\"updated_at\": 1763790000.015625, \
             \"revision\": 42, \"flags_url\": \"http://h/f?rev=42\", \"heartbeat_s\": 15}\n\
             retry: 15000\n\n"
        );
    }

    #[test]
    fn a_push_only_ping_has_no_flags_url() {
        let facts = PingFacts {
            stamp: stamp(1, 1_735_229_888_000_000),
            flags_url: None,
            heartbeat_seconds: 15,
            spread_ms: 0,
        };
        assert_eq!(
            ping(&facts).event(),
            "event: environment_updated\ndata: {\"updated_at\": 1735229888.0, \"revision\": 1, \
             \"heartbeat_s\": 15}\nretry: 15000\n\n"
        );
    }

    #[test]
    fn a_frame_is_one_chunk() {
        let frame = Frame::new("data: 0123456789\n\n");
        assert_eq!(frame.chunk(), "12\r\ndata: 0123456789\n\n\r\n");
        assert_eq!(frame.event(), "data: 0123456789\n\n");
        let heartbeat = Frame::new(std::str::from_utf8(HEARTBEAT).unwrap());
        assert_eq!(heartbeat.chunk(), HEARTBEAT_CHUNK);
    }

    /// Parses `bytes`, cut into pieces of `size`, with an independent parser.
    fn parse(bytes: &[u8], size: usize) -> Vec<eventsource_stream::Event> {
        let pieces: Vec<_> =
            bytes.chunks(size).map(|p| Ok::<_, std::io::Error>(p.to_vec())).collect();
        let events = stream::iter(pieces).eventsource().map(Result::unwrap).collect::<Vec<_>>();
        futures_util::FutureExt::now_or_never(events).expect("everything is there")
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_what_is_parsed(
            revision in 0_u64..u64::MAX,
            micros in 0_i64..4_000_000_000_000_000,
            url in proptest::option::of(".*"),
            heartbeat_seconds in 1_u64..100,
            spread_ms in 0_u64..20_000,
            size in 1_usize..200,
        ) {
            let stamp = stamp(revision, micros);
            let facts =
                PingFacts { stamp, flags_url: url.as_deref(), heartbeat_seconds, spread_ms };
            let mut bytes = hello().event().to_vec();
            bytes.extend_from_slice(&ping(&facts).event());
            bytes.extend_from_slice(HEARTBEAT);
            bytes.extend_from_slice(&goodbye(1234).event());
            let events = parse(&bytes, size);
            prop_assert_eq!(events.len(), 1, "heartbeats and goodbyes are no events");
            prop_assert_eq!(&events[0].event, "environment_updated");
            prop_assert_eq!(&events[0].id, "");
            prop_assert_eq!(events[0].retry, Some(Duration::from_secs(15)));
            let data: serde_json::Value = serde_json::from_str(&events[0].data).unwrap();
            prop_assert_eq!(data["revision"].as_u64(), Some(revision));
            prop_assert_eq!(data["flags_url"].as_str(), url.as_deref());
            prop_assert_eq!(data["heartbeat_s"].as_u64(), Some(heartbeat_seconds));
            prop_assert_eq!(data["spread_ms"].as_u64(), (spread_ms > 0).then_some(spread_ms));
            prop_assert!(data["updated_at"].is_f64(), "a fraction is always printed");
            prop_assert_eq!(data["updated_at"].to_string(), stamp.updated_at.to_string());
        }
    }
}
