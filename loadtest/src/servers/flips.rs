//! The gateway as a server of event streams: a change is a flip of a flag by the management API.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::gateway::{Environment, Gateway};
use super::program::Setup;
use super::subject::{Change, Subject, Told};
use crate::client::Target;
use crate::machine::memory;
use crate::output::{self, real};

/// Flags of the environment, where there is only one.
const FLAGS: usize = 10;

/// A running gateway with environments.
pub(crate) struct Flips {
    pub(crate) gateway: Gateway,
    pub(crate) environments: Vec<Environment>,
    /// How each environment's flag was left.
    enabled: Vec<bool>,
    bytes_per_channel: Option<f64>,
}

impl Flips {
    pub(crate) fn start(setup: &Setup, count: usize) -> anyhow::Result<Self> {
        let mut gateway = Gateway::start(setup)?;
        if count == 1 {
            let environments = vec![gateway.environment("load", FLAGS)?];
            return Ok(Self {
                gateway,
                environments,
                enabled: vec![true],
                bytes_per_channel: None,
            });
        }
        // What the first ones cost is not theirs: connections, statements, the allocator's first pages.
        let mut environments = gateway.environments("warm-up", 1)?;
        environments.clear();
        let pids = [gateway.pid()];
        let before = memory(&pids)?;
        environments.extend(gateway.environments("load", count)?);
        let bytes = memory(&pids)?.saturating_sub(before);
        let bytes_per_channel = Some(real(bytes) / output::count(count));
        Ok(Self { gateway, environments, enabled: vec![true; count], bytes_per_channel })
    }
}

impl Flips {
    /// Flips the first environment's flag again and again, with a pause before each, for as long as
    /// `goes_on` says so of the number of changes made.
    pub(crate) fn change_while(
        &mut self,
        pause: Duration,
        mut goes_on: impl FnMut(usize) -> bool,
    ) -> anyhow::Result<Vec<Change>> {
        let mut changes = Vec::new();
        while goes_on(changes.len()) {
            sleep(pause);
            changes.push(self.change(0)?);
        }
        Ok(changes)
    }
}

impl Subject for Flips {
    fn target(&self) -> Target {
        let paths = self.environments.iter().map(Environment::stream);
        Target { address: self.gateway.public, paths: paths.collect() }
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.gateway.pid()]
    }

    fn change(&mut self, channel: usize) -> anyhow::Result<Change> {
        self.enabled[channel] = !self.enabled[channel];
        self.gateway.flip(&self.environments[channel], self.enabled[channel])
    }

    fn told(&mut self, channel: usize, change: Change) -> anyhow::Result<Option<Told>> {
        let ping = self.gateway.newest_ping(&self.environments[channel])?;
        ensure!(
            ping["revision"] == change.revision,
            "the newest ping is not of revision {}: {ping}",
            change.revision
        );
        let committed: jiff::Timestamp =
            ping["committed_at"].as_str().context("no committed_at")?.parse()?;
        Ok(Some(Told {
            committed: committed.as_microsecond() * 1000,
            change_to_ping: ping["change_to_ping_ms"].as_f64().context("no change_to_ping_ms")?,
        }))
    }

    fn bytes_per_channel(&self) -> Option<f64> {
        self.bytes_per_channel
    }
}
