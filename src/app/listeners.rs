//! The listeners: where they are, and what their connections may take.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::config::{self, ConfigError, Settings};
use crate::http::{BodyLimits, Connections, Ops, Streams, bind, operators_front, serve};
use crate::shutdown::Shutdown;

/// The operators' listener needs few connections, and must not take the public one's.
const OPS_CONNECTIONS_MAX: usize = 100;

/// Starts the operators' listener.
pub(super) fn serve_operators(
    settings: &Settings,
    door: Ops,
    last: &Shutdown,
) -> anyhow::Result<SocketAddr> {
    let listener = listen("server.ops_listen", &settings.server.ops_listen)?;
    let address = listener.local_addr()?;
    let (connections, body_limits) = bounds_of(settings);
    let connections =
        Connections { max: OPS_CONNECTIONS_MAX, accepts_per_second: 0, ..connections };
    let metrics = door.metrics.listener("ops");
    let front = operators_front(door, body_limits);
    let streams = Streams::none();
    last.spawn(serve(listener, front, connections, None, streams, metrics, last.clone()));
    Ok(address)
}

/// What connections and bodies may take.
pub(super) fn bounds_of(settings: &Settings) -> (Connections, BodyLimits) {
    let limits = &settings.limits;
    let connections = Connections {
        max: limits.connections,
        accepts_per_second: limits.accepts_per_second,
        header_bytes: limits.header_bytes,
        header_timeout: Duration::from_secs(limits.header_seconds),
        answer_timeout: answer_timeout(&settings.stream),
        stall_timeout: Duration::from_secs(settings.stream.stall_seconds),
    };
    let timeout = Duration::from_secs(limits.body_seconds);
    (connections, BodyLimits { bytes: limits.body_bytes, timeout })
}

/// Time for an answer on HTTP/2: the longest life of a stream, as far as lives are spread, and time
/// to take the end.
fn answer_timeout(stream: &config::Stream) -> Duration {
    let direct = stream.life_seconds.max(stream.short_life_seconds).max(stream.refusal_seconds);
    let life = direct.max(stream.cached_life_seconds);
    Duration::from_secs(life.saturating_mul(2).saturating_add(stream.stall_seconds))
}

pub(super) fn listen(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    let resolved: SocketAddr = address
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| ConfigError::new(format!("{key} must be host:port, not {address:?}")))?;
    bind(resolved).with_context(|| {
        format!("cannot listen on {address} ({key}); is another instance running?")
    })
}

/// The base URL that clients use. `0.0.0.0` is no address that one can go to.
pub(super) fn public_url(settings: &Settings, listening: SocketAddr) -> String {
    let chosen = settings.server.public_url.trim_end_matches('/');
    if !chosen.is_empty() {
        return chosen.to_owned();
    }
    let scheme = if settings.server.has_tls() { "https" } else { "http" };
    if listening.ip().is_unspecified() {
        return format!("{scheme}://localhost:{}", listening.port());
    }
    format!("{scheme}://{listening}")
}
