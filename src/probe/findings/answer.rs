//! The answer itself: does it come, is it an event stream, may a page read it, does it speak of an
//! environment, and where does it send clients for the flags?

use reqwest::Url;

use super::{Findings, Record, seconds, streams};
use crate::probe::figures::Figures;
use crate::probe::record::{Answer, Role, Stream};
use crate::probe::subscribe::{Head, Refused, RefusedKind};

/// What the remedies for statuses say.
const STATUSES: [(&[u16], &str); 5] = [
    (
        &[304],
        "a hop revalidates the stream: remove ETag and Last-Modified from it, and the client's \
            If-None-Match on the way in",
    ),
    (
        &[401, 403],
        "a hop asks for credentials: let /sse/ and /ofrep/v1/streams/ through, or give them \
            with --header",
    ),
    (
        &[404, 405],
        "a hop does not know the path: send /sse/, /ofrep/, /sdk/ and /api/ to the gateway, \
            with GET allowed",
    ),
    (&[429], "a hop limits the rate: streams are long and few, take them out of the limit"),
    (
        &[502, 503, 504],
        "a hop cannot reach the gateway or gave up on it: look at its backend address, health \
            check, connection limit (streams occupy one each) and first-byte timeout",
    ),
];

pub(super) fn judge(record: &Record, figures: &Figures, findings: &mut Findings) {
    refusals(record, findings);
    let Some((first, _, head)) = record.answer() else { return };
    status(record, findings);
    if head.status != 200 {
        return;
    }
    content_type(head, findings);
    compression(head, findings);
    cors(record, head, findings);
    if first.is_readable() {
        key(record, figures, findings);
        flags_url(record, head, findings);
        limits(record, findings);
    }
}

fn refusals(record: &Record, findings: &mut Findings) {
    let refused: Vec<&Refused> = record.streams.iter().filter_map(refusal).collect();
    let Some(last) = refused.last() else {
        if record.heads().next().is_some() {
            findings.ok("answer", "every request was answered");
        }
        return;
    };
    let remedy = match last.kind {
        RefusedKind::Connect => {
            "look at the name, the address and the port, and whether a firewall or a proxy of \
                this machine is in between (--no-proxy goes without)"
        }
        RefusedKind::Tls => {
            "the certificate must be valid for the name in the URL and come with its chain; \
                --ca FILE trusts an authority of your own"
        }
        // The flow judges it: a hop may be waiting for the end of the body.
        RefusedKind::NoHead => return,
        RefusedKind::Broken => "a hop closes the connection without an answer: look at its log",
    };
    let (count, all, cause) = (refused.len(), record.streams.len(), &last.cause);
    findings.bad("answer", format!("{count} of {all} requests got no answer: {cause}"), remedy);
}

fn refusal(stream: &Stream) -> Option<&Refused> {
    match &stream.answer {
        Answer::Refused(_, refused) => Some(refused),
        Answer::Pending | Answer::Head(..) => None,
    }
}

fn status(record: &Record, findings: &mut Findings) {
    let wrong = record.heads().map(|(_, _, head)| head.status).filter(|status| *status != 200);
    let wrong: Vec<u16> = wrong.collect();
    let Some(last) = wrong.last() else {
        return findings.ok("status", "200");
    };
    let remedy = STATUSES.iter().find(|(of, _)| of.contains(last)).map_or(
        "the gateway answers this route with 200 only: a hop answers in its place, look at its \
            log",
        |(_, remedy)| remedy,
    );
    let (count, all) = (wrong.len(), record.streams.len());
    findings.bad(
        "status",
        format!("{count} of {all} answers were no 200, the last {last}"),
        remedy,
    );
}

fn content_type(head: &Head, findings: &mut Findings) {
    let found = head.header("content-type");
    match found {
        Some(found) if found.starts_with("text/event-stream") => {
            findings.ok("content_type", found);
        }
        found => findings.bad(
            "content_type",
            format!("Content-Type is {}", found.as_deref().unwrap_or("missing")),
            "EventSource gives up for ever on anything but text/event-stream: the URL reaches \
             something else (a page, a login, an error), or a hop rewrites the header",
        ),
    }
}

