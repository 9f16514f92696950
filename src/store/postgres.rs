//! PostgreSQL: the truth that several nodes share.
//!
//! What is special of it is here: the settings of a session, the clock that all nodes go by, and the
//! *lineage*. After a failover to a standby, or a restore from a backup, the database may lack changes that
//! it has acknowledged, and would issue their revisions once more, with other flags. Clients and caches
//! that hold the lost ones would take the new for old. So each new connection looks where the database
//! comes from; if that is not what the store has written down, every revision jumps ahead of all that may
//! have been lost, before anything is read or written.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{AnyConnection, Connection as _, Executor as _, Row as _};

use super::database::{Database, Pools};
use super::{StoreError, now_micros};
use crate::config;
use crate::model::{Secret, UpdatedAt};

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/postgres");

/// What the trigger on `change_events` notifies.
const CHANNEL: &str = "flagcast_changes";

/// How far revisions jump when changes may be lost. More than an environment changes in the seconds that
/// a standby is behind, or in the days since a backup.
const JUMP: i64 = 1_000_000;

/// The oldest that is tested.
const VERSION_MIN: i64 = 150_000;

/// A statement that takes longer has lost its way.
const STATEMENT_TIMEOUT: &str = "30s";

/// A node that vanishes in the middle of a change holds its project up for no longer.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "10s";

/// Longest wait for a sign of life before a connection is used and behind its use. A network that is cut
/// says nothing, and a pool whose connections all wait for it has none left.
const LIFE_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections are renewed now and then: names may lead elsewhere, clocks drift.
const LIFETIME: Duration = Duration::from_mins(30);

/// Shortest and longest rest before the listener connects anew.
const RECONNECT: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// Longest wait of the listener for an answer.
const LISTENER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a silent listener looks whether its connection still is one.
const LISTENER_CHECK: Duration = Duration::from_secs(30);

/// The advisory lock of those who look at the lineage.
const LINEAGE_LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('flagcast lineage', 0))";

/// What the database's clock is ahead of ours, in microseconds: revisions, leases and lags of all nodes go
/// by one clock.
static CLOCK_AHEAD: AtomicI64 = AtomicI64::new(0);

/// What to add to our clock; nothing with SQLite.
pub(super) fn clock_ahead() -> i64 {
    CLOCK_AHEAD.load(Ordering::Relaxed)
}

/// Opens the database of the settings and brings its schema up to date.
pub(super) async fn open(settings: &config::Store) -> Result<Pools, StoreError> {
    let connect: AnyConnectOptions =
        settings.url.expose().parse().map_err(StoreError::Unavailable)?;
    let wait = Duration::from_millis(settings.busy_timeout_ms.max(1));
    // A connection of its own first: a pool would hide why there is none.
    let first = tokio::time::timeout(wait, AnyConnection::connect_with(&connect)).await;
    let mut first = first.map_err(|_| StoreError::Unavailable(sqlx::Error::PoolTimedOut))??;
    check_version(&mut first).await?;
    check_is_primary(&mut first).await?;
    MIGRATIONS.run(&mut first).await.map_err(StoreError::Migration)?;
    first.close().await?;
    // Compiling pays for statements that take seconds. Ours take a millisecond, but PostgreSQL expects far
    // too many rows of the feed's and would compile it, for some 30 to 400 ms, at each read.
    // It warns of a ROLLBACK without a transaction, which is what we send most of the time.
    let session = format!(
        "SET lock_timeout = {}; SET statement_timeout = '{STATEMENT_TIMEOUT}'; \
         SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_TIMEOUT}'; \
         SET jit = off; SET client_min_messages = error; SET application_name = 'flagcast'",
        wait.as_millis()
    );
    // Short enough that whoever meets a dead connection has time left for a new one.
    let life = LIFE_TIMEOUT.min(wait / 2);
    let options = |connections: u32| {
        let session = session.clone();
        AnyPoolOptions::new()
            .min_connections(1)
            .max_connections(connections)
            .acquire_timeout(wait)
            .max_lifetime(LIFETIME)
            // The pool's own test has no bound.
            .test_before_acquire(false)
            .before_acquire(move |connection, _| Box::pin(check_life(connection, life)))
            .after_release(move |connection, _| Box::pin(leave_nothing(connection, life)))
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move {
                    connection.execute(sqlx::AssertSqlSafe(session)).await?;
                    set_clock(connection).await?;
                    keep_lineage(connection).await
                })
            })
    };
    let half = (settings.connections / 2).max(1);
    let writer = options(half).connect_with(connect.clone()).await?;
    let readers =
        options(settings.connections.saturating_sub(half).max(1)).connect_with(connect).await?;
    Ok(Pools { database: Database::Postgres, writer, readers })
}

