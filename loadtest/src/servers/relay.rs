//! A relay in front of a gateway, as an operator would start one.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value as Json;
use tempfile::TempDir;

use super::gateway::Environment;
use super::meter::Meter;
use super::program::{ANY, Process, Setup, TOKEN};

/// How long it may take until it follows its upstream.
const FOLLOW_MAX: Duration = Duration::from_secs(30);

/// A running relay. Dropping it ends it; what it kept goes with it.
#[derive(Debug)]
pub(crate) struct Relay {
    process: Process,
    pub(crate) public: SocketAddr,
    _folder: TempDir,
}

impl Relay {
    /// Starts a relay of the gateway at `upstream` that holds these environments from the start.
    pub(crate) fn start(
        setup: &Setup,
        upstream: SocketAddr,
        environments: &[Environment],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a directory for a relay")?;
        let keys: Vec<&str> = environments.iter().map(|one| one.client_key.as_str()).collect();
        let more = [
            ("relay.upstream", format!("http://{upstream}")),
            ("relay.token", TOKEN.to_owned()),
            ("relay.environments", keys.join(",")),
        ];
        let process = setup.start(&["relay"], &more, folder.path(), ANY)?;
        Ok(Self { public: process.public, process, _folder: folder })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where it tells its metrics.
    pub(crate) fn meter(&self) -> Meter {
        self.process.meter()
    }

    /// Waits until it holds `count` environments as the gateway has them now, and hears of their changes.
    pub(crate) fn wait_until_it_follows(&self, count: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + FOLLOW_MAX;
        loop {
            let status = self.meter().relay_status()?;
            if live(&status) >= count {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "a relay does not follow the gateway: {status}");
            sleep(Duration::from_millis(50));
        }
    }
}

/// Environments that a relay follows.
fn live(status: &Json) -> usize {
    let environments = status["environments"].as_array().into_iter().flatten();
    environments.filter(|line| line["state"] == "live").count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_followed_counts() {
        let status = json!({ "environments": [{ "state": "live" }, { "state": "away" }, { "state": "live" }] });
        assert_eq!((live(&status), live(&json!({}))), (2, 0));
    }
}
