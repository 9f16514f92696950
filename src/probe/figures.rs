//! A record in figures. Pure.
//!
//! A latency is only told of what came live: the first bytes of a stream that was joined are its
//! past, and their instants are old without anybody being slow.

use std::collections::BTreeMap;

use http::Version;
use serde::Serialize;

use super::record::{Answer, Record, Role, Seen, Stream, date_of, seconds_of};
use super::subscribe::{End, Head};
use super::told::Kind;

/// A stream that ends earlier than this, in seconds, was none: clients come back at once.
pub(super) const IMMEDIATE: f64 = 1.0;

/// Headers by which caches show themselves.
const CACHE_MARKERS: [&str; 8] = [
    "age",
    "cache-status",
    "cf-cache-status",
    "x-cache",
    "x-cache-hits",
    "x-served-by",
    "x-varnish",
    "x-amz-cf-pop",
];

/// What `Cache-Control` says of who may share a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Contract {
    /// Nothing is said: every cache takes its own default.
    #[default]
    None,
    /// A shared cache may give it to many for a while.
    Cached,
    /// Every client has a stream of its own.
    Direct,
}

/// Everything that was measured; absent when there was no occasion. `docs/OPERATIONS.md` documents
/// each figure.
#[derive(Debug, Default, Serialize)]
pub(super) struct Figures {
    pub(super) status: Option<u16>,
    pub(super) http_version: Option<&'static str>,
    pub(super) contract: Contract,
    pub(super) cache_control: Option<String>,
    pub(super) shared_ttl_s: Option<f64>,
    pub(super) cache_markers: BTreeMap<&'static str, String>,
    pub(super) via: Option<String>,
    pub(super) head_ms: Option<f64>,
    pub(super) first_byte_ms: Option<f64>,
    pub(super) first_event_ms: Option<f64>,
    pub(super) heartbeat_advertised_s: Option<f64>,
    pub(super) heartbeat_observed_s: Option<f64>,
    pub(super) silence_max_s: f64,
    pub(super) retry_ms: Option<f64>,
    pub(super) revision: Option<u64>,
    pub(super) events: usize,
    pub(super) comments: usize,
    pub(super) live_changes: usize,
    pub(super) latency_p50_ms: Option<f64>,
    pub(super) latency_max_ms: Option<f64>,
    pub(super) latency_uncertainty_ms: Option<f64>,
    pub(super) clock_offset_ms: Option<f64>,
    pub(super) streams: usize,
    pub(super) streams_refused: usize,
    pub(super) streams_ended: usize,
    pub(super) streams_cut: usize,
    pub(super) streams_ended_at_once: usize,
    pub(super) life_max_s: Option<f64>,
    pub(super) late_joiner: Option<LateJoiner>,
}

/// The second subscription.
#[derive(Debug, Serialize)]
pub(super) struct LateJoiner {
    pub(super) asked_after_s: f64,
    pub(super) first_event_ms: Option<f64>,
    pub(super) joined: Option<bool>,
}

impl Figures {
    pub(super) fn of(record: &Record) -> Self {
        let mut figures = Self {
            revision: record.newest(),
            heartbeat_advertised_s: advertised(record),
            heartbeat_observed_s: observed(record),
            late_joiner: record.late().map(|late| late_joiner(record, late)),
            ..Self::default()
        };
        if let Some((stream, _, head)) = record.answer() {
            figures.read_head(head);
            figures.head_ms = stream.head().map(|(at, _)| milliseconds(at - stream.asked));
            figures.first_byte_ms = stream.first_byte.map(|at| milliseconds(at - stream.asked));
            figures.first_event_ms = first_event_ms(stream);
        }
        figures.count(record);
        figures.time(record);
        figures
    }

