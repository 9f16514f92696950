//! `slow`: what clients that hardly read, or not at all, do to the others and to the server.
//!
//! The same prompt clients are told of the same fast changes twice: alone, and with slow ones beside
//! them. Half of the slow ones read nothing, the others a byte a second; their sockets hold as
//! little as the kernel allows. Then all of them read on: each must end with the newest revision, be
//! it that the server kept their stream or ended it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::bench::{PING_MAX, SETTLE};
use super::fanout::check_descriptors;
use super::times::{lasts, latencies};
use crate::client::{Arrival, Reading, Stamping, Streams};
use crate::machine::{Kernel, memory, slab, wait_until_quiet};
use crate::output::{
    Column, Figures, Metric, column_faults, columns_json, columns_table, count, machine,
    milliseconds, quantile, real,
};
use crate::servers::{Change, Flips, Setup, Subject as _};

/// What a server's socket may hold unsent. By default the kernel lets it grow to megabytes: a slow
/// client would be felt only after thousands of changes.
const SEND_BUFFER: u64 = 16 * 1024;

/// How long clients that read on may take until they know the newest state.
const RESUME_MAX: Duration = Duration::from_secs(30);

const METRICS: [Metric; 14] = [
    Metric::new("answer_p50_ms", "change: request to answer, p50, ms", 2).with_ratio(),
    Metric::new("p50_ms", "request to prompt client, p50, ms", 2).with_ratio(),
    Metric::new("p99_ms", "request to prompt client, p99, ms", 2).with_ratio(),
    Metric::new("last_p50_ms", "request to last prompt client, p50 of changes, ms", 2).with_ratio(),
    Metric::new("last_p99_ms", "request to last prompt client, p99 of changes, ms", 2).with_ratio(),
    Metric::new("pings", "pings per prompt client and change", 3),
    Metric::new("prompt_missed", "prompt clients without the newest revision", 0).that_is_a_fault(),
    Metric::new("slow_bytes", "growth of the server per slow client (PSS), bytes", 0),
    Metric::new("slow_slab_bytes", "growth of the kernel per slow client (slab), bytes", 0),
    Metric::new("ended", "slow streams that the server ended", 0),
    Metric::new("slow_pings", "pings that a slow client read then", 1),
    Metric::new("resumed_ms", "reading on until all slow ones know, ms", 0),
    Metric::new("slow_missed", "slow clients that never learned the newest revision", 0)
        .that_is_a_fault(),
    Metric::new("went_back", "older revisions after newer ones", 0).that_is_a_fault(),
];

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Prompt clients.
    pub(crate) prompt: usize,
    /// Slow ones beside them in the second measurement.
    pub(crate) slow: usize,
    pub(crate) changes: usize,
    pub(crate) pause: Duration,
    pub(crate) rounds: usize,
    pub(crate) quiet: Duration,
    pub(crate) setup: Setup,
    pub(crate) nginx: PathBuf,
}

/// Ends of streams by reason, as the gateway counts them.
type Ends = BTreeMap<String, u64>;

/// Runs the plan, prints the table and returns the report.
pub(crate) fn run(plan: &Plan, kernel: &Kernel) -> anyhow::Result<Json> {
    check_descriptors(plan.prompt + plan.slow)?;
    kernel.limit_send_buffers(SEND_BUFFER);
    let _stamping = Stamping::keep_on()?;
    let mut columns = vec![Column::new("without slow"), Column::new("with slow")];
    let mut ends = Ends::new();
    for round in 0..plan.rounds {
        for turn in 0..2 {
            let index = (round + turn) % 2;
            let slow = if index == 0 { 0 } else { plan.slow };
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, columns[index].name);
            wait_until_quiet(plan.quiet)?;
            columns[index].rounds.push(measure(plan, slow, &mut ends)?);
        }
    }
    print(plan, &columns, &ends);
    let faults = columns.iter().flat_map(|column| column_faults(&METRICS, column));
    let faults: Vec<String> = faults.collect();
    Ok(json!({
        "measurement": "slow",
        "machine": machine(&plan.nginx),
        "prompt": plan.prompt, "slow": plan.slow, "changes": plan.changes,
        "pause_ms": plan.pause.as_millis(), "rounds": plan.rounds, "send_buffer": SEND_BUFFER,
        "settings": plan.setup.json(),
        "clients": columns_json(&METRICS, &columns), "faults": faults,
        "stream_ends": ends,
    }))
}