/// Takes a connection back: no transaction may stay open in it. The library forgets one whose BEGIN was not
/// answered when its caller gave up, and whoever got the connection next would read the same old state as long
/// as it lives. Without a transaction this is a sign of life like any other.
async fn leave_nothing(
    connection: &mut AnyConnection,
    limit: Duration,
) -> Result<bool, sqlx::Error> {
    let ended = tokio::time::timeout(limit, connection.execute("ROLLBACK")).await;
    ended.map_err(|_| sqlx::Error::PoolTimedOut)??;
    Ok(!connection.is_in_transaction())
}

/// Lets the pool drop a connection that gives no sign of life.
async fn check_life(connection: &mut AnyConnection, limit: Duration) -> Result<bool, sqlx::Error> {
    let alive = tokio::time::timeout(limit, connection.ping()).await;
    alive.map_err(|_| sqlx::Error::PoolTimedOut)??;
    Ok(!connection.is_in_transaction())
}

async fn check_version(connection: &mut AnyConnection) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT CAST(current_setting('server_version_num') AS BIGINT) AS number, \
         current_setting('server_version') AS shown",
    )
    .fetch_one(connection)
    .await?;
    if row.try_get::<i64, _>("number")? < VERSION_MIN {
        let shown: String = row.try_get("shown")?;
        return Err(StoreError::Unsuitable(format!(
            "PostgreSQL {shown} is too old; it must be 15 or newer"
        )));
    }
    Ok(())
}

/// A standby cannot be written to, and when it is promoted its sessions live on without a look at the
/// lineage.
async fn check_is_primary(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let row = sqlx::query("SELECT CASE WHEN pg_is_in_recovery() THEN 1 ELSE 0 END AS standby")
        .fetch_one(connection)
        .await?;
    if row.try_get::<i32, _>("standby")? == 0 {
        return Ok(());
    }
    Err(sqlx::Error::Configuration(
        "this server is a standby; store.url must lead to the primary".into(),
    ))
}

async fn set_clock(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let statement = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS now";
    let before = jiff::Timestamp::now().as_microsecond();
    let row = sqlx::query(statement).fetch_one(connection).await?;
    let after = jiff::Timestamp::now().as_microsecond();
    // Half-way, as far as anybody can tell.
    let ours = before + (after - before) / 2;
    CLOCK_AHEAD.store(row.try_get::<i64, _>("now")? - ours, Ordering::Relaxed);
    Ok(())
}

/// Looks where the database comes from, and lets revisions jump if that is new.
async fn keep_lineage(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    check_is_primary(connection).await?;
    let present = present_lineage(connection).await?;
    if known_lineage(connection).await?.as_ref() == Some(&present) {
        return Ok(());
    }
    let mut tx = connection.begin().await?;
    tx.execute(LINEAGE_LOCK).await?;
    // Somebody else may have been first.
    match known_lineage(&mut tx).await? {
        Some(known) if known == present => {}
        Some(known) => {
            tracing::warn!(
                %known, %present,
                "the database is another one than before (a failover or a restore); its last changes may \
                 be lost, so every revision jumps ahead"
            );
            jump(&mut tx).await?;
            write_lineage(&mut tx, &present).await?;
        }
        None => write_lineage(&mut tx, &present).await?,
    }
    tx.commit().await
}

/// Which database this is, and which of its histories: a promoted standby and a server that is restored to a
/// point in time begin a new timeline. What is restored from a dump into the same server has tables of its own.
async fn present_lineage(connection: &mut AnyConnection) -> Result<String, sqlx::Error> {
    // From the name of the log file: what `pg_control_checkpoint()` says is late after a promotion.
    let row = sqlx::query(
        "SELECT CAST(system_identifier AS TEXT) || ':' || \
         left(pg_walfile_name(pg_current_wal_lsn()), 8) || ':' || \
         CAST(CAST('lineage' AS regclass) AS oid) AS lineage FROM pg_control_system()",
    )
    .fetch_one(connection)
    .await?;
    row.try_get("lineage")
}

