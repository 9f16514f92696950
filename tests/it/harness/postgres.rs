//! PostgreSQL clusters of the tests' own, which can be killed, replicated and promoted.
//!
//! A cluster lives in a directory of its own on a free port of 127.0.0.1. It never outlives the test
//! process, however that ends: a small shell (the keeper) reads from a pipe whose other end is here; at
//! its end it stops the server and deletes the directory. The programs are those of Debian's package
//! `postgresql`; the cluster that this package sets up is never used.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::spawn_blocking;
use url::Url;

use super::daemon::{free_port, open_directory};
use super::eventually;

/// Where Debian puts the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// The oldest version that the gateway takes.
const OLDEST: u32 = 15;

/// Stops the server and deletes its directory when the test process has let go of its end of the pipe.
/// The command that stops the server comes as arguments behind the directory.
const KEEPER: &str = r#"cat > /dev/null; "$@" > /dev/null 2>&1; rm -rf "$0""#;

/// How a test's cluster differs from another. Nothing is synced: what a killed process has written, the
/// system still has. Shared memory is in files, so that a killed server leaves none behind. What
/// `ALTER SYSTEM` changes must not be here: the command line would win.
const SETTINGS: &str = "-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off \
    -c max_connections=400 -c shared_buffers=32MB -c dynamic_shared_memory_type=mmap \
    -c max_wal_size=256MB -c wal_keep_size=128MB -c log_line_prefix='%m [%p] %d '";

/// How a server is told to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// In order: open transactions are rolled back, sessions ended.
    Fast,
    /// At once, as after a failure: the next start recovers.
    Immediate,
}

/// A cluster with its server. Dropping it stops the server and deletes the directory.
pub(crate) struct Cluster {
    directory: PathBuf,
    port: u16,
    keeper: Child,
}

impl Cluster {
    /// Makes an empty cluster and starts its server.
    pub(crate) async fn start() -> Self {
        let mut cluster = Self::without_data();
        // The order of texts is that of a language, as in most databases: statements that rely on the
        // order of bytes show.
        let init = [
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=icu",
            "--icu-locale=en-US",
        ];
        cluster.run("initdb", &init).await.unwrap();
        cluster.start_anywhere().await;
        cluster
    }

