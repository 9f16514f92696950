//! A gateway with the transcribed rules in front of it, in one tier or in two.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use super::{syntax, terraform, varnish};
use crate::harness::Gateway;
use crate::harness::admin::Environment;
use crate::harness::daemon::{Daemon, shipped};
use crate::harness::proxy::Proxy;
use crate::harness::wire::{Wire, stream_request};

/// A gateway, a book of what reaches it, and the transcribed rules in front.
pub(super) struct Site {
    // Dropped in this order, from the clients to the origin.
    pub(super) edges: Vec<Daemon>,
    _shield: Option<Daemon>,
    pub(super) network: Proxy,
    pub(super) gateway: Gateway,
    pub(super) environment: Environment,
}

impl Site {
    /// One tier.
    pub(super) async fn start() -> Self {
        let gateway = Gateway::builder()
            .set("stream.cached_life_seconds", 12)
            .set("stream.cached_heartbeat_seconds", 1)
            .start()
            .await;
        let environment = gateway.shop().await;
        let network = Proxy::start(gateway.public()).await;
        let edges = vec![run_rules(network.address()).await];
        Self { edges, _shield: None, network, gateway, environment }
    }

    /// Two edges behind which the rules run once more, as Fastly's shield runs them.
    pub(super) async fn start_with_shield() -> Self {
        let mut site = Self::start().await;
        let shield = site.edges.remove(0);
        for _ in 0..2 {
            site.edges.push(run_rules(shield.address()).await);
        }
        Self { _shield: Some(shield), ..site }
    }

    /// Where clients connect.
    pub(super) fn door(&self) -> SocketAddr {
        self.edges[0].address()
    }

    /// The URL of `path` there.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.door())
    }

    /// The URL of our own reads.
    pub(super) fn flags(&self, query: &str) -> String {
        self.url(&format!("/sdk/v1/environments/{}/flags{query}", self.environment.client_key))
    }

    /// Opens a stream; `query` is what clients add against caches.
    pub(super) async fn joins(&self, query: &str, headers: &str) -> Wire {
        let request = stream_request(&self.environment.client_key, headers);
        let mut wire = Wire::connect(self.door()).await;
        wire.send(request.replacen("/stream ", &format!("/stream{query} "), 1)).await;
        wire.read_stream_head().await;
        wire.until("\"revision\": ").await;
        wire
    }
}

/// Runs the shipped rules in front of `origin`.
async fn run_rules(origin: SocketAddr) -> Daemon {
    Daemon::start("Varnish", |directory, port| {
        let subs = syntax::parse(&shipped("fastly/flagcast.vcl", &[])).unwrap();
        let pools = terraform::pools(&terraform::files());
        let file = directory.join("fastly.vcl");
        fs::write(&file, varnish::transcribe(&subs, &pools, origin)).unwrap();
        let mut command = Command::new("/usr/sbin/varnishd");
        command.args(["-F", "-j", "none", "-a", &format!("127.0.0.1:{port}"), "-n"]);
        command.arg(directory).arg("-f").arg(file);
        command.args(["-s", "malloc,32M", "-s", "Transient=malloc,32M"]);
        // Fastly leaves the encoding to the rules.
        command.args(["-p", "http_gzip_support=off", "-p", "thread_pool_max=1000"]);
        command
    })
    .await
}
