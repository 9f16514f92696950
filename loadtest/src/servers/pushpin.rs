//! A peer: Pushpin. It asks an origin what to do with a request, holds the stream that the origin
//! wants held (GRIP), and sends to it what is posted to its control port.
//!
//! The origin is a thread of ours. It works only while streams are opened, one answer for each.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;

use super::bare_loop::event;
use super::subject::{Change, Subject};
use crate::client::{Client, Target, end_of_head};
use crate::machine::{descriptor_limit, family};

/// Where Debian puts it.
pub(super) const PUSHPIN: &str = "/usr/bin/pushpin";

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(10);

/// Descriptors that are no connections of clients.
const DESCRIPTORS_BESIDE: usize = 500;

/// What the origin says to every request: hold it as a stream of the channel.
const HOLD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    grip-hold: stream\r\ngrip-channel: flags\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A running Pushpin. Dropping it ends it and what it started.
pub(super) struct Pushpin {
    child: Child,
    _directory: TempDir,
    address: SocketAddr,
    control: SocketAddr,
    revision: u64,
}

impl Pushpin {
    pub(super) fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for Pushpin")?;
        for folder in ["run", "log"] {
            std::fs::create_dir(directory.path().join(folder))?;
        }
        let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, control) = (free_address()?, free_address()?);
        let clients = descriptor_limit()?.min(100_000).saturating_sub(DESCRIPTORS_BESIDE);
        let file = directory.path().join("pushpin.conf");
        std::fs::write(&file, configure(directory.path(), address, control, clients))?;
        let route = format!("* {}\n", origin.local_addr()?);
        std::fs::write(directory.path().join("routes"), route)?;
        // It ends with the program; a request that fails is asked again by Pushpin.
        std::thread::spawn(move || origin.incoming().flatten().for_each(|one| drop(hold(one))));
        let child = Command::new(PUSHPIN)
            .arg(format!("--config={}", file.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start Pushpin")?;
        let mut pushpin = Self { child, _directory: directory, address, control, revision: 0 };
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(address).is_err() || TcpStream::connect(control).is_err() {
            ensure!(pushpin.child.try_wait()?.is_none(), "Pushpin ended at once");
            ensure!(Instant::now() < deadline, "Pushpin did not listen within {START_MAX:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(pushpin)
    }
}

impl Drop for Pushpin {
    /// SIGTERM: killed outright, it would leave its parts behind.
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        let ended = pid.map(|pid| kill(pid, Signal::SIGTERM));
        if let Err(error) = self.child.wait() {
            eprintln!("cannot end Pushpin ({ended:?}): {error}");
        }
    }
}

impl Subject for Pushpin {
    fn target(&self) -> Target {
        Target { address: self.address, paths: vec!["/".to_owned()] }
    }

    fn pids(&self) -> Vec<u32> {
        family(self.child.id())
    }

    fn change(&mut self, _channel: usize) -> anyhow::Result<Change> {
        self.revision += 1;
        let content = event(self.revision);
        let items = json!({ "items": [{ "channel": "flags", "formats": { "http-stream": { "content": content } } }] });
        // Its control port closes after each answer.
        let mut publisher = Client::connect(self.control, String::new())?;
        let answer = publisher.send("POST", "/publish/", "", &items.to_string())?;
        ensure!(answer.status < 300, "Pushpin answered {}", answer.status);
        Ok(Change { revision: self.revision, sent: answer.sent, answered: answer.answered })
    }
}

/// Reads a request and lets its stream be held.
fn hold(mut request: TcpStream) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while end_of_head(&bytes).is_none() {
        match request.read(&mut buffer)? {
            0 => bail!("the request ended early"),
            length => bytes.extend_from_slice(&buffer[..length]),
        }
    }
    Ok(request.write_all(HOLD)?)
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The package's own settings, but for places, ports, and limits that would slow it down.
fn configure(directory: &Path, address: SocketAddr, control: SocketAddr, clients: usize) -> String {
    let directory = directory.display();
    let port = control.port();
    format!(
        "[global]
include={{libdir}}/internal.conf
rundir={directory}/run
ipc_prefix=pushpin-
port_offset=0
[runner]
services=condure,zurl,pushpin-proxy,pushpin-handler
http_port={address}
logdir={directory}/log
log_level=0
client_buffer_size=8192
client_maxconn={clients}
condure_bin=condure
zurl_bin=zurl
[proxy]
routesfile={directory}/routes
zurl_out_specs=ipc://{{rundir}}/{{ipc_prefix}}zurl-in
zurl_out_stream_specs=ipc://{{rundir}}/{{ipc_prefix}}zurl-in-stream
zurl_in_specs=ipc://{{rundir}}/{{ipc_prefix}}zurl-out
[handler]
push_in_http_addr=127.0.0.1
push_in_http_port={port}
push_in_spec=ipc://{{rundir}}/push-in
push_in_sub_specs=ipc://{{rundir}}/push-in-sub
command_spec=ipc://{{rundir}}/command
stats_spec=ipc://{{rundir}}/{{ipc_prefix}}stats
message_rate=1000000
message_hwm=1000000
message_wait=5000
connection_subscription_max=20
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in_and_its_own_names_are_left() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8001));
        let control = SocketAddr::from((Ipv4Addr::LOCALHOST, 8002));
        let text = configure(Path::new("/tmp/x"), address, control, 7);
        assert!(text.contains("http_port=127.0.0.1:8001\n") && text.contains("http_port=8002\n"));
        assert!(text.contains("ipc://{rundir}/push-in\n") && text.contains("maxconn=7\n"));
    }
}
