//! The bytes of event streams, in both dialects. The only place that knows them.
//!
//! Each event is one frame, because iOS' SDK parses every chunk by itself. `data: ` has its space,
//! because Go's and Ruby's SDKs want it. Flagsmith's dialect has no `id:`, because JavaScript's SDK
//! would put it into the URL and split a cache's key, and its heartbeats are comments: several SDKs
//! take any `data:` line for a change. Grammar: WHATWG HTML, section 9.2; OFREP's events: ADR 8 of
//! `OpenFeature`'s protocol.

use std::fmt::Write as _;

use bytes::Bytes;

use super::manner::Contract;
use super::ping::PingFacts;
use crate::model::Stamp;

/// The comment that keeps a silent stream open, as a chunk.
const HEARTBEAT_CHUNK: &[u8] = b"3\r\n:\n\n\r\n";

/// The end of a chunked body: the stream ends cleanly.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// An event that is encoded once and shared by all who are told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
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

    /// The comment that keeps a silent stream open.
    pub(super) fn heartbeat() -> Self {
        Self { chunk: Bytes::from_static(HEARTBEAT_CHUNK), begin: "3\r\n".len() }
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

/// The same behind a cache, where streams end every minute: a browser that then waited for a
/// quarter of one would be deaf for that. The cache makes one request of all that come back.
const CACHED_RETRY_MS: u32 = 1_000;

/// A comment that says nothing.
const HELLO: &str = ": ok\n\n";

/// "The newest revision is N", for Flagsmith's SDKs and plain `EventSource`.
pub(super) fn flagsmith_ping(facts: &PingFacts, contract: Contract) -> Frame {
    let Stamp { revision, updated_at } = facts.stamp;
    let mut frame = format!(
        "event: environment_updated\ndata: {{\"updated_at\": {updated_at}, \"revision\": {revision}"
    );
    if let Some(url) = facts.flags_url() {
        // A JSON string has no line break, so it cannot end the event early.
        let quoted = serde_json::Value::from(url);
        write!(frame, ", \"flags_url\": {quoted}").expect("writing to a string");
    }
    let heartbeat_seconds = facts.heartbeat_seconds(contract);
    write!(frame, ", \"heartbeat_s\": {heartbeat_seconds}").expect("writing to a string");
    // Left out when there is none: the usual ping keeps the bytes of the contract.
    if facts.spread_ms > 0 {
        write!(frame, ", \"spread_ms\": {}", facts.spread_ms).expect("writing to a string");
    }
    let retry_ms = match contract {
        Contract::Direct => RETRY_MS,
        Contract::Cached => CACHED_RETRY_MS,
    };
    write!(frame, "}}\nretry: {retry_ms}\n\n").expect("writing to a string");
    Frame::new(&frame)
}

/// "The newest revision is N", for OFREP's providers and our own clients. They queue what comes
/// while they read, so there is no echo; what they name in return is the tag.
pub(super) fn ofrep_ping(facts: &PingFacts, contract: Contract) -> Frame {
    let PingFacts { client_key, stamp, spread_ms, .. } = facts;
    let (revision, seconds) = (stamp.revision, stamp.updated_at.seconds());
    let mut frame = format!(
        "id: {revision}\nevent: message\ndata: {{\"type\":\"refetchEvaluation\",\
         \"etag\":\"\\\"{client_key}.{revision}\\\"\",\"lastModified\":{seconds},\
         \"revision\":{revision}"
    );
    if let Some(url) = facts.flags_url() {
        let quoted = serde_json::Value::from(url);
        write!(frame, ",\"flags_url\":{quoted}").expect("writing to a string");
    }
    let heartbeat_seconds = facts.heartbeat_seconds(contract);
    writeln!(frame, ",\"spread_ms\":{spread_ms},\"heartbeat_s\":{heartbeat_seconds}}}")
        .expect("writing to a string");
    // A direct client keeps its own time, which is short.
    if contract == Contract::Cached {
        writeln!(frame, "retry: {CACHED_RETRY_MS}").expect("writing to a string");
    }
    frame.push('\n');
    Frame::new(&frame)
}

/// The heartbeat of OFREP's dialect. Providers ignore a type that they do not know; our own clients
/// see by it that they are connected and miss nothing.
pub(super) fn ofrep_state(facts: &PingFacts, contract: Contract) -> Frame {
    let revision = facts.stamp.revision;
    let heartbeat_seconds = facts.heartbeat_seconds(contract);
    Frame::new(&format!(
        "data: {{\"type\":\"state\",\"revision\":{revision},\"heartbeat_s\":{heartbeat_seconds}}}\n\n"
    ))
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
    use std::sync::Arc;
    use std::time::Duration;

    use eventsource_stream::Eventsource as _;
    use futures_util::{StreamExt as _, stream};
    use proptest::prelude::*;

    use super::*;
    use crate::model::{ClientKey, Revision, UpdatedAt};
    use crate::stream::ping::PingStyle;

    fn facts(revision: u64, micros: i64, base: Option<&str>) -> PingFacts {
        let public_url = base.unwrap_or_default().to_owned();
        PingFacts {
            style: Arc::new(PingStyle { public_url, heartbeat_seconds: [15, 5] }),
            client_key: ClientKey::parse("aB3").unwrap(),
            has_flags: base.is_some(),
            stamp: Stamp {
                revision: Revision(revision),
                updated_at: UpdatedAt::from_micros(micros),
            },
            spread_ms: 0,
        }
    }

    #[test]
    fn a_ping_has_the_bytes_of_the_contract() {
        let facts = facts(42, 1_763_790_000_015_625, Some("http://h"));
        let ping = |contract| flagsmith_ping(&facts, contract).event();
        assert_eq!(
            ping(Contract::Direct),
            "event: environment_updated\ndata: {\"updated_at\": 1763790000.015625, \
             \"revision\": 42, \"flags_url\": \"http://h/sdk/v1/environments/aB3/flags?rev=42\", \
             \"heartbeat_s\": 15}\nretry: 15000\n\n"
        );
        assert_eq!(
            ping(Contract::Cached),
            "event: environment_updated\ndata: {\"updated_at\": 1763790000.015625, \
             \"revision\": 42, \"flags_url\": \"http://h/sdk/v1/environments/aB3/flags?rev=42\", \
             \"heartbeat_s\": 5}\nretry: 1000\n\n"
        );
    }

    #[test]
    fn an_ofrep_ping_has_the_bytes_of_the_contract() {
        let facts = facts(42, 1_763_790_000_015_625, Some("http://h"));
        let ping = |contract| ofrep_ping(&facts, contract).event();
        let data = |heartbeat: u64| {
            format!(
                "id: 42\nevent: message\ndata: {{\"type\":\"refetchEvaluation\",\
                 \"etag\":\"\\\"aB3.42\\\"\",\"lastModified\":1763790000,\"revision\":42,\
                 \"flags_url\":\"http://h/sdk/v1/environments/aB3/flags?rev=42\",\
                 \"spread_ms\":0,\"heartbeat_s\":{heartbeat}}}\n"
            )
        };
        assert_eq!(ping(Contract::Direct), format!("{}\n", data(15)));
        assert_eq!(ping(Contract::Cached), format!("{}retry: 1000\n\n", data(5)));
        assert_eq!(
            ofrep_state(&facts, Contract::Cached).event(),
            "data: {\"type\":\"state\",\"revision\":42,\"heartbeat_s\":5}\n\n"
        );
    }

    #[test]
    fn a_push_only_ping_has_no_flags_url() {
        let facts = facts(1, 1_735_229_888_000_000, None);
        assert_eq!(
            flagsmith_ping(&facts, Contract::Direct).event(),
            "event: environment_updated\ndata: {\"updated_at\": 1735229888.0, \"revision\": 1, \
             \"heartbeat_s\": 15}\nretry: 15000\n\n"
        );
    }

    #[test]
    fn a_frame_is_one_chunk() {
        let frame = Frame::new("data: 0123456789\n\n");
        assert_eq!(frame.chunk(), "12\r\ndata: 0123456789\n\n\r\n");
        assert_eq!(frame.event(), "data: 0123456789\n\n");
        assert_eq!(Frame::heartbeat(), Frame::new(":\n\n"));
        assert_eq!(Frame::heartbeat().event(), ":\n\n");
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
            base in proptest::option::of(".*"),
            spread_ms in 0_u64..20_000,
            size in 1_usize..200,
        ) {
            let facts = PingFacts { spread_ms, ..facts(revision, micros, base.as_deref()) };
            let mut bytes = hello().event().to_vec();
            bytes.extend_from_slice(&flagsmith_ping(&facts, Contract::Direct).event());
            bytes.extend_from_slice(&Frame::heartbeat().event());
            bytes.extend_from_slice(&goodbye(1234).event());
            bytes.extend_from_slice(&ofrep_ping(&facts, Contract::Cached).event());
            bytes.extend_from_slice(&ofrep_state(&facts, Contract::Cached).event());
            let events = parse(&bytes, size);
            prop_assert_eq!(events.len(), 3, "comments and goodbyes are no events");
            let data: Vec<serde_json::Value> =
                events.iter().map(|event| serde_json::from_str(&event.data).unwrap()).collect();
            let url = facts.flags_url();
            for data in &data {
                prop_assert_eq!(data["revision"].as_u64(), Some(revision));
            }
            for data in &data[..2] {
                prop_assert_eq!(data["flags_url"].as_str(), url.as_deref());
            }
            prop_assert_eq!(&events[0].event, "environment_updated");
            prop_assert_eq!(&events[0].id, "");
            prop_assert_eq!(events[0].retry, Some(Duration::from_secs(15)));
            prop_assert_eq!(data[0]["heartbeat_s"].as_u64(), Some(15));
            prop_assert_eq!(data[0]["spread_ms"].as_u64(), (spread_ms > 0).then_some(spread_ms));
            prop_assert!(data[0]["updated_at"].is_f64(), "a fraction is always printed");
            prop_assert_eq!(
                data[0]["updated_at"].to_string(), facts.stamp.updated_at.to_string());
            prop_assert_eq!((&*events[1].event, &*events[1].id), ("message", &*revision.to_string()));
            prop_assert_eq!(data[1]["spread_ms"].as_u64(), Some(spread_ms));
            prop_assert_eq!(data[1]["etag"].as_str(), Some(&*format!("\"aB3.{revision}\"")));
            prop_assert_eq!((&*events[2].event, data[2]["type"].as_str()), ("message", Some("state")));
        }
    }
}
