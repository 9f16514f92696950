//! Starts the gateway as an operator would, on a store of its own, and manages it.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::meter::Meter;
use super::subject::Change;
use super::targeting;
use crate::client::Client;

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(20);

/// The admin token of the gateways that are started here; they listen on loopback only.
const TOKEN: &str = "loadtest-admin-token-0123456789";

/// Environments of a project, as many as its default limit allows.
const ENVIRONMENTS_PER_PROJECT: usize = 100;

/// How to start a gateway.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) program: PathBuf,
    /// Settings that differ from the defaults: `("stream.echo_seconds", "0")`.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// A database that is not its own.
    shared_store: Option<String>,
}

/// A running gateway. Dropping it ends it; its store goes with it.
#[derive(Debug)]
pub(crate) struct Gateway {
    setup: Setup,
    child: Child,
    store: TempDir,
    pub(crate) public: SocketAddr,
    ops: SocketAddr,
    /// The management connection.
    pub(crate) admin: Client,
}

/// An environment that was made for a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    project: String,
    key: String,
    pub(crate) client_key: String,
}

/// Who changes one flag, with a connection of their own.
#[derive(Debug)]
pub(crate) struct Writer {
    admin: Client,
    path: String,
    enabled: bool,
}

/// Where a gateway listens: for clients, and for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    public: SocketAddr,
    ops: SocketAddr,
}

impl Setup {
    /// The gateway as it comes.
    pub(crate) fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), settings: Vec::new(), shared_store: None }
    }

    /// The same with one more setting.
    pub(crate) fn with(mut self, name: &'static str, value: u64) -> Self {
        self.settings.push((name, value.to_string()));
        self
    }

    /// The same, whose webhooks may come to loopback.
    pub(crate) fn with_local_webhooks(mut self) -> Self {
        self.settings.push(("webhook.allowed_targets", "127.0.0.0/8".to_owned()));
        self
    }

    /// The same on a database that others share.
    pub(crate) fn on(mut self, url: &str) -> Self {
        self.shared_store = Some(url.to_owned());
        self
    }

    /// The settings, for the report.
    pub(crate) fn json(&self) -> Json {
        let settings = self.settings.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
        Json::Object(settings.collect())
    }

    /// The program with these settings and no others.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FLAGCAST_") {
                command.env_remove(name);
            }
        }
        for (name, value) in &self.settings {
            let name = name.to_uppercase().replace('.', "__");
            command.env(format!("FLAGCAST_{name}"), value);
        }
        command
    }

    fn spawn(&self, store: &Path, listen: SocketAddr) -> anyhow::Result<(Child, Addresses)> {
        let own = || format!("sqlite://{}", store.join("f.db").display());
        let url = self.shared_store.clone().unwrap_or_else(own);
        let mut child = self
            .command()
            .args(["serve", "--no-demo"])
            .env("FLAGCAST_SERVER__LISTEN", listen.to_string())
            .env("FLAGCAST_SERVER__OPS_LISTEN", "127.0.0.1:0")
            .env("FLAGCAST_STORE__URL", url)
            .env("FLAGCAST_AUTH__BOOTSTRAP_TOKEN", TOKEN)
            .env("FLAGCAST_LOG__FORMAT", "json")
            .current_dir(store)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        match listening(&mut child) {
            Ok(addresses) => Ok((child, addresses)),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }
}

impl Environment {
    /// The path of its stream.
    pub(crate) fn stream(&self) -> String {
        format!("/sse/environments/{}/stream", self.client_key)
    }

    /// The path of its flags for SDKs.
    pub(crate) fn flags(&self) -> String {
        format!("/sdk/v1/environments/{}/flags", self.client_key)
    }

    /// The management API's path of it.
    pub(super) fn path(&self) -> String {
        format!("/admin/v1/projects/{}/environments/{}", self.project, self.key)
    }
}

