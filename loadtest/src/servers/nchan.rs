//! A peer: Nchan, a module of nginx. A change is a message that is posted to its publisher.

use std::path::Path;

use anyhow::ensure;

use super::bare_loop::data;
use super::nginx::{Job, NCHAN_MODULE, Nginx};
use super::subject::{Change, Subject};
use crate::client::{Client, Target};

/// A running one.
pub(super) struct Nchan {
    nginx: Nginx,
    publisher: Client,
    revision: u64,
}

/// Where its module would be.
pub(super) fn nchan_module() -> &'static Path {
    Path::new(NCHAN_MODULE)
}

impl Nchan {
    pub(super) fn start(nginx: &Path) -> anyhow::Result<Self> {
        let nginx = Nginx::start(nginx, Job::Nchan)?;
        let publisher = Client::connect(nginx.address, String::new())?;
        Ok(Self { nginx, publisher, revision: 0 })
    }
}

impl Subject for Nchan {
    fn target(&self) -> Target {
        Target { address: self.nginx.address, paths: vec!["/sub".to_owned()] }
    }

    fn pids(&self) -> Vec<u32> {
        self.nginx.pids()
    }

    fn change(&mut self, _channel: usize) -> anyhow::Result<Change> {
        self.revision += 1;
        let answer = self.publisher.send("POST", "/pub", "", &data(self.revision))?;
        ensure!(answer.status < 300, "Nchan answered {}", answer.status);
        Ok(Change { revision: self.revision, sent: answer.sent, answered: answer.answered })
    }
}
