//! The command lines of `relays`, and of the clients of one relay.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::{ProgramArgs, at_least_one};
use crate::client::Target;
use crate::machine::Kernel;
use crate::modes::relays;
use crate::output::deliver;

/// Life of a stream in seconds: none ends by plan while it is measured.
const LIFE_SECONDS: u64 = 86_400;

#[derive(Debug, Args)]
pub(super) struct RelaysArgs {
    /// Relays of one gateway; with 0 the clients come to the gateway itself.
    #[arg(long, default_value_t = 6)]
    relays: usize,
    /// Streams in all.
    #[arg(long, default_value_t = 100_000, value_parser = at_least_one)]
    streams: usize,
    /// Environments; the streams of each relay are dealt to them in turn, and a change is one of theirs.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    environments: usize,
    /// How long the streams are held before the changes, in seconds.
    #[arg(long, default_value_t = 60)]
    hold: u64,
    /// Changes at the gateway.
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    changes: usize,
    /// Pause before each change, in milliseconds.
    #[arg(long, default_value_t = 2000)]
    pause_ms: u64,
    /// How long it waits for the rest of the machine to be quiet, in seconds.
    #[arg(long, default_value_t = 120)]
    quiet_wait: u64,
    #[command(flatten)]
    programs: ProgramArgs,
}

#[derive(Debug, Args)]
pub(super) struct RelayClientsArgs {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    streams: usize,
    #[arg(long = "path", required = true)]
    paths: Vec<String>,
}

impl RelaysArgs {
    pub(super) fn run(self, kernel: &Kernel) -> anyhow::Result<()> {
        let programs = self.programs;
        let plan = relays::Plan {
            relays: self.relays,
            streams: self.streams,
            environments: self.environments,
            hold: Duration::from_secs(self.hold),
            changes: self.changes,
            pause: Duration::from_millis(self.pause_ms),
            quiet: Duration::from_secs(self.quiet_wait),
            setup: programs.setup()?.with("stream.life_seconds", LIFE_SECONDS),
            nginx: programs.nginx.clone(),
        };
        deliver(&relays::run(&plan, kernel)?, programs.json.as_deref())
    }
}

impl RelayClientsArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let target = Target { address: self.address, paths: self.paths };
        relays::clients::work(&target, self.streams)
    }
}
