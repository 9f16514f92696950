//! Prepares the kernel for many connections, says what it changed, and puts it back.
//!
//! A setting that cannot be written stays as it is, and is told: the measurement then shows what
//! the machine allows. Descriptors are a limit of this process and its children; the other settings
//! belong to the network namespace, so they are put back also when the measurement fails.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Connections that may wait to be accepted, and those half-way through their handshake.
const BACKLOG_MIN: u64 = 16_384;

/// Ports that a client's address may use: 55,000 instead of 28,000.
const PORTS: (u64, u64) = (10_240, 65_535);

/// Open files of everything else on the machine.
const FILES_BESIDE: u64 = 100_000;

/// The prepared kernel. Dropping it puts the settings back.
#[derive(Debug)]
pub(crate) struct Kernel {
    changed: Arc<Changed>,
}

/// Settings that were changed, with what they said before.
#[derive(Debug, Default)]
pub(crate) struct Changed(Mutex<Vec<(PathBuf, String)>>);

impl Kernel {
    /// Raises what many connections need.
    pub(crate) fn prepare() -> Self {
        raise_descriptors();
        let kernel = Self { changed: Arc::default() };
        let more = |old: &str| at_least(old, BACKLOG_MIN);
        kernel.adjust("net/core/somaxconn", more);
        kernel.adjust("net/ipv4/tcp_max_syn_backlog", more);
        kernel.adjust("net/ipv4/ip_local_port_range", widened);
        kernel
    }

    /// Lets a socket hold at most `bytes` unsent, so that a slow client is felt early.
    pub(crate) fn limit_send_buffers(&self, bytes: u64) {
        self.adjust("net/ipv4/tcp_wmem", |old| with_maximum(old, bytes));
    }

    /// Makes room for so many streams with both ends here: for what sockets hold, which is charged by whole
    /// pages, one for each end that holds anything; and for their files.
    pub(crate) fn allow_streams(&self, streams: u64) {
        self.adjust("net/ipv4/tcp_mem", |old| each_at_least(old, 2 * streams));
        self.adjust("fs/file-max", |old| at_least(old, 2 * streams + FILES_BESIDE));
    }

    /// What an interruption has to put back.
    pub(crate) fn changed(&self) -> Arc<Changed> {
        Arc::clone(&self.changed)
    }

    /// Changes a setting to what `change` makes of it, if it makes anything.
    fn adjust(&self, name: &str, change: impl Fn(&str) -> Option<String>) {
        let path = PathBuf::from("/proc/sys").join(name);
        let name = name.replace('/', ".");
        let old = match fs::read_to_string(&path) {
            Ok(old) => old.trim().to_owned(),
            Err(error) => return eprintln!("kernel: cannot read {name}: {error}"),
        };
        let Some(new) = change(&old) else { return };
        // Known before it is written: an interruption in between must find it.
        self.changed.lock().push((path.clone(), old.clone()));
        match fs::write(&path, &new) {
            Ok(()) => eprintln!("kernel: {name} {} → {new}", spaced(&old)),
            Err(error) => {
                self.changed.lock().pop();
                eprintln!("kernel: {name} stays {}: {error}", spaced(&old));
            }
        }
    }
}

impl Changed {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(PathBuf, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts everything back as it was; once.
    pub(super) fn restore(&self) {
        for (path, old) in self.lock().drain(..).rev() {
            match fs::write(&path, &old) {
                Ok(()) => eprintln!("kernel: {} is {} again", path.display(), spaced(&old)),
                Err(error) => eprintln!("kernel: cannot restore {}: {error}", path.display()),
            }
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.changed.restore();
    }
}

/// Both ends of a stream are descriptors, and children inherit the limit.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            eprintln!("limit: open files {soft} → {hard}");
        }
        Ok(())
    });
    if let Err(error) = raised {
        eprintln!("limit: open files stay as they are: {error}");
    }
}

fn at_least(old: &str, wanted: u64) -> Option<String> {
    let old: u64 = old.parse().ok()?;
    (old < wanted).then(|| wanted.to_string())
}

fn each_at_least(old: &str, wanted: u64) -> Option<String> {
    let sizes = old.split_ascii_whitespace().map(str::parse::<u64>);
    let sizes: Vec<u64> = sizes.collect::<Result<_, _>>().ok()?;
    let raised: Vec<String> = sizes.iter().map(|size| wanted.max(*size).to_string()).collect();
    sizes.iter().any(|size| *size < wanted).then(|| raised.join(" "))
}

fn widened(old: &str) -> Option<String> {
    let (low, high) = old.split_once(char::is_whitespace)?;
    let (low, high): (u64, u64) = (low.parse().ok()?, high.trim().parse().ok()?);
    let wide = (low.min(PORTS.0), high.max(PORTS.1));
    (wide != (low, high)).then(|| format!("{} {}", wide.0, wide.1))
}

/// `old` is the smallest, the first and the largest size of a buffer.
fn with_maximum(old: &str, bytes: u64) -> Option<String> {
    let sizes = old.split_ascii_whitespace().map(str::parse::<u64>);
    let sizes: Vec<u64> = sizes.collect::<Result<_, _>>().ok()?;
    let [min, first, _] = sizes[..] else { return None };
    Some(format!("{} {} {bytes}", min.min(bytes), first.min(bytes)))
}

fn spaced(setting: &str) -> String {
    setting.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_only_grow() {
        assert_eq!(at_least("4096", 16_384).as_deref(), Some("16384"));
        assert_eq!(at_least("20000", 16_384), None);
        assert_eq!(widened("32768\t60999").as_deref(), Some("10240 65535"));
        assert_eq!(widened("1024\t65535"), None);
        assert_eq!(widened("nonsense"), None);
        assert_eq!(each_at_least("10\t20\t30", 25).as_deref(), Some("25 25 30"));
        assert_eq!(each_at_least("10\t20\t30", 10), None);
    }

    #[test]
    fn a_send_buffer_is_capped() {
        let capped = with_maximum("4096\t16384\t4194304", 32_768);
        assert_eq!(capped.as_deref(), Some("4096 16384 32768"));
        assert_eq!(with_maximum("4096\t16384\t4194304", 4096).as_deref(), Some("4096 4096 4096"));
    }
}
