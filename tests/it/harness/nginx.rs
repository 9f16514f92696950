//! Debian's nginx in front of a gateway, in a directory of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use tempfile::TempDir;

use super::eventually;
use super::process::Process;

/// A running nginx.
pub(crate) struct Nginx {
    // Before `directory`: fields are dropped in order, and the process writes there.
    _process: Process,
    _directory: TempDir,
}

/// A port that nobody has at the moment.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

impl Nginx {
    /// Passes everything from `address` on to `upstream`; `directives` say how.
    pub(crate) async fn start(address: SocketAddr, upstream: SocketAddr, directives: &str) -> Self {
        let directory = TempDir::with_prefix("flagcast-nginx-").unwrap();
        let file = directory.path().join("nginx.conf");
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; events {{}}
            http {{
              access_log off;
              client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
              uwsgi_temp_path uwsgi; scgi_temp_path scgi;
              server {{
                listen {address};
                location / {{ proxy_pass http://{upstream}; {directives} }}
              }}
            }}"
        );
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(directory.path()).arg("-c").arg(&file).args(["-e", "stderr"]);
        // Beside the daemons, where an ordinary user's path does not lead.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin"));
        let process = Process::spawn("nginx", command);
        eventually("nginx listens", async || {
            assert!(!process.has_ended(), "{}", process.stderr.tail(5));
            TcpStream::connect(address).ok().map(drop)
        })
        .await;
        Self { _process: process, _directory: directory }
    }
}