fn compression(head: &Head, findings: &mut Findings) {
    match head.compression() {
        None => findings.ok("compression", "none"),
        Some(encoding) => findings.bad(
            "compression",
            format!(
                "Content-Encoding is {encoding}: a compressor keeps events until its buffer is \
                    full"
            ),
            "take text/event-stream out of compression (nginx: gzip_types; Varnish: set \
             beresp.do_gzip = false and unset bereq.http.Accept-Encoding; Fastly: beresp.gzip = \
             false, beresp.brotli = false; Apache: SetEnv no-gzip)",
        ),
    }
}

/// The late joiner names another origin: what was echoed to the first must not be kept for it.
fn cors(record: &Record, head: &Head, findings: &mut Findings) {
    let allowed = |head: &Head| head.header("access-control-allow-origin");
    let late = record.late().and_then(Stream::head).map(|(_, head)| allowed(head));
    match allowed(head).as_deref() {
        Some("*") => findings.ok("cors", "pages of every origin may read"),
        None => findings.bad(
            "cors",
            "Access-Control-Allow-Origin is missing: no page of another origin can read the \
                stream",
            "the gateway sends Access-Control-Allow-Origin: * on every stream; do not remove \
                it, and \
             do not answer in its place",
        ),
        Some(origin) if late.is_some_and(|late| late.as_deref() == Some(origin)) => findings.bad(
            "cors",
            format!("Access-Control-Allow-Origin is {origin} for clients of other origins, too"),
            "let the gateway's * through, instead of a list or the echo of one client's origin \
                that \
             a cache gives to all",
        ),
        Some(origin) => findings.warn(
            "cors",
            format!("Access-Control-Allow-Origin is {origin}"),
            "let the gateway's * through: an echoed origin needs Vary, which splits a cache",
        ),
    }
}

fn key(record: &Record, figures: &Figures, findings: &mut Findings) {
    if let Some(revision) = figures.revision {
        return findings.ok("key", format!("the environment is at revision {revision}"));
    }
    let told = record.readable().any(|stream| stream.told().next().is_some());
    if told {
        return findings
            .ok("key", "pings without revisions, as Flagsmith's own service sends them");
    }
    if figures.events > 0 {
        findings.bad(
            "key",
            "there are events, but no pings: this is not a stream of Flagcast",
            "look at where the hop in front sends this path",
        );
    } else if figures.comments > 0 {
        findings.bad(
            "key",
            "only comments: no environment has this key, or it has no state yet",
            "compare the key with `client_key` in GET /admin/v1/projects/…/environments/…; a \
             push-only environment has a state after its first queue-change",
        );
    }
}

fn flags_url(record: &Record, head: &Head, findings: &mut Findings) {
    let last = record.readable().filter_map(|stream| stream.flags_url.as_deref()).last();
    let Some(text) = last else { return };
    let remedy = "set server.public_url to the URL under which clients reach the gateway";
    let Ok(url) = text.parse::<Url>() else {
        return findings.bad(
            "flags_url",
            format!("pings send clients to `{text}`: no URL"),
            remedy,
        );
    };
    let place = format!("pings send clients to {}", url.origin().ascii_serialization());
    let stream = &head.url;
    if url.origin() == stream.origin() {
        findings.ok("flags_url", place);
    } else if stream.scheme() == "https" && url.scheme() == "http" {
        findings.bad(
            "flags_url",
            format!("{place}: browsers refuse http from a page by https"),
            remedy,
        );
    } else if is_loopback(&url) && !is_loopback(stream) {
        findings.bad("flags_url", format!("{place}: nobody but this machine reaches that"), remedy);
    } else {
        let seen = format!("{place}, past what the stream comes through");
        findings.warn("flags_url", seen, remedy);
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

/// The gateway turns a client away by a stream that only says when to come back.
fn limits(record: &Record, findings: &mut Findings) {
    let away = record.streams.iter().filter(|stream| stream.is_turned_away());
    let away: Vec<&Stream> = away.collect();
    if let Some(last) = away.last() {
        let late =
            if last.role == Role::Late { ", the second subscription among them" } else { "" };
        let (count, life) = (streams(away.len()), seconds(last.open_for(record)));
        findings.bad(
            "limits",
            format!("the gateway turned {count} away after {life}{late}"),
            "look at flagcast_limit_hits_total: limits.streams, limits.streams_per_environment, \
                or \
             limits.streams_per_address, which counts all clients of a proxy as one",
        );
    }
}
