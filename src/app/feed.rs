//! The change feed: reads committed changes and tells those who serve and those who listen.
//!
//! For each change, in this order: the new flag set answers every read, then the ping leaves, then,
//! a little later, its echo. Wake, then poll: a commit of this process wakes the feed at once, and a
//! slow poll finds what another process committed or what a lost wake-up would have hidden.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key as DelayKey;

use crate::config::{self, Settings};
use crate::flagset::{Directory, FlagSets, Known};
use crate::metrics::FeedMetrics;
use crate::model::{EnvironmentId, EnvironmentKind, Stamp};
use crate::shutdown::Shutdown;
use crate::store::{FeedEvent, Store, StoreError, now_micros};
use crate::stream::{Change, Hub, Ping, PingFacts, PingStyle};

/// Rest after a failed read of the store.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A spread below this is none: reads do not come at once anyway.
const SPREAD_MS_MIN: u64 = 100;

/// Longest spread: a change should be everywhere within a moment.
const SPREAD_MS_MAX: u64 = 30_000;

/// Makes the pings of environments.
#[derive(Clone, Debug)]
pub struct Pings {
    style: Arc<PingStyle>,
    refetches_per_second: u32,
}

/// Those who are told of a change.
#[derive(Debug)]
pub struct Told {
    /// Asked again about environments that the directory does not know.
    pub store: Store,
    /// Which key opens which environment.
    pub directory: Arc<Directory>,
    /// What is served.
    pub flagsets: FlagSets,
    /// Who is listening.
    pub hub: Hub,
    /// How a ping looks.
    pub pings: Pings,
}

/// The change feed of a process.
#[derive(Debug)]
pub struct Feed {
    told: Told,
    /// Position behind the last event that was told.
    position: i64,
    poll: Duration,
    echo: Option<Duration>,
    metrics: FeedMetrics,
}

/// What a batch of events says of one environment.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    /// The newest state and when it was committed.
    stamp: Option<(Stamp, i64)>,
    /// One of the changes must not wait.
    urgent: bool,
    /// Something about it changed that no flag set shows: its keys, or it is gone.
    look_again: bool,
}

/// Environments whose echo is due later; a new change puts it off.
#[derive(Debug, Default)]
struct Echoes {
    queue: DelayQueue<EnvironmentId>,
    keys: BTreeMap<EnvironmentId, DelayKey>,
}

impl Pings {
    /// `public_url` is where clients reach the doors.
    #[must_use]
    pub fn new(public_url: &str, stream: &config::Stream) -> Self {
        let heartbeat_seconds = [stream.heartbeat_seconds, stream.cached_heartbeat_seconds];
        let style = PingStyle { public_url: public_url.to_owned(), heartbeat_seconds };
        Self { style: Arc::new(style), refetches_per_second: stream.refetches_per_second }
    }

    /// A ping for clients that should read within `spread_ms`.
    fn ping(&self, known: &Known, stamp: Stamp, spread_ms: u64) -> Ping {
        Ping::new(PingFacts {
            style: Arc::clone(&self.style),
            client_key: known.client_key.clone(),
            has_flags: known.kind == EnvironmentKind::Stored,
            stamp,
            spread_ms,
        })
    }

    /// Over how many milliseconds the reads of so many clients should be spread.
    fn spread_ms(&self, streams: usize) -> u64 {
        let streams = u64::try_from(streams).unwrap_or(u64::MAX);
        let spread = streams
            .saturating_mul(1000)
            .checked_div(u64::from(self.refetches_per_second))
            .unwrap_or(0);
        if spread < SPREAD_MS_MIN { 0 } else { spread.min(SPREAD_MS_MAX) }
    }
}

impl Feed {
    /// Fills the directory and the hub with what is true now. The position is taken before: what is
    /// committed in between is read twice rather than missed.
    pub async fn start(
        told: Told,
        settings: &Settings,
        metrics: FeedMetrics,
    ) -> Result<Self, StoreError> {
        let position = told.store.feed_end().await?;
        for entry in told.store.directory().await? {
            let (id, stamp) = (entry.environment.id, entry.environment.stamp);
            told.directory.insert(&entry);
            if let Some(known) = told.directory.client_key(id) {
                told.hub.seed(id, told.pings.ping(&known, stamp, 0));
            }
        }
        let echo = Duration::from_secs(settings.stream.echo_seconds);
        Ok(Self {
            told,
            position,
            poll: Duration::from_millis(settings.store.poll_ms),
            echo: (!echo.is_zero()).then_some(echo),
            metrics,
        })
    }

