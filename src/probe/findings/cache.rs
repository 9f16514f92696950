//! The cache: does one stand in between, does the gateway know, does it share one stream among all,
//! and does it forget the stream in time?

use super::{Findings, Record, seconds};
use crate::probe::figures::{Contract, Figures, shared_ttl};
use crate::probe::record::seconds_of;
use crate::probe::subscribe::{End, Head};

/// A finished stream must be older than its lifetime in caches by this much: one second for each
/// cache's rounding.
const MARGIN: f64 = 1.0;

pub(super) fn judge(record: &Record, figures: &Figures, findings: &mut Findings) {
    let Some((_, _, head)) = record.answer().filter(|(_, _, head)| head.status == 200) else {
        return;
    };
    contract(figures, findings);
    sharing(head, figures, findings);
    if figures.contract == Contract::Cached {
        collapse(figures, findings);
        freshness(record, figures, findings);
    }
    stale(record, findings);
}

fn contract(figures: &Figures, findings: &mut Findings) {
    let markers: Vec<String> =
        figures.cache_markers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let markers = markers.join(", ");
    match (figures.contract, shows_itself(figures)) {
        (Contract::None, _) => no_contract(figures, findings),
        (Contract::Cached, true) if markers.is_empty() => {
            let via = figures.via.as_deref().unwrap_or_default();
            findings.ok("contract", format!("cached; via: {via}"));
        }
        (Contract::Cached, true) => findings.ok("contract", format!("cached; {markers}")),
        (Contract::Cached, false) if joined(figures) == Some(true) => {
            findings.ok("contract", "cached; the cache does not show itself, but shares");
        }
        (Contract::Cached, false) => findings.warn(
            "contract",
            "the gateway believes that a cache shares its streams, but none shows itself (Age, \
             X-Cache, Via): short streams for nothing, if there is none",
            "if there is no cache, set stream.contract = \"direct\"; if there is one, let it \
                send \
             Age",
        ),
        (Contract::Direct, _) if markers.is_empty() => {
            findings.ok("contract", "direct: a stream for each client, no cache");
        }
        (Contract::Direct, _) => {
            let seen = format!(
                "a cache is in between ({markers}), but every client is a stream at the gateway"
            );
            let remedy = "let the cache send Via or CDN-Loop to the gateway, or set \
                stream.contract = \"cached\"; a cache that cannot share live streams (anything \
                but \
                Varnish, Fastly, Squid) should not show itself on this path";
            if shares_streams(figures) {
                findings.bad("contract", seen, remedy);
            } else {
                findings.warn("contract", seen, remedy);
            }
        }
    }
}

fn no_contract(figures: &Figures, findings: &mut Findings) {
    let seen = match figures.cache_control.as_deref() {
        None => "Cache-Control is missing: every cache keeps the stream for its own default \
            (Varnish two minutes, Fastly an hour) and replays it when it has ended"
            .to_owned(),
        Some(control) => {
            format!(
                "Cache-Control is `{control}`: it sets no lifetime, every cache takes its \
                own"
            )
        }
    };
    let remedy = "a hop removes or rewrites Cache-Control: let the gateway's through";
    findings.bad("contract", seen, remedy);
}

/// Whether anything says that a cache, or a hop that may be one, is in between.
fn shows_itself(figures: &Figures) -> bool {
    !figures.cache_markers.is_empty() || figures.via.is_some()
}

/// Whether the second client joined the first one's stream, if that could be seen.
fn joined(figures: &Figures) -> Option<bool> {
    figures.late_joiner.as_ref()?.joined
}

/// Whether the cache is one of those that share live streams: Varnish, Fastly, Squid.
fn shares_streams(figures: &Figures) -> bool {
    let via = figures.via.as_deref().unwrap_or_default().to_ascii_lowercase();
    let served = ["x-varnish", "x-served-by"];
    served.iter().any(|name| figures.cache_markers.contains_key(name))
        || via.contains("varnish")
        || via.contains("squid")
}

