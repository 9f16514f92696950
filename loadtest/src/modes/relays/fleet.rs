//! A gateway, relays in front of it, and the clients of each relay in a process of their own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::Plan;
use super::clients::{HELD, HOLD, Heard, Held, OPEN, Opened, TOLD};
use crate::machine::{available, cpu_time, memory, resident, slab, sockets};
use crate::modes::bench::SETTLE;
use crate::modes::times::spans;
use crate::modes::worker::{READY, Worker, ask};
use crate::output::{Figures, count, median, milliseconds, quantile, real};
use crate::servers::{Change, Flips, Relay, Subject as _};

/// Rest after a long step: the kernel frees what it can, and the log of the opening is written.
const REST: Duration = Duration::from_secs(2);

/// Time between two lines that tell how far the opening is.
const PROGRESS: Duration = Duration::from_secs(5);

/// What runs. The clients go first.
pub(super) struct Fleet {
    workers: Vec<Worker>,
    relays: Vec<Relay>,
    flips: Flips,
}

/// Memory in bytes, at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// In user space (PSS).
    pub(super) gateway: u64,
    pub(super) relays: u64,
    pub(super) clients: u64,
    /// The kernel's objects, and what bytes that wait in sockets are charged with.
    pub(super) slab: u64,
    pub(super) buffers: u64,
    /// What the machine could still give.
    pub(super) available: u64,
}

/// CPU time in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Used {
    gateway: u64,
    relays: u64,
    clients: u64,
}

/// A change, and who got its ping when.
pub(super) struct Told {
    pub(super) figures: Figures,
    pub(super) missed: usize,
}

impl Fleet {
    /// Starts all of it; nobody is connected yet.
    pub(super) fn start(plan: &Plan) -> anyhow::Result<Self> {
        let mut flips = Flips::start(&plan.setup, plan.environments)?;
        let mut relays = Vec::with_capacity(plan.relays);
        for _ in 0..plan.relays {
            let environments = &flips.environments;
            relays.push(Relay::start(&plan.setup, flips.gateway.public, environments)?);
        }
        for relay in &relays {
            relay.wait_until_it_follows(plan.environments)?;
        }
        for channel in 0..plan.environments {
            flips.change(channel)?;
        }
        sleep(SETTLE);
        for relay in &relays {
            relay.wait_until_it_follows(plan.environments)?;
        }
        let doors = match relays.len() {
            0 => vec![flips.gateway.public],
            _ => relays.iter().map(|relay| relay.public).collect(),
        };
        let paths = flips.target().paths;
        let mut workers = Vec::with_capacity(doors.len());
        for (number, door) in doors.iter().enumerate() {
            workers.push(Worker::start(&arguments(*door, &paths, plan.share(number)))?);
        }
        sleep(REST);
        Ok(Self { workers, relays, flips })
    }

    /// The processes that are not this one.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut pids = self.flips.pids();
        pids.extend(self.relays.iter().map(Relay::pid));
        pids.extend(self.workers.iter().map(Worker::pid));
        pids
    }

    pub(super) fn memory(&self) -> anyhow::Result<Memory> {
        Ok(Memory {
            gateway: memory(&self.flips.pids())?,
            relays: memory(&self.relays.iter().map(Relay::pid).collect::<Vec<_>>())?,
            clients: memory(&self.workers.iter().map(Worker::pid).collect::<Vec<_>>())?,
            slab: slab()?,
            buffers: sockets()?.1,
            available: available()?,
        })
    }

    /// Resident memory of a relay, the middle one of all, in bytes.
    pub(super) fn relay_resident(&self) -> anyhow::Result<Option<f64>> {
        let resident = self.relays.iter().map(|relay| Ok(real(resident(relay.pid())?.0)));
        let resident = resident.collect::<anyhow::Result<Vec<f64>>>()?;
        Ok((!resident.is_empty()).then(|| median(&resident)))
    }

    /// All clients come at once. Tells now and then how far they are.
    pub(super) fn open(&mut self) -> anyhow::Result<Opened> {
        let done = AtomicBool::new(false);
        let answers = std::thread::scope(|threads| {
            threads.spawn(|| tell_progress(&done));
            let answers = ask(&mut self.workers, OPEN);
            done.store(true, Ordering::Relaxed);
            answers
        })?;
        let mut answers = answers.iter().map(|answer| Opened::parse(answer));
        let mut whole = answers.next().context("there are no clients")??;
        for answer in answers {
            whole.join(answer?);
        }
        sleep(REST);
        Ok(whole)
    }

    /// Nothing happens but heartbeats, for `length`. Tells CPU time, too.
    pub(super) fn hold(&mut self, length: Duration) -> anyhow::Result<(Held, Figures)> {
        let ready = ask(&mut self.workers, HOLD)?;
        ensure!(ready.iter().all(|answer| answer.contains(READY)), "a worker does not hold");
        let (began, before) = (Instant::now(), self.used()?);
        sleep(length);
        let used = self.used()?.since(before);
        let seconds = began.elapsed().as_secs_f64();
        let mut whole = Held::default();
        for answer in ask(&mut self.workers, HELD)? {
            whole.join(&Held::parse(&answer)?);
        }
        let share = |nanoseconds: u64| real(nanoseconds) / 1e7 / seconds;
        let figures = Figures::from([
            ("hold_gateway", share(used.gateway)),
            ("hold_relays", share(used.relays)),
            ("hold_clients", share(used.clients)),
        ]);
        Ok((whole, figures))
    }

    /// One change at the gateway, until everybody who listens to that environment knows.
    pub(super) fn change(&mut self, number: usize) -> anyhow::Result<Told> {
        let channel = number % self.flips.environments.len();
        let before = self.used()?;
        let change = self.flips.change(channel)?;
        let mut whole = Heard::default();
        for answer in ask(&mut self.workers, &format!("{TOLD} {channel} {}", change.revision))? {
            whole.join(Heard::parse(&answer)?);
        }
        let used = self.used()?.since(before);
        let committed = self.flips.told(channel, change)?.context("no commit")?.committed;
        let mut figures = times(change, committed, &whole.kernel);
        let delivered = count(whole.kernel.len().max(1));
        figures.extend([
            ("missed", count(whole.missed)),
            ("gateway_cpu_ms", real(used.gateway) / 1e6),
            ("relay_cpu_us", real(used.relays) / 1e3 / delivered),
            ("client_cpu_us", real(used.clients) / 1e3 / delivered),
        ]);
        Ok(Told { figures, missed: whole.missed })
    }

    /// Streams that the gateway and the relays count as theirs, and the gateway's connections.
    pub(super) fn counted(&self) -> anyhow::Result<Figures> {
        let gateway = self.flips.gateway.meter().read()?;
        let connections = gateway.sum("flagcast_connections_open", "listener=\"public\"");
        let mut streams = 0;
        for relay in &self.relays {
            streams += relay.meter().read()?.sum("flagcast_streams_open", "");
        }
        Ok(Figures::from([
            ("upstream_streams", real(gateway.sum("flagcast_streams_open", ""))),
            ("upstream_connections", real(connections)),
            ("relay_streams", real(streams)),
        ]))
    }

    fn used(&self) -> anyhow::Result<Used> {
        Ok(Used {
            gateway: cpu_time(&self.flips.pids())?,
            relays: cpu_time(&self.relays.iter().map(Relay::pid).collect::<Vec<_>>())?,
            clients: cpu_time(&self.workers.iter().map(Worker::pid).collect::<Vec<_>>())?,
        })
    }
}