fn measure(plan: &Plan, slow: usize, ends: &mut Ends) -> anyhow::Result<Figures> {
    let mut flips = Flips::start(&plan.setup, 1)?;
    let mut streams = Streams::new(&flips.target(), plan.prompt + slow)?;
    for index in plan.prompt..plan.prompt + slow {
        let reading = if index % 2 == 0 { Reading::Never } else { Reading::ByBytes };
        streams.set_reading(index, reading)?;
    }
    streams.open_all()?;
    sleep(SETTLE);
    let change = flips.change(0)?;
    streams.wait(0, change.revision, PING_MAX)?;
    sleep(SETTLE);
    let pids = flips.pids();
    let (before, slab_before) = (memory(&pids)?, slab()?);
    streams.keep_log();
    let mut byte_due = Instant::now();
    let changes = streams.read_while(
        || flips.change_while(plan.pause, |made| made < plan.changes),
        |streams| trickle(streams, &mut byte_due),
    )?;
    let newest = changes.last().map_or(0, |change| change.revision);
    streams.wait(0, newest, PING_MAX)?;
    let prompt_missed = streams.behind(0, newest);
    let (after, slab_after) = (memory(&pids)?, slab()?);
    let pings = streams.take_log();
    let mut figures = prompt_figures(plan, &changes, &pings);
    figures.insert("prompt_missed", count(prompt_missed));
    if slow > 0 {
        let each = |grown: u64| real(grown) / count(slow);
        figures.insert("slow_bytes", each(after.saturating_sub(before)));
        figures.insert("slow_slab_bytes", each(slab_after.saturating_sub(slab_before)));
        resume(plan, slow, newest, &mut streams, &mut figures)?;
    }
    let tally = streams.tally();
    figures.insert("went_back", real(tally.went_back));
    // Those that leave now are counted, too.
    drop(streams);
    sleep(SETTLE);
    for (reason, number) in flips.gateway.meter().read()?.stream_ends() {
        *ends.entry(reason).or_default() += number;
    }
    Ok(figures)
}

/// Reads a byte for each client that reads by bytes, once a second.
fn trickle(streams: &mut Streams, due: &mut Instant) -> anyhow::Result<()> {
    if Instant::now() >= *due {
        *due += Duration::from_secs(1);
        streams.read_bytes()?;
    }
    Ok(())
}

fn prompt_figures(plan: &Plan, changes: &[Change], pings: &[Arrival]) -> Figures {
    let answers: Vec<f64> =
        changes.iter().map(|change| milliseconds(change.answered - change.sent)).collect();
    let pings: Vec<_> = pings.iter().filter(|ping| ping.stream < plan.prompt).copied().collect();
    let (latencies, lasts) = (latencies(changes, &pings), lasts(changes, &pings));
    Figures::from([
        ("answer_p50_ms", quantile(&answers, 50)),
        ("p50_ms", quantile(&latencies, 50)),
        ("p99_ms", quantile(&latencies, 99)),
        ("last_p50_ms", quantile(&lasts, 50)),
        ("last_p99_ms", quantile(&lasts, 99)),
        ("pings", count(pings.len()) / count(plan.prompt) / count(changes.len())),
    ])
}

/// Lets the slow ones read on, and come back where the server ended their stream.
fn resume(
    plan: &Plan,
    slow: usize,
    newest: u64,
    streams: &mut Streams,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (began, before) = (Instant::now(), streams.tally());
    for index in plan.prompt..plan.prompt + slow {
        streams.set_reading(index, Reading::Promptly)?;
    }
    while !streams.has_told(0, newest) && began.elapsed() < RESUME_MAX {
        streams.connect(usize::MAX)?;
        streams.turn(Some(Duration::from_millis(10)))?;
    }
    let tally = streams.tally().since(&before);
    figures.insert("ended", real(tally.ended + tally.reset));
    figures.insert("slow_pings", real(tally.pings) / count(slow));
    figures.insert("resumed_ms", began.elapsed().as_secs_f64() * 1000.0);
    figures.insert("slow_missed", count(streams.behind(0, newest)));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
fn print(plan: &Plan, columns: &[Column], ends: &Ends) {
    print!("{}", columns_table(&METRICS, columns));
    println!(
        "{} prompt clients, {} slow ones, {} changes, {} ms apart.",
        plan.prompt,
        plan.slow,
        plan.changes,
        plan.pause.as_millis()
    );
    println!("A server's socket held at most {SEND_BUFFER} bytes (net.ipv4.tcp_wmem).");
    let ends = ends.iter().map(|(reason, number)| format!("{reason} {number}"));
    println!("Ends as the gateway counted them: {}.", ends.collect::<Vec<_>>().join(", "));
}
