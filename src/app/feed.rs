//! The change feed: reads committed changes and tells those who serve and those who listen.
//!
//! For each change, in this order: the new flag set answers every read, caches have forgotten the old
//! one if the settings want that, then the ping leaves, then, a little later, its echo. A purge takes
//! its time beside the feed: it holds up the pings of its own change only. Wake, then poll: a commit of this process wakes the feed at once, and a
//! slow poll finds what another process committed or what a lost wake-up would have hidden. Where nodes
//! share the store, a listener wakes the feed at the commits of the others. A database that is another one
//! than before is looked at anew, as at the start.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key as DelayKey;

use crate::config::Settings;
use crate::metrics::FeedMetrics;
use crate::model::{EnvironmentId, Stamp};
use crate::shutdown::Shutdown;
use crate::store::{FeedEvent, FeedNews, FeedPosition, Store, StoreError, in_time, now_micros};
use crate::told::{self, Due, Told, since};
use crate::webhook::WorkerHandle;

/// Rest after a failed read of the store.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Longest wait for the store's answer: a network that is cut says nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The change feed of a process.
#[derive(Debug)]
pub struct Feed {
    store: Store,
    told: Arc<Told>,
    /// Sends what webhooks are owed.
    webhooks: WorkerHandle,
    /// Behind the last event that was told.
    position: FeedPosition,
    /// Whether the store counts as lost, so that it is said once.
    lost: bool,
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

impl Feed {
    /// Fills the directory and the hub with what is true now. The position is taken before: what is
    /// committed in between is read twice rather than missed.
    pub async fn start(
        store: Store,
        told: Told,
        webhooks: WorkerHandle,
        settings: &Settings,
        metrics: FeedMetrics,
    ) -> Result<Self, StoreError> {
        let position = store.feed_end().await?;
        for entry in store.directory().await? {
            told.seed(&entry);
        }
        let echo = Duration::from_secs(settings.stream.echo_seconds);
        Ok(Self {
            store,
            told: Arc::new(told),
            webhooks,
            position,
            lost: false,
            poll: Duration::from_millis(settings.store.poll_ms),
            echo: (!echo.is_zero()).then_some(echo),
            metrics,
        })
    }

