//! The fan-out shards as everybody else sees them: threads that adopt the sockets of streams and
//! are told what happened.
//!
//! Nothing here waits for a shard. What it is told is a letter that it reads at its next turn, and
//! letters of one environment fold into one, so a busy shard has no queue that grows.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::Histogram;
use mio::{Poll, Waker};
use tokio::sync::mpsc;

use super::hub::Change;
use super::opening::Opening;
use super::shard::{CALL, Shard};
use crate::metrics::StreamMetrics;
use crate::model::EnvironmentId;
use crate::places::Place;
use crate::shutdown::{Hold, Shutdown};

/// Connections whose stream has ended and that the listener has not taken back yet; one more is
/// closed, which its client may expect of any idle connection.
const RETURNS_MAX: usize = 1024;

/// The shards of this process. A clone is a handle to the same shards; the default has none.
#[derive(Clone, Debug, Default)]
pub struct Shards {
    inboxes: Arc<[Arc<Inbox>]>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// How shards treat their streams.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A client that takes nothing for so long is ended.
    pub stall: Duration,
    /// Time over which a drain ends streams.
    pub drain: Duration,
    /// Pings that all shards together write in a second, unless urgent; 0: no limit.
    pub pings_per_second_max: u32,
}

/// A socket whose answer has its head, and what to tell it.
#[derive(Debug)]
pub struct Adoption {
    /// Who listens; its first event is out.
    pub opening: Opening,
    /// The socket, nonblocking.
    pub socket: TcpStream,
    /// What the client sent behind its request.
    pub unread: Bytes,
    /// The connection's place.
    pub place: Place,
    /// Whether the connection ends with the stream.
    pub close: bool,
}

/// A connection whose stream has ended, for its next request.
#[derive(Debug)]
pub struct Returned {
    /// The socket, nonblocking.
    pub socket: TcpStream,
    /// What the client sent behind its request.
    pub unread: Bytes,
    /// The connection's place.
    pub place: Place,
}

/// What a shard is to read at its next turn.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a letter that was written or not")]
pub(super) struct Letters {
    pub(super) adoptions: Vec<(Adoption, Hold)>,
    /// Environments to look at.
    pub(super) nudges: HashMap<EnvironmentId, Nudge>,
    /// An environment became known: strangers look again.
    pub(super) welcome: bool,
    /// What caches share is to be cut.
    pub(super) cut: bool,
    pub(super) drain: bool,
    pub(super) stop: bool,
}

/// Why to look at an environment.
#[derive(Debug, Default)]
pub(super) struct Nudge {
    /// Those who know the newest state are told once more.
    pub(super) echo: bool,
    /// No limit may hold it back.
    pub(super) urgent: bool,
    /// A change that is on its way.
    pub(super) telling: Option<Arc<Telling>>,
}

/// A change on its way to the last socket of every shard.
#[derive(Debug)]
pub(super) struct Telling {
    committed: Instant,
    shards_left: AtomicUsize,
    fan_out: Histogram,
}

/// Where a shard gets its letters.
#[derive(Debug)]
pub(super) struct Inbox {
    letters: Mutex<Letters>,
    waker: Waker,
    /// Streams that the shard has or is about to have.
    pub(super) open: AtomicUsize,
}

impl Letters {
    fn is_empty(&self) -> bool {
        let Self { adoptions, nudges, welcome, cut, drain, stop } = self;
        adoptions.is_empty() && nudges.is_empty() && !(*welcome || *cut || *drain || *stop)
    }
}

impl Telling {
    /// A shard has written it to its last socket. The last shard's time counts.
    pub(super) fn done(&self) {
        if self.shards_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.fan_out.record(self.committed.elapsed());
        }
    }
}

