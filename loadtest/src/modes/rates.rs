//! Requests per second of one server under `wrk`, and the CPU time that each costs it.

use std::time::Duration;

use crate::client::Load;
use crate::machine::{ATTEMPTS, Watch, cpu_time, wait_until_quiet};
use crate::output::real;

/// What a run of a load measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Requests per second.
    pub(super) per_second: f64,
    /// The server's CPU time for one, in microseconds.
    pub(super) cpu_us: f64,
    /// Whether nothing else used the machine meanwhile.
    pub(super) quiet: bool,
}

/// Runs a load, again if others used the machine meanwhile.
pub(super) fn quietly(load: &Load<'_>, pids: &[u32], wait: Duration) -> anyhow::Result<Measured> {
    let mut attempt = 1;
    loop {
        let quiet_before = wait_until_quiet(wait)?;
        let watch = Watch::start(pids)?;
        let used = cpu_time(pids)?;
        let rate = load.run()?;
        let used = cpu_time(pids)?.saturating_sub(used);
        let quiet = watch.was_quiet()? && quiet_before;
        if quiet || attempt == ATTEMPTS {
            let cpu_us = real(used) / 1000.0 / real(rate.requests.max(1));
            return Ok(Measured { per_second: rate.per_second, cpu_us, quiet });
        }
        attempt += 1;
    }
}