impl Used {
    fn since(self, before: Self) -> Self {
        Self {
            gateway: self.gateway.saturating_sub(before.gateway),
            relays: self.relays.saturating_sub(before.relays),
            clients: self.clients.saturating_sub(before.clients),
        }
    }
}

/// The command line of the clients of one relay.
fn arguments(door: SocketAddr, paths: &[String], streams: usize) -> Vec<OsString> {
    let mut arguments = vec!["relay-clients".to_owned(), "--address".to_owned(), door.to_string()];
    arguments.extend(["--streams".to_owned(), streams.to_string()]);
    for path in paths {
        arguments.extend(["--path".to_owned(), path.clone()]);
    }
    arguments.into_iter().map(OsString::from).collect()
}

/// The times of one change, in milliseconds.
fn times(change: Change, committed: i64, kernel: &[i64]) -> Figures {
    let since = spans(committed, kernel);
    let mut figures = Figures::from([("answer_ms", milliseconds(change.answered - change.sent))]);
    if !since.is_empty() {
        let last = quantile(&since, 100);
        figures.extend([
            ("first_ms", quantile(&since, 0)),
            ("p50_ms", quantile(&since, 50)),
            ("p99_ms", quantile(&since, 99)),
            ("last_ms", last),
            ("answer_last_ms", last - milliseconds(change.answered - committed)),
        ]);
    }
    figures
}

/// Says on a terminal how many sockets there are and what they take, until `done`.
fn tell_progress(done: &AtomicBool) {
    let (began, mut told) = (Instant::now(), Instant::now());
    while !done.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(100));
        if told.elapsed() < PROGRESS {
            continue;
        }
        told = Instant::now();
        if let (Ok((sockets, _)), Ok(slab), Ok(available)) = (sockets(), slab(), available()) {
            let mib = |bytes: u64| bytes / 1024 / 1024;
            eprintln!(
                "{} s: {sockets} TCP sockets, slab {} MiB, available {} MiB",
                began.elapsed().as_secs(),
                mib(slab),
                mib(available)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_commit_and_from_the_answer() {
        let change = Change { revision: 1, sent: 0, answered: 3_000_000 };
        let figures = times(change, 1_000_000, &[9_000_000, 2_000_000, 5_000_000]);
        for (key, ms) in [
            ("answer_ms", 3.0),
            ("first_ms", 1.0),
            ("p50_ms", 4.0),
            ("last_ms", 8.0),
            ("answer_last_ms", 6.0),
        ] {
            assert!((figures[key] - ms).abs() < 1e-9, "{key}: {}", figures[key]);
        }
        assert_eq!(times(change, 0, &[]).len(), 1, "a ping that nobody got has no time");
    }

    #[test]
    fn clients_are_told_where_to_go() {
        let door = SocketAddr::from(([127, 0, 0, 1], 8080));
        let paths = ["/a".to_owned(), "/b".to_owned()];
        let line: Vec<_> = arguments(door, &paths, 7);
        let expected = "relay-clients --address 127.0.0.1:8080 --streams 7 --path /a --path /b";
        assert_eq!(line.join(std::ffi::OsStr::new(" ")), expected);
    }
}