impl Inbox {
    fn post(&self, write: impl FnOnce(&mut Letters)) {
        let was_empty = {
            let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
            let was_empty = letters.is_empty();
            write(&mut letters);
            was_empty
        };
        // Otherwise the shard has been called and has not come yet.
        if was_empty && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake a fan-out shard");
        }
    }

    /// Takes all letters out.
    pub(super) fn take(&self) -> Letters {
        std::mem::take(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shards {
    /// Starts `count` shards. Also returns where connections come back whose stream has ended.
    pub fn start(
        count: usize,
        times: Times,
        metrics: &StreamMetrics,
        shutdown: &Shutdown,
    ) -> io::Result<(Self, mpsc::Receiver<Returned>)> {
        let (returns, returned) = mpsc::channel(RETURNS_MAX);
        let mut inboxes = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let mut poll = Poll::new()?;
            let registry = poll.registry().try_clone()?;
            let waker = Waker::new(&registry, CALL)?;
            let open = AtomicUsize::default();
            let inbox = Arc::new(Inbox { letters: Mutex::default(), waker, open });
            inboxes.push(Arc::clone(&inbox));
            let (metrics, returns) = (metrics.clone(), returns.clone());
            let times = times.share_of(count);
            let work = move || {
                loop {
                    let Ok(registry) = registry.try_clone() else { return };
                    let (inbox, returns) = (Arc::clone(&inbox), returns.clone());
                    let mut shard = Shard::new(registry, inbox, times, returns, metrics.clone());
                    // A defect ends the streams that hit it and their neighbours, who come back;
                    // it must not leave a core without its shard.
                    if catch_unwind(AssertUnwindSafe(|| shard.run(&mut poll))).is_ok() {
                        return;
                    }
                    metrics.shard_restarts.increment(1);
                    tracing::error!("a fan-out shard failed; its streams end and it starts anew");
                }
            };
            threads
                .push(std::thread::Builder::new().name(format!("fan-out-{number}")).spawn(work)?);
        }
        let shards = Self { inboxes: inboxes.into(), threads: Arc::new(Mutex::new(threads)) };
        let (draining, told) = (shutdown.clone(), shards.clone());
        shutdown.spawn(async move {
            draining.drained().await;
            told.each(|letters| letters.drain = true);
        });
        Ok((shards, returned))
    }

    /// Whether there is none: streams are bodies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inboxes.is_empty()
    }

    /// Hands a socket to the shard with the fewest streams.
    pub fn adopt(&self, adoption: Adoption, shutdown: &Shutdown) {
        let open = |inbox: &&Arc<Inbox>| inbox.open.load(Ordering::Relaxed);
        // Without shards the connection is closed; nobody hands one over then.
        let Some(inbox) = self.inboxes.iter().min_by_key(open) else { return };
        inbox.open.fetch_add(1, Ordering::Relaxed);
        inbox.post(|letters| letters.adoptions.push((adoption, shutdown.hold())));
    }

    /// Says that an environment has a newer state.
    pub(super) fn tell(&self, id: EnvironmentId, change: &Change, fan_out: &Histogram) {
        let now = Instant::now();
        let telling = Arc::new(Telling {
            committed: now.checked_sub(change.since_commit).unwrap_or(now),
            shards_left: AtomicUsize::new(self.inboxes.len()),
            fan_out: fan_out.clone(),
        });
        self.each(|letters| {
            // The older change stays: it is not told until the newer one is.
            let nudge = letters.nudges.entry(id).or_default();
            nudge.telling.get_or_insert_with(|| Arc::clone(&telling));
            nudge.urgent |= change.urgent;
        });
    }

    /// Says the newest state of an environment once more.
    pub(super) fn echo(&self, id: EnvironmentId) {
        self.each(|letters| letters.nudges.entry(id).or_default().echo = true);
    }

    /// Says that something else changed about an environment: it is gone.
    pub(super) fn look(&self, id: EnvironmentId) {
        self.each(|letters| {
            letters.nudges.entry(id).or_default();
        });
    }

    /// Says that an environment became known.
    pub(super) fn welcome(&self) {
        self.each(|letters| letters.welcome = true);
    }

    /// Says that what caches share is to be cut.
    pub(super) fn cut_cached(&self) {
        self.each(|letters| letters.cut = true);
    }

    /// Ends the threads; what they still have is cut.
    pub fn stop(&self) {
        self.each(|letters| letters.stop = true);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a fan-out shard ended badly");
            }
        }
    }

    fn each(&self, write: impl Fn(&mut Letters)) {
        for inbox in self.inboxes.iter() {
            inbox.post(&write);
        }
    }
}