    fn read_head(&mut self, head: &Head) {
        self.status = Some(head.status);
        self.http_version = Some(version(head.version));
        self.cache_control = head.header("cache-control");
        self.via = head.header("via");
        for name in CACHE_MARKERS {
            if let Some(value) = head.header(name) {
                self.cache_markers.insert(name, value);
            }
        }
        (self.contract, self.shared_ttl_s) = contract(self.cache_control.as_deref());
    }

    fn count(&mut self, record: &Record) {
        for stream in &record.streams {
            self.streams += 1;
            self.streams_refused += usize::from(matches!(stream.answer, Answer::Refused(..)));
            match &stream.end {
                Some((_, End::Clean)) => self.streams_ended += 1,
                Some((_, End::Cut(_))) => self.streams_cut += 1,
                None => {}
            }
            self.streams_ended_at_once += usize::from(ended_at_once(record, stream));
            if stream.end.is_some() {
                let life = rounded(stream.open_for(record));
                self.life_max_s = Some(self.life_max_s.map_or(life, |longest| longest.max(life)));
            }
            if stream.head().is_some() {
                let silence = stream.silence.max(stream.last_silence(record));
                self.silence_max_s = rounded(self.silence_max_s.max(silence));
            }
            for arrival in &stream.arrivals {
                match &arrival.what {
                    Seen::Told(_) => self.events += 1,
                    Seen::Comment => self.comments += 1,
                    Seen::Retry(wait) => self.retry_ms = Some(milliseconds(wait.as_secs_f64())),
                    Seen::TooLong => {}
                }
            }
        }
    }

    fn time(&mut self, record: &Record) {
        let clock = Clock::of(record);
        let mut resolution: f64 = 0.0;
        let mut latencies = Vec::new();
        for stream in record.readable() {
            for (at, updated_at, of) in live_changes(stream) {
                resolution = resolution.max(of);
                latencies.push((record.began + at + clock.offset - updated_at).max(0.0));
            }
        }
        self.live_changes = latencies.len();
        latencies.sort_by(f64::total_cmp);
        if let (Some(middle), Some(last)) = (latencies.get(latencies.len() / 2), latencies.last()) {
            self.latency_p50_ms = Some(milliseconds(*middle));
            self.latency_max_ms = Some(milliseconds(*last));
            self.latency_uncertainty_ms = Some(milliseconds(clock.uncertainty + resolution));
            self.clock_offset_ms = Some(milliseconds(clock.offset));
        }
    }
}

/// How far the gateway's clock is ahead of ours, as far as `Date` can tell.
struct Clock {
    offset: f64,
    uncertainty: f64,
}

impl Clock {
    /// Every head narrows the range: it was written within the second that `Date` names, after the
    /// request was sent (or `Age` seconds before, whole ones again) and before it arrived.
    fn of(record: &Record) -> Self {
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        for (stream, at, head) in record.heads() {
            let Some(date) = date_of(head) else { continue };
            let age = seconds_of(head, "age");
            let written = date + age.unwrap_or(0.0) - record.began;
            let width = if age.is_some() { 2.0 } else { 1.0 };
            low = low.max(written - at);
            high = high.min(written + width - stream.asked);
        }
        // Two clocks in one answer (a hop that writes its own `Date`), or none: ours it is.
        let is_unknown = low > high || low.is_infinite();
        if is_unknown || (low <= 0.0 && high >= 0.0) {
            return Self { offset: 0.0, uncertainty: 0.0 };
        }
        Self { offset: f64::midpoint(low, high), uncertainty: (high - low) / 2.0 }
    }
}

/// The changes that a stream told live: when, of which instant, and how exact that is.
fn live_changes(stream: &Stream) -> Vec<(f64, f64, f64)> {
    let bursts = stream.bursts();
    let Some((past, live)) = bursts.split_first() else { return Vec::new() };
    let mut newest = past.told.iter().filter_map(|told| told.updated_at).reduce(f64::max);
    let mut changes = Vec::new();
    for burst in live {
        for told in burst.told.iter().filter(|told| told.kind == Kind::Ping) {
            if let Some(updated_at) = told.updated_at {
                // The echo repeats what was told, and without a first state nothing is newer.
                if newest.is_some_and(|newest| updated_at > newest) {
                    changes.push((burst.at, updated_at, told.resolution));
                }
                newest = Some(newest.map_or(updated_at, |newest| newest.max(updated_at)));
            }
        }
    }
    changes
}

