//! What a proxy has seen: every request with its time, and which event streams are under way.
//!
//! A stream is open from its request until its last chunk or the end of its connection.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The last bytes of an answer in chunks. No event ends like that.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    /// Its head as it came.
    pub(crate) head: String,
}

impl Seen {
    /// What was asked for, with its query.
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// Whether the head has a line with this name, written in small letters.
    pub(crate) fn has_header(&self, name: &str) -> bool {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.any(|(found, _)| found.eq_ignore_ascii_case(name))
    }
}

/// The streams of one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    /// How many began.
    pub(crate) opened: usize,
    /// How many are under way.
    pub(crate) open: usize,
    /// How many were under way at once, at most.
    pub(crate) most: usize,
    /// How many ended with their connection, without a last chunk.
    pub(crate) cut: usize,
}

/// The book of one proxy.
#[derive(Default)]
pub(crate) struct Ledger {
    requests: Mutex<Vec<Seen>>,
    streams: Mutex<BTreeMap<String, Streams>>,
}

impl Ledger {
    /// Notes a request; when it asks for a stream, what comes back is that stream.
    pub(super) fn note(self: &Arc<Self>, head: &str) -> Option<Passing> {
        let seen = Seen { at: Instant::now(), head: head.to_owned() };
        let path = seen.target().split('?').next().unwrap_or_default().to_owned();
        self.requests.lock().unwrap().push(seen);
        let is_stream = path.starts_with("/sse/") && path.ends_with("/stream")
            || path.starts_with("/ofrep/v1/streams/");
        if !is_stream {
            return None;
        }
        let mut streams = self.streams.lock().unwrap();
        let of_path = streams.entry(path.clone()).or_default();
        of_path.opened += 1;
        of_path.open += 1;
        of_path.most = of_path.most.max(of_path.open);
        Some(Passing { ledger: Arc::clone(self), path, is_finished: false })
    }

    /// All requests that begin with `prefix`, such as `GET /sdk/`.
    pub(crate) fn requests(&self, prefix: &str) -> Vec<Seen> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|seen| seen.head.starts_with(prefix)).cloned().collect()
    }

    /// How often each target was asked for that begins with `prefix`.
    pub(crate) fn targets(&self, prefix: &str) -> BTreeMap<String, usize> {
        let requests = self.requests.lock().unwrap();
        let mut targets = BTreeMap::new();
        for seen in requests.iter().filter(|seen| seen.target().starts_with(prefix)) {
            *targets.entry(seen.target().to_owned()).or_default() += 1;
        }
        targets
    }

    /// The streams of `path`.
    pub(crate) fn streams(&self, path: &str) -> Streams {
        self.streams.lock().unwrap().get(path).copied().unwrap_or_default()
    }
}

/// A stream under way. Dropping it ends it.
pub(super) struct Passing {
    ledger: Arc<Ledger>,
    path: String,
    is_finished: bool,
}

impl Passing {
    /// Whether `data`, which is on its way to the client, ends the stream in order.
    pub(super) fn finishes_with(&mut self, data: &[u8]) -> bool {
        self.is_finished = data.ends_with(LAST_CHUNK);
        self.is_finished
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let mut streams = self.ledger.streams.lock().unwrap();
        let of_path = streams.entry(self.path.clone()).or_default();
        of_path.open -= 1;
        of_path.cut += usize::from(!self.is_finished);
    }
}