impl Times {
    /// What one of `count` shards may do.
    fn share_of(self, count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        Self { pings_per_second_max: self.pings_per_second_max.div_ceil(count), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::metrics::Metrics;
    use crate::places::Places;
    use crate::stream::hub::tests::{CACHED, STAGING, SUBSCRIBER, publish, subscribe};
    use crate::stream::hub::{Hub, Subscriber};
    use crate::stream::pace::Pace;
    use crate::stream::seats::Limits;

    const PACE: Pace = Pace {
        heartbeat: Duration::from_mins(10),
        life: Duration::from_mins(10),
        // So long that a stream's random share of it is not over at once.
        drain: Duration::from_hours(10),
    };

    /// One shard, and a hub that tells it.
    struct Bench {
        shards: Shards,
        hub: Hub,
        places: Places,
        shutdown: Shutdown,
        _returned: mpsc::Receiver<Returned>,
    }

    impl Bench {
        fn new() -> Self {
            Self::with_pace(0)
        }

        fn with_pace(pings_per_second_max: u32) -> Self {
            let drain = PACE.drain;
            Self::with_times(Times { stall: PACE.life, drain, pings_per_second_max })
        }

        fn with_drain(drain: Duration) -> Self {
            Self::with_times(Times { stall: PACE.life, drain, pings_per_second_max: 0 })
        }

        fn with_times(times: Times) -> Self {
            let (metrics, shutdown) = (Metrics::new(), Shutdown::default());
            let (shards, returned) = Shards::start(1, times, &metrics.stream(), &shutdown).unwrap();
            let limits = Limits { total: 0, per_environment: 0, per_address: 0, unknown: 0 };
            let hub = Hub::new(limits, shards.clone(), metrics.stream());
            let places = Places::new(9, metrics.listener("public"));
            Self { shards, hub, places, shutdown, _returned: returned }
        }

        /// Hands a socket to the shard; what its client reads comes out of the other end.
        async fn adopt(&self, opening: Opening) -> TcpStream {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            let place = self.places.free().await.take();
            let adoption = Adoption { opening, socket, unread: Bytes::new(), place, close: true };
            self.shards.adopt(adoption, &self.shutdown);
            client
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            self.shards.stop();
        }
    }

    fn read(mut client: &TcpStream, length: usize) -> String {
        let mut bytes = vec![0; length];
        client.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn a_change_between_the_first_event_and_the_shard_is_told() {
        let bench = Bench::new();
        publish(&bench.hub, STAGING, 1);
        let mut opening = Opening::subscriber(subscribe(&bench.hub).unwrap(), PACE);
        assert_eq!(opening.first_event().unwrap(), "ping 1");
        publish(&bench.hub, STAGING, 2);
        let client = bench.adopt(opening).await;
        assert_eq!(read(&client, 11), "6\r\nping 2\r\n");
        // Once, and the next one is the next change.
        publish(&bench.hub, STAGING, 3);
        assert_eq!(read(&client, 11), "6\r\nping 3\r\n");
        bench.hub.remove(STAGING);
        assert_eq!(read(&client, 5), "0\r\n\r\n");
    }

    #[tokio::test]
    async fn what_was_not_told_yet_is_told_before_the_end() {
        let bench = Bench::with_pace(1);
        publish(&bench.hub, STAGING, 1);
        let mut clients = Vec::new();
        for _ in 0..5 {
            let mut opening = Opening::subscriber(subscribe(&bench.hub).unwrap(), PACE);
            opening.first_event();
            clients.push(bench.adopt(opening).await);
        }
        // At one ping a second most of them still wait when their environment goes.
        publish(&bench.hub, STAGING, 2);
        bench.hub.remove(STAGING);
        for client in &clients {
            assert_eq!(read(client, 16), "6\r\nping 2\r\n0\r\n\r\n");
        }
    }

    #[tokio::test]
    async fn a_drain_tells_changes_but_no_echoes() {
        let bench = Bench::new();
        publish(&bench.hub, STAGING, 1);
        let mut opening = Opening::subscriber(subscribe(&bench.hub).unwrap(), PACE);
        opening.first_event();
        let client = bench.adopt(opening).await;
        publish(&bench.hub, STAGING, 2);
        assert_eq!(read(&client, 11), "6\r\nping 2\r\n");
        bench.hub.echo(STAGING);
        assert_eq!(read(&client, 11), "6\r\nping 2\r\n", "the echo of a calm day");
        bench.shards.each(|letters| letters.drain = true);
        bench.hub.echo(STAGING);
        publish(&bench.hub, STAGING, 3);
        assert_eq!(read(&client, 11), "6\r\nping 3\r\n");
    }

    /// A stream that a cache shares.
    fn cached(bench: &Bench, pace: Pace) -> Opening {
        let subscriber = Subscriber { manner: CACHED, ..SUBSCRIBER };
        let mut opening =
            Opening::subscriber(bench.hub.subscribe(STAGING, subscriber).unwrap(), pace);
        assert_eq!(opening.first_event().unwrap(), "ping 1");
        opening
    }

    /// Everything to the end of the connection.
    fn rest(mut client: &TcpStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    #[tokio::test]
    async fn a_cached_stream_of_a_deleted_environment_is_cut_behind_its_last_event() {
        let bench = Bench::new();
        publish(&bench.hub, STAGING, 1);
        let client = bench.adopt(cached(&bench, PACE)).await;
        publish(&bench.hub, STAGING, 2);
        bench.hub.remove(STAGING);
        assert_eq!(rest(&client), "6\r\nping 2\r\n");
    }

    #[tokio::test]
    async fn a_drain_lets_a_cached_stream_live_as_planned_or_cuts_it() {
        let bench = Bench::with_drain(Duration::from_secs(7));
        publish(&bench.hub, STAGING, 1);
        // Lives are spread by a fifth: one ends before the drain is over, the other is far from it.
        let short = Pace { life: Duration::from_secs(1), ..PACE };
        let ended = bench.adopt(cached(&bench, short)).await;
        let cut = bench.adopt(cached(&bench, PACE)).await;
        bench.shards.each(|letters| letters.drain = true);
        publish(&bench.hub, STAGING, 2);
        assert_eq!(rest(&ended), "6\r\nping 2\r\n0\r\n\r\n");
        assert_eq!(rest(&cut), "6\r\nping 2\r\n");
    }

    #[tokio::test]
    async fn a_stranger_that_joins_is_told_at_once() {
        let bench = Bench::new();
        let known = Arc::new(AtomicBool::new(false));
        let (hub, is_known) = (bench.hub.clone(), Arc::clone(&known));
        let join = move || is_known.load(Ordering::Relaxed).then(|| subscribe(&hub).ok()).flatten();
        let subscription = bench.hub.subscribe_unknown(SUBSCRIBER).unwrap();
        let mut opening = Opening::stranger(subscription, Box::new(join), PACE);
        assert_eq!(opening.first_event().unwrap(), ": ok\n\n");
        let client = bench.adopt(opening).await;
        bench.hub.welcome();
        publish(&bench.hub, STAGING, 7);
        known.store(true, Ordering::Relaxed);
        bench.hub.welcome();
        assert_eq!(read(&client, 11), "6\r\nping 7\r\n");
    }
}
