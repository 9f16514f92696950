//! Starts nginx with a configuration of its own in a temporary directory.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::machine::{cores, descriptor_limit, family};

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(10);

/// Another process may take the port between our look and nginx's.
const ATTEMPTS: usize = 5;

/// Descriptors of a worker that are no connections.
const DESCRIPTORS_BESIDE: usize = 100;

/// Where Debian puts Nchan.
pub(super) const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// A running nginx. Dropping it ends master and workers.
#[derive(Debug)]
pub(crate) struct Nginx {
    child: Child,
    directory: TempDir,
    pub(crate) address: SocketAddr,
}

/// What nginx is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job {
    /// Serve the files of `root/`.
    Files,
    /// Push to event streams (`/sub`) what is posted to `/pub`.
    Nchan,
}

impl Nginx {
    /// Starts `program` and waits until it accepts connections.
    pub(crate) fn start(program: &Path, job: Job) -> anyhow::Result<Self> {
        for _ in 0..ATTEMPTS {
            if let Some(running) = Self::try_start(program, job)? {
                return Ok(running);
            }
        }
        bail!("nginx found no free port in {ATTEMPTS} attempts")
    }

    /// Where the files are that it serves.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Master and workers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        family(self.child.id())
    }

    fn try_start(program: &Path, job: Job) -> anyhow::Result<Option<Self>> {
        let directory = tempfile::tempdir().context("cannot make a directory for nginx")?;
        std::fs::create_dir(directory.path().join("root"))?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let text = configure(job, directory.path(), address, descriptor_limit()?);
        let configuration = directory.path().join("nginx.conf");
        std::fs::write(&configuration, text)?;
        let log = directory.path().join("error.log");
        let mut child = Command::new(program)
            .arg("-p")
            .arg(directory.path())
            .arg("-c")
            .arg(&configuration)
            .arg("-e")
            .arg(&log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| {
                format!("cannot start {} (Debian: apt install nginx-light)", program.display())
            })?;
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(address).is_err() {
            if child.try_wait()?.is_some() {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                if log.contains("Address already in use") {
                    return Ok(None);
                }
                bail!("nginx ended at once:\n{log}");
            }
            if Instant::now() > deadline {
                end(&mut child);
                bail!("nginx did not listen within {START_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Some(Self { child, directory, address }))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// SIGTERM: killed outright, the parent would leave its workers behind.
pub(super) fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).map(Pid::from_raw);
    let ended = pid.map(|pid| kill(pid, Signal::SIGTERM));
    if let Err(error) = child.wait() {
        eprintln!("cannot end a server ({ended:?}): {error}");
    }
}

fn configure(job: Job, directory: &Path, address: SocketAddr, descriptors: usize) -> String {
    let workers = cores();
    let directory = directory.display();
    let module = match job {
        Job::Files => String::new(),
        Job::Nchan => format!("load_module {NCHAN_MODULE};"),
    };
    let locations = match job {
        Job::Files => FILES,
        Job::Nchan => NCHAN,
    };
    format!(
        "{module}
        daemon off;
        user root;
        worker_processes {workers};
        pid {directory}/nginx.pid;
        events {{ worker_connections {connections}; }}
        http {{
            access_log off;
            default_type application/json;
            client_body_temp_path {directory}/body;
            proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi;
            uwsgi_temp_path {directory}/uwsgi;
            scgi_temp_path {directory}/scgi;
            keepalive_requests 1000000000;
            keepalive_timeout 600s;
            server {{
                listen {address} backlog=4096;
                root {directory}/root;
                {locations}
            }}
        }}\n",
        // nginx makes a table of them.
        connections = descriptors.clamp(2 * DESCRIPTORS_BESIDE, 100_000) - DESCRIPTORS_BESIDE,
    )
}

/// Everything that makes static files fast.
const FILES: &str = "
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    gzip off;
    gzip_static on;
    open_file_cache max=1000 inactive=600s;
    open_file_cache_valid 600s;
    open_file_cache_min_uses 1;
";

/// The newest message is kept for those who come later, as the gateway does.
const NCHAN: &str = "
    location = /pub {
        nchan_publisher;
        nchan_channel_id flags;
        nchan_message_buffer_length 1;
    }
    location = /sub {
        nchan_subscriber eventsource;
        nchan_channel_id flags;
        nchan_subscriber_timeout 0;
        nchan_eventsource_ping_interval 15;
    }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_balanced_and_names_are_filled_in() {
        for job in [Job::Files, Job::Nchan] {
            let address = SocketAddr::from(([127, 0, 0, 1], 8080));
            let text = configure(job, Path::new("/tmp/x"), address, 1024);
            assert_eq!(text.matches('{').count(), text.matches('}').count());
            assert!(
                text.contains("listen 127.0.0.1:8080") && text.contains("pid /tmp/x/nginx.pid")
            );
            assert_eq!(text.contains("load_module"), matches!(job, Job::Nchan));
        }
    }
}
