//! What is true: every SQL statement of the program.
//!
//! A change is one transaction: it writes rows, moves the revision of each environment that it
//! touches and appends the change events ([`Change`]). Reads go to connections of their own and
//! never wait for a writer. The statements are written for SQLite and PostgreSQL alike; what
//! differs (how to open, what a migration says) is in this file and in `migrations/`.

mod analytics;
mod changes;
mod claims;
mod deliveries;
mod environments;
mod error;
mod export;
mod features;
mod feed;
mod flags;
mod identities;
mod identity_overrides;
mod import;
pub mod keys;
mod numbers;
mod outbox;
mod overrides;
mod projects;
mod push;
mod sealing;
mod seeds;
mod segments;
mod server_keys;
mod settlements;
mod tokens;
mod traits;
mod variants;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyPool, Executor as _, Row as _};
use tokio::sync::{Notify, watch};

use crate::config;
use crate::model::Secret;
use sealing::Sealer;

pub use analytics::{DayCount, EvaluationCount};
pub use changes::{Change, Idempotency, Moved, Replay, Stamps};
pub use claims::{Claim, ClaimedEvent, EventFeature, Room};
pub use environments::{DirectoryEntry, EnvironmentUpdate, NewEnvironment};
pub use error::StoreError;
pub use export::{ServerKeyDigest, Snapshot};
pub use features::{FeatureUpdate, NewFeature};
pub use feed::{AuditFilter, FeedEvent};
pub use flags::FlagUpdate;
pub use identities::IdentityDetails;
pub use identity_overrides::IdentityOverrideRow;
pub use numbers::Numbered;
pub use overrides::OverrideUpdate;
pub use push::Announced;
pub use seeds::Seeds;
pub use segments::{NewSegment, SegmentUpdate};
pub use server_keys::ServerKey;
pub use settlements::{Settlement, Verdict};
pub use tokens::NewToken;
pub use traits::{TraitsUpdate, WrittenTraits};
pub use variants::{NewVariant, VariantUpdate};
pub use webhooks::{NewWebhook, WebhookUpdate};

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// Reads that run side by side. SQLite reads from memory; more than a few only queue for cores.
const READERS_MAX: u32 = 4;

/// Longest wait for a connection: a writer waits for those before it.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest page of a list.
pub const PAGE_MAX: u32 = 200;

type Connection = sqlx::AnyConnection;

/// The store. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Store {
    /// One connection: SQLite has one writer at a time, and waiting here is fair.
    writer: AnyPool,
    readers: AnyPool,
    /// Woken after each commit of this process; the change feed listens.
    committed: Arc<Notify>,
    /// Counts transactions that wrote attempts of webhooks: who waits for one listens.
    settled: Arc<watch::Sender<u64>>,
    sealer: Arc<Sealer>,
}

/// A part of a list: rows after `after` in the order of their ids.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Id of the last row of the page before, 0 for the first page.
    pub after: i64,
    /// Rows at most.
    pub limit: u32,
}

impl Page {
    /// Everything that a limit of [`crate::config::Limits`] lets exist.
    pub const ALL: Self = Self { after: 0, limit: u32::MAX >> 1 };
}

impl Store {
    /// Opens the store, makes it if it does not exist, and brings its schema up to date.
    pub async fn open(settings: &config::Store) -> Result<Self, StoreError> {
        let separator = if settings.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}mode=rwc", settings.url);
        Self::open_at(&url, settings.busy_timeout_ms).await
    }

    /// The same, with secrets sealed by this key; none if it is empty.
    #[must_use]
    pub fn with_secrets_key(self, key: &Secret) -> Self {
        Self { sealer: Arc::new(Sealer::new(key)), ..self }
    }

    /// A store without a file: what is in it goes with the process.
    pub async fn in_memory() -> Result<Self, StoreError> {
        // One name for all connections; it is looked up in this process only.
        Self::open_at("sqlite:file:flagcast?mode=memory&cache=shared", 0).await
    }

    async fn open_at(url: &str, busy: u64) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let options = |connections: u32| {
            AnyPoolOptions::new()
                // All from the start: when descriptors run out, there would be none for a file.
                .min_connections(connections)
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .after_connect(move |connection, _| {
                    Box::pin(async move {
                        connection.execute("PRAGMA journal_mode = WAL").await?;
                        connection.execute("PRAGMA foreign_keys = ON").await?;
                        // An answered change survives a power cut, not only a crash.
                        connection.execute("PRAGMA synchronous = FULL").await?;
                        let pragma = format!("PRAGMA busy_timeout = {busy}");
                        connection.execute(sqlx::AssertSqlSafe(pragma)).await?;
                        Ok(())
                    })
                })
        };
        let connect: AnyConnectOptions = url.parse().map_err(StoreError::Unavailable)?;
        let writer = options(1).connect_with(connect.clone()).await?;
        SQLITE_MIGRATIONS.run(&writer).await.map_err(StoreError::Migration)?;
        let readers = options(READERS_MAX).connect_with(connect).await?;
        Ok(Self {
            writer,
            readers,
            committed: Arc::new(Notify::new()),
            settled: Arc::new(watch::Sender::new(0)),
            sealer: Arc::new(Sealer::default()),
        })
    }

    /// Whether the store answers.
    pub async fn check(&self) -> Result<(), StoreError> {
        let mut connection = self.reader().await?;
        connection.execute("SELECT 1").await?;
        Ok(())
    }

    /// Completes after a commit of this process, or at once if one came since the last call.
    pub async fn committed(&self) {
        self.committed.notified().await;
    }

    /// Closes every connection, which folds the write-ahead log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn reader(&self) -> Result<PoolConnection<Any>, StoreError> {
        Ok(self.readers.acquire().await?)
    }
}

/// Microseconds since the epoch, now. The store's clock: a change takes it once.
#[must_use]
pub fn now_micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn flag(row: &AnyRow, column: &str) -> Result<bool, sqlx::Error> {
    Ok(row.try_get::<i64, _>(column)? != 0)
}

/// A column that holds JSON. What we wrote ourselves and cannot read is damage, not absence.
fn json<T: serde::de::DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text)
        .map_err(|error| StoreError::Damaged(format!("column {column} holds {text:?}: {error}")))
}

fn counter(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
