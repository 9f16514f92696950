//! Starts the program that is measured as an operator would, as a gateway or as a relay, and waits until it
//! listens.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value as Json, json};

use super::meter::Meter;

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(20);

/// The admin token of the gateways that are started here, also their relays'; they listen on loopback only.
pub(super) const TOKEN: &str = "loadtest-admin-token-0123456789";

/// A free port of this machine.
pub(super) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How to start a gateway.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) program: PathBuf,
    /// Settings that differ from the defaults: `("stream.echo_seconds", "0")`.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// A database that is not its own.
    pub(super) shared_store: Option<String>,
}

/// The program, running. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) public: SocketAddr,
    ops: SocketAddr,
}

/// Where it listens: for clients, and for operators.
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

    /// Starts the program with these settings, `more` and no others, and waits until it listens.
    pub(super) fn start(
        &self,
        arguments: &[&str],
        more: &[(&str, String)],
        folder: &Path,
        listen: SocketAddr,
    ) -> anyhow::Result<Process> {
        ensure!(
            self.program.is_file(),
            "there is no gateway at {}: build it with `cargo build --release`, or name it with --gateway",
            self.program.display()
        );
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FLAGCAST_") {
                command.env_remove(name);
            }
        }
        let own = self.settings.iter().map(|(name, value)| (*name, value));
        for (name, value) in own.chain(more.iter().map(|(name, value)| (*name, value))) {
            command.env(variable(name), value);
        }
        let mut child = command
            .args(arguments)
            .env(variable("server.listen"), listen.to_string())
            .env(variable("server.ops_listen"), ANY.to_string())
            .env(variable("log.format"), "json")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        match listening(&mut child) {
            Ok(Addresses { public, ops }) => Ok(Process { child, public, ops }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }
}

impl Process {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it tells its metrics.
    pub(super) fn meter(&self) -> Meter {
        Meter(self.ops)
    }

    /// Kills it outright, as a crash would.
    pub(super) fn kill(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The variable of a setting.
fn variable(setting: &str) -> String {
    format!("FLAGCAST_{}", setting.to_uppercase().replace('.', "__"))
}

/// Ends a child at once: a drain would pace the ends of the streams.
fn end(child: &mut Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
        eprintln!("cannot end a gateway: {error}");
    }
}

/// Waits for the line that tells the address. The rest of the log is read and dropped, so that the
/// gateway never waits for us.
fn listening(child: &mut Child) -> anyhow::Result<Addresses> {
    let log = child.stderr.take().context("its log is not ours")?;
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
