//! The servers of event streams behind one face, so that one measurement fits them all.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::control::{Own, Program};
use super::flips::Flips;
use super::nchan::{Nchan, nchan_module};
use super::program::Setup;
use super::pushpin::{PUSHPIN, Pushpin};
use crate::client::Target;

/// Which server, and where its program is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    BareLoop,
    AxumSse,
    Gateway {
        setup: Setup,
        /// Environments; the streams are dealt to them in turn.
        environments: usize,
    },
    /// nginx's program.
    Nchan(PathBuf),
    Pushpin,
}

/// A change that was made, as its maker saw it. Times are nanoseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    /// When its request was sent.
    pub(crate) sent: i64,
    /// When the last byte of the answer was read.
    pub(crate) answered: i64,
}

/// What the server itself says of a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// When it was durable.
    pub(crate) committed: i64,
    /// From then until the streams were told, in milliseconds.
    pub(crate) change_to_ping: f64,
}

/// A running server of event streams.
pub(crate) trait Subject: Send {
    /// Where its streams are.
    fn target(&self) -> Target;
    /// Its processes.
    fn pids(&self) -> Vec<u32>;
    /// Makes the next change of a channel.
    fn change(&mut self, channel: usize) -> anyhow::Result<Change>;
    /// What it says of the newest change of a channel, when it stores changes.
    fn told(&mut self, _channel: usize, _change: Change) -> anyhow::Result<Option<Told>> {
        Ok(None)
    }
    /// Memory that each channel cost before anybody listened, in bytes, where there are several.
    fn bytes_per_channel(&self) -> Option<f64> {
        None
    }
}

impl Kind {
    /// How the gateway is called beside its peers.
    pub(crate) const GATEWAY: &str = "flagcast";

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::BareLoop => "bare loop",
            Self::AxumSse => "axum Sse",
            Self::Gateway { .. } => Self::GATEWAY,
            Self::Nchan(_) => "nchan",
            Self::Pushpin => "pushpin",
        }
    }

    pub(crate) fn start(&self) -> anyhow::Result<Box<dyn Subject>> {
        Ok(match self {
            Self::BareLoop => Box::new(Own::start(Program::BareLoop)?),
            Self::AxumSse => Box::new(Own::start(Program::AxumSse)?),
            Self::Gateway { setup, environments } => Box::new(Flips::start(setup, *environments)?),
            Self::Nchan(nginx) => Box::new(Nchan::start(nginx)?),
            Self::Pushpin => Box::new(Pushpin::start()?),
        })
    }

    /// Settings that differ from the gateway's defaults.
    pub(crate) fn settings(&self) -> Option<Json> {
        match self {
            Self::Gateway { setup, .. } => Some(setup.json()),
            _ => None,
        }
    }

    /// What to install, when it is not there.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        let (is_there, install) = match self {
            Self::BareLoop | Self::AxumSse | Self::Gateway { .. } => return None,
            Self::Nchan(nginx) => (
                nchan_module().is_file() && nginx.is_file(),
                "Debian: apt install nginx-light libnginx-mod-nchan",
            ),
            Self::Pushpin => (Path::new(PUSHPIN).is_file(), "Debian: apt install pushpin"),
        };
        (!is_there).then_some(install)
    }
}
