//! Records by hand, and what is made of them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::*;
use crate::probe::events::{Event, Item};
use crate::probe::record::{Answer, Role};
use crate::probe::subscribe::{End, Head, Refused, RefusedKind};

const URL: &str = "https://flags.example.com/sse/environments/abc/stream";

/// When every story begins, in seconds since 1970.
const BEGAN: f64 = 1_800_000_000.0;

const CACHED: [(&str, &str); 2] = [
    ("cache-control", "public, max-age=0, s-maxage=57, stale-while-revalidate=0"),
    ("x-cache", "HIT"),
];

/// A record to which a test writes. The heartbeat is 5 s.
struct Story {
    record: Record,
    clock: f64,
}

impl Story {
    fn begin() -> Self {
        Self { record: Record::begin(URL.to_owned(), BEGAN), clock: 0.0 }
    }

    /// A stream whose head comes at once; an empty value takes a header away.
    fn opens(&mut self, role: Role, at: f64, headers: &[(&str, &str)]) -> usize {
        self.answers(role, at, 200, headers)
    }

    fn answers(&mut self, role: Role, at: f64, status: u16, headers: &[(&str, &str)]) -> usize {
        let number = self.record.asked(role, at);
        let mut map = HeaderMap::new();
        let date = httpdate::fmt_http_date(time(BEGAN + at + self.clock));
        let usual = [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store, no-transform"),
            ("access-control-allow-origin", "*"),
            ("date", date.as_str()),
        ];
        for (name, value) in usual.iter().chain(headers) {
            let name: HeaderName = name.parse().unwrap();
            map.remove(&name);
            if !value.is_empty() {
                map.insert(name, HeaderValue::from_str(value).unwrap());
            }
        }
        let head = Head {
            asked_at: Instant::now(),
            arrived_at: (Instant::now(), time(BEGAN + at)),
            status,
            version: Version::HTTP_11,
            headers: map,
            url: URL.parse().unwrap(),
        };
        self.record.answered(number, Answer::Head(at + 0.01, Box::new(head)));
        number
    }

    fn item(&mut self, stream: usize, at: f64, item: &Item) {
        self.record.read(stream, at);
        self.record.arrived(stream, at, item);
    }

    fn event(&mut self, stream: usize, at: f64, name: &str, data: String) {
        let event = Event { name: name.to_owned(), data, id: String::new() };
        self.item(stream, at, &Item::Event(event));
    }

    /// A ping that arrives at `at`; its change was committed at `of`.
    fn ping(&mut self, stream: usize, at: f64, revision: u64, of: f64) {
        let updated_at = BEGAN + self.clock + of;
        let url = "https://flags.example.com/f";
        let data = format!(
            r#"{{"updated_at": {updated_at}, "revision": {revision}, "flags_url": "{url}",
                "heartbeat_s": 5}}"#
        );
        self.event(stream, at, "environment_updated", data);
    }

    fn heartbeats(&mut self, stream: usize, instants: &[f64]) {
        for at in instants {
            self.item(stream, *at, &Item::Comment(String::new()));
        }
    }

    fn judged(mut self, until: f64) -> Judged {
        self.record.lasted = until;
        let figures = Figures::of(&self.record);
        Judged { findings: Findings::of(&self.record, &figures), figures }
    }
}

struct Judged {
    figures: Figures,
    findings: Findings,
}

impl Judged {
    #[track_caller]
    fn says(&self, code: &str, verdict: Verdict, text: &str) {
        let found = self.findings.found.iter().filter(|finding| finding.code == code);
        let found: Vec<_> = found.collect();
        let [finding] = found.as_slice() else {
            panic!("{code} {} times in {:#?}", found.len(), self.findings)
        };
        assert!(finding.verdict == verdict && finding.seen.contains(text), "{finding:?}");
        assert_eq!(finding.remedy.is_none(), verdict == Verdict::Ok, "{finding:?}");
    }

    #[track_caller]
    fn leaves_open(&self, code: &str) {
        assert!(self.findings.found.iter().all(|finding| finding.code != code), "{self:#?}");
        assert!(self.findings.not_judged.iter().any(|left| left.code == code), "{self:#?}");
    }
}

impl std::fmt::Debug for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#?} {:#?}", self.findings, self.figures)
    }
}

