//! The command line.

mod cdn;
mod nodes;
mod relays;
mod webhooks;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::cdn::CdnArgs;
use self::nodes::{NodesArgs, NotifyArgs};
use self::relays::{RelayClientsArgs, RelaysArgs};
use self::webhooks::WebhooksArgs;
use crate::machine::{Kernel, watch};
use crate::modes::{compare, crowd, engine, evaluate, fanout, reads, refetch, slow, soak, storm};
use crate::output::deliver;
use crate::servers::{Kind, Setup, run_axum_sse, run_bare_loop, run_bare_sender};

/// Where Debian puts nginx, which is not in everybody's path.
const NGINX: &str = "/usr/sbin/nginx";

/// Measures Flagcast beside its peers on one machine.
#[derive(Debug, Parser)]
#[command(name = "flagcast-loadtest", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// From a change to the last of many clients, and what a stream costs, beside a bare loop.
    Fanout(FanoutArgs),
    /// All clients are cut at once and come back at once, while flags go on changing.
    Storm(StormArgs),
    /// What clients that hardly read do to the others and to the server.
    Slow(SlowArgs),
    /// Every ping is followed by real reads of the flags; and pings under full read load.
    Refetch(RefetchArgs),
    /// Clients that come and go at random, then a look at what the gateway has not given back.
    Soak(SoakArgs),
    /// The gateway beside its peers, in turn: bare loop, axum, Nchan, Pushpin; reads beside nginx.
    Compare(CompareArgs),
    /// Clients behind Varnish with the shipped rules, beside the same clients without it.
    Cdn(CdnArgs),
    /// Flag reads per second beside nginx, which serves the same bytes as static files.
    Reads(ReadsArgs),
    /// Personal flag sets per second through every door, beside the list that all share.
    Evaluate(EvaluateArgs),
    /// The time of one personal flag set without HTTP, beside the official engine.
    Engine(EngineArgs),
    /// Webhooks to many local receivers, beside a bare sender; and from a change to a receiver at rest.
    Webhooks(WebhooksArgs),
    /// Several gateways on one PostgreSQL, beside one, and one on SQLite.
    Nodes(NodesArgs),
    /// What PostgreSQL alone commits per second when every commit notifies those who listen.
    Notify(NotifyArgs),
    /// Very many streams at relays in front of one gateway, and one change to all of them.
    Relays(RelaysArgs),
    /// The clients of one relay; started by `relays`.
    #[command(hide = true)]
    RelayClients(RelayClientsArgs),
    /// A server with its share of a crowd of streams; started by `fanout --processes`.
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// The least that a server of event streams can do; started as a peer.
    #[command(hide = true)]
    BareLoop,
    /// The least that a sender of webhooks can do; started as a peer.
    #[command(hide = true)]
    BareSender,
    /// A server of event streams on axum; started as a peer.
    #[command(hide = true)]
    AxumSse,
}

#[derive(Debug, Args)]
struct FanoutArgs {
    #[command(flatten)]
    pings: PingArgs,
    /// Environments; the streams are dealt to them in turn. With several, the gateway keeps no flag
    /// sets in memory, so that an environment's own cost shows.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    environments: usize,
    /// Servers of each kind, each with its own client process and its share of the streams: for
    /// more streams than a process may open.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    processes: usize,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct WorkerArgs {
    #[arg(long)]
    streams: usize,
    /// Without it: the bare loop.
    #[arg(long)]
    gateway: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    environments: usize,
}

