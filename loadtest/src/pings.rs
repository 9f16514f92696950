//! `pings`: how long after a change the last of many clients knows, and what a stream costs.
//!
//! Every round starts each server afresh, one after the other, so that each is measured in the
//! same minutes and none carries the memory of the round before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value as Json, json};

use crate::nginx::nchan_module;
use crate::process::{ATTEMPTS, Watch, cpu_time, descriptor_limit, memory, wait_until_quiet};
use crate::report;
use crate::stats::{Spread, median, milliseconds, quantile, ratios, real};
use crate::streams::{Arrivals, Stamping, Streams};
use crate::subjects::{Change, Kind, Subject};
use crate::table::{Table, cell};

/// Descriptors that a server or this program needs for other things than streams.
const DESCRIPTORS_BESIDE: usize = 200;

/// Changes before the measurement, so that code and caches are warm.
const WARM_UP: usize = 3;

/// How long a ping may take before it counts as missed.
const PING_MAX: Duration = Duration::from_secs(10);

/// Rest after the streams are open, and before memory is read.
const SETTLE: Duration = Duration::from_millis(500);

/// What is reported: key, words, decimals.
const METRICS: [(&str, &str, usize); 13] = [
    ("answer_ms", "change: request to last byte of answer, ms", 2),
    ("first_ms", "request to first client, ms", 2),
    ("p50_ms", "request to client, p50, ms", 2),
    ("p99_ms", "request to client, p99, ms", 2),
    ("last_ms", "request to last client, ms", 2),
    ("commit_p50_ms", "commit to client, p50, ms *", 2),
    ("commit_p99_ms", "commit to client, p99, ms *", 2),
    ("commit_last_ms", "commit to last client, ms *", 2),
    ("told_ms", "commit to ping by the server's own clock, ms", 2),
    ("cpu_us", "CPU of the server per delivery, µs", 2),
    ("bytes", "memory of the server per stream, bytes", 0),
    ("open_rate", "streams opened per second", 0),
    ("missed", "pings missed", 0),
];

/// Figures of one server in one round, by the keys of `METRICS`.
type Round = BTreeMap<&'static str, f64>;

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) streams: usize,
    pub(crate) changes: usize,
    pub(crate) rounds: usize,
    pub(crate) pause: Duration,
    pub(crate) quiet: Duration,
    pub(crate) gateway: PathBuf,
    pub(crate) nginx: PathBuf,
}

/// Runs the plan, prints the table and returns the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Json> {
    let limit = descriptor_limit()?;
    ensure!(
        plan.streams.saturating_add(DESCRIPTORS_BESIDE) <= limit,
        "--streams {}: a process here may open {limit} descriptors, {DESCRIPTORS_BESIDE} of them are \
         needed for other things; ask for fewer streams or raise `ulimit -n`",
        plan.streams
    );
    let mut kinds = vec![Kind::BareLoop, Kind::Gateway(plan.gateway.clone())];
    let has_nchan = nchan_module().is_some();
    if has_nchan {
        kinds.push(Kind::Nchan(plan.nginx.clone()));
    } else {
        eprintln!(
            "Nchan is not installed (Debian: apt install libnginx-mod-nchan); measuring without it"
        );
    }
    let _stamping = Stamping::keep_on()?;
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); kinds.len()];
    let mut noisy = 0_usize;
    for round in 0..plan.rounds {
        // Another one begins each time, so that none is always the first.
        for turn in 0..kinds.len() {
            let index = (round + turn) % kinds.len();
            let kind = &kinds[index];
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, kind.name());
            let (figures, quiet) =
                quietly(kind, plan).with_context(|| format!("{} failed", kind.name()))?;
            noisy += usize::from(!quiet);
            rounds[index].push(figures);
        }
    }
    let names: Vec<&str> = kinds.iter().map(Kind::name).collect();
    print(&names, &rounds, has_nchan, noisy);
    Ok(json!({
        "measurement": "pings",
        "machine": report::machine(&plan.nginx),
        "streams": plan.streams, "changes": plan.changes, "rounds": plan.rounds,
        "pause_ms": plan.pause.as_millis(), "noisy": noisy,
        "servers": servers(&names, &rounds),
    }))
}

/// One server, one round; again if others used the machine meanwhile.
fn quietly(kind: &Kind, plan: &Plan) -> anyhow::Result<(Round, bool)> {
    for _ in 1..ATTEMPTS {
        let measured = measure(kind, plan)?;
        if measured.1 {
            return Ok(measured);
        }
    }
    measure(kind, plan)
}

/// One server, one round. Also tells whether the machine was quiet.
fn measure(kind: &Kind, plan: &Plan) -> anyhow::Result<(Round, bool)> {
    let mut subject = kind.start()?;
    for _ in 0..WARM_UP {
        subject.change()?;
    }
    sleep(SETTLE);
    let before = memory(&subject.pids())?;
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n",
        subject.path(),
        subject.address()
    );
    let mut streams = Streams::open(subject.address(), &request, plan.streams)?;
    sleep(SETTLE);
    for _ in 0..WARM_UP {
        let change = subject.change()?;
        streams.wait(change.revision, PING_MAX)?;
    }
    let quiet_before = wait_until_quiet(plan.quiet)?;
    let watch = Watch::start(&subject.pids())?;
    let mut samples: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut missed = 0;
    for _ in 0..plan.changes {
        sleep(plan.pause);
        missed += one(subject.as_mut(), &mut streams, &mut samples)?;
    }
    let quiet = watch.was_quiet()? && quiet_before;
    let after = memory(&subject.pids())?;
    let lost = streams.lost();
    ensure!(lost == 0, "the server ended {lost} of {} streams", plan.streams);
    let mut round: Round = samples.iter().map(|(key, values)| (*key, median(values))).collect();
    let count = real(u64::try_from(plan.streams)?);
    round.insert("bytes", real(after.saturating_sub(before)) / count);
    round.insert("open_rate", streams.open_rate);
    round.insert("missed", real(missed));
    Ok((round, quiet))
}

