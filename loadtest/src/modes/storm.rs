//! `storm`: all clients are cut at once and come back at once, while flags go on changing.
//!
//! Either the clients leave by themselves, or the gateway is killed and started again on the same
//! port and store. A client that is refused tries again 20 ms later.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value as Json, json};

use super::bench::{PING_MAX, SETTLE};
use super::fanout::check_descriptors;
use super::times::latencies;
use crate::client::{Arrival, Cut, Stamping, Streams};
use crate::machine::{now, wait_until_quiet};
use crate::output::{
    Column, Figures, Metric, column_faults, columns_json, columns_table, count, machine,
    milliseconds, quantile, real,
};
use crate::servers::{Change, Flips, Setup, Subject as _};

/// Pause between two flips during the storm.
const FLIP_PAUSE: Duration = Duration::from_millis(100);

/// How long a storm may last.
const STORM_MAX: Duration = Duration::from_mins(2);

/// The limit that paces a storm.
const ACCEPTS: &str = "limits.accepts_per_second";

const METRICS: [Metric; 15] = [
    Metric::new("down_ms", "from the kill until the gateway listened again, ms", 0),
    Metric::new("back_ms", "from the cut until all streams were open again, ms", 0),
    Metric::new("told_ms", "from the cut until all knew the newest revision, ms", 0),
    Metric::new("per_second", "streams opened per second, while it listened", 0),
    Metric::new("refused", "connects refused", 0),
    Metric::new("reset", "connections reset", 0),
    Metric::new("ended", "streams ended", 0),
    Metric::new("turned_away", "requests answered with an error", 0),
    Metric::new("flips", "flips meanwhile", 0),
    Metric::new("answer_p50_ms", "flip meanwhile: request to answer, p50, ms", 2),
    Metric::new("answer_max_ms", "flip meanwhile: request to answer, longest, ms", 2),
    Metric::new("ping_p50_ms", "flip meanwhile: to those already back, p50, ms", 2),
    Metric::new("ping_p99_ms", "flip meanwhile: to those already back, p99, ms", 2),
    Metric::new("missed", "clients without the newest revision", 0).that_is_a_fault(),
    Metric::new("went_back", "older revisions after newer ones", 0).that_is_a_fault(),
];

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) streams: usize,
    pub(crate) rounds: usize,
    pub(crate) quiet: Duration,
    pub(crate) setup: Setup,
    pub(crate) nginx: PathBuf,
}

/// Who ends the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Clients,
    Crash,
}

/// Runs the plan, prints the table and returns the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Json> {
    check_descriptors(plan.streams)?;
    let _stamping = Stamping::keep_on()?;
    let mut cases = vec![
        (Cause::Clients, plan.setup.clone(), Column::new("clients cut")),
        (Cause::Crash, plan.setup.clone(), Column::new("gateway killed")),
    ];
    let unlimited = plan.setup.clone().with(ACCEPTS, 0);
    let named = |name: &str| Column::new(&format!("{name}, accepts unlimited"));
    cases.push((Cause::Clients, unlimited.clone(), named("clients cut")));
    cases.push((Cause::Crash, unlimited, named("gateway killed")));
    for round in 0..plan.rounds {
        for turn in 0..cases.len() {
            let index = (round + turn) % cases.len();
            let (cause, setup, column) = &mut cases[index];
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, column.name);
            column.rounds.push(measure(plan, *cause, setup)?);
        }
    }
    let columns: Vec<Column> = cases.into_iter().map(|(_, _, column)| column).collect();
    print(plan, &columns);
    let faults = columns.iter().flat_map(|column| column_faults(&METRICS, column));
    let faults: Vec<String> = faults.collect();
    Ok(json!({
        "measurement": "storm",
        "machine": machine(&plan.nginx),
        "streams": plan.streams, "rounds": plan.rounds,
        "settings": plan.setup.json(),
        "storms": columns_json(&METRICS, &columns), "faults": faults,
    }))
}

/// What became of a storm.
struct Passed {
    /// Flips meanwhile.
    changes: Vec<Change>,
    /// From the cut until the gateway listened, in milliseconds; 0 when it always did.
    down_ms: f64,
    /// From the cut until all streams were open again, in milliseconds.
    back_ms: f64,
}

