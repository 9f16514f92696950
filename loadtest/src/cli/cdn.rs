//! The command line of `cdn`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{CommonArgs, absolute, at_least_one};
use crate::modes::cdn;
use crate::output::deliver;
use crate::servers::{Daemon, Way};

/// Where Debian puts Varnish, which is not in everybody's path.
const VARNISH: &str = "/usr/sbin/varnishd";

#[derive(Debug, Args)]
pub(super) struct CdnArgs {
    /// Clients, each with a stream and a connection for its reads; a table for each number.
    #[arg(long, default_values_t = [5000], value_delimiter = ',', value_parser = at_least_one)]
    clients: Vec<usize>,
    /// What is between clients and gateway; ratios are to the first.
    #[arg(long, value_delimiter = ',', default_value = "direct,cache,tiers")]
    ways: Vec<Way>,
    /// Changes per round.
    #[arg(long, default_value_t = 40, value_parser = at_least_one)]
    changes: usize,
    /// From one change to the next, in milliseconds.
    #[arg(long, default_value_t = 2000)]
    pause_ms: u64,
    /// `stream.cached_life_seconds` of the gateway. Changes must go on for longer to cross an end.
    #[arg(long, default_value_t = 60)]
    life_seconds: u64,
    /// Varnish's program.
    #[arg(long, value_name = "FILE", default_value = VARNISH)]
    varnish: PathBuf,
    /// Where the shipped rules are.
    #[arg(long, value_name = "DIRECTORY", default_value = "deploy/varnish")]
    rules: PathBuf,
    /// A parameter of Varnish in place of its default, or of our number of threads.
    #[arg(long, value_name = "NAME=VALUE")]
    varnish_parameter: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

impl CdnArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let common = self.common;
        let setup = common.programs.setup()?;
        let plan = cdn::Plan {
            clients: self.clients,
            ways: self.ways,
            changes: self.changes,
            pause: Duration::from_millis(self.pause_ms),
            rounds: common.rounds,
            quiet: common.quiet(),
            setup: setup.with("stream.cached_life_seconds", self.life_seconds),
            varnish: Daemon {
                program: self.varnish,
                rules: absolute(&self.rules)?,
                parameters: self.varnish_parameter,
            },
            nginx: common.programs.nginx.clone(),
        };
        deliver(&cdn::run(&plan)?, common.programs.json.as_deref())
    }
}
