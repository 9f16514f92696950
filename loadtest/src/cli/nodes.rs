//! The command lines of `nodes` and `notify`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{CommonArgs, at_least_one};
use crate::modes::{nodes, notify};
use crate::output::deliver;

#[derive(Debug, Args)]
pub(super) struct NodesArgs {
    /// Gateways on one PostgreSQL.
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    nodes: usize,
    /// An empty database of a PostgreSQL that runs, in place of a cluster of our own. What is made there stays.
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Changes at rest, one after the other.
    #[arg(long, default_value_t = 100, value_parser = at_least_one)]
    changes: usize,
    /// Pause before each change at rest, in milliseconds.
    #[arg(long, default_value_t = 20)]
    pause_ms: u64,
    /// Seconds of each measurement under load.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many make changes at once.
    #[arg(long, default_values_t = [1, 8, 32], value_delimiter = ',', value_parser = at_least_one)]
    writers: Vec<usize>,
    /// Connections of those who read.
    #[arg(long, default_values_t = [1, 64], value_delimiter = ',', value_parser = at_least_one)]
    readers: Vec<usize>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
pub(super) struct NotifyArgs {
    /// A PostgreSQL that runs, in place of a cluster of our own. Two tables come and go there.
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Sessions that commit at once.
    #[arg(long, default_values_t = [1, 8, 32], value_delimiter = ',', value_parser = at_least_one)]
    writers: Vec<usize>,
    /// Sessions that listen.
    #[arg(long, default_values_t = [1, 3, 20, 100], value_delimiter = ',', value_parser = at_least_one)]
    listeners: Vec<usize>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds.
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    rounds: usize,
    /// Also writes everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl NodesArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let common = self.common;
        let plan = nodes::Plan {
            nodes: self.nodes,
            postgres: self.postgres,
            changes: self.changes,
            pause: Duration::from_millis(self.pause_ms),
            seconds: self.seconds,
            writers: self.writers,
            readers: self.readers,
            rounds: common.rounds,
            quiet: common.quiet(),
            setup: common.programs.setup()?,
            nginx: common.programs.nginx.clone(),
        };
        deliver(&nodes::run(&plan)?, common.programs.json.as_deref())
    }
}

impl NotifyArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let plan = notify::Plan {
            postgres: self.postgres,
            writers: self.writers,
            listeners: self.listeners,
            length: Duration::from_secs(self.seconds),
            rounds: self.rounds,
        };
        deliver(&notify::run(&plan)?, self.json.as_deref())
    }
}