fn measure(plan: &Plan, cause: Cause, setup: &Setup) -> anyhow::Result<Figures> {
    let mut flips = Flips::start(setup, 1)?;
    let mut streams = Streams::new(&flips.target(), plan.streams)?;
    streams.open_all()?;
    let change = flips.change(0)?;
    streams.wait(0, change.revision, PING_MAX)?;
    sleep(SETTLE);
    wait_until_quiet(plan.quiet)?;
    streams.keep_log();
    let (before, cut) = (streams.tally(), now());
    let passed = pass(plan, cause, &mut flips, &mut streams)?;
    let newest = passed.changes.last().map_or(change.revision, |change| change.revision);
    let arrivals = streams.wait(0, newest, PING_MAX)?;
    ensure!(streams.open() == plan.streams, "streams were lost after they had come back");
    let tally = streams.tally().since(&before);
    let mut figures = change_figures(&passed.changes, &streams.take_log());
    let told = arrivals.kernel.iter().max().map_or(0, |last| last - cut);
    if cause == Cause::Crash {
        figures.insert("down_ms", passed.down_ms);
    }
    figures.extend([
        ("back_ms", passed.back_ms),
        ("told_ms", milliseconds(told)),
        ("per_second", count(plan.streams) / ((passed.back_ms - passed.down_ms) / 1000.0)),
        ("refused", real(tally.refused)),
        ("reset", real(tally.reset)),
        ("ended", real(tally.ended)),
        ("turned_away", real(tally.turned_away)),
        ("missed", count(arrivals.missed)),
        ("went_back", real(tally.went_back)),
    ]);
    Ok(figures)
}

/// Cuts everybody and waits until all are back.
fn pass(
    plan: &Plan,
    cause: Cause,
    flips: &mut Flips,
    streams: &mut Streams,
) -> anyhow::Result<Passed> {
    let (began, opened) = (Instant::now(), streams.tally().opened);
    let all = opened + u64::try_from(plan.streams)?;
    let mut back = None;
    let all_back = AtomicBool::new(false);
    if cause == Cause::Clients {
        for index in 0..plan.streams {
            streams.cut(index, Cut::Close)?;
        }
    }
    let (changes, down) = streams.read_while(
        || {
            let mut down = Duration::ZERO;
            if cause == Cause::Crash {
                flips.gateway.crash_and_restart()?;
                down = began.elapsed();
            }
            let goes_on = |_| !all_back.load(Ordering::Relaxed) && began.elapsed() < STORM_MAX;
            Ok((flips.change_while(FLIP_PAUSE, goes_on)?, down))
        },
        |streams| {
            // Nobody waits for anybody: that is the storm.
            streams.connect(plan.streams)?;
            // After a kill the old connections look open until they are read.
            let is_back = streams.open() == plan.streams && streams.tally().opened >= all;
            if back.is_none() && is_back {
                back = Some(began.elapsed());
                all_back.store(true, Ordering::Relaxed);
            }
            Ok(())
        },
    )?;
    let open = streams.open();
    let back = back.with_context(|| format!("only {open} of {} came back", plan.streams))?;
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    Ok(Passed { changes, down_ms: ms(down), back_ms: ms(back) })
}

fn change_figures(changes: &[Change], pings: &[Arrival]) -> Figures {
    let answers = changes.iter().map(|change| milliseconds(change.answered - change.sent));
    let answers: Vec<f64> = answers.collect();
    let pings = latencies(changes, pings);
    let mut figures = Figures::from([("flips", count(changes.len()))]);
    if !answers.is_empty() {
        figures.insert("answer_p50_ms", quantile(&answers, 50));
        figures.insert("answer_max_ms", quantile(&answers, 100));
    }
    if !pings.is_empty() {
        figures.insert("ping_p50_ms", quantile(&pings, 50));
        figures.insert("ping_p99_ms", quantile(&pings, 99));
    }
    figures
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
fn print(plan: &Plan, columns: &[Column]) {
    print!("{}", columns_table(&METRICS, columns));
    println!(
        "{} streams; a flip every {} ms. All connect at once; who is refused tries again after 20 ms.",
        plan.streams,
        FLIP_PAUSE.as_millis()
    );
}
