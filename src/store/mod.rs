//! What is true: every SQL statement of the program.
//!
//! A change is one transaction: it writes rows, moves the revision of each environment that it
//! touches and appends the change events ([`Change`]). Reads go to connections of their own and
//! never wait for a writer. The statements are written for SQLite and PostgreSQL alike; what
//! differs is in `sqlite.rs`, `postgres.rs`, `database.rs` and `migrations/`.

mod analytics;
mod changes;
mod claims;
mod database;
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
mod postgres;
mod projects;
mod push;
mod reach;
mod sealing;
mod seeds;
mod segments;
mod server_keys;
mod settlements;
mod snapshots;
mod sqlite;
mod tokens;
mod traits;
mod variants;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::pool::PoolConnection;
use sqlx::{Any, Executor as _, Row as _, Transaction};
use tokio::sync::{Notify, watch};

use crate::config;
use crate::model::Secret;
use database::{Database, Pools};
use reach::Reach;
use sealing::Sealer;

pub use analytics::{DayCount, EvaluationCount, UsageBatch};
pub use changes::{Change, Idempotency, Moved, Replay, Stamps};
pub use claims::{Claim, ClaimedEvent, EventFeature, Room};
pub use environments::{DirectoryEntry, EnvironmentUpdate, NewEnvironment};
pub use error::StoreError;
pub use export::{ServerKeyDigest, Snapshot};
pub use features::{FeatureUpdate, NewFeature};
pub use feed::{AuditFilter, FeedEvent, FeedNews, FeedPosition};
pub use flags::FlagUpdate;
pub use identities::IdentityDetails;
pub use identity_overrides::IdentityOverrideRow;
pub use numbers::Numbered;
pub use overrides::OverrideUpdate;
pub use push::Announced;
pub use reach::in_time;
pub use seeds::Seeds;
pub use segments::{NewSegment, SegmentUpdate};
pub use server_keys::ServerKey;
pub use settlements::{Settlement, Verdict};
pub use tokens::NewToken;
pub use traits::{TraitsUpdate, WrittenTraits};
pub use variants::{NewVariant, VariantUpdate};
pub use webhooks::{NewWebhook, WebhookUpdate};

/// Longest wait for a connection to SQLite: a writer waits for those before it.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest page of a list.
pub const PAGE_MAX: u32 = 200;

type Connection = sqlx::AnyConnection;

/// The store. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Store {
    pools: Pools,
    /// Where the listener connects to.
    url: Secret,
    /// Woken after each commit of this process, and of others when the listener hears of it; the change
    /// feed listens.
    committed: Arc<Notify>,
    /// Counts transactions that wrote attempts of webhooks: who waits for one listens.
    settled: Arc<watch::Sender<u64>>,
    sealer: Arc<Sealer>,
    reach: Arc<Reach>,
    /// Names this opening of a file; no other one is called that.
    opened: Arc<str>,
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
    /// Opens the store, makes what is in it if it is empty, and brings its schema up to date.
    pub async fn open(settings: &config::Store) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let url = settings.url.expose();
        if settings.is_postgres() {
            let lost_after = Duration::from_secs(settings.lost_after_seconds);
            let reach = Arc::new(Reach::new((!lost_after.is_zero()).then_some(lost_after)));
            return Ok(Self { reach, ..Self::over(postgres::open(settings).await?, url) });
        }
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{separator}mode=rwc");
        let busy = Duration::from_millis(settings.busy_timeout_ms);
        Ok(Self::over(sqlite::open(&url, busy).await?, &url))
    }

    /// The same, with secrets sealed by this key; none if it is empty.
    #[must_use]
    pub fn with_secrets_key(self, key: &Secret) -> Self {
        Self { sealer: Arc::new(Sealer::new(key)), ..self }
    }

    /// A store without a file: what is in it goes with the process.
    pub async fn in_memory() -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        // One name for all connections; it is looked up in this process only.
        let url = "sqlite:file:flagcast?mode=memory&cache=shared";
        Ok(Self::over(sqlite::open(url, Duration::ZERO).await?, url))
    }

    fn over(pools: Pools, url: &str) -> Self {
        Self {
            pools,
            url: Secret::new(url),
            committed: Arc::new(Notify::new()),
            settled: Arc::new(watch::Sender::new(0)),
            sealer: Arc::new(Sealer::default()),
            reach: Arc::default(),
            opened: uuid::Uuid::new_v4().simple().to_string().into(),
        }
    }

    /// Whether other nodes may write to it, too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.pools.database == Database::Postgres
    }

    /// Whether the store answers.
    pub async fn check(&self) -> Result<(), StoreError> {
        let mut connection = self.reader().await?;
        connection.execute("SELECT 1").await?;
        Ok(())
    }

    /// Completes after a commit of this process or one that the listener heard of, or at once if one came
    /// since the last call.
    pub async fn committed(&self) {
        self.committed.notified().await;
    }

    /// Hears of what other nodes commit, as long as it is polled; says each failure to `failed`. Never
    /// completes: a store that nobody shares has nothing to say.
    pub async fn listen(&self, failed: impl Fn(StoreError)) {
        if !self.is_shared() {
            return std::future::pending().await;
        }
        let mut listener = postgres::Listener::new(&self.url);
        loop {
            match listener.heard().await {
                Ok(()) => self.committed.notify_one(),
                Err(error) => failed(error.into()),
            }
        }
    }

    /// Closes every connection, which folds SQLite's write-ahead log into the file.
    pub async fn close(&self) {
        self.pools.readers.close().await;
        self.pools.writer.close().await;
    }

    async fn reader(&self) -> Result<PoolConnection<Any>, StoreError> {
        Ok(self.pools.readers.acquire().await?)
    }

    async fn writer(&self) -> Result<PoolConnection<Any>, StoreError> {
        Ok(self.pools.writer.acquire().await?)
    }

    async fn begin_write(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(self.pools.writer.begin_with(self.pools.database.begin_write()).await?)
    }

    async fn begin_read(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(self.pools.readers.begin_with(self.pools.database.begin_read()).await?)
    }
}

/// Microseconds since the epoch, now, by the clock of the database if nodes share one. A change takes it
/// once.
#[must_use]
pub fn now_micros() -> i64 {
    jiff::Timestamp::now().as_microsecond() + postgres::clock_ahead()
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
