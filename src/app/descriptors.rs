//! How many connections the process can have: one needs a descriptor, and the system gives so many.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Descriptors for everything that is no public connection: the store, the operators' listener,
/// pollers, logs. Where there are few, half of them.
const RESERVED: u64 = 256;

/// Raises the soft limit of open files as far as the system allows, and fits the limits of
/// connections and streams to it: a connection that cannot be accepted would wait for ever, a
/// stream too many is told to come back. Returns the limit of open files.
pub(super) fn fit(limits: &mut Limits) -> u64 {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = open_files - RESERVED.min(open_files / 2);
    let connections = usize::try_from(connections).unwrap_or(usize::MAX).max(1);
    let before = before.current.unwrap_or(u64::MAX);
    tracing::info!(open_files, before, "limit of open files");
    if connections < limits.connections {
        let wanted = limits.connections;
        // The rest is for reads, or clients that were told of a change could not ask for it.
        let streams = (connections - connections / 10).max(1);
        limits.connections = connections;
        limits.streams = if limits.streams == 0 { streams } else { limits.streams.min(streams) };
        tracing::warn!(
            open_files,
            wanted,
            connections,
            streams = limits.streams,
            "the system allows fewer open files than `limits.connections`; raise `ulimit -n`"
        );
    }
    open_files
}
