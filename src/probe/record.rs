//! What was seen, in order and with its instant: the input of every figure and every finding.
//!
//! All instants are seconds since the listening began, so that a record can be written by hand in a
//! test. It is bounded: when it is full it is closed, and what came until then is judged.

use std::time::{Duration, UNIX_EPOCH};

use super::events::Item;
use super::subscribe::{End, Head, Refused};
use super::told::{Kind, Told};

/// Things that are kept; three days of heartbeats on two streams.
const KEPT_MAX: usize = 100_000;

/// What arrives within this many seconds has arrived together. The fastest heartbeat is 1 s.
const TOGETHER: f64 = 0.25;

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Where clients subscribe.
    pub(super) url: String,
    /// When the listening began, in seconds since 1970.
    pub(super) began: f64,
    /// How long it went on.
    pub(super) lasted: f64,
    pub(super) streams: Vec<Stream>,
    /// The newest revision that any stream has told.
    newest: Option<u64>,
    kept: usize,
    /// Nothing more is kept.
    pub(super) is_full: bool,
}

/// Why a stream was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// The first.
    #[default]
    First,
    /// After the one before had ended.
    Again,
    /// While the first was open: the late joiner.
    Late,
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) role: Role,
    pub(super) asked: f64,
    /// The newest revision known when it was asked for.
    pub(super) known: Option<u64>,
    pub(super) answer: Answer,
    pub(super) first_byte: Option<f64>,
    pub(super) last_byte: Option<f64>,
    /// The longest silence between two reads.
    pub(super) silence: f64,
    pub(super) arrivals: Vec<Arrival>,
    /// The last place that pings named for the flags.
    pub(super) flags_url: Option<String>,
    pub(super) end: Option<(f64, End)>,
}

/// What came back.
#[derive(Debug, Default)]
pub(super) enum Answer {
    /// Nothing yet.
    #[default]
    Pending,
    /// Nothing, and nothing will.
    Refused(f64, Refused),
    Head(f64, Box<Head>),
}

/// Something that a stream brought.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) at: f64,
    pub(super) what: Seen,
}

#[derive(Clone, Debug)]
pub(super) enum Seen {
    Told(Told),
    Comment,
    Retry(Duration),
    TooLong,
}

/// Things that have arrived together.
#[derive(Clone, Debug, Default)]
pub(super) struct Burst<'a> {
    pub(super) at: f64,
    pub(super) last: f64,
    pub(super) heartbeats: usize,
    pub(super) told: Vec<&'a Told>,
}

impl Record {
    pub(super) fn begin(url: String, began: f64) -> Self {
        Self { url, began, ..Self::default() }
    }

    /// Notes a request; the answer is its number.
    pub(super) fn asked(&mut self, role: Role, at: f64) -> usize {
        self.lasted = at;
        self.keep();
        let known = self.newest;
        self.streams.push(Stream { role, asked: at, known, ..Stream::default() });
        self.streams.len() - 1
    }

    pub(super) fn answered(&mut self, number: usize, answer: Answer) {
        self.streams[number].answer = answer;
    }

    /// Notes that a read has brought something.
    pub(super) fn read(&mut self, number: usize, at: f64) {
        let stream = &mut self.streams[number];
        if let Some(last) = stream.last_byte {
            stream.silence = stream.silence.max(at - last);
        }
        stream.first_byte.get_or_insert(at);
        stream.last_byte = Some(at);
    }

    /// Notes what a read has completed.
    pub(super) fn arrived(&mut self, number: usize, at: f64, item: &Item) {
        self.keep();
        let stream = &mut self.streams[number];
        let what = match item {
            Item::Event(event) => {
                let mut told = Told::read(event);
                self.newest = self.newest.max(told.revision);
                if let Some(url) = told.flags_url.take() {
                    stream.flags_url = Some(url);
                }
                Seen::Told(told)
            }
            Item::Comment(_) => Seen::Comment,
            Item::Retry(wait) => Seen::Retry(*wait),
            Item::TooLong => Seen::TooLong,
        };
        stream.arrivals.push(Arrival { at, what });
    }

    pub(super) fn ended(&mut self, number: usize, at: f64, end: End) {
        self.streams[number].end = Some((at, end));
    }

    fn keep(&mut self) {
        self.kept += 1;
        self.is_full = self.kept >= KEPT_MAX;
    }

