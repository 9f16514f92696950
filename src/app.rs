//! The composition root: builds every part, starts them in order and stops them in order.
//!
//! Start: sockets, the operators' door, the store, what is true now (directory, hub), then the change feed
//! and the doors.
//! Stop: not ready, no new connections, streams ended over the grace period, counts written, store
//! closed.

mod descriptors;
mod export;
mod feed;
mod first_start;
mod fixture;
mod import;
mod listeners;
mod told;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::cdn::{Canary, Purger};
use crate::config::{self, FanOut, Settings};
use crate::fixture::Fixture;
use crate::flagset::{Bounds, Directory, FlagSets};
use crate::http::{
    Admin, Doors, Evaluations, Flagsmith, Flipper, Hops, Ofrep, Ops, Patience, Sdk, Sse, Streams,
    Tls, public_front, serve,
};
use crate::metrics::{Metrics, WebhookMetrics};
use crate::model::{AttemptOutcome, ClientKey, WebhookStatus};
use crate::shutdown::{Shutdown, Signals};
use crate::store::{Store, StoreError};
use crate::stream::{Hub, Limits, Shards, Times};
use crate::webhook::{self, Worker, WorkerHandle};

pub use export::export;
pub use feed::Feed;
pub use first_start::{CreatedToken, create_token};
pub use import::{
    ImportError, ImportOptions, Imported, ImportedEnvironment, ImportedWebhook, import,
    import_flagsmith,
};
use listeners::{bounds_of, listen, public_url, serve_operators};
pub use told::{Pings, Told, changed_last};

/// How often recorded metrics are folded: often enough that a burst of requests piles up little.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Shortest and longest rest between attempts to open the store.
const OPEN_REST: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// What the operators' listener may take of the grace period when everything else is done.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Where the flags come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The store of the settings. An empty one is filled, with a demo project or without.
    Store {
        /// Whether with a demo project.
        demo: bool,
    },
    /// A file, which nobody can change through the gateway.
    Fixture(Box<Fixture>),
}

/// A gateway that is built and listens, but does not answer yet.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    metrics: Metrics,
    store: Store,
    shutdown: Shutdown,
    evaluations: Arc<Evaluations>,
    doors: Doors,
    feed: Feed,
    public: TcpListener,
    ops: SocketAddr,
    /// What stays until all else is done: the operators' listener and the upkeep.
    last: Shutdown,
    tls: Option<Tls>,
    streams: Streams,
    canary: Option<(Canary, Vec<ClientKey>)>,
    /// Nothing when the flags come from a file: nobody can make an endpoint then.
    worker: Option<Worker>,
}

impl Source {
    async fn open(&self, settings: &Settings) -> anyhow::Result<Store> {
        match self {
            Self::Store { .. } => {
                let store = open_patiently(&settings.store).await;
                Ok(store
                    .with_context(|| {
                        format!("cannot open the store {}", settings.store.shown_url())
                    })?
                    .with_secrets_key(&settings.secrets.key))
            }
            Self::Fixture(_) => Store::in_memory().await.context("cannot make a store in memory"),
        }
    }

    async fn prepare(
        &self,
        store: &Store,
        settings: &Settings,
        public_url: &str,
    ) -> anyhow::Result<()> {
        match self {
            Self::Store { demo } => first_start::prepare(store, settings, *demo, public_url).await,
            Self::Fixture(fixture) => {
                fixture::fill(store, fixture, &settings.limits).await?;
                fixture::greet(fixture, public_url);
                Ok(first_start::know_token(store, settings).await?)
            }
        }
    }
}

/// Opens the store of the settings, and makes it if it is not there.
pub async fn open_store(settings: &Settings) -> anyhow::Result<Store> {
    let store = Store::open(&settings.store).await;
    let store =
        store.with_context(|| format!("cannot open the store {}", settings.store.shown_url()))?;
    Ok(store.with_secrets_key(&settings.secrets.key))
}

