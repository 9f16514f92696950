//! The composition root of a relay: the doors of a gateway over what the relay holds.
//!
//! Start: sockets, the operators' door, what is on the disk, then the links and the doors. It never waits for
//! its upstream. Stop: as a gateway, and what clients told is handed on last.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::descriptors;
use super::doors::Parts;
use super::listeners::{listen, public_url, serve_operators};
use super::running::{Running, flagsets, start_streams, told};
use crate::cdn::Canary;
use crate::config::Settings;
use crate::flagset::Directory;
use crate::http::{Evaluations, Gate, Health, Ops, Tls};
use crate::metrics::Metrics;
use crate::origin::{Ledger, Truth};
use crate::relay::{self, Held, Keeper, RelayLedger, Upstream, Usage, Watch};
use crate::shutdown::Shutdown;

/// Requests with keys that are not known yet, which wait for word about them.
const STRANGERS_MAX: usize = 1024;

/// A relay that is built and listens, but does not answer yet.
#[derive(Debug)]
pub struct RelayApp {
    running: Running,
    keeper: Keeper,
    usage: Usage,
    upstream: Upstream,
    canary: Option<Canary>,
}

/// What operators may ask of a relay; nothing before it has begun.
#[derive(Debug, Default)]
struct RelayHealth(OnceLock<Watch>);

impl Health for RelayHealth {
    fn not_ready(&self) -> Option<String> {
        match self.0.get() {
            None => Some("reading snapshots".to_owned()),
            Some(watch) => watch.not_ready(),
        }
    }

    fn describe(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        let line = match self.0.get() {
            Some(watch) => watch.describe(),
            None => "[-]snapshots are not read yet".to_owned(),
        };
        Box::pin(std::future::ready(line))
    }

    fn relay(&self) -> Option<String> {
        let report = self.0.get()?.report();
        serde_json::to_string(&report).ok()
    }
}

impl RelayApp {
    /// Builds every part. Nothing is asked of the upstream yet.
    pub fn build(mut settings: Settings) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        metrics.open_files_limit(descriptors::fit(&mut settings.limits));
        let tls = Tls::load(&settings.server, metrics.tls())?;
        let public = listen("server.listen", &settings.server.listen)?;
        let (shutdown, last) = (Shutdown::default(), Shutdown::default());
        let health = Arc::new(RelayHealth::default());
        let behind: Arc<dyn Health> = Arc::clone(&health) as _;
        let door = Ops { metrics: metrics.clone(), health: behind, shutdown: shutdown.clone() };
        let ops = serve_operators(&settings, door, &last)?;
        let public_url = public_url(&settings, public.local_addr()?);
        let (hub, streams) = start_streams(&settings, &metrics, &shutdown)
            .context("cannot start the fan-out shards")?;

        let held = Arc::new(Held::default());
        let upstream = Upstream::new(&settings.relay)?;
        let truth: Arc<dyn Truth> = Arc::clone(&held) as _;
        let flagsets = flagsets(&settings, &truth, &metrics);
        let (sender, strangers) = mpsc::channel(STRANGERS_MAX);
        let directory = Arc::new(Directory::asking(sender));
        let evaluations = Arc::new(Evaluations::new(metrics.analytics()));
        let served = (Arc::clone(&directory), flagsets.clone(), hub.clone());
        let (told, canary) = told(&settings, &metrics, &public_url, served)?;
        let usage = Usage::new(metrics.relay());
        let echo = Duration::from_secs(settings.stream.echo_seconds);
        let echo = (!echo.is_zero()).then_some(echo);
        let keeper = Keeper::new(
            &settings.relay,
            Arc::clone(&held),
            upstream.clone(),
            Arc::new(told),
            (usage.clone(), strangers),
            (echo, metrics.relay()),
        )?;
        let (traits, asked) = (settings.relay.traits, upstream.clone());
        let ledger: Arc<dyn Ledger> =
            Arc::new(RelayLedger::new(held, asked, usage.clone(), traits));
        let parts = Parts {
            directory,
            flagsets,
            hub,
            evaluations: Arc::clone(&evaluations),
            truth,
            ledger: Arc::clone(&ledger),
            gate: Gate::Secret(settings.relay.token.clone()),
            admin: None,
        };
        let doors = parts.doors(&settings, &metrics, &shutdown);
        drop(health.0.set(keeper.watch()));
        let running = Running {
            settings,
            metrics,
            shutdown,
            last,
            evaluations,
            ledger,
            doors,
            public,
            ops,
            tls,
            streams,
        };
        Ok(Self { running, keeper, usage, upstream, canary })
    }

    /// Answers until a signal, then stops in order. A second signal ends it at once.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { running, keeper, usage, upstream, canary } = self;
        let (shutdown, last) = (running.shutdown.clone(), running.last.clone());
        last.spawn(keeper.run(last.clone()));
        if let Some(canary) = canary {
            shutdown.spawn(canary.run(Vec::new(), shutdown.clone()));
        }
        let handing_on = Shutdown::default();
        handing_on.spawn(usage.run(upstream, handing_on.clone()));
        running.run().await?;
        // Behind the last flush of the counts.
        handing_on.stop();
        handing_on.wait(relay::USAGE_LAST_WAIT).await;
        tracing::info!("stopped");
        Ok(())
    }
}
