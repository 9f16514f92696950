//! Holds the newest state of every environment and wakes the subscribers of a changed one.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::watch;

use super::client::ClientFamily;
use super::seats::{Limits, Refusal, Seat, Seats};
use crate::metrics::{GaugeGuard, StreamMetrics};
use crate::model::{EnvironmentId, Revision, Stamp};

/// Pings that are remembered for people to look at.
const RECENT_MAX: usize = 20;

/// Longest wait of whoever made a change for its subscribers to be told.
const TOLD_TIMEOUT: Duration = Duration::from_secs(1);

/// The channels of this process, one for each environment. A clone is a handle to the same hub.
#[derive(Clone, Debug)]
pub struct Hub {
    channels: Arc<DashMap<EnvironmentId, Arc<Channel>>>,
    /// Counts environments that became known; strangers listen to it.
    arrivals: watch::Sender<u64>,
    seats: Arc<Seats>,
    metrics: StreamMetrics,
}

/// What the streams of an environment say now.
#[derive(Clone, Debug, Default)]
pub(super) struct Newest {
    /// The state and its frame, encoded once; nothing before the first.
    pub(super) ping: Option<(Stamp, Bytes)>,
    /// The environment is gone: streams end.
    pub(super) gone: bool,
}

#[derive(Debug)]
struct Channel {
    newest: watch::Sender<Newest>,
    open: Arc<AtomicUsize>,
    families: [AtomicUsize; ClientFamily::ALL.len()],
    recent: Mutex<VecDeque<PingRecord>>,
}

/// A ping that was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PingRecord {
    /// The state it told of.
    pub stamp: Stamp,
    /// When the change was committed, in microseconds since the epoch.
    pub committed_at: i64,
    /// From then to the ping.
    pub change_to_ping: Duration,
    /// Streams that were open.
    pub streams: usize,
}

/// One open stream's place in a channel. Dropping it frees the place.
#[derive(Debug)]
pub struct Subscription {
    pub(super) newest: watch::Receiver<Newest>,
    pub(super) metrics: StreamMetrics,
    /// Why it ends, unless the client just went away.
    pub(super) end_reason: &'static str,
    /// For a stranger: wakes when its key may have become known.
    pub(super) arrivals: Option<watch::Receiver<u64>>,
    channel: Option<(Arc<Channel>, ClientFamily)>,
    _open: GaugeGuard,
    _seat: Seat,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            newest: watch::Sender::new(Newest::default()),
            open: Arc::default(),
            families: Default::default(),
            recent: Mutex::default(),
        }
    }
}

