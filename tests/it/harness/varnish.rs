//! Debian's Varnish with the rules that are shipped in `deploy/varnish`, in one tier or in two.
//!
//! Only the address of the origin is put in; all else is what an operator gets, the daemon's
//! defaults included.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::eventually;
use super::process::Process;
use super::proxy::Proxy;

/// The rules, which are the same in every tier.
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/varnish/flagcast.vcl");

/// Where they say that the origin is, once for each pool.
const SHIPPED_ORIGIN: &str = ".host = \"127.0.0.1\";\n\t.port = \"8080\";";

/// Where Debian has it, which is not in everybody's `PATH`.
const DAEMON: &str = "/usr/sbin/varnishd";

/// A running cache. Dropping it ends it.
pub(crate) struct Varnish {
    process: Process,
    directory: TempDir,
    address: SocketAddr,
}

impl Varnish {
    /// Starts a cache in front of `origin` and waits until it listens.
    pub(crate) async fn start(origin: SocketAddr) -> Self {
        let directory = TempDir::with_prefix("flagcast-varnish-").unwrap();
        let rules = directory.path().join("flagcast.vcl");
        std::fs::write(&rules, rules_for(origin)).unwrap();
        let mut command = Command::new(DAEMON);
        command.arg("-F").arg("-n").arg(directory.path());
        command.arg("-f").arg(rules);
        // A jail would need a user who may read the test's directory.
        command.args(["-j", "none", "-a", "127.0.0.1:0"]);
        command.args(["-s", "malloc,32M", "-s", "Transient=malloc,32M"]);
        command.args(["-p", "thread_pool_min=20", "-p", "thread_pool_max=1000"]);
        command.args(["-p", "feature=+http2"]);
        let process = Process::spawn("varnishd", command);
        let address = eventually("varnishd listens", async || {
            assert!(!process.has_ended(), "{}", process.stderr.tail(40));
            listening(directory.path())
        })
        .await;
        Self { process, directory, address }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// One of Varnish's own counters, such as `MAIN.client_req`.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let directory = self.directory.path();
        let counters = run("varnishstat", directory, &["-1", "-j", "-f", name]).unwrap();
        let counters: Value = serde_json::from_str(&counters).unwrap();
        counters["counters"][name]["value"].as_u64().unwrap_or_else(|| panic!("{counters}"))
    }
}

impl Drop for Varnish {
    fn drop(&mut self) {
        // The manager ends its child; one that is killed leaves it behind for a while.
        if !self.process.has_ended() {
            self.process.signal("TERM");
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.process.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The shipped rules, with the address of `origin` in place of the one that they name.
fn rules_for(origin: SocketAddr) -> String {
    let text = std::fs::read_to_string(RULES).unwrap();
    let ours = format!(".host = \"{}\";\n\t.port = \"{}\";", origin.ip(), origin.port());
    assert_eq!(text.matches(SHIPPED_ORIGIN).count(), 3, "the origin of three pools");
    text.replace(SHIPPED_ORIGIN, &ours)
}

/// The address of the socket, as the daemon tells it.
fn listening(directory: &Path) -> Option<SocketAddr> {
    let answer = run("varnishadm", directory, &["-t", "5", "debug.listen_address"])?;
    let mut words = answer.split_whitespace().skip(1);
    let (host, port) = (words.next()?, words.next()?);
    format!("{host}:{port}").parse().ok()
}

/// Runs one of Varnish's tools on the daemon of `directory`.
fn run(tool: &str, directory: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(tool);
    let output = command.arg("-n").arg(directory).args(arguments).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// Caches in front of an origin, with a proxy between that counts what reaches the origin.
pub(crate) struct Chain {
    // Dropped in this order, from the clients to the origin.
    edges: Vec<Varnish>,
    shield: Option<(Varnish, Proxy)>,
    origin: Proxy,
}

impl Chain {
    /// One cache.
    pub(crate) async fn single(origin: SocketAddr) -> Self {
        Self::without_shield(origin, 1).await
    }

    /// Caches that do not know of each other.
    pub(crate) async fn without_shield(origin: SocketAddr, count: usize) -> Self {
        let origin = Proxy::start(origin).await;
        let edges = start(count, origin.address()).await;
        Self { edges, shield: None, origin }
    }

    /// Two edges and a shield.
    pub(crate) async fn shielded(origin: SocketAddr) -> Self {
        let origin = Proxy::start(origin).await;
        let shield = Varnish::start(origin.address()).await;
        let before = Proxy::start(shield.address()).await;
        let edges = start(2, before.address()).await;
        Self { edges, shield: Some((shield, before)), origin }
    }

    /// Where clients connect: each to one of these.
    pub(crate) fn doors(&self) -> Vec<SocketAddr> {
        self.edges.iter().map(Varnish::address).collect()
    }

    /// Every cache, the shield first, as a gateway that purges must ask them.
    pub(crate) fn caches(&self) -> Vec<SocketAddr> {
        let shield = self.shield.iter().map(|(shield, _)| shield.address());
        shield.chain(self.doors()).collect()
    }

    /// The first of the doors.
    pub(crate) fn door(&self) -> SocketAddr {
        self.edges[0].address()
    }

    /// The network in front of the origin.
    pub(crate) fn origin(&self) -> &Proxy {
        &self.origin
    }

    /// The network between the edges and the shield.
    pub(crate) fn before_shield(&self) -> &Proxy {
        &self.shield.as_ref().expect("a chain with a shield").1
    }

    /// The caches that clients connect to.
    pub(crate) fn edges(&self) -> &[Varnish] {
        &self.edges
    }
}

async fn start(count: usize, origin: SocketAddr) -> Vec<Varnish> {
    let mut caches = Vec::with_capacity(count);
    for _ in 0..count {
        caches.push(Varnish::start(origin).await);
    }
    caches
}
