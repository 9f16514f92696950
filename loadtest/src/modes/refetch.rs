//! `refetch`: what a ping is for. Clients read the flags again when they are told to, and others
//! read their own flags all the time.
//!
//! The same streams are told of changes three times in a row: idle; with clients that read the
//! `flags_url` of each ping; and with `wrk` reading identities as fast as it is answered. The client
//! reads along each time, so that only the load differs.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value as Json, json};

use super::bench::{PING_MAX, SETTLE};
use super::fanout::check_descriptors;
use super::times::latencies;
use crate::client::{Arrival, Load, NAP, Reads, Refetchers, Stamping, Streams, first_ping};
use crate::machine::wait_until_quiet;
use crate::output::{
    Column, Figures, Metric, column_faults, columns_json, columns_table, count, machine, median,
    milliseconds, quantile, real,
};
use crate::servers::{Change, Environment, Flips, Setup, Subject as _};

/// Time for `wrk` to reach its full rate.
const LOAD_WARM_UP: Duration = Duration::from_secs(1);

/// Longest load; it is ended with the measurement.
const LOAD_MAX_SECONDS: u64 = 3600;

const METRICS: [Metric; 10] = [
    Metric::new("answer_p50_ms", "change: request to answer, p50, ms", 2).with_ratio(),
    Metric::new("p50_ms", "request to client, p50, ms", 2).with_ratio(),
    Metric::new("p99_ms", "request to client, p99, ms", 2).with_ratio(),
    Metric::new("last_ms", "request to last client, ms", 2).with_ratio(),
    Metric::new("body_ms", "request until the last refetcher had the new flags, ms", 2),
    Metric::new("refetches", "refetches per second, from request to last body", 0),
    Metric::new("reads", "identities read per second beside it", 0),
    Metric::new("missed", "revisions missed", 0).that_is_a_fault(),
    Metric::new("failed", "refetches that failed at first", 0).that_is_a_fault(),
    Metric::new("stale", "refetchers without the newest flags", 0).that_is_a_fault(),
];

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) streams: usize,
    /// Streams whose clients read after each ping.
    pub(crate) refetchers: usize,
    /// Kept-alive connections of `wrk`.
    pub(crate) connections: usize,
    pub(crate) changes: usize,
    pub(crate) pause: Duration,
    pub(crate) rounds: usize,
    pub(crate) quiet: Duration,
    pub(crate) setup: Setup,
    pub(crate) nginx: PathBuf,
}

/// Runs the plan, prints the table and returns the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Json> {
    check_descriptors(plan.streams + plan.refetchers + plan.connections)?;
    let _stamping = Stamping::keep_on()?;
    let mut columns = vec![Column::new("idle"), Column::new("refetch"), Column::new("read load")];
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        let figures = measure(plan)?;
        for (column, figures) in columns.iter_mut().zip(figures) {
            column.rounds.push(figures);
        }
    }
    print(plan, &columns);
    let faults = columns.iter().flat_map(|column| column_faults(&METRICS, column));
    let faults: Vec<String> = faults.collect();
    Ok(json!({
        "measurement": "refetch",
        "machine": machine(&plan.nginx),
        "streams": plan.streams, "refetchers": plan.refetchers, "connections": plan.connections,
        "changes": plan.changes, "pause_ms": plan.pause.as_millis(), "rounds": plan.rounds,
        "settings": plan.setup.json(),
        "loads": columns_json(&METRICS, &columns), "faults": faults,
    }))
}

/// One round: idle, refetch, read load.
fn measure(plan: &Plan) -> anyhow::Result<[Figures; 3]> {
    let mut flips = Flips::start(&plan.setup, 1)?;
    let mut streams = Streams::new(&flips.target(), plan.streams)?;
    streams.open_all()?;
    let change = flips.change(0)?;
    streams.wait(0, change.revision, PING_MAX)?;
    sleep(SETTLE);
    wait_until_quiet(plan.quiet)?;
    let idle = tell(plan, &mut flips, &mut streams, None)?;

    let path = flags_path(&mut flips)?;
    let mut refetchers = Refetchers::new(flips.gateway.public, path, plan.refetchers)?;
    refetchers.connect()?;
    let mut refetch = tell(plan, &mut flips, &mut streams, Some(&mut refetchers))?;
    let Reads { stale, turned_away, broken, .. } = refetchers.tally();
    refetch.insert("failed", real(stale + turned_away + broken));
    drop(refetchers);

    let directory = tempfile::tempdir().context("cannot make a directory for wrk's script")?;
    let script = directory.path().join("identities.lua");
    std::fs::write(&script, identities(&flips.environments[0]))?;
    let url = format!("http://{}/", flips.gateway.public);
    let load = Load {
        url: &url,
        headers: &[],
        connections: plan.connections,
        seconds: LOAD_MAX_SECONDS,
        script: Some(&script),
    };
    let running = load.start()?;
    sleep(LOAD_WARM_UP);
    let mut loaded = tell(plan, &mut flips, &mut streams, None)?;
    loaded.insert("reads", running.finish()?.per_second);
    Ok([idle, refetch, loaded])
}