/// One change. Returns how many clients missed it.
fn one(
    subject: &mut dyn Subject,
    streams: &mut Streams,
    samples: &mut BTreeMap<&'static str, Vec<f64>>,
) -> anyhow::Result<u64> {
    let pids = subject.pids();
    let used = cpu_time(&pids)?;
    let change = subject.change()?;
    let arrivals = streams.wait(change.revision, PING_MAX)?;
    let used = cpu_time(&pids)?.saturating_sub(used);
    let told = subject.told(change)?;
    let mut add = |key, value| samples.entry(key).or_default().push(value);
    let deliveries = real(u64::try_from(arrivals.times.len())?);
    if deliveries > 0.0 {
        add("cpu_us", real(used) / 1000.0 / deliveries);
    }
    if let Some(told) = told {
        add("told_ms", told.change_to_ping);
    }
    let committed = told.map_or(change.sent, |told| told.committed);
    for (key, value) in times(change, committed, &arrivals) {
        add(key, value);
    }
    Ok(u64::try_from(arrivals.missed)?)
}

/// The times of one change, in milliseconds.
fn times(change: Change, committed: i64, arrivals: &Arrivals) -> Vec<(&'static str, f64)> {
    let mut times = vec![("answer_ms", milliseconds(change.answered - change.sent))];
    if arrivals.times.is_empty() {
        return times;
    }
    let since = |start: i64| -> Vec<f64> {
        let spans = arrivals.times.iter().map(|at| milliseconds(at - start));
        spans.collect()
    };
    let (sent, committed) = (since(change.sent), since(committed));
    times.extend([
        ("first_ms", quantile(&sent, 0)),
        ("p50_ms", quantile(&sent, 50)),
        ("p99_ms", quantile(&sent, 99)),
        ("last_ms", quantile(&sent, 100)),
        ("commit_p50_ms", quantile(&committed, 50)),
        ("commit_p99_ms", quantile(&committed, 99)),
        ("commit_last_ms", quantile(&committed, 100)),
    ]);
    times
}

/// The values of a metric in all rounds of a server.
fn values(rounds: &[Round], key: &str) -> Vec<f64> {
    rounds.iter().filter_map(|round| round.get(key).copied()).collect()
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
fn print(names: &[&str], rounds: &[Vec<Round>], has_nchan: bool, noisy: usize) {
    let mut head = vec!["median (min–max) over rounds".to_owned(), names[0].to_owned()];
    for name in &names[1..] {
        head.extend([(*name).to_owned(), format!("{name} ÷ {}", names[0])]);
    }
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = Table::new(&head);
    for (key, words, decimals) in METRICS {
        let bare = values(&rounds[0], key);
        let mut row = vec![words.to_owned(), cell(&bare, decimals)];
        for rounds in &rounds[1..] {
            let values = values(rounds, key);
            // The bare loop keeps nothing: what is divided by it says nothing.
            let ratio = if key == "bytes" { Vec::new() } else { ratios(&values, &bare) };
            row.extend([cell(&values, decimals), cell(&ratio, 2)]);
        }
        table.row(row);
    }
    print!("{table}");
    println!("* The bare loop and Nchan store nothing: from the request.");
    if !has_nchan {
        println!("Nchan: not installed.");
    }
    report::print_noise(noisy);
}

fn servers(names: &[&str], rounds: &[Vec<Round>]) -> Json {
    let mut servers = Map::new();
    for (name, figures) in names.iter().zip(rounds) {
        let mut shown = Map::new();
        for (key, _, _) in METRICS {
            let values = values(figures, key);
            let ratio = Spread::of(&ratios(&values, &self::values(&rounds[0], key)));
            let Some(spread) = Spread::of(&values) else {
                continue;
            };
            let ratio = ratio.map(Spread::json);
            shown.insert(
                key.to_owned(),
                json!({ "spread": spread.json(), "rounds": values, "to_bare_loop": ratio }),
            );
        }
        servers.insert((*name).to_owned(), Json::Object(shown));
    }
    Json::Object(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_request_and_from_the_commit() {
        let change = Change { revision: 1, sent: 1_000_000, answered: 3_000_000 };
        let arrivals = Arrivals { times: vec![4_000_000, 2_000_000, 6_000_000], missed: 0 };
        let times: Round = times(change, 2_000_000, &arrivals).into_iter().collect();
        let is = |key: &str, wanted: f64| (times[key] - wanted).abs() < 1e-9;
        assert!(is("answer_ms", 2.0) && is("first_ms", 1.0) && is("last_ms", 5.0));
        assert!(is("p50_ms", 3.0) && is("commit_p50_ms", 2.0) && is("commit_last_ms", 4.0));
    }

    #[test]
    fn a_ping_that_nobody_got_has_no_time() {
        let change = Change { revision: 1, sent: 0, answered: 1 };
        let arrivals = Arrivals { times: Vec::new(), missed: 3 };
        assert_eq!(times(change, 0, &arrivals).len(), 1);
    }
}
