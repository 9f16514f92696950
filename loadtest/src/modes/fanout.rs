//! `fanout`: how long after a change the last of many clients knows, and what a stream costs.
//!
//! Every round starts each server afresh, one after the other, so that each is measured in the
//! same minutes and none carries the memory of the round before. Half of the changes are told while
//! the client rests: then a time is the kernel's, and the client takes nothing from the server.
//! During the other half it reads as pings come, as a client would: those times are the client's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value as Json, json};

use super::bench::{Client, Sample};
use super::crowd::Crowd;
use super::times::spans;
use crate::client::Stamping;
use crate::machine::{ATTEMPTS, Watch, descriptor_limit, wait_until_quiet};
use crate::output::{
    Column, Figures, Metric, column_faults, columns_json, columns_table, count, machine, median,
    milliseconds, print_noise, quantile, real,
};
use crate::servers::Kind;

/// Descriptors that a server or this program needs for other things than streams.
const DESCRIPTORS_BESIDE: usize = 200;

/// What is reported.
const METRICS: [Metric; 22] = [
    Metric::new("answer_ms", "change: request to last byte of answer, ms", 2).with_ratio(),
    Metric::new("first_ms", "request to first client, ms", 2).with_ratio(),
    Metric::new("p50_ms", "request to client, p50, ms", 2).with_ratio(),
    Metric::new("p99_ms", "request to client, p99, ms", 2).with_ratio(),
    Metric::new("last_ms", "request to last client, ms", 2).with_ratio(),
    Metric::new("commit_p50_ms", "commit to client, p50, ms *", 2).with_ratio(),
    Metric::new("commit_p99_ms", "commit to client, p99, ms *", 2).with_ratio(),
    Metric::new("commit_last_ms", "commit to last client, ms *", 2).with_ratio(),
    Metric::new("user_first_ms", "request to first client, user time, ms **", 2).with_ratio(),
    Metric::new("user_p50_ms", "request to client, p50, user time, ms **", 2).with_ratio(),
    Metric::new("user_p99_ms", "request to client, p99, user time, ms **", 2).with_ratio(),
    Metric::new("user_last_ms", "request to last client, user time, ms **", 2).with_ratio(),
    Metric::new("told_ms", "commit to ping by the server's own clock, ms", 2),
    Metric::new("cpu_us", "CPU of the server per delivery, µs", 2).with_ratio(),
    Metric::new("bytes", "memory of the server per stream (PSS), bytes", 0),
    Metric::new("slab_bytes", "kernel memory per stream, both ends (slab), bytes", 0),
    Metric::new("channel_bytes", "memory of the server per environment (PSS), bytes", 0),
    Metric::new("open_rate", "streams opened per second", 0).with_ratio(),
    Metric::new("missed", "revisions missed", 0).that_is_a_fault(),
    Metric::new("repeated", "revisions repeated", 0).that_is_a_fault(),
    Metric::new("went_back", "older revisions after newer ones", 0).that_is_a_fault(),
    Metric::new("lost", "streams lost", 0).that_is_a_fault(),
];

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) streams: usize,
    /// Servers of each kind, and clients, that share the streams.
    pub(crate) processes: usize,
    pub(crate) changes: usize,
    pub(crate) rounds: usize,
    pub(crate) pause: Duration,
    pub(crate) quiet: Duration,
    /// Named in the report.
    pub(crate) nginx: PathBuf,
    /// The servers; ratios are to the first.
    pub(crate) kinds: Vec<Kind>,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) columns: Vec<Column>,
    pub(crate) report: Json,
}

/// Runs the plan, prints the table and returns the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Measured> {
    check_descriptors(plan.streams.div_ceil(plan.processes))?;
    let _stamping = Stamping::keep_on()?;
    let names = plan.kinds.iter().map(Kind::name);
    let mut columns: Vec<Column> = names.map(Column::new).collect();
    let mut noisy = 0_usize;
    for round in 0..plan.rounds {
        // Another one begins each time, so that none is always the first.
        for turn in 0..plan.kinds.len() {
            let index = (round + turn) % plan.kinds.len();
            let kind = &plan.kinds[index];
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, kind.name());
            let (figures, quiet) =
                quietly(kind, plan).with_context(|| format!("{} failed", kind.name()))?;
            noisy += usize::from(!quiet);
            columns[index].rounds.push(figures);
        }
    }
    print(&columns, noisy);
    // Peers may miss what they like.
    let ours = columns.iter().filter(|column| column.name == Kind::GATEWAY);
    let faults: Vec<String> = ours.flat_map(|column| column_faults(&METRICS, column)).collect();
    let report = json!({
        "measurement": "fanout",
        "machine": machine(&plan.nginx),
        "streams": plan.streams, "processes": plan.processes, "changes": plan.changes, "rounds": plan.rounds,
        "pause_ms": plan.pause.as_millis(), "noisy": noisy,
        "settings": plan.kinds.iter().find_map(Kind::settings),
        "servers": columns_json(&METRICS, &columns), "faults": faults,
    });
    Ok(Measured { columns, report })
}

/// Makes sure that this program, and so a server, may open so many streams.
pub(super) fn check_descriptors(streams: usize) -> anyhow::Result<()> {
    let limit = descriptor_limit()?;
    ensure!(
        streams.saturating_add(DESCRIPTORS_BESIDE) <= limit,
        "--streams {streams}: a process here may open {limit} descriptors, {DESCRIPTORS_BESIDE} of \
         them are needed for other things; ask for fewer streams, raise `ulimit -n` or, with fanout, use --processes",
    );
    Ok(())
}