    /// Copies the cluster to another that follows it. With `synchronous`, every commit waits until that
    /// one has it.
    pub(crate) async fn standby(&self, synchronous: bool) -> Self {
        let mut standby = Self::without_data();
        let url = self.url("postgres");
        let copy = ["-d", &url, "-R", "--wal-method=stream", "--checkpoint=fast", "--no-sync"];
        standby.run("pg_basebackup", &copy).await.unwrap();
        standby.start_anywhere().await;
        if synchronous {
            self.alter("synchronous_standby_names = '*'").await;
        }
        let state = if synchronous { "sync" } else { "async" };
        let follows = "SELECT EXISTS (SELECT FROM pg_stat_replication
            WHERE state = 'streaming' AND sync_state = $1)";
        eventually("the standby follows", async || {
            let mut primary = self.connect("postgres").await;
            let follows = sqlx::query_scalar(follows).bind(state).fetch_one(&mut primary);
            follows.await.unwrap_or(false).then_some(())
        })
        .await;
        standby
    }

    /// A directory with a keeper.
    fn without_data() -> Self {
        let directory = open_directory().keep();
        let stop = server_command("pg_ctl", &directory);
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER]).arg(&directory);
        keeper.arg(stop.get_program()).args(stop.get_args()).args(["stop", "-m", "immediate"]);
        // A group of its own: an interrupt from the keyboard is for the tests, and not for who cleans up.
        keeper.current_dir("/").process_group(0);
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { directory, port: 0, keeper: keeper.spawn().unwrap() }
    }

    /// Starts the server on a port that nobody has.
    async fn start_anywhere(&mut self) {
        for _ in 0..10 {
            self.port = free_port();
            match self.try_start().await {
                Ok(()) => return,
                // Another test has taken it in between.
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("{log}"),
            }
        }
        panic!("no port is free");
    }

    async fn try_start(&self) -> Result<(), String> {
        let options = format!("-p {} {SETTINGS}", self.port);
        let log = self.log_file();
        drop(fs::remove_file(&log));
        let log_argument = log.to_str().unwrap();
        let start = ["start", "-w", "-l", log_argument, "-o", &options];
        self.run("pg_ctl", &start).await.map_err(|error| format!("{error}\n{}", self.log()))
    }

    /// Starts the server on the same port with the same data, after `stop` or `kill`.
    pub(crate) async fn start_again(&self) {
        eventually("PostgreSQL starts again", async || match self.try_start().await {
            Ok(()) => Some(()),
            // Another test's outgoing connection may hold the port for an instant.
            Err(log) if log.contains("Address already in use") => None,
            Err(log) => panic!("{log}"),
        })
        .await;
    }

    /// Stops the server.
    pub(crate) async fn stop(&self, how: Stop) {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        self.run("pg_ctl", &["stop", "-w", "-m", mode]).await.unwrap();
    }

    /// Kills all processes of the server at once, as a crash of the machine does.
    pub(crate) async fn kill(&self) {
        let file = self.data().join("postmaster.pid");
        let content = fs::read_to_string(&file).unwrap();
        let postmaster: u32 = content.lines().next().unwrap().parse().unwrap();
        // It makes no more children while they are counted.
        signal("STOP", &[postmaster]);
        let mut all = children(postmaster);
        all.push(postmaster);
        signal("KILL", &all);
        eventually("all processes of PostgreSQL are gone", async || {
            all.iter().all(|process| parent(*process).is_none()).then_some(())
        })
        .await;
        // The next start would wait until the system has buried the dead.
        fs::remove_file(file).unwrap();
    }

    /// Makes a standby a server that takes changes, on a timeline of its own.
    pub(crate) async fn promote(&self) {
        self.run("pg_ctl", &["promote", "-w"]).await.unwrap();
    }

    /// Lets a standby miss what is committed from now on.
    pub(crate) async fn stop_following(&self) {
        self.alter("primary_conninfo = ''").await;
        eventually("the standby has stopped to follow", async || {
            let mut standby = self.connect("postgres").await;
            let receives = "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver)";
            let receives = sqlx::query_scalar(receives).fetch_one(&mut standby).await;
            (!receives.unwrap_or(true)).then_some(())
        })
        .await;
    }

    /// Lets the server refuse every change, as one does whose disk is full or that is being moved.
    pub(crate) async fn set_read_only(&self, read_only: bool) {
        self.alter(&format!("default_transaction_read_only = {read_only}")).await;
        let wanted = if read_only { "on" } else { "off" };
        eventually("the server has read its settings", async || {
            let mut session = self.connect("postgres").await;
            let now: String = sqlx::query_scalar("SHOW default_transaction_read_only")
                .fetch_one(&mut session)
                .await
                .unwrap();
            (now == wanted).then_some(())
        })
        .await;
    }

    /// Makes a role without privileges that needs a password to connect and owns `database`; answers with
    /// the database's URL for it.
    pub(crate) async fn create_role(&self, database: &str, name: &str, password: &str) -> String {
        let rule = format!("host all {name} 127.0.0.1/32 scram-sha-256\n");
        let file = self.data().join("pg_hba.conf");
        fs::write(&file, rule + &fs::read_to_string(&file).unwrap()).unwrap();
        let mut url = Url::parse(database).unwrap();
        let owned = url.path().trim_start_matches('/');
        let mut session = self.connect("postgres").await;
        for statement in [
            format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'"),
            format!("ALTER DATABASE {owned} OWNER TO {name}"),
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            session.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        }
        url.set_username(name).unwrap();
        url.set_password(Some(password)).unwrap();
        let right = url.to_string();
        url.set_password(Some("wrong")).unwrap();
        eventually("the server asks for a password", async || {
            PgConnection::connect(url.as_str()).await.is_err().then_some(())
        })
        .await;
        right
    }

    /// What `pg_dump` writes of a database.
    pub(crate) async fn dump(&self, url: &str) -> Vec<u8> {
        let mut command = Command::new(programs().join("pg_dump"));
        command.arg(url).stdin(Stdio::null());
        let output = spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Replaces a database by one that is made of a dump.
    pub(crate) async fn restore(&self, url: &str, dump: Vec<u8>) {
        let fresh = self.create_database().await;
        let mut command = Command::new(programs().join("psql"));
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &fresh]);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), dump).unwrap();
        command.arg("-f").arg(file.path()).stdin(Stdio::null());
        let output = spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let name = |url: &str| Url::parse(url).unwrap().path().trim_start_matches('/').to_owned();
        let (fresh, old) = (name(&fresh), name(url));
        let mut session = self.connect("postgres").await;
        eventually("nobody uses the database", async || {
            self.terminate_connections().await;
            let away = format!("ALTER DATABASE {old} RENAME TO {old}_gone");
            session.execute(sqlx::AssertSqlSafe(away)).await.ok()
        })
        .await;
        let back = format!("ALTER DATABASE {fresh} RENAME TO {old}");
        session.execute(sqlx::AssertSqlSafe(back)).await.unwrap();
    }

    /// Ends all sessions of clients.
    pub(crate) async fn terminate_connections(&self) {
        let mut session = self.connect("postgres").await;
        let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        session.execute(terminate).await.unwrap();
    }

    /// Makes an empty database; answers with its URL.
    pub(crate) async fn create_database(&self) -> String {
        super::store::create_database(&self.url("postgres")).await
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address())
    }

    async fn connect(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.url(database)).await.unwrap()
    }

    /// Changes a setting of the running server.
    async fn alter(&self, setting: &str) {
        let mut session = self.connect("postgres").await;
        let statement = format!("ALTER SYSTEM SET {setting}");
        session.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        session.execute("SELECT pg_reload_conf()").await.unwrap();
    }

    fn data(&self) -> PathBuf {
        data(&self.directory)
    }

    fn log_file(&self) -> PathBuf {
        self.data().join("test.log")
    }

    /// What the server has logged since its last start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Runs a program of PostgreSQL on the data to its end; its output if it fails.
    async fn run(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let mut command = server_command(program, &self.directory);
        command.args(arguments).stdin(Stdio::null());
        let output = spawn_blocking(move || command.output()).await.unwrap().unwrap();
        if output.status.success() {
            return Ok(());
        }
        let told = [output.stdout, output.stderr].concat();
        Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&told)))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("--- PostgreSQL on port {} logged:\n{end}\n---", self.port);
        }
        drop(self.keeper.stdin.take());
        // An error would mean that nobody is there to wait for.
        drop(self.keeper.wait());
    }
}

