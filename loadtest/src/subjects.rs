//! The servers whose pings are measured, behind one face: the gateway, the bare loop, Nchan.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::bare_loop;
use crate::gateway::{Environment, Gateway};
use crate::http::Client;
use crate::nginx::{Job, Nginx};
use crate::process::now;

/// Which server, and where its program is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    BareLoop,
    Gateway(PathBuf),
    Nchan(PathBuf),
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
pub(crate) trait Subject {
    /// Where its streams are.
    fn address(&self) -> SocketAddr;
    /// The path of the stream that is subscribed to.
    fn path(&self) -> String;
    /// Its processes.
    fn pids(&self) -> Vec<u32>;
    /// Makes the next change.
    fn change(&mut self) -> anyhow::Result<Change>;
    /// What it says of a change, when it stores changes.
    fn told(&mut self, change: Change) -> anyhow::Result<Option<Told>>;
}

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::BareLoop => "bare loop",
            Self::Gateway(_) => "flagcast",
            Self::Nchan(_) => "nchan",
        }
    }

    pub(crate) fn start(&self) -> anyhow::Result<Box<dyn Subject>> {
        Ok(match self {
            Self::BareLoop => Box::new(BareLoop::start()?),
            Self::Gateway(program) => Box::new(Flips::start(program)?),
            Self::Nchan(program) => Box::new(Nchan::start(program)?),
        })
    }
}

/// The gateway: a change is a flip of a flag by the management API.
struct Flips {
    gateway: Gateway,
    environment: Environment,
    enabled: bool,
}

impl Flips {
    fn start(program: &Path) -> anyhow::Result<Self> {
        let mut gateway = Gateway::start(program)?;
        let environment = gateway.environment("load", 10)?;
        Ok(Self { gateway, environment, enabled: true })
    }
}

impl Subject for Flips {
    fn address(&self) -> SocketAddr {
        self.gateway.public
    }

    fn path(&self) -> String {
        format!("/sse/environments/{}/stream", self.environment.client_key)
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.gateway.pid()]
    }

    fn change(&mut self) -> anyhow::Result<Change> {
        self.enabled = !self.enabled;
        let (answer, revision) = self.gateway.flip(&self.environment, self.enabled)?;
        Ok(Change { revision, sent: answer.sent, answered: answer.answered })
    }

    fn told(&mut self, change: Change) -> anyhow::Result<Option<Told>> {
        let ping = self.gateway.newest_ping(&self.environment)?;
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
}

/// The bare loop: a change is a line on its control connection.
struct BareLoop {
    child: Child,
    address: SocketAddr,
    control: BufReader<std::net::TcpStream>,
    revision: u64,
}

impl BareLoop {
    fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .arg("bare-loop")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the bare loop")?;
        let mut line = String::new();
        let output = child.stdout.take().context("the bare loop's output is not ours")?;
        BufReader::new(output).read_line(&mut line)?;
        let (streams, control) =
            line.trim().split_once(' ').context("the bare loop told no address")?;
        let control = std::net::TcpStream::connect(control)?;
        control.set_nodelay(true)?;
        Ok(Self { child, address: streams.parse()?, control: BufReader::new(control), revision: 0 })
    }
}

impl Drop for BareLoop {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("cannot end the bare loop: {error}");
        }
    }
}

impl Subject for BareLoop {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn path(&self) -> String {
        "/stream".to_owned()
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.child.id()]
    }

    fn change(&mut self) -> anyhow::Result<Change> {
        use std::io::Write as _;

        self.revision += 1;
        let line = format!("{}\n", self.revision);
        let sent = now();
        self.control.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        self.control.read_line(&mut answer)?;
        ensure!(answer == bare_loop::DONE, "the bare loop ended");
        Ok(Change { revision: self.revision, sent, answered: now() })
    }

    fn told(&mut self, _: Change) -> anyhow::Result<Option<Told>> {
        Ok(None)
    }
}

/// Nchan: a change is a message that is posted to its publisher.
struct Nchan {
    nginx: Nginx,
    publisher: Client,
    revision: u64,
}

impl Nchan {
    fn start(program: &Path) -> anyhow::Result<Self> {
        let nginx = Nginx::start(program, Job::Nchan)?;
        let publisher = Client::connect(nginx.address, String::new())?;
        Ok(Self { nginx, publisher, revision: 0 })
    }
}

impl Subject for Nchan {
    fn address(&self) -> SocketAddr {
        self.nginx.address
    }

    fn path(&self) -> String {
        "/sub".to_owned()
    }

    fn pids(&self) -> Vec<u32> {
        self.nginx.pids()
    }

    fn change(&mut self) -> anyhow::Result<Change> {
        self.revision += 1;
        let answer = self.publisher.send("POST", "/pub", "", &bare_loop::data(self.revision))?;
        ensure!(answer.status < 300, "Nchan answered {}", answer.status);
        Ok(Change { revision: self.revision, sent: answer.sent, answered: answer.answered })
    }

    fn told(&mut self, _: Change) -> anyhow::Result<Option<Told>> {
        Ok(None)
    }
}
