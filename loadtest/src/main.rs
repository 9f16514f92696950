//! `flagcast-loadtest`: measures a gateway beside its peers on one machine, in turn in each round.
//!
//! - `pings`: from a change to the last of many clients, beside a bare loop and Nchan.
//! - `reads`: flag reads per second, beside nginx with the same bytes in static files.
//!
//! It starts every server itself, on loopback and in temporary directories, and ends what it
//! started. The figures are in `docs/BENCHMARKS.md`.

mod bare_loop;
mod gateway;
mod http;
mod nginx;
mod pings;
mod process;
mod reads;
mod report;
mod stats;
mod streams;
mod subjects;
mod table;
mod wrk;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Usage error (`EX_USAGE` of sysexits), as the gateway's.
const EXIT_USAGE: u8 = 64;

/// Where Debian puts nginx, which is not in everybody's path.
const NGINX: &str = "/usr/sbin/nginx";

/// Measures Flagcast beside its peers on one machine.
#[derive(Debug, Parser)]
#[command(name = "flagcast-loadtest", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From a change to the last of many clients, and what a stream costs.
    Pings(PingsArgs),
    /// Flag reads per second beside nginx, which serves the same bytes as static files.
    Reads(ReadsArgs),
    /// The least that a server of event streams can do; `pings` starts it.
    #[command(hide = true)]
    BareLoop,
}

#[derive(Debug, Args)]
struct PingsArgs {
    /// Open streams.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    streams: usize,
    /// Changes per round.
    #[arg(long, default_value_t = 20, value_parser = at_least_one)]
    changes: usize,
    /// Pause before each change, in milliseconds.
    #[arg(long, default_value_t = 300)]
    pause_ms: u64,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct ReadsArgs {
    /// Kept-alive connections of the generator.
    #[arg(long, default_value_t = 32, value_parser = at_least_one)]
    connections: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Numbers of flags in an environment.
    #[arg(long, default_values_t = [10, 200], value_delimiter = ',', value_parser = at_least_one)]
    flags: Vec<usize>,
    /// Routes to read.
    #[arg(long, value_delimiter = ',', default_value = "sdk,pinned,flagsmith")]
    routes: Vec<reads::Route>,
    /// Forms of the answer.
    #[arg(long, value_delimiter = ',', default_value = "identity,gzip,not-modified")]
    forms: Vec<reads::Form>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// Rounds; every server has its turn in each.
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    rounds: usize,
    /// The gateway's program, a release build.
    #[arg(long, value_name = "FILE", default_value = "target/release/flagcast")]
    gateway: PathBuf,
    /// nginx's program.
    #[arg(long, value_name = "FILE", default_value = NGINX)]
    nginx: PathBuf,
    /// How long a measurement waits for the rest of the machine to be quiet, in seconds.
    #[arg(long, default_value_t = 120)]
    quiet_wait: u64,
    /// Also writes everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way, too, and are no errors.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flagcast-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::BareLoop => bare_loop::run(),
        Command::Pings(args) => {
            let PingsArgs { streams, changes, pause_ms, common } = args;
            let plan = pings::Plan {
                streams,
                changes,
                rounds: common.rounds,
                pause: Duration::from_millis(pause_ms),
                quiet: Duration::from_secs(common.quiet_wait),
                gateway: absolute(&common.gateway)?,
                nginx: common.nginx,
            };
            report::save(&pings::run(&plan)?, common.json.as_deref())
        }
        Command::Reads(args) => {
            let common = args.common;
            let plan = reads::Plan {
                connections: args.connections,
                seconds: args.seconds,
                rounds: common.rounds,
                flags: args.flags,
                routes: args.routes,
                forms: args.forms,
                quiet: Duration::from_secs(common.quiet_wait),
                gateway: absolute(&common.gateway)?,
                nginx: common.nginx,
            };
            report::save(&reads::run(&plan)?, common.json.as_deref())
        }
    }
}

/// The gateway runs in a directory of its own.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("must be a whole number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        use clap::CommandFactory as _;

        Cli::command().debug_assert();
        assert_eq!(at_least_one("7"), Ok(7));
        assert!(at_least_one("0").is_err() && at_least_one("many").is_err());
    }
}
