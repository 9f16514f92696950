//! `nodes`: several gateways on one PostgreSQL, beside one on PostgreSQL and one on SQLite.
//!
//! In each round each of the three is started afresh with projects of its own (`fleet.rs`). Then: one
//! change at a time, and when it is with listeners at the same node and at the others; rest; as many
//! changes as possible (`changes.rs`); and reads with and without a revision (`reads.rs`).

mod changes;
mod fleet;
mod reads;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use self::fleet::Fleet;
use crate::client::Stamping;
use crate::machine::wait_until_quiet;
use crate::output::{
    Column, Figures, Metric, column_faults, columns_json, columns_table, machine, print_noise,
};
use crate::servers::{Postgres, Setup};

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    /// Somebody else's server in place of our own.
    pub(crate) postgres: Option<String>,
    /// One after the other.
    pub(crate) changes: usize,
    pub(crate) pause: Duration,
    /// Of each measurement under load.
    pub(crate) seconds: u64,
    pub(crate) writers: Vec<usize>,
    pub(crate) readers: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) quiet: Duration,
    pub(crate) setup: Setup,
    pub(crate) nginx: PathBuf,
}

/// What is measured beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Sqlite,
    /// One node on PostgreSQL.
    One,
    Several(usize),
}

/// A table.
struct Section {
    title: String,
    metrics: &'static [Metric],
    columns: Vec<Column>,
}

/// All tables.
struct Report {
    rest: Section,
    /// For each number of writers.
    changes: Vec<Section>,
    /// For each number of readers.
    reads: Vec<Section>,
    idle: Section,
}

const IDLE: [Metric; 3] = [
    Metric::new("node_ms", "CPU of a node, ms per second", 2).with_ratio(),
    Metric::new("database_ms", "CPU of PostgreSQL, ms per second", 2),
    Metric::new("statements", "statements per second and node", 2),
];

/// Runs the plan, prints the tables and returns the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Json> {
    let _stamping = Stamping::keep_on()?;
    let postgres = Postgres::at(plan.postgres.as_deref())?;
    let sides = [Side::Sqlite, Side::One, Side::Several(plan.nodes)];
    let mut report = Report::new(plan, &sides);
    let mut noisy = 0;
    for round in 0..plan.rounds {
        for turn in 0..sides.len() {
            // Another one begins each time.
            let index = (round + turn) % sides.len();
            eprintln!("round {} of {}: {}", round + 1, plan.rounds, sides[index].name());
            noisy += usize::from(!wait_until_quiet(plan.quiet)?);
            let mut fleet = Fleet::start(plan, sides[index], &postgres, round)?;
            report.take(plan, index, &mut fleet)?;
        }
    }
    report.print(plan);
    print_noise(noisy);
    Ok(json!({
        "measurement": "nodes",
        "machine": machine(&plan.nginx),
        "nodes": plan.nodes, "changes": plan.changes, "pause_ms": plan.pause.as_millis(),
        "seconds": plan.seconds, "rounds": plan.rounds, "noisy": noisy,
        "settings": plan.setup.json(),
        "tables": report.json(),
        "faults": report.faults(),
    }))
}

impl Side {
    fn name(self) -> String {
        match self {
            Self::Sqlite => "SQLite".to_owned(),
            Self::One => "PostgreSQL, 1 node".to_owned(),
            Self::Several(nodes) => format!("PostgreSQL, {nodes} nodes"),
        }
    }

    fn nodes(self) -> usize {
        match self {
            Self::Sqlite | Self::One => 1,
            Self::Several(nodes) => nodes,
        }
    }
}

impl Section {
    fn new(title: String, metrics: &'static [Metric], names: &[String]) -> Self {
        let columns = names.iter().map(|name| Column::new(name)).collect();
        Self { title, metrics, columns }
    }

    fn push(&mut self, column: usize, figures: Figures) {
        self.columns[column].rounds.push(figures);
    }
}

impl Report {
    fn new(plan: &Plan, sides: &[Side]) -> Self {
        let names: Vec<String> = sides.iter().map(|side| side.name()).collect();
        let readings = reads::Reading::ALL.map(|reading| reading.name().to_owned());
        let changes = plan.writers.iter().map(|writers| {
            let title = format!("changes, {writers} at a time");
            Section::new(title, &changes::LOAD, &names)
        });
        let reads = plan.readers.iter().map(|readers| {
            Section::new(format!("reads, {readers} at a time"), &reads::METRICS, &readings)
        });
        Self {
            rest: Section::new("one change after the other".to_owned(), &changes::REST, &names),
            changes: changes.collect(),
            reads: reads.collect(),
            idle: Section::new("at rest".to_owned(), &IDLE, &names),
        }
    }

    /// Measures everything at one of the sides.
    fn take(&mut self, plan: &Plan, index: usize, fleet: &mut Fleet) -> anyhow::Result<()> {
        self.rest.push(index, changes::at_rest(plan, fleet)?);
        self.idle.push(index, fleet.idle(Duration::from_secs(plan.seconds))?);
        let length = Duration::from_secs(plan.seconds);
        for (writers, section) in plan.writers.iter().zip(&mut self.changes) {
            section.push(index, changes::under_load(fleet, *writers, length)?);
        }
        for (readers, section) in plan.readers.iter().zip(&mut self.reads) {
            for (column, reading) in reads::Reading::ALL.into_iter().enumerate() {
                if fleet.side == reading.side() {
                    section.push(column, reads::measure(fleet, reading, *readers, plan.seconds)?);
                }
            }
        }
        Ok(())
    }

    fn sections(&self) -> impl Iterator<Item = &Section> {
        let (rest, idle) = (std::iter::once(&self.rest), std::iter::once(&self.idle));
        rest.chain(&self.changes).chain(&self.reads).chain(idle)
    }

    fn faults(&self) -> Vec<String> {
        let columns = self.sections().flat_map(|section| {
            section.columns.iter().flat_map(|column| column_faults(section.metrics, column))
        });
        columns.collect()
    }

    fn json(&self) -> Json {
        let tables = self.sections().map(|section| {
            (section.title.clone(), columns_json(section.metrics, &section.columns))
        });
        Json::Object(tables.collect::<Map<_, _>>())
    }

    #[expect(clippy::print_stdout, reason = "this is the answer")]
    fn print(&self, plan: &Plan) {
        for section in self.sections() {
            println!("{}:\n", section.title);
            println!("{}", columns_table(section.metrics, &section.columns));
        }
        println!(
            "{} changes of a flag, each when all nodes have told of the one before; {} s of each load. Writers are dealt to \
             the nodes in turn. Everybody shares the cores: nodes, PostgreSQL (which syncs every commit), writers, \
             listeners and wrk.",
            plan.changes, plan.seconds
        );
    }
}
