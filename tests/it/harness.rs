//! Starts the gateway the way an operator does and stops it in every way it can stop.
//!
//! The parts beside this file are the other hands of a test: the management API (`admin`, `rollout`),
//! a request of a client (`answer`), a subscriber (`stream`), a connection as bytes (`wire`), the
//! published clients (`client` for those that tell what they see, `driver` for those that do as they
//! are told, a browser among them), a network that can be broken (`proxy`), hops that play a part
//! (`script`) or are real (`daemon`, `varnish`), TLS (`secure`), databases and the store seen from beside
//! (`store`), who acts while everything fails (`actors`), what a client has seen (`seen`), and servers of PostgreSQL that can fail (`postgres`, behind a `link`). Nothing here sleeps for luck: every
//! wait has a condition and a deadline.

pub(crate) mod actors;
pub(crate) mod admin;
pub(crate) mod answer;
pub(crate) mod ask;
pub(crate) mod bucket;
pub(crate) mod client;
pub(crate) mod crowd;
pub(crate) mod daemon;
pub(crate) mod driver;
pub(crate) mod fake;
pub(crate) mod flagsmith_core;
pub(crate) mod ledger;
pub(crate) mod link;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod purged;
pub(crate) mod raw;
pub(crate) mod receiver;
pub(crate) mod rollout;
pub(crate) mod script;
pub(crate) mod secure;
pub(crate) mod seed;
pub(crate) mod seen;
pub(crate) mod store;
pub(crate) mod stream;
pub(crate) mod varnish;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use sqlx::AnyConnection;
use tempfile::TempDir;

use admin::{Admin, Environment};
use link::Link;
use postgres::{Cluster, url_at};
use process::Process;
use store::Database;

/// How long something may take that happens "within a moment". It is long because tests share two
/// cores with browsers; a test that passes never waits for it.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The admin token of every gateway that is not started for a person.
pub(crate) const ADMIN_TOKEN: &str = "test-admin-token-0123456789abcdef";

/// The token of a system that announces its changes by `queue-change`.
pub(crate) const PUSH_TOKEN: &str = "test-push-token-0123456789abcdef";

/// The file of a fixture, in the gateway's directory.
const FIXTURE: &str = "flags.json";

/// Asks `check` until it has an answer, and panics with `what` when that takes too long.
pub(crate) async fn eventually<T>(what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(SOON, what, check).await
}

/// The same for what takes its time.
pub(crate) async fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = check().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What a gateway is started with; `Gateway::builder` begins one.
#[derive(Clone)]
pub(crate) struct Builder {
    settings: BTreeMap<String, String>,
    arguments: Vec<&'static str>,
    descriptors: Option<u32>,
    /// The fixture that it serves instead of a store.
    fixture: Option<String>,
    /// Whether its store is a PostgreSQL database of its own.
    postgres: bool,
}

impl Builder {
    /// Lets the process open no more than `limit` files and sockets.
    #[must_use]
    pub(crate) fn descriptors(mut self, limit: u32) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// Sets `key`, as in `config/default.toml`.
    #[must_use]
    pub(crate) fn set(mut self, key: &str, value: impl Display + Copy) -> Self {
        self.settings.insert(key.to_owned(), value.to_string());
        self
    }

    /// Gives the gateway a PostgreSQL database of its own, whatever the stores of this run are.
    #[must_use]
    pub(crate) fn postgres(mut self) -> Self {
        self.postgres = true;
        self
    }

    /// Starts so many gateways at once, all with the store at `url`.
    pub(crate) async fn nodes(self, count: usize, url: &str) -> Vec<Gateway> {
        let node = self.set("store.url", url);
        join_all((0..count).map(|_| node.clone().start())).await
    }

    /// Starts so many gateways on one database, each behind a link of its own to the server, which can break
    /// for it alone.
    pub(crate) async fn behind_links(
        self,
        count: usize,
        cluster: &Cluster,
        database: &str,
    ) -> (Vec<Gateway>, Vec<Link>) {
        let (mut nodes, mut links) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let link = Link::start(cluster.address()).await;
            let url = url_at(database, link.address());
            nodes.push(self.clone().set("store.url", url.as_str()).start().await);
            links.push(link);
        }
        (nodes, links)
    }

    /// Starts the gateway with the store at `url`, which may be away, on ports that are free now, and waits for
    /// nothing.
    pub(crate) fn launch(self, url: &str) -> Gateway {
        let free = || SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, daemon::free_port()));
        let (public, ops) = (free(), free());
        let started = self.set("server.listen", public).set("server.ops_listen", ops);
        let started = started.set("store.url", url);
        let directory = TempDir::with_prefix("flagcast-it-").unwrap();
        let process = spawn(&started, directory.path());
        Gateway { process, directory, _database: None, started, public, ops }
    }

    /// Starts the gateway in an empty directory of its own and waits until it listens.
    pub(crate) async fn start(mut self) -> Gateway {
        let has_store = self.fixture.is_none() && !self.settings.contains_key("store.url");
        let database =
            if has_store && self.postgres { Some(Database::create().await) } else { None };
        if let Some(database) = &database {
            self = self.set("store.url", database.url());
        }
        let directory = TempDir::with_prefix("flagcast-it-").unwrap();
        if let Some(fixture) = &self.fixture {
            std::fs::write(directory.path().join(FIXTURE), fixture).unwrap();
        }
        let process = spawn(&self, directory.path());
        let (public, ops) = listening(&process).await.unwrap();
        // From now on the ports are fixed: clients of a restarted gateway find it where it was.
        let started = self.set("server.listen", public).set("server.ops_listen", ops);
        Gateway { process, directory, _database: database, started, public, ops }
    }
}

