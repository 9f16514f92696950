//! The store beside the gateway: fresh databases, and a look into one as another process has it.
//!
//! With `FLAGCAST_TEST_STORE=postgres` every gateway has a database of its own on a server that all tests
//! of the process share: a cluster of ours, or the server of `FLAGCAST_TEST_POSTGRES_URL`.

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::sync::OnceCell;
use url::Url;
use uuid::Uuid;

use super::eventually;
use super::postgres::Cluster;

/// Whether gateways of this run have their stores in PostgreSQL.
pub(crate) fn is_postgres() -> bool {
    match std::env::var("FLAGCAST_TEST_STORE").as_deref() {
        Err(_) | Ok("sqlite") => false,
        Ok("postgres") => true,
        Ok(other) => panic!("FLAGCAST_TEST_STORE is sqlite or postgres, not {other}"),
    }
}

/// A database on the shared server. It is dropped with this.
pub(crate) struct Database {
    server: String,
    url: String,
}

impl Database {
    /// Makes an empty one.
    pub(crate) async fn create() -> Self {
        let server = server().await;
        let url = create_database(&server).await;
        Self { server, url }
    }

    /// As `store.url` takes it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, url) = (self.server.clone(), self.url.clone());
        // A runtime of its own: the one of the test may be about to end. What cannot be dropped is left
        // behind: the test has its answer.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            drop(runtime.unwrap().block_on(drop_database(&server, &url)));
        });
        drop(dropping.join());
    }
}

/// The server that all tests of this process share: the URL of a database where nothing is kept.
async fn server() -> String {
    static OURS: OnceCell<Cluster> = OnceCell::const_new();
    match std::env::var("FLAGCAST_TEST_POSTGRES_URL") {
        Ok(url) => url,
        Err(_) => OURS.get_or_init(Cluster::start).await.url("postgres"),
    }
}

/// Makes an empty database on a server; answers with its URL.
pub(crate) async fn create_database(server: &str) -> String {
    let name = format!("flagcast_it_{}", Uuid::new_v4().simple());
    let mut session = PgConnection::connect(server).await.unwrap();
    let statement = format!("CREATE DATABASE {name} TEMPLATE template0");
    session.execute(AssertSqlSafe(statement)).await.unwrap();
    let mut url = Url::parse(server).unwrap();
    url.set_path(&name);
    url.into()
}

async fn drop_database(server: &str, url: &str) -> sqlx::Result<()> {
    let mut session = PgConnection::connect(server).await?;
    let url = Url::parse(url).unwrap();
    let name = url.path().trim_start_matches('/');
    session.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await?;
    Ok(())
}

/// Connects to the store at `url` as another process does.
pub(crate) async fn connect(url: &str) -> AnyConnection {
    sqlx::any::install_default_drivers();
    AnyConnection::connect(url).await.unwrap()
}

/// The same for several at once, which take turns.
pub(crate) async fn open(url: &str) -> AnyPool {
    sqlx::any::install_default_drivers();
    AnyPoolOptions::new().max_connections(1).connect(url).await.unwrap()
}

/// Begins a transaction that lets everybody read and nobody else write until it ends.
pub(crate) async fn begin_alone(store: &mut AnyConnection) {
    if store.backend_name() == "SQLite" {
        store.execute("BEGIN IMMEDIATE").await.unwrap();
        return;
    }
    let tables = "SELECT tablename::text FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut *store).await.unwrap();
    // All or none: who waited for one table with another in hand could wait for ever.
    let statement = format!("LOCK TABLE {} IN EXCLUSIVE MODE NOWAIT", tables.join(", "));
    eventually("nobody writes to the store", async || {
        store.execute("BEGIN").await.unwrap();
        let alone = store.execute(AssertSqlSafe(statement.as_str())).await.is_ok();
        if !alone {
            store.execute("ROLLBACK").await.unwrap();
        }
        alone.then_some(())
    })
    .await;
}
