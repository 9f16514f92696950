//! The flow: do bytes come when they are written, or does a hop hold them?

use super::{Findings, Record, Verdict, seconds};
use crate::probe::figures::{Figures, IMMEDIATE};
use crate::probe::record::{Answer, Role, Stream};
use crate::probe::subscribe::RefusedKind;

/// A gateway writes head and first event together; more than this between them is a hop's doing.
const HELD: f64 = 1.0;

/// A request without an answer for this long is being held: a gateway needs milliseconds.
const UNANSWERED: f64 = 2.0;

/// From the commit to the client, beyond what clocks cannot tell.
const LATE: f64 = 1.0;
const MUCH_TOO_LATE: f64 = 5.0;

const STOP_BUFFERING: &str = "turn response buffering off for the stream's path: nginx \
    proxy_buffering off (or obey X-Accel-Buffering) and proxy_http_version 1.1; Varnish \
    beresp.do_stream = true; Fastly beresp.do_stream = true; Apache flushpackets=on; a CDN that \
    buffers needs its streaming option";

pub(super) fn judge(record: &Record, figures: &Figures, findings: &mut Findings) {
    buffering(record, findings);
    late_joiner(record, findings);
    if record.readable().next().is_some() {
        heartbeat(record, figures, findings);
        latency(figures, findings);
    }
}

/// How a stream is held, if it is.
fn held(record: &Record, stream: &Stream) -> Option<String> {
    let (head_at, _) = match &stream.answer {
        Answer::Head(..) => stream.head()?,
        Answer::Refused(at, refused) if refused.kind == RefusedKind::NoHead => {
            return Some(format!("no head came within {}", seconds(at - stream.asked)));
        }
        Answer::Pending if record.lasted - stream.asked >= UNANSWERED => {
            return Some(format!("no head came within {}", seconds(record.lasted - stream.asked)));
        }
        Answer::Pending | Answer::Refused(..) => return None,
    };
    if !stream.is_readable() || stream.is_turned_away() {
        return None;
    }
    let first = stream.first_byte.unwrap_or_else(|| stream.watched_until(record));
    if first - head_at > HELD {
        return Some(format!("the first byte came {} after the head", seconds(first - head_at)));
    }
    let bursts = stream.bursts();
    let past = bursts.first()?;
    if head_at - stream.asked > UNANSWERED && past.heartbeats > 1 {
        let count = past.heartbeats;
        return Some(format!(
            "the head came after {}, with {count} heartbeats at once",
            seconds(head_at - stream.asked)
        ));
    }
    // The first burst of a stream that was joined is its past.
    bursts.windows(2).find(|pair| pair[1].heartbeats > 1).map(|pair| {
        let silence = seconds(pair[1].at - pair[0].last);
        format!("{} heartbeats came together after {silence} of silence", pair[1].heartbeats)
    })
}

fn buffering(record: &Record, findings: &mut Findings) {
    // A late joiner that alone is held is judged apart.
    let mut own = record.streams.iter().filter(|stream| stream.role != Role::Late);
    if let Some(how) = own.find_map(|stream| held(record, stream)) {
        return findings.bad(
            "buffering",
            format!("a hop holds the stream back: {how}"),
            STOP_BUFFERING,
        );
    }
    let mut told = record.readable().filter(|stream| !stream.is_turned_away());
    let Some(first) = told.find(|stream| stream.first_byte.is_some()) else { return };
    let (Some((head_at, _)), Some(first_byte)) = (first.head(), first.first_byte) else { return };
    if head_at - first.asked > HELD {
        findings.warn(
            "buffering",
            format!("the head took {}", seconds(head_at - first.asked)),
            "look at the way to the gateway: name resolution, TLS, a hop that waits for a free \
             connection",
        );
    } else {
        let took = (first_byte - first.asked) * 1000.0;
        findings.ok("buffering", format!("the first byte came after {took:.0} ms"));
    }
}

fn late_joiner(record: &Record, findings: &mut Findings) {
    let Some(late) = record.late() else {
        return findings.not_judged("late_joiner", "listen for at least 3 s");
    };
    let first = record.readable().find(|s| s.role != Role::Late && s.told().next().is_some());
    let Some(first) = first else { return };
    let first_took = first.told().next().map_or(0.0, |(at, _)| at - first.asked);
    let waited = late.told().next().map_or(late.watched_until(record), |(at, _)| at) - late.asked;
    let is_told = late.told().next().is_some();
    if is_told && waited <= first_took + HELD {
        findings.ok(
            "late_joiner",
            format!("a second client had its state after {:.0} ms", waited * 1000.0),
        );
    } else if waited > first_took + HELD {
        let until = if is_told { "came after" } else { "did not come within" };
        findings.bad(
            "late_joiner",
            format!("the state of a second client {until} {}", seconds(waited)),
            "the cache in between holds later clients back until the first one's stream ends: it \
             cannot share live streams (Apache Traffic Server, nginx proxy_cache_lock); do not \
             cache this path there, or put Varnish in front",
        );
    } else {
        findings.not_judged("late_joiner", "the second client was not watched for long enough");
    }
}

fn heartbeat(record: &Record, figures: &Figures, findings: &mut Findings) {
    let Some(promised) = figures.heartbeat_advertised_s else { return };
    // Room for a busy gateway; half a heartbeat more is nothing to a timeout that fits.
    let limit = promised * 1.5 + 1.0;
    let mut longest: f64 = 0.0;
    let mut is_seen = false;
    for stream in record.readable() {
        let silence = stream.silence.max(stream.last_silence(record));
        longest = longest.max(silence);
        is_seen |= stream.open_for(record) >= promised + IMMEDIATE;
    }
    let promised = seconds(promised);
    if longest > limit {
        findings.bad(
            "heartbeat",
            format!(
                "{} of silence on a stream that promises a heartbeat every {promised}",
                seconds(longest)
            ),
            "a hop swallows or collects comment lines: turn its buffering off; if streams are \
                cut \
             as well, raise its read timeout above the heartbeat",
        );
    } else if is_seen {
        findings.ok(
            "heartbeat",
            format!("never more than {} of silence, {promised} promised", seconds(longest)),
        );
    } else {
        findings.not_judged(
            "heartbeat",
            format!(
                "listen for longer than the heartbeat of \
                {promised}"
            ),
        );
    }
}

fn latency(figures: &Figures, findings: &mut Findings) {
    let (Some(middle), Some(most)) = (figures.latency_p50_ms, figures.latency_max_ms) else {
        return findings.not_judged("latency", "flip a flag while it listens");
    };
    let tolerance = figures.latency_uncertainty_ms.unwrap_or(0.0);
    let surely = (most - tolerance) / 1000.0;
    let verdict = match surely {
        _ if surely > MUCH_TOO_LATE => Verdict::Bad,
        _ if surely > LATE => Verdict::Warn,
        _ => Verdict::Ok,
    };
    let unsure = if tolerance > 0.0 { format!(" ± {tolerance:.0}") } else { String::new() };
    let count = figures.live_changes;
    let seen = format!(
        "from commit to arrival {middle:.0}{unsure} ms, at most {most:.0} ms ({count} live \
            changes)"
    );
    if verdict == Verdict::Ok {
        return findings.ok("latency", seen);
    }
    let remedy = "a hop collects what it should pass on (turn buffering off), the gateway's \
        pace is \
        set low (stream.pings_per_second_max), or the clocks of both machines disagree";
    findings.add("latency", verdict, seen, remedy);
}