impl Gateway {
    /// Starts a gateway and waits until it listens.
    pub(crate) fn start(setup: &Setup) -> anyhow::Result<Self> {
        ensure!(
            setup.program.is_file(),
            "there is no gateway at {}: build it with `cargo build --release`, or name it with --gateway",
            setup.program.display()
        );
        let store = tempfile::tempdir().context("cannot make a directory for the store")?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (mut child, Addresses { public, ops }) = setup.spawn(store.path(), any)?;
        match Self::connect(public) {
            Ok(admin) => Ok(Self { setup: setup.clone(), child, store, public, ops, admin }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// Kills it outright, as a crash would, and starts it again: the same port, the same store.
    pub(crate) fn crash_and_restart(&mut self) -> anyhow::Result<()> {
        end(&mut self.child);
        let (child, addresses) = self.setup.spawn(self.store.path(), self.public)?;
        self.child = child;
        self.ops = addresses.ops;
        self.admin = Self::connect(self.public)?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection of somebody who may only read.
    pub(crate) fn visitor(&self) -> anyhow::Result<Client> {
        Client::connect(self.public, String::new())
    }

    /// Somebody with a connection of their own who changes one flag again and again.
    pub(crate) fn writer(&self, environment: &Environment, flag: usize) -> anyhow::Result<Writer> {
        let path = format!("{}/flags/{}", environment.path(), targeting::key(flag));
        // One of three flags begins switched on; a change to what is there would be none.
        Ok(Writer { admin: Self::connect(self.public)?, path, enabled: flag.is_multiple_of(3) })
    }

    fn connect(public: SocketAddr) -> anyhow::Result<Client> {
        Client::connect(public, format!("authorization: Bearer {TOKEN}\r\n"))
    }

    /// Makes environments with one flag each, a hundred in a project.
    pub(crate) fn environments(
        &mut self,
        name: &str,
        count: usize,
    ) -> anyhow::Result<Vec<Environment>> {
        let mut made = Vec::with_capacity(count);
        while made.len() < count {
            let project = format!("{name}-{}", made.len() / ENVIRONMENTS_PER_PROJECT);
            let left = count - made.len();
            made.push(self.environment(&project, 1)?);
            for number in 1..left.min(ENVIRONMENTS_PER_PROJECT) {
                made.push(self.add_environment(&project, &format!("environment-{number}"))?);
            }
        }
        Ok(made)
    }

    /// Makes a project with an environment and `flags` flags, half of them with a text.
    pub(crate) fn environment(
        &mut self,
        project: &str,
        flags: usize,
    ) -> anyhow::Result<Environment> {
        self.post("/projects", &json!({ "key": project, "name": project }))?;
        let environment = self.add_environment(project, "production")?;
        let path = format!("/projects/{project}/features");
        for number in 0..flags {
            let value = (number % 2 == 1).then(|| format!("variant-{number:04}"));
            let enabled = number % 3 == 0;
            let feature =
                json!({ "key": targeting::key(number), "enabled": enabled, "value": value });
            self.post(&path, &feature)?;
        }
        Ok(environment)
    }

    /// Makes a project with an environment whose flags depend on who asks.
    pub(crate) fn targeted_environment(&mut self, project: &str) -> anyhow::Result<Environment> {
        self.post("/projects", &json!({ "key": project, "name": project }))?;
        let environment = self.add_environment(project, "production")?;
        for feature in targeting::features() {
            self.post(&format!("/projects/{project}/features"), &feature)?;
        }
        for segment in targeting::segments() {
            self.post(&format!("/projects/{project}/segments"), &segment)?;
        }
        for (flag, segment, state) in targeting::overrides() {
            let path = format!("{}/flags/{flag}/segments/{segment}", environment.path());
            let answer = self.admin.send("PUT", &path, "", &state.to_string())?;
            ensure!(answer.status < 300, "PUT {path} answered {}", answer.status);
        }
        Ok(environment)
    }

    fn add_environment(&mut self, project: &str, key: &str) -> anyhow::Result<Environment> {
        let path = format!("/projects/{project}/environments");
        let made = self.post(&path, &json!({ "key": key, "name": key }))?;
        let client_key = made["client_key"].as_str().context("no client_key")?.to_owned();
        Ok(Environment { project: project.to_owned(), key: key.to_owned(), client_key })
    }

    /// Turns the first flag of an environment on or off.
    pub(crate) fn flip(
        &mut self,
        environment: &Environment,
        enabled: bool,
    ) -> anyhow::Result<Change> {
        let path = format!("{}/flags/{}", environment.path(), targeting::key(0));
        patch(&mut self.admin, &path, enabled)
    }

    /// What the gateway says of its newest ping.
    pub(crate) fn newest_ping(&mut self, environment: &Environment) -> anyhow::Result<Json> {
        let path = format!("{}/streams", environment.path());
        let answer = self.admin.send("GET", &path, "", "")?;
        Ok(answer.json()?["pings"][0].take())
    }

    /// Where it tells its metrics.
    pub(crate) fn meter(&self) -> Meter {
        Meter(self.ops)
    }

    /// What its store takes on the disk, in bytes.
    pub(crate) fn store_bytes(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for file in std::fs::read_dir(self.store.path()).context("the store is gone")? {
            bytes += file?.metadata()?.len();
        }
        Ok(bytes)
    }

    fn post(&mut self, path: &str, body: &Json) -> anyhow::Result<Json> {
        let path = format!("/admin/v1{path}");
        let answer = self.admin.send("POST", &path, "", &body.to_string())?;
        answer.json().with_context(|| format!("POST {path} failed"))
    }
}

impl Writer {
    /// Flips the flag.
    pub(crate) fn flip(&mut self) -> anyhow::Result<Change> {
        self.enabled = !self.enabled;
        patch(&mut self.admin, &self.path, self.enabled)
    }
}

fn patch(admin: &mut Client, path: &str, enabled: bool) -> anyhow::Result<Change> {
    let body = json!({ "enabled": enabled }).to_string();
    let answer = admin.send("PATCH", path, "", &body)?;
    let revision = answer.json()?["revision"].as_u64().context("no revision")?;
    Ok(Change { revision, sent: answer.sent, answered: answer.answered })
}

impl Drop for Gateway {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a child at once: a drain would pace the ends of the streams.
fn end(child: &mut Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
        eprintln!("cannot end the gateway: {error}");
    }
}

/// Waits for the line that tells the address. The rest of the log is read and dropped, so that the
/// gateway never waits for us.
fn listening(child: &mut Child) -> anyhow::Result<Addresses> {
    let log = child.stderr.take().context("the gateway's log is not ours")?;
    let (lines, told) = sync_channel(1);
    std::thread::spawn(move || follow(log, &lines));
    wait(&told)
}

fn wait(told: &Receiver<Result<Addresses, String>>) -> anyhow::Result<Addresses> {
    match told.recv_timeout(START_MAX) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(log)) => bail!("the gateway ended before it listened:\n{log}"),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            bail!("the gateway did not listen within {START_MAX:?}")
        }
    }
}

fn follow(log: ChildStderr, told: &SyncSender<Result<Addresses, String>>) {
    let mut early = String::new();
    let mut waiting = true;
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        if !waiting {
            continue;
        }
        if let Some(addresses) = addresses(&line) {
            waiting = false;
            // Nobody waits any more when the start took too long.
            drop(told.send(Ok(addresses)));
        } else {
            early.push_str(&line);
            early.push('\n');
        }
    }
    if waiting {
        drop(told.send(Err(early)));
    }
}

/// The addresses, when `line` is the one that tells them.
fn addresses(line: &str) -> Option<Addresses> {
    let line: Json = serde_json::from_str(line).ok()?;
    if line["message"] != "listening" {
        return None;
    }
    let address = |name: &str| line[name].as_str()?.parse().ok();
    Some(Addresses { public: address("public")?, ops: address("ops")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listening_line_tells_the_addresses() {
        let line = r#"{"level":"INFO","message":"listening","public":"127.0.0.1:8080","ops":"127.0.0.1:9464"}"#;
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let expected = Addresses { public: address(8080), ops: address(9464) };
        assert_eq!(addresses(line), Some(expected));
        assert_eq!(addresses(r#"{"message":"stopped"}"#), None);
        assert_eq!(addresses("error: address in use"), None);
    }
}
