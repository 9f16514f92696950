//! Starts the gateway as an operator would, on a store of its own, and manages it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::http::{Answer, Client};

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(20);

/// The admin token of the gateways that are started here; they listen on loopback only.
const TOKEN: &str = "loadtest-admin-token-0123456789";

/// A running gateway. Dropping it ends it; its store goes with it.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    _store: TempDir,
    pub(crate) public: SocketAddr,
    /// The management connection.
    pub(crate) admin: Client,
}

/// An environment that was made for a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    pub(crate) project: String,
    pub(crate) client_key: String,
}

impl Gateway {
    /// Starts `program` and waits until it listens.
    pub(crate) fn start(program: &Path) -> anyhow::Result<Self> {
        ensure!(
            program.is_file(),
            "there is no gateway at {}: build it with `cargo build --release`, or name it with --gateway",
            program.display()
        );
        let store = tempfile::tempdir().context("cannot make a directory for the store")?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FLAGCAST_") {
                command.env_remove(name);
            }
        }
        let url = format!("sqlite://{}", store.path().join("f.db").display());
        let mut child = command
            .args(["serve", "--no-demo"])
            .env("FLAGCAST_SERVER__LISTEN", "127.0.0.1:0")
            .env("FLAGCAST_SERVER__OPS_LISTEN", "127.0.0.1:0")
            .env("FLAGCAST_STORE__URL", url)
            .env("FLAGCAST_AUTH__BOOTSTRAP_TOKEN", TOKEN)
            .env("FLAGCAST_LOG__FORMAT", "json")
            .current_dir(store.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let public = match listening(&mut child) {
            Ok(public) => public,
            Err(error) => {
                end(&mut child);
                return Err(error);
            }
        };
        let headers = format!("authorization: Bearer {TOKEN}\r\n");
        let admin = match Client::connect(public, headers) {
            Ok(admin) => admin,
            Err(error) => {
                end(&mut child);
                return Err(error);
            }
        };
        Ok(Self { child, _store: store, public, admin })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes a project with an environment and `flags` flags, half of them with a text.
    pub(crate) fn environment(
        &mut self,
        project: &str,
        flags: usize,
    ) -> anyhow::Result<Environment> {
        self.post("/projects", &json!({ "key": project, "name": project }))?;
        let path = format!("/projects/{project}/environments");
        let made = self.post(&path, &json!({ "key": "production", "name": "Production" }))?;
        let client_key = made["client_key"].as_str().context("no client_key")?.to_owned();
        let path = format!("/projects/{project}/features");
        for number in 0..flags {
            let value = (number % 2 == 1).then(|| format!("variant-{number:04}"));
            let enabled = number % 3 == 0;
            let feature = json!({ "key": flag_key(number), "enabled": enabled, "value": value });
            self.post(&path, &feature)?;
        }
        Ok(Environment { project: project.to_owned(), client_key })
    }

    /// Turns the first flag of an environment on or off.
    pub(crate) fn flip(
        &mut self,
        environment: &Environment,
        enabled: bool,
    ) -> anyhow::Result<(Answer, u64)> {
        let path = format!(
            "/admin/v1/projects/{}/environments/production/flags/{}",
            environment.project,
            flag_key(0)
        );
        let body = json!({ "enabled": enabled }).to_string();
        let answer = self.admin.send("PATCH", &path, "", &body)?;
        let revision = answer.json()?["revision"].as_u64().context("no revision")?;
        Ok((answer, revision))
    }

    /// What the gateway says of its newest ping.
    pub(crate) fn newest_ping(&mut self, environment: &Environment) -> anyhow::Result<Json> {
        let project = &environment.project;
        let path = format!("/admin/v1/projects/{project}/environments/production/streams");
        let answer = self.admin.send("GET", &path, "", "")?;
        Ok(answer.json()?["pings"][0].take())
    }

    fn post(&mut self, path: &str, body: &Json) -> anyhow::Result<Json> {
        let path = format!("/admin/v1{path}");
        let answer = self.admin.send("POST", &path, "", &body.to_string())?;
        answer.json().with_context(|| format!("POST {path} failed"))
    }
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
fn listening(child: &mut Child) -> anyhow::Result<SocketAddr> {
    let log = child.stderr.take().context("the gateway's log is not ours")?;
    let (lines, told) = sync_channel(1);
    std::thread::spawn(move || follow(log, &lines));
    wait(&told)
}

fn wait(told: &Receiver<Result<SocketAddr, String>>) -> anyhow::Result<SocketAddr> {
    match told.recv_timeout(START_MAX) {
        Ok(Ok(address)) => Ok(address),
        Ok(Err(log)) => bail!("the gateway ended before it listened:\n{log}"),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            bail!("the gateway did not listen within {START_MAX:?}")
        }
    }
}

fn follow(log: ChildStderr, told: &SyncSender<Result<SocketAddr, String>>) {
    let mut early = String::new();
    let mut waiting = true;
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        if !waiting {
            continue;
        }
        if let Some(address) = public_address(&line) {
            waiting = false;
            // Nobody waits any more when the start took too long.
            drop(told.send(Ok(address)));
        } else {
            early.push_str(&line);
            early.push('\n');
        }
    }
    if waiting {
        drop(told.send(Err(early)));
    }
}

/// The public address, when `line` is the one that tells it.
fn public_address(line: &str) -> Option<SocketAddr> {
    let line: Json = serde_json::from_str(line).ok()?;
    if line["message"] != "listening" {
        return None;
    }
    line["public"].as_str()?.parse().ok()
}

fn flag_key(number: usize) -> String {
    format!("feature-number-{number:04}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listening_line_tells_the_address() {
        let line = r#"{"level":"INFO","message":"listening","public":"127.0.0.1:8080","ops":"127.0.0.1:9464"}"#;
        assert_eq!(public_address(line), "127.0.0.1:8080".parse().ok());
        assert_eq!(public_address(r#"{"message":"stopped"}"#), None);
        assert_eq!(public_address("error: address in use"), None);
    }
}
