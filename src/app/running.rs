//! What runs whoever it is, gateway or relay: the public listener, the streams, the counts, and the order in
//! which they stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::listeners::bounds_of;
use crate::cdn::{Canary, Purger};
use crate::config::{FanOut, Settings};
use crate::flagset::{Bounds, Directory, FlagSets};
use crate::http::{Doors, Evaluations, Streams, Tls, public_front, serve};
use crate::metrics::Metrics;
use crate::origin::{Ledger, Truth};
use crate::shutdown::{Shutdown, Signals};
use crate::stream::{Hub, Limits, Shards, Times};
use crate::told::{Pings, Told};

/// How often recorded metrics are folded: often enough that a burst of requests piles up little.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// What the operators' listener may take of the grace period when everything else is done.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// A process with doors that are not open yet.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) settings: Settings,
    pub(super) metrics: Metrics,
    pub(super) shutdown: Shutdown,
    /// What stays until all else is done: the operators' listener and the upkeep.
    pub(super) last: Shutdown,
    pub(super) evaluations: Arc<Evaluations>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) doors: Doors,
    pub(super) public: TcpListener,
    pub(super) ops: SocketAddr,
    pub(super) tls: Option<Tls>,
    pub(super) streams: Streams,
}

impl Running {
    /// Answers until a signal, then stops in order. A second signal ends it at once.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let (public, ops) = (self.public.local_addr()?, self.ops);
        let grace = Duration::from_secs(self.settings.server.grace_seconds);
        let (shutdown, last) = (self.shutdown.clone(), self.last.clone());
        let (ledger, evaluations) = (Arc::clone(&self.ledger), Arc::clone(&self.evaluations));
        let shards = self.streams.shards.clone();
        self.start();
        tracing::info!(%public, %ops, "listening");

        signals.next().await;
        tracing::info!(grace_seconds = grace.as_secs(), "draining: no new connections");
        shutdown.drain();
        let ended = tokio::select! {
            ended = shutdown.wait(grace) => ended,
            () = signals.next() => {
                tracing::warn!("second signal: stopping at once");
                false
            }
        };
        if !ended {
            tracing::warn!("the grace period is over; connections are cut");
        }
        shutdown.stop();
        shards.stop();
        evaluations.flush(&*ledger).await;
        last.drain();
        last.stop();
        last.wait(LAST_WAIT).await;
        Ok(())
    }

    fn start(self) {
        let Self { settings, metrics, shutdown, last, evaluations, ledger, .. } = self;
        let (connections, body_limits) = bounds_of(&settings);
        last.spawn(keep_up(metrics.clone(), last.clone()));
        let flush = Duration::from_secs(settings.analytics.flush_seconds);
        last.spawn(write_counts(evaluations, ledger, flush, last.clone()));
        let public_metrics = metrics.listener("public");
        let front = public_front(self.doors, &metrics, body_limits);
        let (held, streams) = (shutdown.clone(), self.streams);
        let served =
            serve(self.public, front, connections, self.tls, streams, public_metrics, held);
        shutdown.spawn(served);
    }
}

/// Time over which a drain ends streams. The last quarter of the grace is for what is none.
pub(super) fn drain(settings: &Settings) -> Duration {
    Duration::from_secs(settings.server.grace_seconds).mul_f64(0.75)
}

/// The flag sets over what is true, within the bounds of the settings.
pub(super) fn flagsets(settings: &Settings, truth: &Arc<dyn Truth>, metrics: &Metrics) -> FlagSets {
    let bounds = Bounds {
        bytes: settings.limits.flagset_bytes,
        waiting: settings.limits.reads_waiting,
        check: Duration::from_millis(settings.store.check_timeout_ms),
    };
    FlagSets::new(Arc::clone(truth), bounds, metrics.flagset())
}

/// Those who are told of changes, and who follows what becomes of them.
pub(super) fn told(
    settings: &Settings,
    metrics: &Metrics,
    public_url: &str,
    (directory, flagsets, hub): (Arc<Directory>, FlagSets, Hub),
) -> anyhow::Result<(Told, Option<Canary>)> {
    let (flips, canary) = Canary::new(&settings.cdn, public_url, metrics.canary())?;
    let purger = Purger::new(&settings.cdn, metrics.purge())?;
    let pings = Pings::new(public_url, &settings.stream);
    Ok((Told { directory, flagsets, hub, purger, flips, pings }, canary))
}

/// The hub, and the shards that the settings want: none when streams are to be bodies.
pub(super) fn start_streams(
    settings: &Settings,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> anyhow::Result<(Hub, Streams)> {
    let Settings { stream, limits, .. } = settings;
    let count = match (stream.fan_out, stream.shards) {
        (FanOut::Bodies, _) => 0,
        // The socket of a TLS connection never leaves the HTTP library.
        _ if settings.server.has_tls() => 0,
        (FanOut::Shards, 0) => std::thread::available_parallelism()?.get(),
        (FanOut::Shards, chosen) => chosen,
    };
    let times = Times {
        stall: Duration::from_secs(stream.stall_seconds),
        drain: drain(settings),
        pings_per_second_max: stream.pings_per_second_max,
    };
    let metrics = metrics.stream();
    let (shards, returned) = Shards::start(count, times, &metrics, shutdown)?;
    let limits = Limits {
        total: limits.streams,
        per_environment: limits.streams_per_environment,
        per_address: limits.streams_per_address,
        unknown: limits.streams_unknown,
    };
    Ok((Hub::new(limits, shards.clone(), metrics), Streams { shards, returned }))
}

async fn keep_up(metrics: Metrics, last: Shutdown) {
    loop {
        tokio::select! {
            () = last.stopped() => return,
            () = tokio::time::sleep(METRICS_UPKEEP) => metrics.upkeep(),
        }
    }
}

async fn write_counts(
    evaluations: Arc<Evaluations>,
    ledger: Arc<dyn Ledger>,
    every: Duration,
    last: Shutdown,
) {
    loop {
        tokio::select! {
            () = last.stopped() => return,
            () = tokio::time::sleep(every) => evaluations.flush(&*ledger).await,
        }
    }
}
