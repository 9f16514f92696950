//! Starts Varnish with the rules that are shipped in `deploy/varnish`, as one cache in front of the gateway
//! or as two edges and a shield. Only the addresses of the origins are put in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use serde_json::Value as Json;
use tempfile::TempDir;

use super::nginx::end;
use crate::machine::family;

/// How long a start may take: the rules are compiled.
const START_MAX: Duration = Duration::from_secs(30);

/// The rules, which are the same in every tier.
const RULES: &str = "flagcast.vcl";

/// Where they say that the origin is.
const SHIPPED_ORIGIN: &str = ".host = \"127.0.0.1\";\n\t.port = \"8080\";";

/// Pools of a daemon's threads: its own default.
const POOLS: usize = 2;

/// Most threads of a pool: Varnish's own default, which is raised only when it cannot do.
const THREADS_MAX: usize = 5000;

/// Most requests that wait for a thread of a pool: Varnish's own default, likewise.
const QUEUE_MAX: usize = 20;

/// Threads of a pool for all that is not a client's.
const THREADS_BESIDE: usize = 100;

/// Doors that clients are dealt to, with any way; so the work of the client is the same with each.
const DOORS: usize = 2;

/// How to start the daemons.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    pub(crate) program: PathBuf,
    /// Where the shipped rules are.
    pub(crate) rules: PathBuf,
    /// Parameters in place of ours or Varnish's, `name=value`.
    pub(crate) parameters: Vec<String>,
}

/// What is between clients and gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// Nothing
    Direct,
    /// One cache
    Cache,
    /// Two edges, half of the clients at each, and a shield
    Tiers,
}

/// The running caches.
pub(crate) struct Caches {
    /// Those of clients first.
    caches: Vec<Varnish>,
    /// Where clients connect.
    pub(crate) doors: Vec<SocketAddr>,
}

/// A running daemon. Dropping it ends it.
struct Varnish {
    child: Child,
    directory: TempDir,
    address: SocketAddr,
}

impl Daemon {
    /// What the program says of itself: its first line, which it writes to its log.
    pub(crate) fn version(&self) -> Option<String> {
        let output = Command::new(&self.program).arg("-V").output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Some(text.lines().next()?.trim().to_owned())
    }
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "no cache",
            Self::Cache => "one cache",
            Self::Tiers => "two edges + shield",
        }
    }
}

impl Caches {
    /// Starts what `clients` need between them and `origin`.
    pub(crate) fn start(
        daemon: &Daemon,
        way: Way,
        origin: SocketAddr,
        clients: usize,
    ) -> anyhow::Result<Self> {
        let share = clients.div_ceil(DOORS);
        let caches = match way {
            Way::Direct => Vec::new(),
            Way::Cache => vec![Varnish::start(daemon, origin, clients)?],
            Way::Tiers => {
                let shield = Varnish::start(daemon, origin, 0)?;
                let edge = || Varnish::start(daemon, shield.address, share);
                vec![edge()?, edge()?, shield]
            }
        };
        let doors = (0..DOORS).map(|door| match way {
            Way::Direct => origin,
            Way::Cache => caches[0].address,
            Way::Tiers => caches[door].address,
        });
        Ok(Self { doors: doors.collect(), caches })
    }

    /// All processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.caches.iter().flat_map(|cache| family(cache.child.id())).collect()
    }

    /// The sum of a counter of all daemons, such as `MAIN.sess_dropped`.
    pub(crate) fn counter(&self, name: &str) -> anyhow::Result<u64> {
        self.caches.iter().try_fold(0, |sum, cache| Ok(sum + cache.counter(name)?))
    }
}

