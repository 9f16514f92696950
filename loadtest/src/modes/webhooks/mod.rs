//! `webhooks`: what it costs to tell endpoints until they confirm, and how soon a receiver has a change.
//!
//! Two measurements in each round. A backlog (`backlog.rs`): every endpoint is owed every change, and
//! all are let go at once; in events mode, in state mode, and by a bare sender that stores nothing.
//! Rest (`rest.rs`): one change at a time, with no endpoint, with one, and with all.

mod backlog;
mod rest;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

use self::backlog::Side;
use crate::machine::{Watch, wait_until_quiet};
use crate::output::{
    Column, Figures, Metric, column_faults, columns_json, columns_table, machine, print_noise,
};
use crate::servers::Setup;

/// Flags of the environment.
const FLAGS: usize = 50;

/// Longest wait for anything.
const WAIT_MAX: Duration = Duration::from_mins(2);

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) endpoints: usize,
    /// That every endpoint is owed at once.
    pub(crate) changes: usize,
    /// At rest, for each number of endpoints.
    pub(crate) rest_changes: usize,
    pub(crate) pause: Duration,
    pub(crate) rounds: usize,
    pub(crate) quiet: Duration,
    pub(crate) setup: Setup,
    pub(crate) nginx: PathBuf,
}

/// Runs the plan, prints the tables and returns the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Json> {
    let mut backlogs = Side::ALL.map(|side| Column::new(side.name()));
    let mut rests = rest::columns(plan);
    let sample = backlog::sample(plan)?;
    let mut noisy = 0;
    for round in 0..plan.rounds {
        for turn in 0..Side::ALL.len() {
            // Another one begins each time.
            let index = (round + turn) % Side::ALL.len();
            let side = Side::ALL[index];
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, side.name());
            let (figures, quiet) = backlog::measure(plan, side, &sample)?;
            noisy += usize::from(!quiet);
            backlogs[index].rounds.push(figures);
        }
        eprintln!("round {} of {}: at rest", round + 1, plan.rounds);
        let (figures, quiet) = rest::measure(plan)?;
        noisy += usize::from(!quiet);
        for (column, figures) in rests.iter_mut().zip(figures) {
            column.rounds.push(figures);
        }
    }
    print(plan, &backlogs, &rests, noisy);
    let faults = backlogs.iter().flat_map(|column| column_faults(&backlog::METRICS, column));
    let faults: Vec<String> = faults
        .chain(rests.iter().flat_map(|column| column_faults(&rest::METRICS, column)))
        .collect();
    Ok(json!({
        "measurement": "webhooks",
        "machine": machine(&plan.nginx),
        "endpoints": plan.endpoints, "changes": plan.changes, "rest_changes": plan.rest_changes,
        "pause_ms": plan.pause.as_millis(), "rounds": plan.rounds, "flags": FLAGS, "noisy": noisy,
        "settings": plan.setup.json(),
        "backlogs": columns_json(&backlog::METRICS, &backlogs),
        "rests": columns_json(&rest::METRICS, &rests),
        "faults": faults,
    }))
}

/// Measures something when the machine is quiet; tells whether it stayed so.
fn quietly<T>(
    plan: &Plan,
    pid: u32,
    measure: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, bool)> {
    let quiet_before = wait_until_quiet(plan.quiet)?;
    let watch = Watch::start(&[pid])?;
    let measured = measure()?;
    Ok((measured, watch.was_quiet()? && quiet_before))
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
fn print(plan: &Plan, backlogs: &[Column], rests: &[Column], noisy: usize) {
    print!("{}", columns_table(&backlog::METRICS, backlogs));
    println!(
        "{} changes of an environment with {FLAGS} flags, owed to {} endpoints. In events mode the first of each \
         queue waits at its receiver until all are let go; in state mode the time begins with the first \
         request that resumes an endpoint, and includes these requests.\n",
        plan.changes, plan.endpoints
    );
    print!("{}", columns_table(&rest::METRICS, rests));
    println!(
        "{} changes at rest for each number of endpoints, {} ms after the one before was applied. Receivers \
         read the flags at `flags_url` before they answer. p50 and p99 are over all receivers of all changes of a round.",
        plan.rest_changes,
        plan.pause.as_millis()
    );
    print_noise(noisy);
}