impl Channel {
    fn remember(&self, record: PingRecord) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.truncate(RECENT_MAX - 1);
        recent.push_front(record);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.metrics.ended(self.end_reason);
        if let Some((channel, family)) = &self.channel {
            channel.families[family.index()].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Hub {
    /// Makes a hub without channels.
    #[must_use]
    pub fn new(limits: Limits, metrics: StreamMetrics) -> Self {
        Self {
            channels: Arc::default(),
            arrivals: watch::Sender::new(0),
            seats: Seats::new(limits),
            metrics,
        }
    }

    /// Sets the state that streams begin with, without telling anybody: what was true at start.
    pub fn seed(&self, id: EnvironmentId, stamp: Stamp, frame: Bytes) {
        self.channel(id).newest.send_replace(Newest { ping: Some((stamp, frame)), gone: false });
    }

    /// Wakes the subscribers of an environment, unless `stamp` is not newer than the last one.
    /// Tells whether it was. `since_commit` is how long ago the change was committed.
    pub fn publish(
        &self,
        id: EnvironmentId,
        (stamp, frame): (Stamp, Bytes),
        committed_at: i64,
        since_commit: Duration,
    ) -> bool {
        let channel = self.channel(id);
        let streams = channel.open.load(Ordering::Relaxed);
        let record = PingRecord { stamp, committed_at, change_to_ping: since_commit, streams };
        let is_newer = channel.newest.send_if_modified(|newest| {
            let known = newest.ping.as_ref().map(|(known, _)| known.revision);
            let is_newer = known < Some(stamp.revision);
            if is_newer {
                // Before anybody wakes: who was told may look it up.
                channel.remember(record);
                newest.ping = Some((stamp, frame));
            }
            is_newer
        });
        if is_newer {
            self.metrics.pings.increment(1);
            self.metrics.change_to_ping.record(since_commit);
        }
        is_newer
    }

    /// Says the newest state once more.
    pub fn echo(&self, id: EnvironmentId) {
        if let Some(channel) = self.channels.get(&id).map(|channel| Arc::clone(&channel)) {
            // `send_modify` wakes although nothing is modified: that is the echo.
            channel.newest.send_modify(|_| {});
            self.metrics.echoes.increment(1);
        }
    }

    /// Ends the streams of an environment that is gone.
    pub fn remove(&self, id: EnvironmentId) {
        if let Some((_, channel)) = self.channels.remove(&id) {
            channel.newest.send_modify(|newest| newest.gone = true);
        }
    }

    /// Joins the stream of an environment.
    pub fn subscribe(
        &self,
        id: EnvironmentId,
        family: ClientFamily,
        address: IpAddr,
    ) -> Result<Subscription, Refusal> {
        let channel = self.channel(id);
        let seat = self.take_seat(address, Some(Arc::clone(&channel.open)))?;
        channel.families[family.index()].fetch_add(1, Ordering::Relaxed);
        Ok(Subscription {
            newest: channel.newest.subscribe(),
            metrics: self.metrics.clone(),
            end_reason: "client",
            arrivals: None,
            channel: Some((channel, family)),
            _open: self.metrics.open("flagsmith", "direct"),
            _seat: seat,
        })
    }

    /// Takes a place for a stream whose key no environment has: it says nothing.
    pub fn subscribe_unknown(&self, address: IpAddr) -> Result<Subscription, Refusal> {
        let seat = self.take_seat(address, None)?;
        Ok(Subscription {
            newest: watch::channel(Newest::default()).1,
            metrics: self.metrics.clone(),
            end_reason: "client",
            arrivals: Some(self.arrivals.subscribe()),
            channel: None,
            _open: self.metrics.open("flagsmith", "unknown"),
            _seat: seat,
        })
    }

    /// Wakes the strangers: an environment became known that may be theirs.
    pub fn welcome(&self) {
        self.arrivals.send_modify(|count| *count += 1);
    }

    /// Completes when the subscribers of an environment have been told of at least `revision`, or
    /// it is gone, or that took too long. Tells whether it did not: the change is committed and
    /// will be told; only reading it back at once may be a moment early.
    pub async fn told(&self, id: EnvironmentId, revision: Revision) -> bool {
        let told = tokio::time::timeout(TOLD_TIMEOUT, self.reached(id, revision)).await.is_ok();
        if !told {
            tracing::warn!("a change is committed, but not told yet; the change feed is behind");
        }
        told
    }

    async fn reached(&self, id: EnvironmentId, revision: Revision) {
        let mut newest = self.channel(id).newest.subscribe();
        let told = |newest: &Newest| {
            newest.gone || newest.ping.as_ref().is_some_and(|(s, _)| s.revision >= revision)
        };
        // The channel's end means that the environment is gone, which is an answer too.
        drop(newest.wait_for(told).await);
    }

    /// Open streams of an environment, by family, without those that have none.
    #[must_use]
    pub fn listeners(&self, id: EnvironmentId) -> Vec<(ClientFamily, usize)> {
        let Some(channel) = self.channels.get(&id) else {
            return Vec::new();
        };
        let count = |family: ClientFamily| channel.families[family.index()].load(Ordering::Relaxed);
        ClientFamily::ALL
            .into_iter()
            .map(|family| (family, count(family)))
            .filter(|(_, open)| *open > 0)
            .collect()
    }

    /// The last pings of an environment, newest first.
    #[must_use]
    pub fn recent(&self, id: EnvironmentId) -> Vec<PingRecord> {
        let Some(channel) = self.channels.get(&id) else {
            return Vec::new();
        };
        let recent = channel.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().copied().collect()
    }

    /// Cloned out of the map: waking many subscribers must not hold a lock of it.
    fn channel(&self, id: EnvironmentId) -> Arc<Channel> {
        Arc::clone(&self.channels.entry(id).or_default())
    }

    fn take_seat(
        &self,
        address: IpAddr,
        environment: Option<Arc<AtomicUsize>>,
    ) -> Result<Seat, Refusal> {
        self.seats.take(address, environment).inspect_err(|refusal| self.metrics.refused(refusal.0))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::model::UpdatedAt;

    pub(in crate::stream) const STAGING: EnvironmentId = EnvironmentId(1);
    const PRODUCTION: EnvironmentId = EnvironmentId(2);
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    pub(in crate::stream) fn hub() -> Hub {
        let limits = Limits { total: 0, per_environment: 1, per_address: 0, unknown: 1 };
        Hub::new(limits, Metrics::new().stream())
    }

    pub(in crate::stream) fn publish(hub: &Hub, id: EnvironmentId, revision: u64) -> bool {
        let stamp = Stamp { revision: Revision(revision), updated_at: UpdatedAt::from_micros(0) };
        let frame = Bytes::from(format!("ping {revision}"));
        hub.publish(id, (stamp, frame), 0, Duration::ZERO)
    }

    pub(in crate::stream) fn subscribe(hub: &Hub) -> Result<Subscription, Refusal> {
        hub.subscribe(STAGING, ClientFamily::Curl, HERE)
    }

    fn newest(subscription: &Subscription) -> u64 {
        let newest = subscription.newest.borrow();
        newest.ping.as_ref().map_or(0, |(stamp, _)| stamp.revision.0)
    }

    #[test]
    fn an_older_revision_wakes_nobody() {
        let hub = hub();
        let mut subscription = subscribe(&hub).unwrap();
        assert!(publish(&hub, STAGING, 7));
        subscription.newest.mark_unchanged();
        assert!(!publish(&hub, STAGING, 6) && !publish(&hub, STAGING, 7));
        assert!(!subscription.newest.has_changed().unwrap());
        assert_eq!(newest(&subscription), 7);
    }

    #[test]
    fn another_environment_wakes_nobody() {
        let hub = hub();
        let subscription = subscribe(&hub).unwrap();
        publish(&hub, PRODUCTION, 1);
        assert!(!subscription.newest.has_changed().unwrap());
    }

    #[test]
    fn an_echo_wakes_with_the_same_state() {
        let hub = hub();
        publish(&hub, STAGING, 3);
        let mut subscription = subscribe(&hub).unwrap();
        subscription.newest.mark_unchanged();
        hub.echo(STAGING);
        assert!(subscription.newest.has_changed().unwrap());
        assert_eq!(newest(&subscription), 3);
    }

    #[test]
    fn listeners_are_counted_while_they_listen() {
        let hub = hub();
        let subscription = subscribe(&hub).unwrap();
        assert!(subscribe(&hub).is_err());
        assert_eq!(hub.listeners(STAGING), [(ClientFamily::Curl, 1)]);
        drop(subscription);
        assert_eq!(hub.listeners(STAGING), []);
        assert!(subscribe(&hub).is_ok());
    }

    #[test]
    fn recent_pings_are_bounded() {
        let hub = hub();
        for revision in 1..=30 {
            publish(&hub, STAGING, revision);
        }
        let recent = hub.recent(STAGING);
        assert_eq!((recent.len(), recent[0].stamp.revision.0), (RECENT_MAX, 30));
    }
}