impl App {
    /// Builds every part. A first start also fills the store, and says so on standard output.
    pub async fn build(mut settings: Settings, source: Source) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        metrics.open_files_limit(descriptors::fit(&mut settings.limits));
        let tls = Tls::load(&settings.server, metrics.tls())?;
        let public = listen("server.listen", &settings.server.listen)?;
        let (shutdown, last) = (Shutdown::default(), Shutdown::default());
        // Whoever waits for the database can be asked what it waits for.
        let opened = Arc::new(OnceLock::new());
        let (measured, store, stop) = (metrics.clone(), Arc::clone(&opened), shutdown.clone());
        let door = Ops { metrics: measured, store, shutdown: stop };
        let ops = serve_operators(&settings, door, &last)?;
        let store = source.open(&settings).await?;
        let public_url = public_url(&settings, public.local_addr()?);
        source.prepare(&store, &settings, &public_url).await?;

        let (hub, streams) = start_streams(&settings, &metrics, &shutdown)
            .context("cannot start the fan-out shards")?;
        let limits = &settings.limits;
        let bounds = Bounds {
            bytes: limits.flagset_bytes,
            waiting: limits.reads_waiting,
            check: Duration::from_millis(settings.store.check_timeout_ms),
        };
        let flagsets = FlagSets::new(store.clone(), bounds, metrics.flagset());
        let directory = Arc::new(Directory::default());
        let evaluations = Arc::new(Evaluations::new(metrics.analytics()));
        let pings = Pings::new(&public_url, &settings.stream);
        let read_only = matches!(source, Source::Fixture(_));
        let webhooks = WorkerHandle::default();
        let worker = if read_only {
            None
        } else {
            Some(worker(&store, &settings, &public_url, (webhooks.clone(), &metrics)).await?)
        };
        let (flips, canary) = Canary::new(&settings.cdn, &public_url, metrics.canary())?;
        let feed = Feed::start(
            Told {
                store: store.clone(),
                directory: Arc::clone(&directory),
                flagsets: flagsets.clone(),
                hub: hub.clone(),
                purger: Purger::new(&settings.cdn, metrics.purge())?,
                flips,
                pings,
                webhooks,
            },
            &settings,
            metrics.feed(),
        )
        .await?;
        let parts =
            Parts { store: &store, directory, flagsets, hub, evaluations: &evaluations, read_only };
        let doors = parts.doors(&settings, &metrics, &shutdown);
        let canary = with_first(canary, &store, &settings).await?;
        // Ready from here on.
        drop(opened.set(store.clone()));
        Ok(Self {
            settings,
            metrics,
            store,
            shutdown,
            evaluations,
            doors,
            feed,
            public,
            ops,
            last,
            tls,
            streams,
            canary,
            worker,
        })
    }

    /// Answers until a signal, then stops in order. A second signal ends it at once.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let (public, ops) = (self.public.local_addr()?, self.ops);
        let grace = Duration::from_secs(self.settings.server.grace_seconds);
        let shutdown = self.shutdown.clone();
        let last = self.last.clone();
        let (store, evaluations) = (self.store.clone(), Arc::clone(&self.evaluations));
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
        evaluations.flush(&store).await;
        last.drain();
        last.stop();
        last.wait(LAST_WAIT).await;
        store.close().await;
        tracing::info!("stopped");
        Ok(())
    }

    fn start(self) {
        let Self {
            settings,
            metrics,
            store,
            shutdown,
            evaluations,
            doors,
            feed,
            public,
            ops: _,
            last,
            tls,
            streams,
            canary,
            worker,
        } = self;
        let (connections, body_limits) = bounds_of(&settings);
        last.spawn(feed.run(last.clone()));
        last.spawn(keep_up(metrics.clone(), last.clone()));
        if let Some((canary, first)) = canary {
            shutdown.spawn(canary.run(first, shutdown.clone()));
        }
        if let Some(worker) = worker {
            shutdown.spawn(worker.run(shutdown.clone()));
            let (store, days) = (store.clone(), settings.webhook.retention_days);
            last.spawn(webhook::watch(store, webhook_metrics(&metrics), days, last.clone()));
        }
        let flush = Duration::from_secs(settings.analytics.flush_seconds);
        last.spawn(write_counts(evaluations, store, flush, last.clone()));
        let public_metrics = metrics.listener("public");
        let front = public_front(doors, &metrics, body_limits);
        let held = shutdown.clone();
        shutdown.spawn(serve(public, front, connections, tls, streams, public_metrics, held));
    }
}

