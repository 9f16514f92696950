//! Starts the gateway as an operator would, on a store of its own, and manages it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::meter::Meter;
use super::program::{ANY, Process, Setup, TOKEN};
use super::subject::Change;
use super::targeting;
use crate::client::Client;

/// Environments of a project, as many as its default limit allows.
const ENVIRONMENTS_PER_PROJECT: usize = 100;

/// A running gateway. Dropping it ends it; its store goes with it.
#[derive(Debug)]
pub(crate) struct Gateway {
    setup: Setup,
    process: Process,
    store: TempDir,
    pub(crate) public: SocketAddr,
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
        let store = tempfile::tempdir().context("cannot make a directory for the store")?;
        let process = serve(setup, store.path(), ANY)?;
        let public = process.public;
        let admin = Self::connect(public)?;
        Ok(Self { setup: setup.clone(), process, store, public, admin })
    }

    /// Kills it outright, as a crash would, and starts it again: the same port, the same store.
    pub(crate) fn crash_and_restart(&mut self) -> anyhow::Result<()> {
        self.process.kill();
        self.process = serve(&self.setup, self.store.path(), self.public)?;
        self.admin = Self::connect(self.public)?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
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
        self.process.meter()
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

/// Starts a gateway without the demo, on a store of its own in `folder` unless it shares one.
fn serve(setup: &Setup, folder: &Path, listen: SocketAddr) -> anyhow::Result<Process> {
    let own = || format!("sqlite://{}", folder.join("f.db").display());
    let url = setup.shared_store.clone().unwrap_or_else(own);
    let more = [("store.url", url), ("auth.bootstrap_token", TOKEN.to_owned())];
    setup.start(&["serve", "--no-demo"], &more, folder, listen)
}
