//! The composition root: builds every part, starts them in order and stops them in order.
//!
//! Start: sockets, the operators' door, the store, what is true now (directory, hub), then the change feed
//! and the doors.
//! Stop: not ready, no new connections, streams ended over the grace period, counts written, store
//! closed.

mod descriptors;
mod doors;
mod export;
mod feed;
mod first_start;
mod fixture;
mod import;
mod listeners;
mod relay;
mod running;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;

use crate::cdn::Canary;
use crate::config::{self, Settings};
use crate::fixture::Fixture;
use crate::flagset::{Directory, FlagSets};
use crate::http::{Admin, Evaluations, Gate, Ops, StoreHealth, Tls};
use crate::metrics::{Metrics, WebhookMetrics};
use crate::model::{AttemptOutcome, ClientKey, Environment, EnvironmentKind, WebhookStatus};
use crate::origin::{Ledger, StoreLedger, Truth};
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};
use crate::webhook::{self, Worker, WorkerHandle};

use doors::Parts;
pub use export::export;
pub use feed::Feed;
pub use first_start::{CreatedToken, create_token};
pub use import::{
    ImportError, ImportOptions, Imported, ImportedEnvironment, ImportedWebhook, import,
    import_flagsmith,
};
use listeners::{listen, public_url, serve_operators};
pub use relay::RelayApp;
use running::{Running, flagsets, start_streams, told};

/// Shortest and longest rest between attempts to open the store.
const OPEN_REST: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

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
    running: Running,
    store: Store,
    flagsets: FlagSets,
    feed: Feed,
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
        let health = Arc::new(StoreHealth(Arc::clone(&opened)));
        let door = Ops { metrics: metrics.clone(), health, shutdown: shutdown.clone() };
        let ops = serve_operators(&settings, door, &last)?;
        let store = source.open(&settings).await?;
        let public_url = public_url(&settings, public.local_addr()?);
        source.prepare(&store, &settings, &public_url).await?;

        let (hub, streams) = start_streams(&settings, &metrics, &shutdown)
            .context("cannot start the fan-out shards")?;
        let truth: Arc<dyn Truth> = Arc::new(store.clone());
        let flagsets = flagsets(&settings, &truth, &metrics);
        let directory = Arc::new(Directory::default());
        let evaluations = Arc::new(Evaluations::new(metrics.analytics()));
        let read_only = matches!(source, Source::Fixture(_));
        let webhooks = WorkerHandle::default();
        let handle = (webhooks.clone(), &metrics);
        let worker = match &source {
            Source::Fixture(_) => None,
            Source::Store { .. } => Some(worker(&store, &settings, &public_url, handle).await?),
        };
        let served = (Arc::clone(&directory), flagsets.clone(), hub.clone());
        let (told, canary) = told(&settings, &metrics, &public_url, served)?;
        let feed = Feed::start(store.clone(), told, webhooks, &settings, metrics.feed()).await?;
        let ledger: Arc<dyn Ledger> = Arc::new(StoreLedger(store.clone()));
        let admin =
            Admin::new(store.clone(), hub.clone(), settings.limits.clone(), metrics.clone())
                .read_only(read_only)
                .with_targets(&settings.webhook.allowed_targets);
        let parts = Parts {
            directory,
            flagsets: flagsets.clone(),
            hub,
            evaluations: Arc::clone(&evaluations),
            truth,
            ledger: Arc::clone(&ledger),
            gate: Gate::Tokens(store.clone()),
            admin: Some(admin),
        };
        let doors = parts.doors(&settings, &metrics, &shutdown);
        let canary = with_first(canary, &store, &settings).await?;
        // Ready from here on.
        drop(opened.set(store.clone()));
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
        Ok(Self { running, store, flagsets, feed, canary, worker })
    }

    /// Answers until a signal, then stops in order. A second signal ends it at once.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { running, store, flagsets, feed, canary, worker } = self;
        let Running { settings, metrics, shutdown, last, .. } = &running;
        last.spawn(feed.run(last.clone()));
        // A file is there whenever it is asked.
        if store.is_shared() {
            shutdown.spawn(warm(flagsets, store.clone(), shutdown.clone()));
        }
        if let Some((canary, first)) = canary {
            shutdown.spawn(canary.run(first, shutdown.clone()));
        }
        if let Some(worker) = worker {
            shutdown.spawn(worker.run(shutdown.clone()));
            let (store, days) = (store.clone(), settings.webhook.retention_days);
            last.spawn(webhook::watch(store, webhook_metrics(metrics), days, last.clone()));
        }
        running.run().await?;
        store.close().await;
        tracing::info!("stopped");
        Ok(())
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

fn webhook_metrics(metrics: &Metrics) -> WebhookMetrics {
    metrics.webhook(
        AttemptOutcome::ALL.map(AttemptOutcome::as_str),
        WebhookStatus::ALL.map(WebhookStatus::as_str),
    )
}

/// The environments whose flags are here, those that changed last first.
async fn changed_last(store: &Store) -> Result<Vec<Environment>, StoreError> {
    let mut all: Vec<_> =
        store.directory().await?.into_iter().map(|entry| entry.environment).collect();
    all.retain(|environment| environment.kind == EnvironmentKind::Stored);
    all.sort_by_key(|environment| std::cmp::Reverse(environment.stamp.updated_at));
    Ok(all)
}

/// Builds flag sets before anybody asks for them, as many as there is room for: while a database is away a
/// node serves what it has built.
async fn warm(flagsets: FlagSets, store: Store, shutdown: Shutdown) {
    let work = async {
        for environment in changed_last(&store).await? {
            if !flagsets.has_room() {
                break;
            }
            flagsets.get(environment.id).await?;
        }
        Ok::<_, StoreError>(())
    };
    tokio::select! {
        () = shutdown.drained() => {}
        warmed = work => if let Err(error) = warmed {
            tracing::warn!(%error, "cannot build flag sets before they are asked for");
        }
    }
}

/// The canary with the environments that it follows first.
async fn with_first(
    canary: Option<Canary>,
    store: &Store,
    settings: &Settings,
) -> Result<Option<(Canary, Vec<ClientKey>)>, StoreError> {
    let Some(canary) = canary else { return Ok(None) };
    let first = changed_last(store).await?.into_iter().take(settings.cdn.canary_streams);
    Ok(Some((canary, first.map(|environment| environment.client_key).collect())))
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