/// A running gateway with its store. Dropping it kills the process and deletes the store.
pub(crate) struct Gateway {
    // Before the store: fields are dropped in order, and the process writes there.
    process: Process,
    directory: TempDir,
    _database: Option<Database>,
    started: Builder,
    public: SocketAddr,
    ops: SocketAddr,
}

/// Whether streams of plain HTTP/1.1 go through shards in this run.
pub(crate) fn uses_shards() -> bool {
    !std::env::var("FLAGCAST_TEST_FAN_OUT").is_ok_and(|fan_out| fan_out == "bodies")
}

impl Gateway {
    /// A gateway for automated use: known tokens, no demo project, logs as JSON.
    pub(crate) fn builder() -> Builder {
        let mut builder = Self::first_start()
            .set("auth.bootstrap_token", ADMIN_TOKEN)
            .set("auth.push_token", PUSH_TOKEN);
        builder.arguments.push("--no-demo");
        // The same tests again, with streams written in another way.
        match std::env::var("FLAGCAST_TEST_FAN_OUT") {
            Ok(fan_out) => builder.set("stream.fan_out", fan_out.as_str()),
            Err(_) => builder,
        }
    }

    /// A gateway as a newcomer starts it, but for the ports, which must be free ones.
    pub(crate) fn first_start() -> Builder {
        let (settings, arguments) = (BTreeMap::new(), vec!["serve"]);
        Builder {
            settings,
            arguments,
            descriptors: None,
            fixture: None,
            postgres: store::is_postgres(),
        }
        .set("server.listen", "127.0.0.1:0")
        .set("server.ops_listen", "127.0.0.1:0")
        .set("log.format", "json")
    }

    /// A relay in front of what is at `upstream`. It is a gateway to its clients, and has no store.
    pub(crate) fn relay(upstream: &str) -> Builder {
        let mut builder = Self::first_start().set("relay.upstream", upstream);
        builder.arguments = vec!["relay"];
        builder.postgres = false;
        // What must come soon in a test may come later in a company.
        let builder = builder.set("relay.token", ADMIN_TOKEN).set("relay.poll_seconds", 5);
        match std::env::var("FLAGCAST_TEST_FAN_OUT") {
            Ok(fan_out) => builder.set("stream.fan_out", fan_out.as_str()),
            Err(_) => builder,
        }
    }

    /// What a relay tells of itself.
    pub(crate) async fn relay_status(&self) -> Value {
        read_json(&self.ops_url("/relay/status")).await
    }

    /// A gateway that serves a fixture.
    pub(crate) fn fixture(text: impl Into<String>) -> Builder {
        let mut builder = Self::builder();
        builder.arguments = vec!["serve", "--fixture", FIXTURE];
        builder.fixture = Some(text.into());
        builder
    }

