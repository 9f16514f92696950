//! One server and the streams that are open at it, ready for changes.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::client::{Streams, Tally};
use crate::machine::{cpu_time, memory, slab};
use crate::servers::{Change, Kind, Subject};

/// Changes before the measurement, so that code and caches are warm.
const WARM_UP: usize = 3;

/// How long a ping may take before it counts as missed.
pub(super) const PING_MAX: Duration = Duration::from_secs(10);

/// Rest after the streams are open, and before memory is read.
pub(super) const SETTLE: Duration = Duration::from_millis(500);

/// How the client spends the time in which a change is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    Rests,
    ReadsAlong,
}

/// A running server with open streams.
pub(super) struct Bench {
    subject: Box<dyn Subject>,
    streams: Streams,
    /// Channels that somebody listens to, and the one that is changed next.
    channels: usize,
    next: usize,
    /// Of the server, before the streams were opened.
    memory_before: u64,
    /// Growth of the kernel while they were opened.
    slab: u64,
    open_seconds: f64,
}

/// What one change led to. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) sent: i64,
    pub(super) answered: i64,
    /// When it was durable; when it was sent, where nothing is stored.
    pub(super) committed: i64,
    /// From commit to ping by the server's own clock, in milliseconds.
    pub(super) told_ms: Option<f64>,
    /// CPU time of the server, in nanoseconds.
    pub(super) cpu: u64,
    /// When the ping came to each client's socket, and when each had read it.
    pub(super) kernel: Vec<i64>,
    pub(super) user: Vec<i64>,
    pub(super) missed: u64,
}

/// What the streams cost, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// Growth of the server and of the kernel, in bytes.
    pub(super) memory: u64,
    pub(super) slab: u64,
    pub(super) bytes_per_channel: Option<f64>,
    pub(super) open_seconds: f64,
    pub(super) repeated: u64,
    pub(super) went_back: u64,
    pub(super) lost: u64,
}

impl Bench {
    /// Starts a server; nobody is connected yet.
    pub(super) fn start(kind: &Kind, count: usize) -> anyhow::Result<Self> {
        let mut subject = kind.start()?;
        let target = subject.target();
        // Nobody listens to the others.
        let channels = target.paths.len().min(count);
        for change in 0..WARM_UP {
            subject.change(change % channels)?;
        }
        let streams = Streams::new(&target, count)?;
        sleep(SETTLE);
        Ok(Self {
            subject,
            streams,
            channels,
            next: 0,
            memory_before: 0,
            slab: 0,
            open_seconds: 0.0,
        })
    }

    /// Opens the streams and makes the first changes.
    pub(super) fn open(&mut self) -> anyhow::Result<()> {
        self.memory_before = memory(&self.pids())?;
        let slab_before = slab()?;
        let began = Instant::now();
        self.streams.open_all()?;
        self.open_seconds = began.elapsed().as_secs_f64();
        sleep(SETTLE);
        self.slab = slab()?.saturating_sub(slab_before);
        for _ in 0..WARM_UP {
            self.change(Client::Rests)?;
        }
        Ok(())
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.subject.pids()
    }

    /// Makes a change and waits until all who listen know.
    pub(super) fn change(&mut self, client: Client) -> anyhow::Result<Sample> {
        let (channel, pids) = (self.next, self.pids());
        self.next = (channel + 1) % self.channels;
        let before = cpu_time(&pids)?;
        let Self { subject, streams, .. } = self;
        let change: Change = match client {
            Client::Rests => subject.change(channel)?,
            Client::ReadsAlong => streams.read_while(|| subject.change(channel), |_| Ok(()))?,
        };
        let arrivals = streams.wait(channel, change.revision, PING_MAX)?;
        let cpu = cpu_time(&pids)?.saturating_sub(before);
        let told = subject.told(channel, change)?;
        Ok(Sample {
            sent: change.sent,
            answered: change.answered,
            committed: told.map_or(change.sent, |told| told.committed),
            told_ms: told.map(|told| told.change_to_ping),
            cpu,
            kernel: arrivals.kernel,
            user: arrivals.user,
            missed: u64::try_from(arrivals.missed)?,
        })
    }

    /// What it has cost so far.
    pub(super) fn cost(&self) -> anyhow::Result<Cost> {
        let tally: Tally = self.streams.tally();
        Ok(Cost {
            memory: memory(&self.pids())?.saturating_sub(self.memory_before),
            slab: self.slab,
            bytes_per_channel: self.subject.bytes_per_channel(),
            open_seconds: self.open_seconds,
            repeated: tally.repeated,
            went_back: tally.went_back,
            lost: tally.losses(),
        })
    }
}

impl Sample {
    /// Takes in what the same change, made at the same moment, led to at another server.
    pub(super) fn join(&mut self, other: Self) {
        self.sent = self.sent.min(other.sent);
        self.answered = self.answered.max(other.answered);
        self.committed = self.committed.min(other.committed);
        self.told_ms = match (self.told_ms, other.told_ms) {
            (Some(ours), Some(theirs)) => Some(ours.max(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        self.cpu += other.cpu;
        self.kernel.extend(other.kernel);
        self.user.extend(other.user);
        self.missed += other.missed;
    }

    pub(super) fn json(&self) -> Json {
        let Self { sent, answered, committed, told_ms, cpu, kernel, user, missed } = self;
        json!([sent, answered, committed, told_ms, cpu, kernel, user, missed])
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (sent, answered, committed, told_ms, cpu, kernel, user, missed) =
            serde_json::from_str(text)?;
        Ok(Self { sent, answered, committed, told_ms, cpu, kernel, user, missed })
    }
}

impl Cost {
    /// Adds what the streams of another server cost, which were opened after these.
    pub(super) fn join(&mut self, other: &Self) {
        self.memory += other.memory;
        self.slab += other.slab;
        self.bytes_per_channel = self.bytes_per_channel.or(other.bytes_per_channel);
        self.open_seconds += other.open_seconds;
        self.repeated += other.repeated;
        self.went_back += other.went_back;
        self.lost += other.lost;
    }

    pub(super) fn json(&self) -> Json {
        let Self { memory, slab, bytes_per_channel, open_seconds, repeated, went_back, lost } =
            self;
        json!([memory, slab, bytes_per_channel, open_seconds, repeated, went_back, lost])
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (memory, slab, bytes_per_channel, open_seconds, repeated, went_back, lost) =
            serde_json::from_str(text)?;
        Ok(Self { memory, slab, bytes_per_channel, open_seconds, repeated, went_back, lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_servers_did_is_one_change() {
        let mut first = Sample {
            sent: 5,
            answered: 9,
            committed: 7,
            told_ms: Some(1.0),
            cpu: 100,
            kernel: vec![10, 11],
            user: vec![12, 13],
            missed: 1,
        };
        let second = Sample { sent: 4, answered: 8, kernel: vec![20], ..first.clone() };
        assert_eq!(Sample::parse(&second.json().to_string()).unwrap(), second);
        first.join(second);
        assert_eq!((first.sent, first.answered, first.committed), (4, 9, 7));
        assert_eq!((first.kernel, first.cpu, first.missed), (vec![10, 11, 20], 200, 2));
    }

    #[test]
    fn costs_add_up() {
        let one = Cost { memory: 5, slab: 6, open_seconds: 0.5, repeated: 1, ..Cost::default() };
        let mut sum = Cost::parse(&one.json().to_string()).unwrap();
        assert_eq!(sum, one);
        sum.join(&one);
        assert_eq!((sum.memory, sum.slab, sum.repeated), (10, 12, 2));
    }
}