    /// The newest revision that any stream has told.
    pub(super) fn newest(&self) -> Option<u64> {
        self.newest
    }

    /// The streams that have a head, with it.
    pub(super) fn heads(&self) -> impl Iterator<Item = (&Stream, f64, &Head)> {
        self.streams.iter().filter_map(|stream| {
            let (at, head) = stream.head()?;
            Some((stream, at, head))
        })
    }

    /// The answer that speaks for all: the first that is a 200, or else the first.
    pub(super) fn answer(&self) -> Option<(&Stream, f64, &Head)> {
        self.heads().find(|(_, _, head)| head.status == 200).or_else(|| self.heads().next())
    }

    /// The streams that could be read as event streams.
    pub(super) fn readable(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().filter(|stream| stream.is_readable())
    }

    /// The late joiner, if there was time for one.
    pub(super) fn late(&self) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.role == Role::Late)
    }
}

impl Stream {
    pub(super) fn head(&self) -> Option<(f64, &Head)> {
        match &self.answer {
            Answer::Head(at, head) => Some((*at, head)),
            Answer::Pending | Answer::Refused(..) => None,
        }
    }

    /// Whether it is an event stream that nobody has compressed.
    pub(super) fn is_readable(&self) -> bool {
        self.head().is_some_and(|(_, head)| {
            let is_events =
                head.header("content-type").is_some_and(|t| t.starts_with("text/event-stream"));
            head.status == 200 && is_events && head.compression().is_none()
        })
    }

    /// Whether the gateway turned it away: silence, word when to come back, and an end.
    pub(super) fn is_turned_away(&self) -> bool {
        let only_waits = self.arrivals.iter().all(|a| matches!(a.what, Seen::Retry(_)));
        let is_over = matches!(self.end, Some((_, End::Clean)));
        is_over && only_waits && !self.arrivals.is_empty() && self.is_readable()
    }

    /// Until when it was watched.
    pub(super) fn watched_until(&self, record: &Record) -> f64 {
        self.end.as_ref().map_or(record.lasted, |(at, _)| *at)
    }

    /// How long it was open.
    pub(super) fn open_for(&self, record: &Record) -> f64 {
        self.head().map_or(0.0, |(at, _)| self.watched_until(record) - at)
    }

    /// How old it was, in all, when `at` came: a cache tells how old it was at its head.
    pub(super) fn age(&self, at: f64) -> f64 {
        self.head()
            .map_or(0.0, |(head_at, head)| seconds_of(head, "age").unwrap_or(0.0) + at - head_at)
    }

    /// The silence from the last byte (or the head) to the end, or to the end of the record.
    pub(super) fn last_silence(&self, record: &Record) -> f64 {
        let since = self.last_byte.or(self.head().map(|(at, _)| at));
        since.map_or(0.0, |since| self.watched_until(record) - since)
    }

    /// What it told, with the instants.
    pub(super) fn told(&self) -> impl Iterator<Item = (f64, &Told)> {
        self.arrivals.iter().filter_map(|arrival| match &arrival.what {
            Seen::Told(told) if told.kind != Kind::Other => Some((arrival.at, told)),
            _ => None,
        })
    }

    /// What arrived together. The first burst of a stream that was joined is its past.
    pub(super) fn bursts(&self) -> Vec<Burst<'_>> {
        let mut bursts: Vec<Burst<'_>> = Vec::new();
        for Arrival { at, what } in &self.arrivals {
            if bursts.last().is_none_or(|burst| at - burst.last > TOGETHER) {
                bursts.push(Burst { at: *at, ..Burst::default() });
            }
            let Some(burst) = bursts.last_mut() else { continue };
            burst.last = *at;
            match what {
                Seen::Comment => burst.heartbeats += 1,
                Seen::Told(told) => {
                    burst.heartbeats += usize::from(told.kind == Kind::State);
                    burst.told.push(told);
                }
                Seen::Retry(_) | Seen::TooLong => {}
            }
        }
        bursts
    }
}

/// A header that is a number of seconds.
pub(super) fn seconds_of(head: &Head, name: &str) -> Option<f64> {
    head.header(name)?.trim().parse().ok().filter(|seconds: &f64| seconds.is_finite())
}

/// The `Date` of a head, in seconds since 1970.
pub(super) fn date_of(head: &Head) -> Option<f64> {
    let date = httpdate::parse_http_date(&head.header("date")?).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}