    /// Follows the feed until the stop.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut echoes = Echoes::default();
        let store = self.told.store.clone();
        let mut next_poll = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.stopped() => return,
                () = store.committed() => {}
                () = tokio::time::sleep_until(next_poll) => {}
                Some(id) = echoes.next() => {
                    self.told.hub.echo(id);
                    continue;
                }
            }
            next_poll = Instant::now() + self.poll;
            if let Err(error) = self.catch_up(&mut echoes).await {
                self.metrics.errors.increment(1);
                tracing::warn!(%error, "the change feed cannot read the store; it tries again");
                next_poll = Instant::now() + RETRY_PAUSE;
            }
        }
    }

    /// Tells of every event behind the position. A failure leaves the position where it was, so
    /// that nothing is skipped; telling twice is harmless.
    async fn catch_up(&mut self, echoes: &mut Echoes) -> Result<(), StoreError> {
        loop {
            let events = self.told.store.feed_after(self.position).await?;
            let (Some(first), Some(last)) = (events.first(), events.last()) else {
                self.metrics.lag.set(0.0);
                return Ok(());
            };
            self.metrics.lag.set(since(first.at).as_secs_f64());
            for (id, news) in fold(&events) {
                if self.told.tell(id, news).await?
                    && let Some(echo) = self.echo
                {
                    echoes.put_off(id, echo);
                }
            }
            self.position = last.id;
        }
    }
}

impl Told {
    /// Tells of one environment's news. Answers whether there was a ping.
    async fn tell(&self, id: EnvironmentId, news: News) -> Result<bool, StoreError> {
        let is_new = !self.directory.holds(id);
        if (news.look_again || is_new) && !self.directory.refresh(&self.store, id).await? {
            self.flagsets.remove(id);
            self.hub.remove(id);
            return Ok(false);
        }
        let News { stamp: Some((stamp, committed_at)), urgent, .. } = news else {
            return Ok(false);
        };
        let Some(known) = self.directory.client_key(id) else {
            return Ok(false);
        };
        if known.kind == EnvironmentKind::Stored {
            self.flagsets.advance(id, stamp.revision).await?;
        }
        let spread_ms = if urgent { 0 } else { self.pings.spread_ms(self.hub.open(id)) };
        let ping = self.pings.ping(&known, stamp, spread_ms);
        let change = Change { committed_at, since_commit: since(committed_at), urgent };
        let pinged = self.hub.publish(id, ping, &change);
        if is_new {
            self.hub.welcome();
        }
        Ok(pinged)
    }
}

impl Echoes {
    fn put_off(&mut self, id: EnvironmentId, delay: Duration) {
        match self.keys.get(&id) {
            Some(key) => self.queue.reset(key, delay),
            None => {
                self.keys.insert(id, self.queue.insert(id, delay));
            }
        }
    }

    /// The next environment whose echo is due; nothing while none waits.
    async fn next(&mut self) -> Option<EnvironmentId> {
        let expired = self.queue.next().await?;
        let id = expired.into_inner();
        self.keys.remove(&id);
        Some(id)
    }
}

/// The news of each environment: of several states only the newest matters.
fn fold(events: &[FeedEvent]) -> BTreeMap<EnvironmentId, News> {
    let mut all = BTreeMap::<EnvironmentId, News>::new();
    for event in events {
        let Some(id) = event.environment_id else {
            continue;
        };
        let news = all.entry(id).or_default();
        news.urgent |= event.urgent;
        match event.stamp {
            Some(stamp) if news.stamp.is_none_or(|(known, _)| known.revision < stamp.revision) => {
                news.stamp = Some((stamp, event.at));
            }
            Some(_) => {}
            None => news.look_again = true,
        }
    }
    all
}

/// How long ago it was; nothing if the clock went back.
fn since(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(now_micros() - micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Revision, UpdatedAt};

    fn event(id: i64, environment: Option<i64>, revision: Option<u64>) -> FeedEvent {
        FeedEvent {
            id,
            environment_id: environment.map(EnvironmentId),
            stamp: revision.map(|revision| Stamp {
                revision: Revision(revision),
                updated_at: UpdatedAt::from_micros(id),
            }),
            at: id,
            urgent: id == 3,
        }
    }

    #[test]
    fn a_burst_folds_into_the_newest_state_of_each_environment() {
        let events = [
            event(1, Some(1), Some(5)),
            event(2, Some(2), Some(9)),
            event(3, Some(1), Some(6)),
            event(4, None, None),
            event(5, Some(2), None),
        ];
        let news = fold(&events);
        assert_eq!(news.len(), 2);
        let newest = |id: i64| news[&EnvironmentId(id)].stamp.map(|(stamp, _)| stamp.revision.0);
        assert_eq!((newest(1), newest(2)), (Some(6), Some(9)));
        assert!(news[&EnvironmentId(1)].urgent && !news[&EnvironmentId(2)].urgent);
        assert!(!news[&EnvironmentId(1)].look_again && news[&EnvironmentId(2)].look_again);
    }
}
