//! A PostgreSQL of our own, with everything durable as in production, and sessions at it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::machine::family;

/// Where Debian puts the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(20);

/// As it comes, but for room for many sessions, and a count of statements.
const SETTINGS: [&str; 4] = [
    "max_connections=400",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_preload_libraries=pg_stat_statements",
];

/// A running server. Dropping it stops it and deletes its data.
#[derive(Debug)]
pub(crate) struct Postgres {
    /// Nothing when somebody else runs it.
    own: Option<Own>,
    url: String,
}

#[derive(Debug)]
struct Own {
    child: Child,
    /// Deleted when the server has stopped.
    _directory: TempDir,
}

/// A connection that waits for each answer.
pub(crate) struct Session {
    runtime: Runtime,
    connection: PgConnection,
}

impl Postgres {
    /// The one at `url`, or one of our own.
    pub(crate) fn at(url: Option<&str>) -> anyhow::Result<Self> {
        match url {
            Some(url) => Ok(Self { own: None, url: url.to_owned() }),
            None => Self::start(),
        }
    }

    fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for PostgreSQL")?;
        if geteuid().is_root() {
            let owner = Command::new("chown").arg("postgres").arg(directory.path()).status()?;
            ensure!(owner.success(), "cannot give a directory to the user postgres");
        }
        let initdb = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"];
        let made = program("initdb", directory.path())?.args(initdb).output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = program("postgres", directory.path())?;
        command.args(["-p", &port.to_string()]);
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("cannot start PostgreSQL")?;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let mut started = Self { own: Some(Own { child, _directory: directory }), url };
        started.wait()?;
        Ok(started)
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_MAX;
        while let Err(error) = Session::open(&self.url) {
            let ended = self.own.as_mut().map(|own| own.child.try_wait()).transpose()?.flatten();
            if ended.is_some() || Instant::now() > deadline {
                bail!("PostgreSQL does not answer: {error:#}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The URL of an empty database; of the given one if the server is not ours.
    pub(crate) fn database(&self, name: &str) -> anyhow::Result<String> {
        if self.own.is_none() {
            return Ok(self.url.clone());
        }
        Session::open(&self.url)?.execute(&format!("CREATE DATABASE {name}"))?;
        let server = self.url.strip_suffix("postgres").context("the URL names no database")?;
        Ok(format!("{server}{name}"))
    }

    /// Its processes; none if the server is not ours.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.own.as_ref().map(|own| family(own.child.id())).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(own) = &mut self.own else { return };
        // It ends its sessions and stops in order.
        let told =
            i32::try_from(own.child.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGINT));
        if let Err(error) = own.child.wait() {
            eprintln!("cannot end PostgreSQL ({told:?}): {error}");
        }
    }
}

impl Session {
    pub(crate) fn open(url: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connection = runtime.block_on(PgConnection::connect(url))?;
        Ok(Self { runtime, connection })
    }

    /// Runs statements whose answers nobody needs.
    pub(crate) fn execute(&mut self, statements: &str) -> anyhow::Result<()> {
        let statements = AssertSqlSafe(statements.to_owned());
        self.runtime.block_on(self.connection.execute(statements))?;
        Ok(())
    }

    /// Lets the database count its statements, if it can.
    pub(crate) fn count_statements(&mut self) -> bool {
        self.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").is_ok()
            && self.statements().is_ok()
    }

    /// Statements that were run in this database, `BEGIN` and `COMMIT` included.
    pub(crate) fn statements(&mut self) -> anyhow::Result<u64> {
        let statement =
            "SELECT CAST(COALESCE(SUM(calls), 0) AS BIGINT) AS calls FROM pg_stat_statements
            WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let row = self.runtime.block_on(self.connection.fetch_one(statement))?;
        Ok(u64::try_from(row.try_get::<i64, _>("calls")?)?)
    }
}

/// A program of PostgreSQL for the data in a directory. It refuses to run as root, so then it runs as the
/// user that the package has made.
fn program(name: &str, directory: &Path) -> anyhow::Result<Command> {
    let program = programs()?.join(name);
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.arg("-D").arg(directory.join("data")).current_dir(directory);
    Ok(command)
}

/// The programs of the newest version that is installed.
fn programs() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten();
    let versions = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let newest: Option<u32> = versions.max();
    let newest = newest.context("there is no PostgreSQL (Debian: apt install postgresql)")?;
    Ok(Path::new(VERSIONS).join(newest.to_string()).join("bin"))
}