    /// Names of the files in its directory.
    pub(crate) fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.directory.path()).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// A file or folder in its directory.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// The address of the public listener.
    pub(crate) fn public(&self) -> SocketAddr {
        self.public
    }

    /// The URL of `path` on the public listener.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.public)
    }

    /// The URL of `path` on the operators' listener.
    pub(crate) fn ops_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.ops)
    }

    /// The address of the operators' listener.
    pub(crate) fn ops(&self) -> SocketAddr {
        self.ops
    }

    /// The `store.url` under which another process finds the same store.
    pub(crate) fn store_url(&self) -> String {
        match self.started.settings.get("store.url") {
            Some(url) => url.clone(),
            None => format!("sqlite://{}/flagcast.db", self.directory.path().display()),
        }
    }

    /// The store, as another process sees it.
    pub(crate) async fn store(&self) -> AnyConnection {
        store::connect(&self.store_url()).await
    }

    /// The process: its output, signals and end.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The management API with the admin token.
    pub(crate) fn admin(&self) -> Admin {
        Admin::new(self.url("/admin/v1"), ADMIN_TOKEN)
    }

    /// What `Admin::create_shop` makes.
    pub(crate) async fn shop(&self) -> Environment {
        self.admin().create_shop().await
    }

    /// Flags as the browser client reads them, without a revision in the question.
    pub(crate) async fn flags(&self, client_key: &str) -> Value {
        let url = self.url(&format!("/sdk/v1/environments/{client_key}/flags"));
        read_json(&url).await
    }

    /// The sum of all samples of `metric` whose labels contain every text of `labels`.
    pub(crate) async fn metric(&self, metric: &str, labels: &[&str]) -> f64 {
        let text = http().get(self.ops_url("/metrics")).send().await.unwrap().text().await.unwrap();
        text.lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(metric))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until `metric`, summed up as by `metric`, is `wanted`.
    pub(crate) async fn metric_becomes(&self, metric: &str, labels: &[&str], wanted: u32) {
        let what = format!("{metric} {labels:?} becomes {wanted}");
        eventually(&what, async || {
            let value = self.metric(metric, labels).await;
            ((value - f64::from(wanted)).abs() < f64::EPSILON).then_some(())
        })
        .await;
    }

    /// Whether the process has logged a message that contains `text`.
    pub(crate) fn logged(&self, text: &str) -> bool {
        let mut lines = self.process.stderr.json();
        lines.any(|line| line["message"].as_str().is_some_and(|message| message.contains(text)))
    }

    /// The lines that the process has logged so far.
    pub(crate) fn process_log(&self) -> impl Iterator<Item = String> {
        self.process.stderr.all().into_iter()
    }

    /// How many files and sockets the process has open.
    pub(crate) fn open_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Lets no file of the running process grow beyond `bytes`, or any file grow again: a full disk. The
    /// process must have been started to outlive it.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let process = self.process.id().to_string();
        let bytes = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let limit = format!("--fsize={bytes}:");
        let status = Command::new("prlimit").args(["--pid", &process, &limit]).status();
        assert!(status.unwrap().success());
    }

    /// Takes descriptors away from the running process.
    pub(crate) fn limit_descriptors(&self, limit: usize) {
        let process = self.process.id().to_string();
        let limit = format!("--nofile={limit}:");
        let status = Command::new("prlimit").args(["--pid", &process, &limit]).status();
        assert!(status.unwrap().success());
    }

    /// Ends the process as a crash does.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks the process to end in order, as service managers do.
    pub(crate) fn terminate(&self) {
        self.process.signal("TERM");
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        self.process.exited().await
    }

    /// Starts the gateway again like `restart`, with one setting changed.
    pub(crate) async fn restart_with(&mut self, key: &str, value: &str) {
        self.started.settings.insert(key.to_owned(), value.to_owned());
        self.restart().await;
    }

    /// Starts the gateway again on the same ports and store, after `kill` or `exited`.
    pub(crate) async fn restart(&mut self) {
        eventually("the gateway starts again on its ports", async || {
            self.process = spawn(&self.started, self.directory.path());
            match listening(&self.process).await {
                Ok(_) => Some(()),
                // Another test's outgoing connection may hold the port for an instant.
                Err(log) if log.to_lowercase().contains("in use") => None,
                Err(log) => panic!("{log}"),
            }
        })
        .await;
    }
}

fn spawn(builder: &Builder, directory: &Path) -> Process {
    let program = env!("CARGO_BIN_EXE_flagcast");
    let mut command = match builder.descriptors {
        None => Command::new(program),
        Some(limit) => {
            let mut shell = Command::new("sh");
            // A file that may not grow is an error to it, and not its end.
            let limited = "trap '' XFSZ; ulimit -n \"$0\" && exec \"$@\"";
            shell.args(["-c", limited, &limit.to_string(), program]);
            shell
        }
    };
    command.args(&builder.arguments).current_dir(directory);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLAGCAST_")) {
        command.env_remove(name);
    }
    for (key, value) in &builder.settings {
        let name = format!("FLAGCAST_{}", key.to_uppercase().replace('.', "__"));
        command.env(name, value);
    }
    Process::spawn("gateway", command)
}

/// Waits for the log line that tells the addresses; the log when the process ends before.
async fn listening(process: &Process) -> Result<(SocketAddr, SocketAddr), String> {
    eventually("the gateway listens", async || {
        let ended = process.has_ended();
        let line = process.stderr.json().find(|line| line["message"] == "listening");
        let address = |line: &Value, name: &str| line[name].as_str().unwrap().parse().unwrap();
        match line {
            Some(line) => Some(Ok((address(&line, "public"), address(&line, "ops")))),
            None if ended => Some(Err(process.stderr.tail(20))),
            None => None,
        }
    })
    .await
}

/// An HTTP client that ignores the machine's proxy settings.
pub(crate) fn http() -> reqwest::Client {
    flagcast::outbound::plain_client().no_proxy().timeout(SOON).build().unwrap()
}

/// Reads `url`, which must answer 200 with JSON.
pub(crate) async fn read_json(url: &str) -> Value {
    let response = http().get(url).send().await.unwrap();
    assert_eq!(response.status(), 200, "{url}");
    response.json().await.unwrap()
}
