//! The shipped configurations of plain proxies, running in front of a gateway of a test.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::Gateway;
use crate::harness::daemon::{Daemon, deploy, free_port, open_directory, shipped};

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Haproxy,
    Caddy,
    Squid,
}

/// Where a proxy finds the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upstream {
    public: SocketAddr,
    ops: SocketAddr,
}

impl Kind {
    /// Starts the proxy in front of `gateway`.
    pub(crate) async fn start(self, gateway: &Gateway) -> Daemon {
        let upstream = Upstream { public: gateway.public(), ops: gateway.ops() };
        self.start_before(upstream).await
    }

    /// Starts the proxy in front of what listens on `public`; it is asked there whether it is ready, too.
    pub(crate) async fn start_before_server(self, public: SocketAddr) -> Daemon {
        self.start_before(Upstream { public, ops: public }).await
    }

    async fn start_before(self, upstream: Upstream) -> Daemon {
        Daemon::start(&format!("{self:?}"), |directory, port| {
            let file = directory.join(self.file());
            fs::write(&file, self.configuration(directory, port, upstream)).unwrap();
            let mut command = self.program(directory);
            match self {
                Self::Nginx => command.arg("-c").arg(file).args(["-g", "daemon off;"]),
                Self::Haproxy => command.args(["-db", "-f"]).arg(file),
                Self::Caddy => {
                    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file)
                }
                // The name keeps the shared memory of several instances apart.
                Self::Squid => command.args(["-N", "-n", &format!("it{port}"), "-f"]).arg(file),
            };
            command
        })
        .await
    }

    /// What the proxy itself says of the shipped file, which is not changed for it.
    pub(crate) fn checks_shipped_file(self) -> std::process::Output {
        let file = deploy(&format!("{}/{}", self.folder(), self.file()));
        let directory = open_directory();
        let mut command = self.program(directory.path());
        match self {
            Self::Nginx => command.arg("-t").arg("-c").arg(&file),
            Self::Haproxy => command.args(["-c", "-f"]).arg(&file),
            Self::Caddy => {
                command.args(["validate", "--adapter", "caddyfile", "--config"]).arg(&file)
            }
            Self::Squid => command.args(["-k", "parse", "-f"]).arg(&file),
        };
        command.output().unwrap()
    }

    /// Has the proxy read its unchanged configuration again, as an operator does it.
    pub(crate) fn reload(self, daemon: &mut Daemon) {
        match self {
            Self::Nginx => daemon.process().signal("HUP"),
            // What the service manager tells the old process once the new one runs.
            Self::Haproxy => daemon.process().signal("USR1"),
            Self::Caddy | Self::Squid => unreachable!("a reload ends their streams"),
        }
    }

    fn configuration(self, directory: &Path, port: u16, upstream: Upstream) -> String {
        let here = directory.display();
        let file = format!("{}/{}", self.folder(), self.file());
        let Upstream { public, ops } = upstream;
        let gateway = ("127.0.0.1:8080", public.to_string());
        match self {
            Self::Nginx => {
                let changes = [
                    gateway,
                    ("listen 80;", format!("listen 127.0.0.1:{port};")),
                    ("listen [::]:80;", String::new()),
                    ("/run/", format!("{here}/")),
                    ("/var/log/nginx/", format!("{here}/")),
                    ("/var/lib/nginx/", format!("{here}/")),
                ];
                shipped(&file, &changes)
            }
            Self::Haproxy => {
                let bind = ("bind :80\n", format!("bind 127.0.0.1:{port}\n"));
                shipped(&file, &[gateway, bind, ("port 9464", format!("port {}", ops.port()))])
            }
            Self::Caddy => {
                let changes = [
                    gateway,
                    (":80 {", format!("http://:{port} {{\n\tbind 127.0.0.1")),
                    ("localhost:2019", format!("127.0.0.1:{}", free_port())),
                    ("health_port 9464", format!("health_port {}", ops.port())),
                ];
                shipped(&file, &changes)
            }
            Self::Squid => {
                let changes = [
                    ("http_port 80 ", format!("http_port 127.0.0.1:{port} ")),
                    (" 8080 0 ", format!(" {} 0 ", public.port())),
                    ("/var/log/squid/", format!("{here}/")),
                    ("/run/", format!("{here}/")),
                ];
                shipped(&file, &changes)
            }
        }
    }

    fn program(self, directory: &Path) -> Command {
        let program: PathBuf = match self {
            Self::Nginx => "/usr/sbin/nginx".into(),
            Self::Haproxy => "/usr/sbin/haproxy".into(),
            Self::Caddy => "/usr/bin/caddy".into(),
            Self::Squid => "/usr/sbin/squid".into(),
        };
        let mut command = Command::new(program);
        // Caddy keeps its state there.
        command.env("XDG_DATA_HOME", directory).env("XDG_CONFIG_HOME", directory);
        command.current_dir(directory);
        command
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
            Self::Squid => "squid",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Nginx => "nginx.conf",
            Self::Haproxy => "haproxy.cfg",
            Self::Caddy => "Caddyfile",
            Self::Squid => "squid.conf",
        }
    }
}