impl Varnish {
    fn start(daemon: &Daemon, origin: SocketAddr, clients: usize) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for Varnish")?;
        put_rules(&daemon.rules, origin, directory.path())?;
        let mut command = Command::new(&daemon.program);
        command.arg("-F").arg("-n").arg(directory.path());
        command.arg("-f").arg(directory.path().join(RULES));
        command.args(["-j", "none", "-a", "127.0.0.1:0"]);
        command.args(["-s", "malloc,64M", "-s", "Transient=malloc,64M"]);
        for parameter in parameters(clients, &daemon.parameters) {
            command.args(["-p", &parameter]);
        }
        let log = directory.path().join("log");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .with_context(|| {
                format!("cannot start {} (Debian: apt install varnish)", daemon.program.display())
            })?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut running = Self { child, directory, address };
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(address) = running.listening() {
                running.address = address;
                return Ok(running);
            }
            if running.child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("Varnish does not listen:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The address of its socket, once it has one.
    fn listening(&self) -> Option<SocketAddr> {
        let answer = self.ask("varnishadm", &["-t", "5", "debug.listen_address"]).ok()?;
        let mut words = answer.split_whitespace().skip(1);
        let (host, port) = (words.next()?, words.next()?);
        format!("{host}:{port}").parse().ok()
    }

    fn counter(&self, name: &str) -> anyhow::Result<u64> {
        let counters = self.ask("varnishstat", &["-1", "-j", "-f", name])?;
        let counters: Json = serde_json::from_str(&counters)?;
        let value = counters["counters"][name]["value"].as_u64();
        value.with_context(|| format!("Varnish does not count {name}"))
    }

    /// Runs one of Varnish's tools on the daemon.
    fn ask(&self, tool: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(tool);
        let output = command.arg("-n").arg(self.directory.path()).args(arguments).output();
        let output = output.with_context(|| format!("cannot run {tool}"))?;
        ensure!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Varnish {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A thread for each stream, and one for each read that may come in the same moment. Whoever finds none
/// waits until one is made; with Varnish's own limit all beyond twenty would be sent away.
fn parameters(clients: usize, given: &[String]) -> Vec<String> {
    let threads = (2 * clients).div_ceil(POOLS) + THREADS_BESIDE;
    let max = format!("thread_pool_max={}", threads.max(THREADS_MAX));
    let queue = format!("thread_queue_limit={}", clients.max(QUEUE_MAX));
    [max, queue].into_iter().chain(given.iter().cloned()).collect()
}

/// Copies the shipped rules, with the address of `origin` in place of the one that they name.
fn put_rules(rules: &Path, origin: SocketAddr, directory: &Path) -> anyhow::Result<()> {
    let path = rules.join(RULES);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}: name its folder with --rules", path.display()))?;
    std::fs::write(directory.join(RULES), with_origin(&text, origin)?)?;
    Ok(())
}

fn with_origin(text: &str, origin: SocketAddr) -> anyhow::Result<String> {
    let ours = format!(".host = \"{}\";\n\t.port = \"{}\";", origin.ip(), origin.port());
    ensure!(text.contains(SHIPPED_ORIGIN), "{RULES} does not name its origin as expected");
    Ok(text.replace(SHIPPED_ORIGIN, &ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_origins_address_is_put_in() {
        let shipped =
            "backend a {\n\t.host = \"127.0.0.1\";\n\t.port = \"8080\";\n\t.max = 1;\n}\n";
        let origin = SocketAddr::from(([127, 0, 0, 2], 99));
        let text = with_origin(shipped, origin).unwrap();
        assert_eq!(text, shipped.replace("127.0.0.1", "127.0.0.2").replace("8080", "99"));
        assert!(with_origin(&text, origin).is_err(), "another address than is shipped");
    }

    #[test]
    fn a_client_may_need_two_threads() {
        let ours = ["thread_pool_max=5000", "thread_queue_limit=20"];
        assert_eq!(parameters(0, &[]), ours);
        let given = ["thread_pool_min=300".to_owned()];
        let both = ["thread_pool_max=9100", "thread_queue_limit=9000", "thread_pool_min=300"];
        assert_eq!(parameters(9000, &given), both);
    }
}
