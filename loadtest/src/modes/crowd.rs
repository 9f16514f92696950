//! More streams than a process may open: several benches, each in a process of its own with a server
//! of its own. A change is made at all of them at the same moment, and counts as one.

use std::ffi::OsString;

use anyhow::{Context as _, bail, ensure};

use super::bench::{Bench, Client, Cost, Sample};
use super::worker::{READY, Worker, ask};
use crate::client::Stamping;
use crate::machine::family;
use crate::servers::Kind;

const OPEN: &str = "open";
const RESTS: &str = "change";
const READS_ALONG: &str = "change-and-read-along";
const COST: &str = "cost";

/// The benches of one server: one in this process, or workers.
pub(super) enum Crowd {
    Here(Box<Bench>),
    Workers(Vec<Worker>),
}

impl Crowd {
    /// Opens `count` streams at a server, or dealt to as many servers as `processes`.
    pub(super) fn open(kind: &Kind, count: usize, processes: usize) -> anyhow::Result<Self> {
        if processes == 1 {
            let mut bench = Bench::start(kind, count)?;
            bench.open()?;
            return Ok(Self::Here(Box::new(bench)));
        }
        let mut workers = Vec::with_capacity(processes);
        for number in 0..processes {
            // The first ones take what cannot be dealt evenly.
            let share = count / processes + usize::from(number < count % processes);
            workers.push(Worker::start(&arguments(kind, share)?)?);
        }
        // Only now: servers share pages, so each start changes what the others are said to hold.
        for worker in &mut workers {
            let answers = ask(std::slice::from_mut(worker), OPEN)?;
            ensure!(answers == [READY], "a worker did not open its streams");
        }
        Ok(Self::Workers(workers))
    }

    /// The servers, and the workers themselves.
    pub(super) fn pids(&self) -> Vec<u32> {
        match self {
            Self::Here(bench) => bench.pids(),
            Self::Workers(workers) => {
                workers.iter().flat_map(|worker| family(worker.pid())).collect()
            }
        }
    }

    /// Makes one change and waits until all who listen know.
    pub(super) fn change(&mut self, client: Client) -> anyhow::Result<Sample> {
        let word = match client {
            Client::Rests => RESTS,
            Client::ReadsAlong => READS_ALONG,
        };
        match self {
            Self::Here(bench) => bench.change(client),
            Self::Workers(workers) => {
                let answers = ask(workers, word)?;
                let mut samples = answers.iter().map(|answer| Sample::parse(answer));
                let mut whole = samples.next().context("there are no workers")??;
                for sample in samples {
                    whole.join(sample?);
                }
                Ok(whole)
            }
        }
    }

    /// What the streams have cost so far.
    pub(super) fn cost(&mut self) -> anyhow::Result<Cost> {
        match self {
            Self::Here(bench) => bench.cost(),
            Self::Workers(workers) => {
                let mut whole = Cost::default();
                for answer in ask(workers, COST)? {
                    whole.join(&Cost::parse(&answer)?);
                }
                Ok(whole)
            }
        }
    }
}

/// The command line of a worker with so many streams of a server.
fn arguments(kind: &Kind, streams: usize) -> anyhow::Result<Vec<OsString>> {
    let mut arguments: Vec<OsString> =
        vec!["worker".into(), "--streams".into(), streams.to_string().into()];
    match kind {
        Kind::BareLoop => {}
        Kind::Gateway { setup, environments } => {
            arguments.extend(["--environments".into(), environments.to_string().into()]);
            arguments.extend(["--gateway".into(), setup.program.clone().into()]);
        }
        _ => bail!("{} is measured in one process only", kind.name()),
    }
    Ok(arguments)
}

/// The worker's part: starts its server, then does what it is told.
#[expect(clippy::print_stdout, reason = "the parent reads there")]
pub(crate) fn work(kind: &Kind, streams: usize) -> anyhow::Result<()> {
    let _stamping = Stamping::keep_on()?;
    let mut bench = Bench::start(kind, streams)?;
    println!("{READY}");
    for word in std::io::stdin().lines() {
        let answer = match word?.as_str() {
            OPEN => {
                bench.open()?;
                READY.to_owned()
            }
            RESTS => bench.change(Client::Rests)?.json().to_string(),
            READS_ALONG => bench.change(Client::ReadsAlong)?.json().to_string(),
            COST => bench.cost()?.json().to_string(),
            word => bail!("a worker does not know the word {word:?}"),
        };
        println!("{answer}");
    }
    Ok(())
}