/// Opens the store. A database that is away may come back: the process waits for it, so that all are there
/// soon after it is. A file is there or not.
async fn open_patiently(settings: &config::Store) -> Result<Store, StoreError> {
    let mut rest = OPEN_REST[0];
    loop {
        match Store::open(settings).await {
            Err(error) if settings.is_postgres() && error.may_pass() => {
                tracing::warn!(%error, "waiting for the store");
                let jitter = rand::random_range(0.5..1.0);
                tokio::time::sleep(rest.mul_f64(jitter)).await;
                rest = (rest * 2).min(OPEN_REST[1]);
            }
            opened => return opened,
        }
    }
}

/// What the doors are made of.
struct Parts<'a> {
    store: &'a Store,
    directory: Arc<Directory>,
    flagsets: FlagSets,
    hub: Hub,
    evaluations: &'a Arc<Evaluations>,
    /// Whether nobody may change anything.
    read_only: bool,
}

impl Parts<'_> {
    fn doors(self, settings: &Settings, metrics: &Metrics, shutdown: &Shutdown) -> Doors {
        let Self { store, directory, flagsets, hub, evaluations, read_only } = self;
        let hops = Hops::new(&settings.stream);
        Doors {
            sdk: Sdk { directory: Arc::clone(&directory), flagsets: flagsets.clone(), hops },
            flipper: Flipper {
                directory: Arc::clone(&directory),
                flagsets: flagsets.clone(),
                store: store.clone(),
            },
            ofrep: Ofrep::new(
                Arc::clone(&directory),
                flagsets.clone(),
                settings.limits.evaluations_per_second,
                &settings.server.public_url,
                metrics.evaluation(),
            ),
            flagsmith: Flagsmith {
                directory: Arc::clone(&directory),
                flagsets,
                evaluations: Arc::clone(evaluations),
                hops,
                store: store.clone(),
                limits: settings.limits.clone(),
                metrics: metrics.evaluation(),
            },
            sse: Sse {
                directory,
                hub: hub.clone(),
                store: store.clone(),
                stream: settings.stream.clone(),
                hops,
                drain: drain(settings),
                push_token: settings.auth.push_token.clone(),
                limits: settings.limits.clone(),
                shutdown: shutdown.clone(),
            },
            admin: Admin::new(store.clone(), hub, settings.limits.clone(), metrics.clone())
                .read_only(read_only)
                .with_targets(&settings.webhook.allowed_targets),
            patience: Patience::new(Duration::from_millis(settings.store.busy_timeout_ms)),
        }
    }
}

fn webhook_metrics(metrics: &Metrics) -> WebhookMetrics {
    metrics.webhook(
        AttemptOutcome::ALL.map(AttemptOutcome::as_str),
        WebhookStatus::ALL.map(WebhookStatus::as_str),
    )
}

/// The canary with the environments that it follows first.
async fn with_first(
    canary: Option<Canary>,
    store: &Store,
    settings: &Settings,
) -> Result<Option<(Canary, Vec<ClientKey>)>, StoreError> {
    let Some(canary) = canary else { return Ok(None) };
    let first = changed_last(store, settings.cdn.canary_streams).await?;
    Ok(Some((canary, first)))
}

async fn worker(
    store: &Store,
    settings: &Settings,
    public_url: &str,
    (handle, metrics): (WorkerHandle, &Metrics),
) -> anyhow::Result<Worker> {
    protect_secrets(store).await?;
    let measured = webhook_metrics(metrics);
    Ok(Worker::new(store.clone(), settings, public_url, handle, measured)?)
}

/// Seals what was stored before there was a key, or says that a copy of the store gives secrets away.
async fn protect_secrets(store: &Store) -> anyhow::Result<()> {
    let plain = store.seal_secrets().await?;
    if plain > 0 {
        tracing::warn!(
            webhooks = plain,
            "secrets of webhooks are stored as plain text; set `secrets.key` (take one from \
             `openssl rand -base64 32`) and start again"
        );
    }
    Ok(())
}

/// Time over which a drain ends streams. The last quarter of the grace is for what is none.
fn drain(settings: &Settings) -> Duration {
    Duration::from_secs(settings.server.grace_seconds).mul_f64(0.75)
}

/// The hub, and the shards that the settings want: none when streams are to be bodies.
fn start_streams(
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
    store: Store,
    every: Duration,
    last: Shutdown,
) {
    loop {
        tokio::select! {
            () = last.stopped() => return,
            () = tokio::time::sleep(every) => evaluations.flush(&store).await,
        }
    }
}
