//! The peers that are small programs of our own. Each is this program with a hidden subcommand, and
//! obeys lines on a control connection: a revision comes in, everybody is told, [`DONE`] goes back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use super::subject::{Change, Subject};
use crate::client::Target;
use crate::machine::now;

/// What the control connection answers when everybody has been told.
pub(super) const DONE: &str = "done\n";

/// Which of them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Program {
    BareLoop,
    AxumSse,
}

impl Program {
    fn subcommand(self) -> &'static str {
        match self {
            Self::BareLoop => "bare-loop",
            Self::AxumSse => "axum-sse",
        }
    }
}

/// A running one. Dropping it ends it.
pub(super) struct Own {
    child: Child,
    address: SocketAddr,
    control: BufReader<TcpStream>,
    revision: u64,
}

impl Own {
    pub(super) fn start(program: Program) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(this)
            .arg(program.subcommand())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.subcommand()))?;
        let mut line = String::new();
        let output = child.stdout.take().context("its output is not ours")?;
        BufReader::new(output).read_line(&mut line)?;
        let (streams, control) = line.trim().split_once(' ').context("it told no address")?;
        let control = TcpStream::connect(control)?;
        control.set_nodelay(true)?;
        Ok(Self { child, address: streams.parse()?, control: BufReader::new(control), revision: 0 })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("cannot end a server: {error}");
        }
    }
}

impl Subject for Own {
    fn target(&self) -> Target {
        Target { address: self.address, paths: vec!["/stream".to_owned()] }
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.child.id()]
    }

    fn change(&mut self, _channel: usize) -> anyhow::Result<Change> {
        self.revision += 1;
        let line = format!("{}\n", self.revision);
        let sent = now();
        self.control.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        self.control.read_line(&mut answer)?;
        ensure!(answer == DONE, "the server ended");
        Ok(Change { revision: self.revision, sent, answered: now() })
    }
}
