//! The ends: are streams ended as planned, or cut, or over before they began, and does what comes
//! next go on where they stopped?

use super::{Findings, Record, seconds, streams};
use crate::probe::figures::{Figures, ended_at_once};
use crate::probe::record::{Stream, seconds_of};
use crate::probe::subscribe::End;

/// Two cuts are alike when they differ by less than this, in seconds, and a twentieth.
const ALIKE: f64 = 0.5;

const RAISE_TIMEOUT: &str = "raise the hop's read timeout above twice the heartbeat: nginx \
    proxy_read_timeout, HAProxy timeout server and timeout tunnel, Varnish between_bytes_timeout, \
    Fastly between_bytes_timeout, a load balancer's idle timeout; or lower the heartbeat";

pub(super) fn judge(record: &Record, figures: &Figures, findings: &mut Findings) {
    if record.readable().next().is_none() {
        return;
    }
    replay(record, figures, findings);
    revision(record, findings);
    ends(record, figures, findings);
}

fn replay(record: &Record, figures: &Figures, findings: &mut Findings) {
    let count = figures.streams_ended_at_once;
    let old = record.readable().filter(|stream| ended_at_once(record, stream));
    let age = old.filter_map(|stream| seconds_of(stream.head()?.1, "age")).fold(0.0, f64::max);
    let has_length = record.readable().any(|stream| {
        stream.head().is_some_and(|(_, head)| head.headers.contains_key("content-length"))
    });
    let remedy = "a cache keeps a stream beyond its end and replays it: let the gateway's \
        s-maxage \
        through, no stale answers (Varnish beresp.grace = 0s; Fastly stale_while_revalidate = 0s), \
        let aborted streams be aborted; purge the surrogate key `sse` once (Varnish: ban) to be \
        rid of the recording";
    if count > 1 || (count == 1 && age >= 1.0) {
        let of_age = if age >= 1.0 { format!(", up to {age:.0} s old") } else { String::new() };
        findings.bad("replay", format!("{} over as soon as begun{of_age}", streams(count)), remedy);
    } else if has_length {
        findings.bad("replay", "the stream has a Content-Length: it is a recording", remedy);
    } else if count == 1 {
        findings.warn("replay", "one stream was over as soon as it began", remedy);
    } else {
        findings.ok("replay", "no stream was over as soon as it began");
    }
}

/// Does a stream begin before what was known, or go back?
fn revision(record: &Record, findings: &mut Findings) {
    let mut is_seen = false;
    for stream in record.readable() {
        let bursts = stream.bursts();
        // What was joined begins with its past; it must have caught up when that is told.
        let newest = |burst: &crate::probe::record::Burst<'_>| {
            burst.told.iter().filter_map(|told| told.revision).max()
        };
        let mut known = stream.known;
        for revision in bursts.iter().filter_map(newest) {
            is_seen = true;
            if let Some(known) = known.filter(|known| *known > revision) {
                return findings.bad(
                    "revision",
                    format!("a stream told revision {revision} after {known} was known"),
                    "a cache replays an old stream (see `replay` and `stale`), or requests reach \
                     gateways of different stores",
                );
            }
            known = Some(revision);
        }
    }
    if is_seen {
        findings.ok("revision", "never went back");
    }
}

/// One end that was not planned.
struct Cut<'a> {
    life: f64,
    silence: f64,
    /// The longest silence that the stream had survived before.
    survived: f64,
    cause: &'a str,
}

impl Cut<'_> {
    /// Whether silence may have been the reason: none as long was survived.
    fn is_idle(&self) -> bool {
        self.silence >= 1.0 && self.silence > self.survived * 1.05
    }
}

fn ends(record: &Record, figures: &Figures, findings: &mut Findings) {
    let cuts: Vec<Cut<'_>> = record.readable().filter_map(|stream| cut(record, stream)).collect();
    let idle: Vec<&Cut<'_>> = cuts.iter().filter(|cut| cut.is_idle()).collect();
    if clean_after_silence(record, figures, findings) {
        return;
    }
    let pair = |of: fn(&Cut<'_>) -> f64, among: &[&Cut<'_>]| {
        let mut values: Vec<f64> = among.iter().map(|cut| of(cut)).collect();
        values.sort_by(f64::total_cmp);
        values.windows(2).find(|two| two[1] - two[0] <= ALIKE + two[1] * 0.05).map(|two| two[1])
    };
    let all: Vec<&Cut<'_>> = cuts.iter().collect();
    if let Some(after) = pair(|cut| cut.silence, &idle) {
        let count = streams(idle.len());
        let seen = format!("{count} cut after {} of silence", seconds(after));
        findings.bad("ends", seen, RAISE_TIMEOUT);
    } else if let Some(after) = pair(|cut| cut.life, &all) {
        let seen = format!("{} cut, again and again after {}", streams(cuts.len()), seconds(after));
        let remedy = "a hop limits how long an answer may take: raise its limit for the \
            stream's path \
            above the life of a stream (stream.life_seconds and a fifth), or lower that";
        findings.bad("ends", seen, remedy);
    } else if let Some(cut) = idle.first() {
        let seen =
            format!("a stream was cut after {} of silence: {}", seconds(cut.silence), cut.cause);
        findings.warn("ends", seen, RAISE_TIMEOUT);
    } else if let Some(cut) = cuts.first() {
        let seen = format!(
            "{} cut, the first after {}: {}",
            streams(cuts.len()),
            seconds(cut.life),
            cut.cause
        );
        let remedy = "a restart of the gateway or of a hop looks like this; if nothing was \
            restarted, \
            look at the logs of the hops";
        findings.warn("ends", seen, remedy);
    } else if figures.streams_ended > 0 {
        findings.ok("ends", format!("{} ended, none cut", streams(figures.streams_ended)));
    } else {
        findings.not_judged("ends", "listen to the end of a stream");
    }
}

fn cut<'a>(record: &Record, stream: &'a Stream) -> Option<Cut<'a>> {
    match &stream.end {
        Some((_, End::Cut(cause))) => Some(Cut {
            life: stream.open_for(record),
            silence: stream.last_silence(record),
            survived: stream.silence,
            cause,
        }),
        _ => None,
    }
}

/// Some hops call a stream complete when it is silent for too long (Fastly does).
fn clean_after_silence(record: &Record, figures: &Figures, findings: &mut Findings) -> bool {
    let Some(promised) = figures.heartbeat_advertised_s else { return false };
    let silent = record.readable().filter(|stream| matches!(stream.end, Some((_, End::Clean))));
    let silences = silent.map(|stream| stream.last_silence(record));
    let longest = silences.fold(0.0, f64::max);
    let is_idle = longest > promised * 1.5 + 1.0;
    if is_idle {
        let seen =
            format!("a stream was ended as if complete after {} of silence", seconds(longest));
        findings.bad("ends", seen, RAISE_TIMEOUT);
    }
    is_idle
}