/// One server, one round; again if others used the machine meanwhile.
fn quietly(kind: &Kind, plan: &Plan) -> anyhow::Result<(Figures, bool)> {
    for _ in 1..ATTEMPTS {
        let measured = measure(kind, plan)?;
        if measured.1 {
            return Ok(measured);
        }
    }
    measure(kind, plan)
}

/// One server, one round. Also tells whether the machine was quiet.
fn measure(kind: &Kind, plan: &Plan) -> anyhow::Result<(Figures, bool)> {
    let mut crowd = Crowd::open(kind, plan.streams, plan.processes)?;
    let quiet_before = wait_until_quiet(plan.quiet)?;
    let watch = Watch::start(&crowd.pids())?;
    let mut samples: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut missed = 0;
    for client in [Client::Rests, Client::ReadsAlong] {
        for _ in 0..plan.changes {
            sleep(plan.pause);
            let sample = crowd.change(client)?;
            missed += sample.missed;
            let times = if client == Client::Rests { times(&sample) } else { user_times(&sample) };
            for (key, value) in times {
                samples.entry(key).or_default().push(value);
            }
        }
    }
    let quiet = watch.was_quiet()? && quiet_before;
    let cost = crowd.cost()?;
    let each = count(plan.streams);
    let mut figures: Figures = samples.iter().map(|(key, values)| (*key, median(values))).collect();
    figures.extend(cost.bytes_per_channel.map(|bytes| ("channel_bytes", bytes)));
    figures.extend([
        ("bytes", real(cost.memory) / each),
        ("slab_bytes", real(cost.slab) / each),
        ("open_rate", each / cost.open_seconds),
        ("missed", real(missed)),
        ("repeated", real(cost.repeated)),
        ("went_back", real(cost.went_back)),
        ("lost", real(cost.lost)),
    ]);
    Ok((figures, quiet))
}

/// The figures of one change by the kernel's clock; times in milliseconds.
fn times(sample: &Sample) -> Vec<(&'static str, f64)> {
    let mut times = vec![("answer_ms", milliseconds(sample.answered - sample.sent))];
    times.extend(sample.told_ms.map(|told| ("told_ms", told)));
    if sample.kernel.is_empty() {
        return times;
    }
    let sent = spans(sample.sent, &sample.kernel);
    let committed = spans(sample.committed, &sample.kernel);
    times.extend([
        ("first_ms", quantile(&sent, 0)),
        ("p50_ms", quantile(&sent, 50)),
        ("p99_ms", quantile(&sent, 99)),
        ("last_ms", quantile(&sent, 100)),
        ("commit_p50_ms", quantile(&committed, 50)),
        ("commit_p99_ms", quantile(&committed, 99)),
        ("commit_last_ms", quantile(&committed, 100)),
        ("cpu_us", real(sample.cpu) / 1000.0 / count(sample.kernel.len())),
    ]);
    times
}

/// The times of one change as the client saw it, in milliseconds.
fn user_times(sample: &Sample) -> Vec<(&'static str, f64)> {
    let sent = spans(sample.sent, &sample.user);
    if sent.is_empty() {
        return Vec::new();
    }
    vec![
        ("user_first_ms", quantile(&sent, 0)),
        ("user_p50_ms", quantile(&sent, 50)),
        ("user_p99_ms", quantile(&sent, 99)),
        ("user_last_ms", quantile(&sent, 100)),
    ]
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
fn print(columns: &[Column], noisy: usize) {
    print!("{}", columns_table(&METRICS, columns));
    println!("* From the request for those that commit nothing: all but flagcast.");
    println!("** Changes during which the client reads along, in batches every 2 to 4 ms.");
    println!("Kernel memory is the machine's: what was freed may be kept a while and used again.");
    println!("Echoes are off (stream.echo_seconds=0): a delivery is one ping, and none repeats.");
    println!("Connects are not paced (limits.accepts_per_second=0), as nobody else's are.");
    print_noise(noisy);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_request_and_from_the_commit() {
        let sample = Sample {
            sent: 1_000_000,
            answered: 3_000_000,
            committed: 2_000_000,
            cpu: 6_000,
            kernel: vec![4_000_000, 2_000_000, 6_000_000],
            user: vec![7_000_000],
            ..Sample::default()
        };
        let all = times(&sample).into_iter().chain(user_times(&sample));
        let times: Figures = all.collect();
        let is = |key: &str, wanted: f64| (times[key] - wanted).abs() < 1e-9;
        assert!(is("answer_ms", 2.0) && is("first_ms", 1.0) && is("last_ms", 5.0));
        assert!(is("p50_ms", 3.0) && is("commit_p50_ms", 2.0) && is("commit_last_ms", 4.0));
        assert!(is("cpu_us", 2.0) && is("user_last_ms", 6.0) && !times.contains_key("told_ms"));
    }

    #[test]
    fn a_ping_that_nobody_got_has_no_time() {
        let sample = Sample { missed: 3, ..Sample::default() };
        assert_eq!(times(&sample).len(), 1);
        assert!(user_times(&sample).is_empty());
    }
}