#[derive(Debug, Args)]
struct StormArgs {
    /// Open streams.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    streams: usize,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct SlowArgs {
    /// Open streams, the slow ones among them.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    streams: usize,
    /// How many of them are slow, in percent.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=99))]
    slow_percent: u8,
    /// Changes per round.
    #[arg(long, default_value_t = 500, value_parser = at_least_one)]
    changes: usize,
    /// Pause before each change, in milliseconds.
    #[arg(long, default_value_t = 10)]
    pause_ms: u64,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct RefetchArgs {
    #[command(flatten)]
    pings: PingArgs,
    /// Streams whose clients read their flags after each ping.
    #[arg(long, default_value_t = 500, value_parser = at_least_one)]
    refetchers: usize,
    /// Kept-alive connections of the read load.
    #[arg(long, default_value_t = 32, value_parser = at_least_one)]
    connections: usize,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct SoakArgs {
    /// Clients that come and go.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    streams: usize,
    /// How long, in minutes.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
    /// Pause before each flip, in milliseconds.
    #[arg(long, default_value_t = 300)]
    pause_ms: u64,
    /// How much more memory than at the start the gateway may keep at the end, in MiB.
    #[arg(long, default_value_t = 8)]
    grow_max_mib: u64,
    #[command(flatten)]
    programs: ProgramArgs,
}

#[derive(Debug, Args)]
struct CompareArgs {
    #[command(flatten)]
    pings: PingArgs,
    /// Peers beside the bare loop.
    #[arg(long, value_delimiter = ',', default_value = "axum,nchan,pushpin")]
    peers: Vec<Peer>,
    /// Leaves the reads beside nginx out.
    #[arg(long)]
    no_reads: bool,
    /// Also draws time to the last client, memory and CPU.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

/// A server that others wrote, or that one would write with a framework.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// `Sse` of axum, a small program of our own
    Axum,
    /// Nchan, a module of nginx
    Nchan,
    /// Pushpin, with a small origin of our own
    Pushpin,
}

/// Streams and changes, as most measurements want them.
#[derive(Clone, Copy, Debug, Args)]
struct PingArgs {
    /// Open streams.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    streams: usize,
    /// Changes per round.
    #[arg(long, default_value_t = 20, value_parser = at_least_one)]
    changes: usize,
    /// Pause before each change, in milliseconds.
    #[arg(long, default_value_t = 300)]
    pause_ms: u64,
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
struct EngineArgs {
    /// Rounds.
    #[arg(long, default_value_t = 15, value_parser = at_least_one)]
    rounds: usize,
    /// Users, of whom each evaluation is another's.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    users: usize,
    /// Also writes the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct EvaluateArgs {
    /// Kept-alive connections of the generator.
    #[arg(long, default_value_t = 32, value_parser = at_least_one)]
    connections: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Users, of whom each request is another's.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    users: usize,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Clone, Debug, Args)]
struct CommonArgs {
    /// Rounds; every server has its turn in each.
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    rounds: usize,
    /// How long a measurement waits for the rest of the machine to be quiet, in seconds.
    #[arg(long, default_value_t = 120)]
    quiet_wait: u64,
    #[command(flatten)]
    programs: ProgramArgs,
}

#[derive(Clone, Debug, Args)]
struct ProgramArgs {
    /// The gateway's program, a release build.
    #[arg(long, value_name = "FILE", default_value = "target/release/flagcast")]
    gateway: PathBuf,
    /// nginx's program.
    #[arg(long, value_name = "FILE", default_value = NGINX)]
    nginx: PathBuf,
    /// Also writes everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Cli {
    /// Does what was asked for.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.command {
            // The peers live in what their parent prepared.
            Command::BareLoop => return run_bare_loop(),
            Command::BareSender => return run_bare_sender(),
            Command::AxumSse => return run_axum_sse(),
            Command::Worker(args) => return args.run(),
            Command::RelayClients(args) => return args.run(),
            _ => {}
        }
        let kernel = Kernel::prepare();
        watch(kernel.changed())?;
        match self.command {
            Command::BareLoop
            | Command::BareSender
            | Command::AxumSse
            | Command::Worker(_)
            | Command::RelayClients(_) => Ok(()),
            Command::Fanout(args) => args.run(),
            Command::Storm(args) => args.run(),
            Command::Slow(args) => args.run(&kernel),
            Command::Refetch(args) => args.run(),
            Command::Soak(args) => args.run(),
            Command::Compare(args) => args.run(),
            Command::Cdn(args) => args.run(),
            Command::Reads(args) => args.run(),
            Command::Evaluate(args) => args.run(),
            Command::Engine(args) => args.run(),
            Command::Webhooks(args) => args.run(),
            Command::Nodes(args) => args.run(),
            Command::Notify(args) => args.run(),
            Command::Relays(args) => args.run(&kernel),
        }
    }
}

impl FanoutArgs {
    fn run(self) -> anyhow::Result<()> {
        let common = self.common;
        let gateway = gateway(&common.programs.gateway, self.environments)?;
        let plan = self.pings.plan(&common, vec![Kind::BareLoop, gateway]);
        let measured = fanout::run(&fanout::Plan { processes: self.processes, ..plan })?;
        deliver(&measured.report, common.programs.json.as_deref())
    }
}

impl WorkerArgs {
    fn run(self) -> anyhow::Result<()> {
        let kind = match &self.gateway {
            None => Kind::BareLoop,
            Some(program) => gateway(program, self.environments)?,
        };
        crowd::work(&kind, self.streams)
    }
}

impl PingArgs {
    fn plan(self, common: &CommonArgs, kinds: Vec<Kind>) -> fanout::Plan {
        fanout::Plan {
            streams: self.streams,
            processes: 1,
            changes: self.changes,
            rounds: common.rounds,
            pause: Duration::from_millis(self.pause_ms),
            quiet: common.quiet(),
            nginx: common.programs.nginx.clone(),
            kinds,
        }
    }
}

impl StormArgs {
    fn run(self) -> anyhow::Result<()> {
        let common = self.common;
        let plan = storm::Plan {
            streams: self.streams,
            rounds: common.rounds,
            quiet: common.quiet(),
            setup: common.programs.setup()?,
            nginx: common.programs.nginx.clone(),
        };
        deliver(&storm::run(&plan)?, common.programs.json.as_deref())
    }
}

impl SlowArgs {
    fn run(self, kernel: &Kernel) -> anyhow::Result<()> {
        let common = self.common;
        let slow = (self.streams * usize::from(self.slow_percent)).div_ceil(100);
        let plan = slow::Plan {
            prompt: self.streams.saturating_sub(slow).max(1),
            slow,
            changes: self.changes,
            pause: Duration::from_millis(self.pause_ms),
            rounds: common.rounds,
            quiet: common.quiet(),
            setup: common.programs.setup()?,
            nginx: common.programs.nginx.clone(),
        };
        deliver(&slow::run(&plan, kernel)?, common.programs.json.as_deref())
    }
}

impl RefetchArgs {
    fn run(self) -> anyhow::Result<()> {
        let Self { pings, common, .. } = self;
        let plan = refetch::Plan {
            streams: pings.streams,
            refetchers: self.refetchers.min(pings.streams),
            connections: self.connections,
            changes: pings.changes,
            pause: Duration::from_millis(pings.pause_ms),
            rounds: common.rounds,
            quiet: common.quiet(),
            setup: common.programs.setup()?,
            nginx: common.programs.nginx.clone(),
        };
        deliver(&refetch::run(&plan)?, common.programs.json.as_deref())
    }
}

impl ReadsArgs {
    fn run(self) -> anyhow::Result<()> {
        let json = self.common.programs.json.clone();
        deliver(&reads::run(&self.plan()?)?, json.as_deref())
    }

    fn plan(self) -> anyhow::Result<reads::Plan> {
        let common = self.common;
        Ok(reads::Plan {
            connections: self.connections,
            seconds: self.seconds,
            rounds: common.rounds,
            flags: self.flags,
            routes: self.routes,
            forms: self.forms,
            quiet: common.quiet(),
            gateway: absolute(&common.programs.gateway)?,
            nginx: common.programs.nginx,
        })
    }
}

impl EvaluateArgs {
    fn run(self) -> anyhow::Result<()> {
        let common = self.common;
        let plan = evaluate::Plan {
            connections: self.connections,
            seconds: self.seconds,
            rounds: common.rounds,
            users: self.users,
            quiet: common.quiet(),
            setup: common.programs.setup()?,
        };
        deliver(&evaluate::run(&plan)?, common.programs.json.as_deref())
    }
}

impl EngineArgs {
    fn run(self) -> anyhow::Result<()> {
        let plan = engine::Plan { rounds: self.rounds, users: self.users };
        deliver(&engine::run(&plan)?, self.json.as_deref())
    }
}

impl SoakArgs {
    fn run(self) -> anyhow::Result<()> {
        let programs = self.programs;
        let plan = soak::Plan {
            streams: self.streams,
            length: Duration::from_mins(self.minutes),
            pause: Duration::from_millis(self.pause_ms),
            grow_max_bytes: self.grow_max_mib * 1024 * 1024,
            setup: programs.setup()?,
            nginx: programs.nginx.clone(),
        };
        deliver(&soak::run(&plan)?, programs.json.as_deref())
    }
}

impl CompareArgs {
    fn run(self) -> anyhow::Result<()> {
        let common = self.common;
        let programs = &common.programs;
        let mut kinds = vec![Kind::BareLoop, gateway(&programs.gateway, 1)?];
        kinds.extend(self.peers.iter().map(|peer| match peer {
            Peer::Axum => Kind::AxumSse,
            Peer::Nchan => Kind::Nchan(programs.nginx.clone()),
            Peer::Pushpin => Kind::Pushpin,
        }));
        let reads = ReadsArgs {
            connections: 32,
            seconds: 3,
            flags: vec![10, 200],
            routes: vec![reads::Route::Sdk, reads::Route::Flagsmith],
            forms: vec![reads::Form::Identity, reads::Form::NotModified],
            common: common.clone(),
        };
        let plan = compare::Plan {
            pings: self.pings.plan(&common, kinds),
            reads: if self.no_reads { None } else { Some(reads.plan()?) },
            svg: self.svg,
        };
        deliver(&compare::run(plan)?, programs.json.as_deref())
    }
}

impl CommonArgs {
    fn quiet(&self) -> Duration {
        Duration::from_secs(self.quiet_wait)
    }
}

impl ProgramArgs {
    fn setup(&self) -> anyhow::Result<Setup> {
        setup(&self.gateway)
    }
}

/// The gateway as it is measured: no echoes, so that a delivery is one ping, and no limit that the
/// number of environments or changes would meet.
fn setup(program: &Path) -> anyhow::Result<Setup> {
    Ok(Setup::new(&absolute(program)?)
        .with("stream.echo_seconds", 0)
        .with("limits.projects", 10_000)
        .with("limits.requests_per_second", 1_000_000))
}

/// It accepts as fast as it can, as its peers do. With several environments it keeps no flag sets in
/// memory: each one's own cost is wanted.
fn gateway(program: &Path, environments: usize) -> anyhow::Result<Kind> {
    let setup = setup(program)?.with("limits.accepts_per_second", 0);
    let setup = if environments > 1 { setup.with("limits.flagset_bytes", 0) } else { setup };
    Ok(Kind::Gateway { setup, environments })
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
