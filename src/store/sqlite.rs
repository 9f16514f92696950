//! SQLite: a file beside the process, or memory.

use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::Migrator;
use sqlx::{Connection as _, Executor as _};

use super::database::{Database, Pools};
use super::{ACQUIRE_TIMEOUT, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// Reads that run side by side. SQLite reads from memory; more than a few only queue for cores.
const READERS_MAX: u32 = 4;

/// Opens the file of `url`, makes it if it does not exist, and brings its schema up to date. A statement
/// waits for another process's lock for `busy` at most.
pub(super) async fn open(url: &str, busy: Duration) -> Result<Pools, StoreError> {
    let busy = busy.as_millis();
    let options = |connections: u32| {
        AnyPoolOptions::new()
            // All from the start: when descriptors run out, there would be none for a file.
            .min_connections(connections)
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            // A commit that fails because the disk is full has undone the transaction already, and what
            // should undo it fails, too: such a connection would never begin another.
            .after_release(|connection, _| {
                Box::pin(async move {
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
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
    // One connection writes: SQLite has one writer at a time, and waiting for it here is fair.
    let writer = options(1).connect_with(connect.clone()).await?;
    MIGRATIONS.run(&writer).await.map_err(StoreError::Migration)?;
    let readers = options(READERS_MAX).connect_with(connect).await?;
    Ok(Pools { database: Database::Sqlite, writer, readers })
}
