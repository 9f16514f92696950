//! The report in its two forms: lines for a person, one JSON object for a script.
//!
//! What comes from the network is escaped: it must not speak to the terminal.

use std::io::{self, Write};

use serde::Serialize;

use super::events::Item;
use super::figures::{Contract, Figures, rounded};
use super::findings::{Finding, Findings, NotJudged, Verdict};
use super::record::Record;
use super::subscribe::{End, Head};
use super::told::{Kind, Told};

/// Characters of a foreign text that are shown.
const SHOWN_MAX: usize = 160;

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines as things arrive, then the report.
    Text,
    /// One JSON object at the end and nothing else.
    Json,
}

/// Why the listening ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EndedBy {
    Time,
    Signal,
    /// More was seen than is kept.
    Full,
}

/// What is reported.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    url: String,
    verdict: Verdict,
    seconds: f64,
    ended_by: EndedBy,
    figures: Figures,
    findings: Vec<Finding>,
    not_judged: Vec<NotJudged>,
}

impl Report {
    pub(super) fn of(record: &Record, ended_by: EndedBy) -> Self {
        let figures = Figures::of(record);
        let findings = Findings::of(record, &figures);
        Self {
            url: record.url.clone(),
            verdict: findings.verdict(),
            seconds: rounded(record.lasted),
            ended_by,
            figures,
            findings: findings.found,
            not_judged: findings.not_judged,
        }
    }

    /// Whether nothing bad was found.
    pub(super) fn is_good(&self) -> bool {
        self.verdict != Verdict::Bad
    }

    pub(super) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    pub(super) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\nAfter {:.1} s of {}\n", self.seconds, self.url)?;
        for (name, value) in self.figures.lines() {
            writeln!(out, "  {name:<14}{value}")?;
        }
        writeln!(out)?;
        for finding in &self.findings {
            let verdict = match finding.verdict {
                Verdict::Ok => "ok",
                Verdict::Warn => "WARN",
                Verdict::Bad => "BAD",
            };
            writeln!(
                out,
                "  {verdict:<6}{:<14}{}",
                finding.code,
                shown(&finding.seen, usize::MAX)
            )?;
            if let Some(remedy) = &finding.remedy {
                writeln!(out, "  {:<20}-> {remedy}", "")?;
            }
        }
        for NotJudged { code, why } in &self.not_judged {
            writeln!(out, "  {:<6}{code:<14}not judged: {why}", "-")?;
        }
        let count = |verdict| self.findings.iter().filter(|f| f.verdict == verdict).count();
        let (bad, warn) = (count(Verdict::Bad), count(Verdict::Warn));
        writeln!(out, "\n{bad} bad, {warn} to look at, {} ok", count(Verdict::Ok))
    }
}

impl Figures {
    /// The figures that say most, with their names.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let ms = |figure: Option<f64>| {
            figure.map_or("none".to_owned(), |ms| {
                format!(
                    "{ms:.0} \
            ms"
                )
            })
        };
        let s = |figure: Option<f64>| figure.map_or("none".to_owned(), |s| format!("{s:.1} s"));
        let mut lines = Vec::new();
        if let (Some(status), Some(version)) = (self.status, self.http_version) {
            let contract = match self.contract {
                Contract::None => "no contract",
                Contract::Cached => "cached contract",
                Contract::Direct => "direct contract",
            };
            let control = self.cache_control.as_deref().unwrap_or("no Cache-Control");
            let control = shown(control, SHOWN_MAX);
            lines.push(("answer", format!("{status} by {version}, {contract} ({control})")));
        }
        let markers = self.cache_markers.iter().map(|(name, value)| format!("{name}: {value}"));
        let via = self.via.iter().map(|via| format!("via: {via}"));
        let hops: Vec<String> = markers.chain(via).collect();
        if !hops.is_empty() {
            lines.push(("hops", shown(&hops.join(", "), SHOWN_MAX)));
        }
        let (head, byte) = (ms(self.head_ms), ms(self.first_byte_ms));
        let event = ms(self.first_event_ms);
        lines.push(("first", format!("head {head}, byte {byte}, event {event}")));
        let (promised, seen) = (s(self.heartbeat_advertised_s), s(self.heartbeat_observed_s));
        let silence = self.silence_max_s;
        lines.push((
            "heartbeat",
            format!("{promised} promised, {seen} seen, longest silence {silence:.1} s"),
        ));
        let revision = self.revision.map_or("none".to_owned(), |revision| revision.to_string());
        let (live, events, comments) = (self.live_changes, self.events, self.comments);
        lines.push((
            "told",
            format!(
                "revision {revision}; {events} events, {comments} comments, {live} live changes"
            ),
        ));
        let (streams, ended, cut) = (self.streams, self.streams_ended, self.streams_cut);
        let (refused, at_once) = (self.streams_refused, self.streams_ended_at_once);
        lines.push((
            "streams",
            format!(
                "{streams} asked for, {refused} refused, {ended} ended, {cut} cut, \
                {at_once} at once"
            ),
        ));
        lines
    }
}

/// What a head shows in one line.
pub(super) fn head_line(head: &Head) -> String {
    let mut line = format!("{} {:?}", head.status, head.version);
    for name in ["content-type", "cache-control", "age", "x-cache", "via"] {
        if let Some(value) = head.header(name) {
            line.push_str(", ");
            line.push_str(&shown(&value, SHOWN_MAX));
        }
    }
    line
}

/// What an item shows in one line: its kind, and what it says.
pub(super) fn item_line(item: &Item) -> (&'static str, String) {
    match item {
        Item::Comment(text) => ("comment", shown(text, SHOWN_MAX)),
        Item::Retry(wait) => ("retry", format!("come back after {wait:?}")),
        Item::TooLong => ("too long", "skipped".to_owned()),
        Item::Event(event) => {
            let told = Told::read(event);
            let kind = match told.kind {
                Kind::Ping => "ping",
                Kind::State => "state",
                Kind::Other => "event",
            };
            let detail = match told.revision {
                Some(revision) => format!("revision {revision}"),
                None => shown(&format!("{}: {}", event.name, event.data), SHOWN_MAX),
            };
            (kind, detail)
        }
    }
}

/// How a stream has ended, in one line.
pub(super) fn end_line(end: &End) -> String {
    match end {
        End::Clean => "clean".to_owned(),
        End::Cut(cause) => format!("cut: {}", shown(cause, SHOWN_MAX)),
    }
}

/// A foreign text for a terminal.
fn shown(text: &str, length: usize) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(length).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_cannot_speak_to_the_terminal() {
        let (_, detail) = item_line(&Item::Comment(format!("\u{1b}[2J{}", "x".repeat(1000))));
        assert!(!detail.contains('\u{1b}') && detail.chars().count() == SHOWN_MAX, "{detail}");
    }
}