/// Headers that split a shared stream or turn it into something else.
fn sharing(head: &Head, figures: &Figures, findings: &mut Findings) {
    let is_shared = figures.contract == Contract::Cached || !figures.cache_markers.is_empty();
    let vary = head.header("vary").map(|vary| vary.to_ascii_lowercase());
    let mut harm = Vec::new();
    for name in ["etag", "last-modified"] {
        if head.headers.contains_key(name) {
            harm.push(format!("{name} (clients that come back get 304 and no stream)"));
        }
    }
    if is_shared && head.headers.contains_key("set-cookie") {
        harm.push("set-cookie (caches open a stream for each client)".to_owned());
    }
    if let Some(vary) = vary.as_deref().filter(|vary| is_shared && *vary != "accept-encoding") {
        harm.push(format!("vary: {vary} (caches open a stream for each variant)"));
    }
    let remedy = "no hop should add these to the stream; Varnish, Fastly: unset \
        beresp.http.ETag, \
        Last-Modified, Set-Cookie, Vary on its path";
    if !harm.is_empty() {
        findings.bad("sharing", format!("the stream carries {}", harm.join(", ")), remedy);
    } else if is_shared && vary.is_some() {
        let seen = "the stream carries vary: accept-encoding: a stream for each variant, where \
            the \
            cache does not unify them";
        findings.warn("sharing", seen, remedy);
    } else {
        findings.ok("sharing", "no header splits the stream");
    }
}

fn collapse(figures: &Figures, findings: &mut Findings) {
    match joined(figures) {
        Some(true) => findings.ok("collapse", "a second client joined the first one's stream"),
        Some(false) if !shows_itself(figures) => {
            findings.not_judged("collapse", "no cache shows itself");
        }
        // Past its lifetime a stream is not shared any more, and rightly so.
        Some(false)
            if figures.late_joiner.as_ref().map(|late| late.asked_after_s)
                < figures.shared_ttl_s =>
        {
            findings.bad(
                "collapse",
                "a second client got a stream of its own: every client costs the gateway one",
                "the cache must find the stream under one key and keep it: hash the path only \
                    (no \
                 query, no headers), drop Cookie and Authorization on the way in, no hit-for-pass; \
                 Fastly: shielding on, no hash_ignore_busy",
            );
        }
        Some(false) => findings.not_judged(
            "collapse",
            "the first stream was too old to be \
            shared",
        ),
        None => findings.not_judged(
            "collapse",
            "no second client while the first stream was \
            open",
        ),
    }
}

/// Is a stream that has ended forgotten by caches when it ends?
fn freshness(record: &Record, figures: &Figures, findings: &mut Findings) {
    let ended = record.readable().filter(|stream| matches!(stream.end, Some((_, End::Clean))));
    // Each stream has a lifetime of its own.
    let lives = ended.filter_map(|stream| {
        let (_, head) = stream.head()?;
        Some((shared_ttl(head)?, stream.age(stream.watched_until(record))))
    });
    let tightest = lives.min_by(|(ttl, life), (other_ttl, other_life)| {
        (life - ttl).total_cmp(&(other_life - other_ttl))
    });
    let Some((ttl, life)) = tightest else {
        let ttl = figures.shared_ttl_s.unwrap_or_default();
        return findings.not_judged(
            "freshness",
            format!("listen to the end of a stream, some {:.0} s", ttl + 5.0),
        );
    };
    // `Age` has whole seconds: the stream may be a second older than it says.
    if life + 1.0 < ttl {
        findings.bad(
            "freshness",
            format!(
                "a stream ended cleanly at {}, but caches keep it until {ttl:.0} s: they \
                replay it meanwhile",
                seconds(life)
            ),
            "a hop ends streams early as if they were complete (Fastly: between_bytes_timeout \
                above \
             the heartbeat), or writes its own lifetime (let the gateway's s-maxage through)",
        );
    } else if life - ttl < MARGIN {
        findings.warn(
            "freshness",
            format!(
                "a stream ended at {}, and caches keep it until {ttl:.0} s: no margin for \
                their rounding",
                seconds(life)
            ),
            "let the gateway's s-maxage through, which is 3 s below the life of the stream, and \
             subtract Age where a hop sets a lifetime",
        );
    } else {
        findings.ok("freshness", format!("a stream of {} is kept until {ttl:.0} s", seconds(life)));
    }
}

fn stale(record: &Record, findings: &mut Findings) {
    let worst = record.heads().filter_map(|(_, _, head)| {
        let (ttl, age) = (shared_ttl(head)?, seconds_of(head, "age")?);
        (age >= ttl).then_some((age, ttl))
    });
    if let Some((age, ttl)) = worst.max_by(|(age, _), (other, _)| age.total_cmp(other)) {
        findings.bad(
            "stale",
            format!("a stream was given out {age:.0} s old, beyond its lifetime of {ttl:.0} s"),
            "no stale answers on this path: Varnish beresp.grace = 0s and beresp.keep = 0s; \
                Fastly \
             stale_while_revalidate = 0s and stale_if_error = 0s; nginx proxy_cache_use_stale off",
        );
    }
}
