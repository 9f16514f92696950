//! `flagcast-loadtest`: measures a gateway beside its peers on one machine, in turn in each round.
//!
//! - `modes/`: what can be measured, one file each.
//! - `servers/`: the gateway, its peers and the caches in front of it, started on loopback and in temporary
//!   directories.
//! - `client/`: many event streams in one thread, clients that follow the flags, single requests, `wrk`.
//! - `machine/`: what the kernel tells of processes, and how it is prepared.
//! - `output/`: statistics, tables, the report, charts.
//!
//! It ends what it started. The figures are in `docs/BENCHMARKS.md`.

mod cli;
mod client;
mod machine;
mod modes;
mod output;
mod servers;

use std::process::ExitCode;

use clap::Parser as _;

/// Usage error (`EX_USAGE` of sysexits), as the gateway's.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way, too, and are no errors.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flagcast-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