/// The URL of the same database when the server is found at another port of this machine.
pub(crate) fn url_at(url: &str, address: SocketAddr) -> String {
    let mut url = Url::parse(url).unwrap();
    url.set_port(Some(address.port())).unwrap();
    url.into()
}

fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// A program of PostgreSQL for the data in a directory. It refuses to run as root, so then it runs as the
/// user that the package has made.
fn server_command(program: &str, directory: &Path) -> Command {
    let program = programs().join(program);
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.arg("-D").arg(data(directory)).current_dir(directory);
    command
}

/// The programs of the newest version that is installed.
fn programs() -> PathBuf {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten();
    let versions = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let newest: u32 = versions.max().unwrap_or_default();
    assert!(
        newest >= OLDEST,
        "no PostgreSQL in {VERSIONS}; `make test-deps` installs what tests need"
    );
    Path::new(VERSIONS).join(newest.to_string()).join("bin")
}

fn signal(name: &str, processes: &[u32]) {
    let processes = processes.iter().map(u32::to_string);
    // An error means that one of them has ended already.
    drop(Command::new("kill").arg(format!("-{name}")).args(processes).output());
}

fn children(process: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap();
    let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|child| parent(*child) == Some(process)).collect()
}

/// The parent of a process that runs.
fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let mut fields = stat.rsplit(") ").next()?.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z").then_some(parent)
}