/// Makes the changes and waits for everybody who is told of them.
fn tell(
    plan: &Plan,
    flips: &mut Flips,
    streams: &mut Streams,
    mut refetchers: Option<&mut Refetchers>,
) -> anyhow::Result<Figures> {
    streams.keep_log();
    let (mut changes, mut pings) = (Vec::new(), Vec::new());
    let (mut lasts, mut bodies) = (Vec::new(), Vec::new());
    let (mut missed, mut stale) = (0, 0);
    for _ in 0..plan.changes {
        sleep(plan.pause);
        let mut fetched = refetchers.as_deref_mut();
        let change: Change = streams.read_while(
            || flips.change(0),
            |streams| {
                pings.extend(pass_on(streams, fetched.as_deref_mut(), plan)?);
                Ok(())
            },
        )?;
        let began = Instant::now();
        while waits(streams, fetched.as_deref(), change) && began.elapsed() < PING_MAX {
            streams.turn(Some(NAP))?;
            pings.extend(pass_on(streams, fetched.as_deref_mut(), plan)?);
        }
        missed += streams.behind(0, change.revision);
        if let Some(refetchers) = fetched {
            stale += refetchers.behind(change.revision);
            bodies.push(milliseconds(refetchers.last() - change.sent));
        }
        let arrivals = streams.wait(0, change.revision, PING_MAX)?;
        lasts.extend(arrivals.kernel.iter().max().map(|at| milliseconds(at - change.sent)));
        changes.push(change);
    }
    let answers: Vec<f64> =
        changes.iter().map(|change| milliseconds(change.answered - change.sent)).collect();
    let pings = latencies(&changes, &pings);
    let mut figures = Figures::from([
        ("answer_p50_ms", median(&answers)),
        ("p50_ms", quantile(&pings, 50)),
        ("p99_ms", quantile(&pings, 99)),
        ("last_ms", median(&lasts)),
        ("missed", count(missed)),
    ]);
    if !bodies.is_empty() {
        figures.insert("body_ms", median(&bodies));
        figures.insert("refetches", count(plan.refetchers) / (median(&bodies) / 1000.0));
        figures.insert("stale", count(stale));
    }
    Ok(figures)
}

/// Whether somebody has not been told, or has not read what it was told of.
fn waits(streams: &Streams, refetchers: Option<&Refetchers>, change: Change) -> bool {
    !streams.has_told(0, change.revision)
        || refetchers.is_some_and(|refetchers| refetchers.behind(change.revision) > 0)
}

/// Hands the pings that came to the clients that read after them.
fn pass_on(
    streams: &mut Streams,
    refetchers: Option<&mut Refetchers>,
    plan: &Plan,
) -> anyhow::Result<Vec<Arrival>> {
    let pings = streams.take_log();
    if let Some(refetchers) = refetchers {
        for ping in pings.iter().filter(|ping| ping.stream < plan.refetchers) {
            refetchers.want(ping.stream, ping.revision)?;
        }
        refetchers.turn(Duration::ZERO)?;
    }
    Ok(pings)
}

/// The path that the environment's pings name, up to the number of the revision.
pub(super) fn flags_path(flips: &mut Flips) -> anyhow::Result<String> {
    let environment = &flips.environments[0];
    let url = first_ping(flips.gateway.public, &environment.stream())?;
    let url = url["flags_url"].as_str().context("a ping has no flags_url")?;
    let path = url.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
    let (_, path) = path.with_context(|| format!("{url} has no path"))?;
    let (path, number) = path.rsplit_once("rev=").context("flags_url has no revision")?;
    ensure!(number.parse::<u64>().is_ok(), "{url} does not end with a revision");
    Ok(format!("/{path}rev="))
}

/// A script for `wrk`: another identity in each request.
fn identities(environment: &Environment) -> String {
    format!(
        "local n = 0
function request()
  n = n + 1
  local headers = {{ [\"x-environment-key\"] = \"{}\" }}
  return wrk.format(\"GET\", \"/api/v1/identities/?identifier=user-\" .. n, headers)
end
",
        environment.client_key
    )
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
fn print(plan: &Plan, columns: &[Column]) {
    print!("{}", columns_table(&METRICS, columns));
    println!(
        "{} streams, {} of them read their flags after each ping; the read load is wrk with {} \
         connections, another identity in each request. p50 and p99 are over all pings of a round.",
        plan.streams, plan.refetchers, plan.connections
    );
}
