//! A program of somebody else in the foreground, with a configuration that we ship.
//!
//! The shipped file is used as it is: a test may replace addresses, ports and paths, and only texts that are in
//! it. The program listens on a free port, writes into a directory of its own, and is ended by its
//! process id when the test is over.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::eventually;
use super::process::Process;

/// A running program. Dropping it kills the process and deletes its files.
pub(crate) struct Daemon {
    // Before `_directory`: fields are dropped in order, and the process writes there.
    process: Process,
    _directory: TempDir,
    address: SocketAddr,
}

impl Daemon {
    /// Starts what `command` makes of a directory and a free port, and waits until it listens there.
    pub(crate) async fn start(name: &str, command: impl Fn(&Path, u16) -> Command) -> Self {
        eventually(&format!("{name} listens"), async || {
            let directory = open_directory();
            let port = free_port();
            let process = Process::spawn(name, command(directory.path(), port));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            // Another test may take the port first; then the program ends, and the next try has another.
            let listens = eventually(&format!("{name} listens or ends"), async || {
                let listens = TcpStream::connect(address).await.is_ok();
                (listens || process.has_ended()).then_some(listens && !process.has_ended())
            })
            .await;
            listens.then_some(Self { process, _directory: directory, address })
        })
        .await
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process: its output, signals and end.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Asked first: a master that is killed leaves its workers behind. Whoever takes longer is killed.
        self.process.signal("TERM");
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.process.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A directory in which a program may write that gives up the rights of its starter.
pub(crate) fn open_directory() -> TempDir {
    let directory = TempDir::with_prefix("flagcast-it-").unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    directory
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The path of a file below `deploy/`.
pub(crate) fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

/// A file below `deploy/` with each text of `changes` replaced, which must be in it.
pub(crate) fn shipped(file: &str, changes: &[(&str, String)]) -> String {
    let mut text = fs::read_to_string(deploy(file)).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{file} has no {old:?}");
        text = text.replace(old, new);
    }
    text
}