    /// Follows the feed until the stop.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut echoes = Echoes::default();
        let mut pinging = Pinging::new();
        let store = self.store.clone();
        let failures = self.metrics.listener_errors.clone();
        let mut listening = pin!(store.listen(|error| {
            failures.increment(1);
            tracing::warn!(%error, "cannot hear of other nodes' changes; polling finds them");
        }));
        let mut next_poll = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.stopped() => return,
                () = &mut listening => {}
                () = store.committed() => {}
                () = tokio::time::sleep_until(next_poll) => {}
                Some(id) = echoes.next() => {
                    self.echo(id, &mut pinging);
                    continue;
                }
                Some(pinged) = pinging.join_next() => {
                    self.put_off_echo(pinged.ok().flatten(), &mut echoes);
                    continue;
                }
            }
            next_poll = Instant::now() + self.poll;
            match self.catch_up(&mut echoes, &mut pinging).await {
                Ok(()) => self.store_answers(),
                Err(error) => {
                    self.store_is_silent(&error);
                    next_poll = Instant::now() + RETRY_PAUSE;
                }
            }
        }
    }

    fn store_answers(&mut self) {
        self.store.answered();
        self.metrics.silence.set(0.0);
        if std::mem::take(&mut self.lost) {
            tracing::info!("the store answers again");
        }
    }

    fn store_is_silent(&mut self, error: &StoreError) {
        let store = &self.store;
        store.failed();
        self.metrics.errors.increment(1);
        self.metrics.silence.set(store.silent_for().unwrap_or_default().as_secs_f64());
        tracing::warn!(%error, "the change feed cannot read the store; it tries again");
        if store.is_lost() && !self.lost {
            self.lost = true;
            tracing::error!("the store is lost: not ready, and caches are sent to other nodes");
            self.told.hub.cut_cached();
        }
    }

    /// Tells of every event behind the position. A failure leaves the position where it was, so
    /// that nothing is skipped; telling twice is harmless.
    async fn catch_up(
        &mut self,
        echoes: &mut Echoes,
        pinging: &mut Pinging,
    ) -> Result<(), StoreError> {
        loop {
            let news = in_time(READ_TIMEOUT, self.store.feed_after(&self.position)).await?;
            let FeedNews::Events(events, position) = news else {
                self.look_at_everything(echoes, pinging).await?;
                continue;
            };
            let Some(first) = events.first() else {
                self.position = position;
                self.metrics.lag.set(0.0);
                return Ok(());
            };
            self.metrics.lag.set(since(first.at).as_secs_f64());
            for (id, news) in fold(&events) {
                self.tell(id, news, echoes, pinging).await?;
            }
            self.position = position;
            // Behind the pings: who listens comes before who is called.
            self.webhooks.wake();
        }
    }

    async fn tell(
        &self,
        id: EnvironmentId,
        news: News,
        echoes: &mut Echoes,
        pinging: &mut Pinging,
    ) -> Result<(), StoreError> {
        let Some(due) = in_time(READ_TIMEOUT, self.serve(id, news)).await? else {
            return Ok(());
        };
        if self.told.purger.is_none() {
            self.put_off_echo(self.told.ping(&due), echoes);
        } else {
            // Pings that overtake each other are no harm: an older one tells nobody.
            pinging.spawn(Arc::clone(&self.told).purge_and_ping(due));
        }
        Ok(())
    }

    /// Brings what is served up to date. Answers with what is to be told to those who listen.
    async fn serve(&self, id: EnvironmentId, news: News) -> Result<Option<Due>, StoreError> {
        let is_new = !self.told.directory.holds(id);
        if news.look_again || is_new {
            let Some(entry) = self.store.directory_entry(id).await? else {
                self.told.forget(id);
                return Ok(None);
            };
            self.told.directory.insert(&entry);
        }
        let News { stamp: Some((stamp, committed_at)), urgent, .. } = news else {
            return Ok(None);
        };
        self.told.serve(id, told::News { stamp, committed_at, urgent, is_new }).await
    }

    /// The database is another one than before. What it holds now is told; what it does not hold any
    /// more is gone.
    async fn look_at_everything(
        &mut self,
        echoes: &mut Echoes,
        pinging: &mut Pinging,
    ) -> Result<(), StoreError> {
        let store = &self.store;
        let position = in_time(READ_TIMEOUT, store.feed_end()).await?;
        let entries = in_time(READ_TIMEOUT, store.directory()).await?;
        let mut gone: BTreeSet<EnvironmentId> = self.told.directory.ids().into_iter().collect();
        for entry in &entries {
            let environment = &entry.environment;
            let known = self.told.directory.client_key(environment.id);
            // A number that is another environment's now would show it the flags of the old one.
            if known.is_none_or(|known| known.client_key == environment.client_key) {
                gone.remove(&environment.id);
            }
        }
        for id in gone {
            self.told.forget(id);
        }
        let now = now_micros();
        for entry in &entries {
            let is_new = !self.told.directory.holds(entry.environment.id);
            self.told.directory.insert(entry);
            if is_new {
                self.told.hub.welcome();
            }
            let news = News { stamp: Some((entry.environment.stamp, now)), ..News::default() };
            self.tell(entry.environment.id, news, echoes, pinging).await?;
        }
        self.position = position;
        Ok(())
    }

    fn put_off_echo(&self, pinged: Option<EnvironmentId>, echoes: &mut Echoes) {
        if let (Some(id), Some(echo)) = (pinged, self.echo) {
            echoes.put_off(id, echo);
        }
    }

    fn echo(&self, id: EnvironmentId, pinging: &mut Pinging) {
        if self.told.purger.is_none() {
            self.told.hub.echo(id);
        } else {
            let told = Arc::clone(&self.told);
            pinging.spawn(async move {
                told.purge_and_echo(id).await;
                None
            });
        }
    }
}

/// Pings that wait for their purge; each tells in the end whose echo is to follow.
type Pinging = JoinSet<Option<EnvironmentId>>;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Revision, Stamp, UpdatedAt};

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