async fn known_lineage(connection: &mut AnyConnection) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query("SELECT lineage FROM lineage").fetch_optional(connection).await?;
    row.map(|row| row.try_get("lineage")).transpose()
}

async fn write_lineage(connection: &mut AnyConnection, lineage: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO lineage (lineage) VALUES ($1) \
         ON CONFLICT (only_row) DO UPDATE SET lineage = excluded.lineage",
    )
    .bind(lineage)
    .execute(connection)
    .await?;
    Ok(())
}

/// Moves every environment ahead and says so in the change feed. The instants of push-only environments
/// are not ours to issue; their next announcement counts anyway.
async fn jump(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let now = now_micros();
    let rows =
        sqlx::query("SELECT id, project_id, updated_at FROM environments ORDER BY id FOR UPDATE")
            .fetch_all(&mut *connection)
            .await?;
    for row in rows {
        let id: i64 = row.try_get("id")?;
        let previous = UpdatedAt::from_micros(row.try_get("updated_at")?);
        let is_ours = row.try_get::<Option<i64>, _>("project_id")?.is_some();
        let updated_at = if is_ours { UpdatedAt::next(Some(previous), now) } else { previous };
        sqlx::query(
            "UPDATE environments SET revision = revision + $1, updated_at = $2 WHERE id = $3",
        )
        .bind(JUMP)
        .bind(updated_at.micros())
        .bind(id)
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query(
        "INSERT INTO change_events (environment_id, revision, updated_at, at, actor, address, action, \
         project_key, environment_key, subject, before_state, after_state) \
         SELECT e.id, e.revision, e.updated_at, $1, 'gateway', 'store', 'environment.recovered', p.key, \
         e.key, e.key, 'null', 'null' FROM environments e LEFT JOIN projects p ON p.id = e.project_id \
         ORDER BY e.id",
    )
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// A connection that hears of every commit, on whatever node.
#[derive(Debug)]
pub(super) struct Listener {
    url: Secret,
    rest: Duration,
    connection: Option<PgListener>,
}

impl Listener {
    pub(super) fn new(url: &Secret) -> Self {
        Self { url: url.clone(), rest: RECONNECT[0], connection: None }
    }

    /// Completes when there may be news: after a notification, and after each new connection, because
    /// nobody heard what came before it. Rests behind a failure, longer each time.
    pub(super) async fn heard(&mut self) -> Result<(), sqlx::Error> {
        let heard = match &mut self.connection {
            Some(connection) => hear(connection).await,
            None => self.connect().await,
        };
        if heard.is_ok() {
            self.rest = RECONNECT[0];
        } else {
            self.connection = None;
            let jitter = rand::random_range(0.5..1.0);
            tokio::time::sleep(self.rest.mul_f64(jitter)).await;
            self.rest = (self.rest * 2).min(RECONNECT[1]);
        }
        heard
    }

    async fn connect(&mut self) -> Result<(), sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(LISTENER_TIMEOUT);
        let mut connection =
            PgListener::connect_with(&pool.connect(self.url.expose()).await?).await?;
        connection.ignore_pool_close_event(true);
        connection.eager_reconnect(false);
        connection.listen(CHANNEL).await?;
        self.connection = Some(connection);
        Ok(())
    }
}

/// Waits for a notification. One who only waits never learns that the network lost the connection, so
/// now and then it asks something.
async fn hear(connection: &mut PgListener) -> Result<(), sqlx::Error> {
    loop {
        match tokio::time::timeout(LISTENER_CHECK, connection.try_recv()).await {
            Ok(Ok(Some(_))) => return Ok(()),
            // Nothing means that the connection broke.
            Ok(Ok(None)) => return Err(sqlx::Error::PoolClosed),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let asked = connection.execute("SELECT 1");
                let answered = tokio::time::timeout(LISTENER_TIMEOUT, asked).await;
                answered.map_err(|_| sqlx::Error::PoolTimedOut)??;
            }
        }
    }
}
