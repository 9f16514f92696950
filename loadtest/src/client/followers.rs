//! Clients that follow the flags of an environment as real ones do: each has a stream and a kept-alive
//! connection, reads the flags again when its stream tells of a newer revision, and comes back a little
//! later when its stream ends.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::refetch::{Reads, Refetchers};
use super::returns::Gap;
use super::streams::{Arrival, Streams, Target};
use super::tally::Tally;

/// Longest wait for a stream's bytes, when those of a read may come.
const NAP: Duration = Duration::from_millis(1);

/// How often it is looked how far all are.
const LOOK: Duration = Duration::from_millis(10);

/// Clients of one address. One thread serves them while they are attended.
#[derive(Debug)]
pub(crate) struct Followers {
    streams: Streams,
    refetchers: Refetchers,
    count: usize,
    reads_before: Reads,
    tally_before: Tally,
    pings: Vec<Seen>,
}

/// A revision that came to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) client: usize,
    pub(crate) revision: u64,
    /// In nanoseconds since the epoch.
    pub(crate) at: i64,
}

/// What clients went through since it was last taken.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// Pings that told something new, when they came to the client's socket.
    pub(crate) pings: Vec<Seen>,
    /// Flag sets that were newer, when the client had read all of them.
    pub(crate) bodies: Vec<Seen>,
    pub(crate) reads: Reads,
    pub(crate) tally: Tally,
    /// Streams that ended within a second.
    pub(crate) immediate: u64,
    pub(crate) gaps: Vec<Gap>,
}

/// How far attended clients are.
#[derive(Debug)]
pub(crate) struct Progress {
    stop: AtomicBool,
    /// Of each group: streams that have been open for a second, and the revision that every client has read, or a newer one.
    groups: Vec<(AtomicUsize, AtomicU64)>,
}

impl Followers {
    /// Makes `count` clients that are not connected. `flags` is the path of the flags, up to the number of
    /// the revision.
    pub(crate) fn new(
        door: SocketAddr,
        stream: &str,
        flags: &str,
        count: usize,
    ) -> anyhow::Result<Self> {
        let target = Target { address: door, paths: vec![stream.to_owned()] };
        let mut streams = Streams::new(&target, count)?;
        streams.come_back_calmly(u64::from(door.port()));
        streams.keep_log();
        let refetchers = Refetchers::new(door, flags.to_owned(), count)?;
        let (reads_before, tally_before) = (Reads::default(), Tally::default());
        Ok(Self { streams, refetchers, count, reads_before, tally_before, pings: Vec::new() })
    }

    /// What they went through since this was taken. `first` is the number of their first client.
    pub(crate) fn take(&mut self, first: usize) -> Followed {
        let (immediate, gaps) = self.streams.take_returns();
        let (reads, tally) = (self.refetchers.tally(), self.streams.tally());
        let pings = std::mem::take(&mut self.pings).into_iter();
        let bodies = self.refetchers.take_log().into_iter();
        let renumbered = |seen: Seen| Seen { client: first + seen.client, ..seen };
        Followed {
            pings: pings.map(renumbered).collect(),
            bodies: bodies.map(renumbered).collect(),
            reads: reads.since(std::mem::replace(&mut self.reads_before, reads)),
            tally: tally.since(&std::mem::replace(&mut self.tally_before, tally)),
            immediate,
            gaps,
        }
    }

    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    fn serve(&mut self, progress: &Progress, group: usize) -> anyhow::Result<()> {
        let mut looked: Option<Instant> = None;
        while !progress.stop.load(Ordering::Relaxed) {
            self.streams.connect(self.count)?;
            self.streams.turn(Some(NAP))?;
            for ping in self.streams.take_log() {
                self.refetchers.want(ping.stream, ping.revision)?;
                let Arrival { stream, revision, kernel, .. } = ping;
                self.pings.push(Seen { client: stream, revision, at: kernel });
            }
            self.refetchers.turn(Duration::ZERO)?;
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
                looked = Some(Instant::now());
                let (lasting, least) = &progress.groups[group];
                lasting.store(self.streams.lasting(), Ordering::Relaxed);
                least.store(self.refetchers.least(), Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

impl Followed {
    /// Adds what others went through.
    pub(crate) fn join(&mut self, other: Self) {
        self.pings.extend(other.pings);
        self.bodies.extend(other.bodies);
        self.reads.join(other.reads);
        self.tally.join(&other.tally);
        self.immediate += other.immediate;
        self.gaps.extend(other.gaps);
    }
}

impl Progress {
    fn new(groups: usize) -> Self {
        let groups = std::iter::repeat_with(Default::default).take(groups).collect();
        Self { stop: AtomicBool::new(false), groups }
    }

    /// Waits until `count` streams have been open for a second, or `limit` is over. Tells whether they
    /// have: what ends them then does not look like a recording.
    pub(crate) fn all_last(&self, count: usize, limit: Duration) -> bool {
        wait(limit, || {
            let lasting = self.groups.iter().map(|(lasting, _)| lasting.load(Ordering::Relaxed));
            lasting.sum::<usize>() == count
        })
    }

    /// Waits until all have `revision`, or `limit` is over. Tells whether they have.
    pub(crate) fn reach(&self, revision: u64, limit: Duration) -> bool {
        wait(limit, || {
            self.groups.iter().all(|(_, least)| least.load(Ordering::Relaxed) >= revision)
        })
    }
}

fn wait(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > limit {
            return false;
        }
        sleep(NAP);
    }
    true
}

/// Serves clients, each group in a thread of its own, while `work` is done.
pub(crate) fn attend<T>(
    groups: &mut [Followers],
    work: impl FnOnce(&Progress) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let progress = Progress::new(groups.len());
    scope(|threads| {
        let serving = groups.iter_mut().enumerate().map(|(group, followers)| {
            let progress = &progress;
            threads.spawn(move || followers.serve(progress, group))
        });
        let serving: Vec<_> = serving.collect();
        let worked = work(&progress);
        progress.stop.store(true, Ordering::Relaxed);
        for served in serving {
            served.join().map_err(|_| anyhow!("a thread that serves clients panicked"))??;
        }
        worked
    })
}