fn time(seconds: f64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

/// Two clients, 20 s, one change: all is well.
fn calm(headers: &[(&str, &str)]) -> Story {
    let mut story = Story::begin();
    let first = story.opens(Role::First, 0.0, headers);
    story.ping(first, 0.02, 7, -100.0);
    story.heartbeats(first, &[5.0]);
    story
}

#[test]
fn a_calm_stream_is_fine() {
    let mut story = calm(&[]);
    let late = story.opens(Role::Late, 6.0, &[]);
    story.ping(late, 6.02, 7, -100.0);
    for stream in [0, late] {
        story.ping(stream, 8.0, 8, 7.9);
        story.heartbeats(stream, &[13.0, 18.0]);
    }
    let judged = story.judged(20.0);
    assert_eq!(judged.findings.verdict(), Verdict::Ok, "{judged:?}");
    judged.says("latency", Verdict::Ok, "100 ms");
    judged.says("late_joiner", Verdict::Ok, "20 ms");
    judged.leaves_open("ends");
    let figures = &judged.figures;
    assert_eq!(figures.heartbeat_observed_s, Some(5.0));
    assert_eq!((figures.revision, figures.live_changes, figures.streams), (Some(8), 2, 2));
}

#[test]
fn headers_are_judged() {
    for (headers, code, verdict, text) in [
        (&[("content-type", "text/html")][..], "content_type", Verdict::Bad, "text/html"),
        (&[("content-encoding", "gzip")], "compression", Verdict::Bad, "gzip"),
        (&[("access-control-allow-origin", "")], "cors", Verdict::Bad, "missing"),
        (
            &[("access-control-allow-origin", "https://x.example")],
            "cors",
            Verdict::Warn,
            "https://x",
        ),
        (&[("cache-control", "")], "contract", Verdict::Bad, "missing"),
        (&[("cache-control", "public")], "contract", Verdict::Bad, "no lifetime"),
        (&[("age", "0")], "contract", Verdict::Warn, "age: 0"),
        (&[("x-varnish", "3")], "contract", Verdict::Bad, "x-varnish: 3"),
        (&[CACHED[0]], "contract", Verdict::Warn, "none shows itself"),
        (&[CACHED[0], ("via", "1.1 x")], "contract", Verdict::Ok, "via: 1.1 x"),
        (&CACHED, "contract", Verdict::Ok, "HIT"),
        (&[("etag", "\"1\"")], "sharing", Verdict::Bad, "etag"),
        (&[("set-cookie", "a=b")], "sharing", Verdict::Ok, "no header"),
        (&[("set-cookie", "a=b"), CACHED[0]], "sharing", Verdict::Bad, "set-cookie"),
        (&[("vary", "Accept-Encoding"), CACHED[0]], "sharing", Verdict::Warn, "accept-encoding"),
        (&[("vary", "Origin"), CACHED[0]], "sharing", Verdict::Bad, "origin"),
        (&[CACHED[0], ("age", "60")], "stale", Verdict::Bad, "60 s old"),
        (&[("content-length", "80")], "replay", Verdict::Bad, "Content-Length"),
    ] {
        calm(headers).judged(6.0).says(code, verdict, text);
    }
}

#[test]
fn an_origin_that_is_echoed_to_another_client_is_bad() {
    let echo = [("access-control-allow-origin", "https://app.example.com")];
    let mut story = calm(&echo);
    story.opens(Role::Late, 6.0, &echo);
    story.judged(7.0).says("cors", Verdict::Bad, "other origins");
}

#[test]
fn what_is_no_answer_is_bad_and_has_its_remedy() {
    for (kind, code, remedy) in [
        (RefusedKind::Connect, "answer", "port"),
        (RefusedKind::Tls, "answer", "--ca"),
        (RefusedKind::Broken, "answer", "log"),
        (RefusedKind::NoHead, "buffering", "proxy_buffering off"),
    ] {
        let mut story = Story::begin();
        let stream = story.record.asked(Role::First, 0.0);
        let refused = Refused { kind, cause: "it did not".to_owned() };
        story.record.answered(stream, Answer::Refused(30.0, refused));
        let judged = story.judged(31.0);
        judged.says(code, Verdict::Bad, "no");
        let remedy_of = judged.findings.found[0].remedy.as_deref().unwrap();
        assert!(remedy_of.contains(remedy), "{remedy_of}");
    }
    // The first answer speaks for all only while there is no better one.
    let mut story = Story::begin();
    story.answers(Role::First, 0.0, 503, &[("content-type", "text/html")]);
    let again = story.opens(Role::Again, 1.0, &[]);
    story.ping(again, 1.02, 7, -100.0);
    let judged = story.judged(3.0);
    judged.says("status", Verdict::Bad, "1 of 2");
    judged.says("content_type", Verdict::Ok, "");
    for (status, remedy) in [(304, "ETag"), (404, "path"), (503, "backend"), (500, "200 only")] {
        let mut story = Story::begin();
        story.answers(Role::First, 0.0, status, &[("content-type", "text/html")]);
        let judged = story.judged(3.0);
        judged.says("status", Verdict::Bad, &status.to_string());
        assert_eq!(judged.findings.verdict(), Verdict::Bad);
        let of = judged.findings.found.iter().find(|finding| finding.code == "status");
        assert!(of.unwrap().remedy.as_deref().unwrap().contains(remedy), "{status}");
    }
}

#[test]
fn a_hop_that_holds_bytes_is_found() {
    let mut story = Story::begin();
    story.record.asked(Role::First, 0.0);
    story.judged(3.0).says("buffering", Verdict::Bad, "no head came within 3.0 s");

    let mut story = Story::begin();
    story.opens(Role::First, 0.0, &[]);
    story.judged(3.0).says("buffering", Verdict::Bad, "first byte came 3.0 s");

    let mut story = Story::begin();
    let stream = story.opens(Role::First, 0.0, &[]);
    story.ping(stream, 2.0, 7, 0.0);
    story.judged(3.0).says("buffering", Verdict::Bad, "first byte came 2.0 s");

    let mut story = calm(&[]);
    story.heartbeats(0, &[20.0, 20.01, 20.02]);
    let judged = story.judged(21.0);
    judged.says("buffering", Verdict::Bad, "3 heartbeats came together after 15 s");
    judged.says("heartbeat", Verdict::Bad, "15 s of silence");
}

/// What was joined begins with everything that was told before: that is no batch.
#[test]
fn the_past_of_a_joined_stream_is_neither_a_batch_nor_late() {
    let mut story = Story::begin();
    let stream = story.opens(Role::First, 0.0, &[CACHED[0], ("age", "30")]);
    story.ping(stream, 0.02, 7, -100.0);
    story.heartbeats(stream, &[0.02, 0.02, 0.02, 0.02]);
    story.ping(stream, 0.02, 8, -10.0);
    story.heartbeats(stream, &[5.0]);
    let judged = story.judged(7.0);
    judged.says("buffering", Verdict::Ok, "20 ms");
    judged.leaves_open("latency");
}

#[test]
fn missing_heartbeats_are_found_once_there_was_time_for_them() {
    calm(&[]).judged(13.0).says("heartbeat", Verdict::Ok, "8.0 s of silence");
    calm(&[]).judged(14.0).says("heartbeat", Verdict::Bad, "9.0 s of silence");
    let mut story = Story::begin();
    let stream = story.opens(Role::First, 0.0, &[]);
    story.ping(stream, 0.02, 7, 0.0);
    story.judged(4.0).leaves_open("heartbeat");
}

#[test]
fn latency_is_of_live_changes_and_by_the_gateways_clock() {
    for (clock, took, verdict) in [
        (0.0, 0.2, Verdict::Ok),
        (0.0, 3.0, Verdict::Warn),
        (0.0, 7.0, Verdict::Bad),
        // Clocks that are apart are no latency, in either direction.
        (60.0, 0.2, Verdict::Ok),
        (-60.0, 0.2, Verdict::Ok),
        (-60.0, 9.0, Verdict::Bad),
    ] {
        let mut story = Story { clock, ..Story::begin() };
        let stream = story.opens(Role::First, 0.0, &[]);
        story.ping(stream, 0.02, 7, -1000.0);
        story.ping(stream, 10.0, 8, 10.0 - took);
        // The echo.
        story.ping(stream, 12.0, 8, 10.0 - took);
        let judged = story.judged(13.0);
        judged.says("latency", verdict, "1 live");
        let figures = &judged.figures;
        let off = figures.latency_p50_ms.unwrap() - took * 1000.0;
        assert!(
            off.abs() <= figures.latency_uncertainty_ms.unwrap() + 0.01,
            "{clock} \
            {figures:?}"
        );
    }
}

#[test]
fn a_late_joiner_that_is_held_is_found() {
    let mut story = calm(&[]);
    story.record.asked(Role::Late, 6.0);
    let judged = story.judged(9.0);
    judged.says("late_joiner", Verdict::Bad, "did not come within 3.0 s");
    judged.says("buffering", Verdict::Ok, "");

    let mut story = calm(&[]);
    let late = story.opens(Role::Late, 6.0, &[]);
    story.ping(late, 8.0, 7, 0.0);
    story.judged(9.0).says("late_joiner", Verdict::Bad, "came after 2.0 s");
    calm(&[]).judged(2.0).leaves_open("late_joiner");
}

#[test]
fn a_cache_that_does_not_share_is_found() {
    let date = httpdate::fmt_http_date(time(BEGAN));
    for (age, date, verdict) in [
        ("6", "", Verdict::Ok),
        ("", date.as_str(), Verdict::Ok),
        ("0", "Sun, 06 Nov 1994 08:49:37 GMT", Verdict::Bad),
    ] {
        let mut story = calm(&CACHED);
        story.opens(Role::Late, 6.0, &[CACHED[0], ("age", age), ("date", date)]);
        story.judged(7.0).says("collapse", verdict, "a second client");
    }
    // A cache may hide: it is only known by what it does.
    for (date, verdict) in [(date.as_str(), Verdict::Ok), ("", Verdict::Warn)] {
        let mut story = calm(&CACHED[..1]);
        story.opens(Role::Late, 6.0, &[CACHED[0], ("date", date)]);
        story.judged(7.0).says("contract", verdict, "");
    }
    let mut story = calm(&CACHED[..1]);
    story.opens(Role::Late, 6.0, &CACHED[..1]);
    story.judged(7.0).leaves_open("collapse");
    // Beyond its lifetime a stream is not shared, and in the first second nobody can tell.
    let mut story = calm(&CACHED);
    story.opens(Role::Late, 58.0, &[CACHED[0], ("age", "0")]);
    story.judged(60.0).leaves_open("collapse");
    let mut story = calm(&CACHED);
    story.opens(Role::Late, 0.5, &[CACHED[0], ("age", "0")]);
    story.judged(6.0).leaves_open("collapse");
}

#[test]
fn a_stream_must_be_forgotten_when_it_ends() {
    for (end, verdict) in [(30.0, Verdict::Bad), (57.2, Verdict::Warn), (61.0, Verdict::Ok)] {
        let mut story = calm(&CACHED);
        story.record.ended(0, end, End::Clean);
        story.judged(62.0).says("freshness", verdict, "57 s");
    }
    let mut story = calm(&CACHED);
    story.record.ended(0, 30.0, End::Cut("broken".to_owned()));
    story.judged(62.0).leaves_open("freshness");
}

#[test]
fn a_replay_is_found() {
    let mut story = calm(&CACHED);
    story.ping(0, 6.0, 8, 5.9);
    story.record.ended(0, 7.0, End::Clean);
    for at in [8.0, 9.0, 11.0] {
        let again = story.opens(Role::Again, at, &[CACHED[0], ("age", "12")]);
        story.ping(again, at + 0.02, 7, -100.0);
        story.record.ended(again, at + 0.02, End::Clean);
    }
    let judged = story.judged(12.0);
    judged.says("replay", Verdict::Bad, "3 streams over as soon as begun, up to 12 s old");
    judged.says("revision", Verdict::Bad, "revision 7 after 8");

    let mut story = calm(&[]);
    let again = story.opens(Role::Again, 8.0, &[]);
    story.record.ended(again, 8.5, End::Clean);
    story.judged(12.0).says("replay", Verdict::Warn, "one stream");
}

/// A joined stream tells its past first; it must only have caught up at the end of it.
#[test]
fn a_joined_stream_may_begin_before_what_is_known() {
    let mut story = calm(&CACHED);
    story.ping(0, 6.0, 8, 5.9);
    let late = story.opens(Role::Late, 7.0, &CACHED);
    story.ping(late, 7.02, 7, -100.0);
    story.ping(late, 7.02, 8, 5.9);
    story.judged(8.0).says("revision", Verdict::Ok, "");
}

#[test]
fn cuts_are_told_apart() {
    let cut = || End::Cut("connection reset".to_owned());
    // After silence, twice.
    let mut story = calm(&[]);
    story.heartbeats(0, &[10.0]);
    story.record.ended(0, 17.0, cut());
    let again = story.opens(Role::Again, 18.0, &[]);
    story.ping(again, 18.02, 7, 0.0);
    story.record.ended(again, 25.0, cut());
    story.judged(26.0).says("ends", Verdict::Bad, "2 streams cut after 7.0 s of silence");
    // In the middle of heartbeats, after the same time.
    let mut story = Story::begin();
    for (role, at) in [(Role::First, 0.0), (Role::Again, 20.0)] {
        let stream = story.opens(role, at, &[]);
        story.ping(stream, at + 0.02, 7, 0.0);
        story.heartbeats(stream, &[at + 5.0, at + 10.0]);
        story.record.ended(stream, at + 12.0, cut());
    }
    story.judged(35.0).says("ends", Verdict::Bad, "again and again after 12 s");
    // Once.
    let mut story = calm(&[]);
    story.record.ended(0, 6.0, cut());
    story.judged(6.0).says("ends", Verdict::Warn, "connection reset");
    // As if complete, but after silence.
    let mut story = calm(&[]);
    story.record.ended(0, 15.0, End::Clean);
    story.judged(16.0).says("ends", Verdict::Bad, "as if complete after 10 s of silence");
    // As planned.
    let mut story = calm(&[]);
    story.record.ended(0, 7.0, End::Clean);
    story.judged(8.0).says("ends", Verdict::Ok, "1 stream");
}

#[test]
fn a_stream_without_an_environment_is_found() {
    let mut story = Story::begin();
    let stream = story.opens(Role::First, 0.0, &[]);
    story.heartbeats(stream, &[0.02]);
    story.judged(3.0).says("key", Verdict::Bad, "only comments");

    let mut story = Story::begin();
    let stream = story.opens(Role::First, 0.0, &[]);
    story.event(stream, 0.02, "message", "hello".to_owned());
    story.judged(3.0).says("key", Verdict::Bad, "no pings");

    let mut story = Story::begin();
    let stream = story.opens(Role::First, 0.0, &[]);
    let data = r#"{"type":"state","revision":3,"heartbeat_s":5}"#;
    story.event(stream, 0.02, "message", data.to_owned());
    story.judged(3.0).says("key", Verdict::Ok, "revision 3");

    let mut story = Story::begin();
    let stream = story.opens(Role::First, 0.0, &[]);
    story.item(stream, 5.0, &Item::Retry(Duration::from_secs(20)));
    story.record.ended(stream, 5.0, End::Clean);
    let judged = story.judged(6.0);
    judged.says("limits", Verdict::Bad, "turned 1 stream away after 5.0 s");
    assert!(judged.findings.found.iter().all(|finding| finding.code != "buffering"), "{judged:?}");
}

#[test]
fn pings_must_send_clients_where_the_stream_comes_from() {
    for (url, verdict) in [
        ("https://flags.example.com/f?rev=1", Verdict::Ok),
        ("https://origin.example.com/f?rev=1", Verdict::Warn),
        ("http://flags.example.com/f?rev=1", Verdict::Bad),
        ("https://127.0.0.1:8080/f?rev=1", Verdict::Bad),
        ("/f?rev=1", Verdict::Bad),
    ] {
        let mut story = Story::begin();
        let stream = story.opens(Role::First, 0.0, &[]);
        let data = format!(r#"{{"updated_at": 1.5, "revision": 1, "flags_url": "{url}"}}"#);
        story.event(stream, 0.02, "environment_updated", data);
        story.judged(1.0).says("flags_url", verdict, "pings send clients to");
    }
}

#[test]
fn a_record_that_is_full_says_so() {
    let mut story = calm(&[]);
    for count in 0..200_000 {
        if story.record.is_full {
            return;
        }
        story.heartbeats(0, &[f64::from(count)]);
    }
    panic!("it grows without bound");
}