/// Whether it ended as soon as it began.
pub(super) fn ended_at_once(record: &Record, stream: &Stream) -> bool {
    stream.is_readable() && stream.end.is_some() && stream.open_for(record) < IMMEDIATE
}

/// From the request to the first event.
pub(super) fn first_event_ms(stream: &Stream) -> Option<f64> {
    let (at, _) = stream.told().next()?;
    Some(milliseconds(at - stream.asked))
}

fn late_joiner(record: &Record, late: &Stream) -> LateJoiner {
    LateJoiner {
        asked_after_s: rounded(late.asked),
        first_event_ms: first_event_ms(late),
        joined: joined(record, late),
    }
}

/// Whether the late joiner got the first client's stream: it is as old as that, or has its `Date`.
/// Nothing when the first was over or about to be.
fn joined(record: &Record, late: &Stream) -> Option<bool> {
    let (late_at, late_head) = late.head()?;
    let first = record.streams.iter().rev().find(|stream| {
        let (from, until) = (stream.head().map(|(at, _)| at), stream.watched_until(record));
        stream.role != Role::Late && from.is_some_and(|from| from < late.asked) && until > late_at
    })?;
    let (first_at, first_head) = first.head()?;
    let apart = late.asked - first_at;
    // `Date` and `Age` have whole seconds.
    if apart <= 1.0 || !late.is_readable() {
        return None;
    }
    let is_same_date = date_of(first_head).is_some_and(|date| Some(date) == date_of(late_head));
    let is_as_old = seconds_of(late_head, "age").is_some_and(|age| age >= apart.floor());
    Some(is_same_date || is_as_old)
}

/// The heartbeat that the streams promise.
fn advertised(record: &Record) -> Option<f64> {
    let told = record.readable().flat_map(Stream::told);
    told.filter_map(|(_, told)| told.heartbeat_seconds).last()
}

/// The middle of the silences that a heartbeat ended.
fn observed(record: &Record) -> Option<f64> {
    let mut gaps = Vec::new();
    for stream in record.readable() {
        let bursts = stream.bursts();
        let pairs = bursts.windows(2).filter(|pair| pair[1].heartbeats > 0);
        gaps.extend(pairs.map(|pair| pair[1].at - pair[0].last));
    }
    gaps.sort_by(f64::total_cmp);
    gaps.get(gaps.len() / 2).copied().map(rounded)
}

/// For how many seconds a shared cache may give this stream to others.
pub(super) fn shared_ttl(head: &Head) -> Option<f64> {
    contract(head.header("cache-control").as_deref()).1
}

/// The contract, and for how many seconds a shared cache may give the stream to others.
fn contract(cache_control: Option<&str>) -> (Contract, Option<f64>) {
    let Some(text) = cache_control else { return (Contract::None, None) };
    let text = text.to_ascii_lowercase();
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    let seconds = |name: &str| {
        let of = |directive: &&str| directive.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
        directives.iter().find_map(of)
    };
    let forbids = ["no-store", "no-cache", "private"];
    if directives.iter().any(|directive| forbids.contains(directive)) {
        return (Contract::Direct, None);
    }
    match seconds("s-maxage").or(seconds("max-age")) {
        Some(ttl) if ttl > 0.0 => (Contract::Cached, Some(ttl)),
        Some(_) => (Contract::Direct, None),
        None => (Contract::None, None),
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "other",
    }
}

/// Seconds as milliseconds, to the microsecond.
fn milliseconds(seconds: f64) -> f64 {
    rounded(seconds * 1000.0)
}

pub(super) fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
