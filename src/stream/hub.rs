//! Holds the newest state of every environment and wakes the subscribers of a changed one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::watch;

use super::channel::{Changes, Channel};
use super::client::ClientFamily;
use super::manner::Manner;
use super::ping::Ping;
use super::seats::{Limits, Refusal, Seats};
use super::shards::Shards;
use crate::metrics::{StreamEnd, StreamMetrics};
use crate::model::{EnvironmentId, Revision, Stamp};

/// Longest wait of whoever made a change for its subscribers to be told.
const TOLD_TIMEOUT: Duration = Duration::from_secs(1);

/// The channels of this process, one for each environment. A clone is a handle to the same hub.
#[derive(Clone, Debug)]
pub struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    channels: DashMap<EnvironmentId, Arc<Channel>>,
    /// What strangers listen to: it never says anything.
    silence: Arc<Channel>,
    shards: Shards,
    common: Arc<Common>,
}

/// What all channels share.
#[derive(Debug)]
pub(super) struct Common {
    /// Counts environments that became known; strangers listen to it.
    arrivals: watch::Sender<u64>,
    /// Counts cuts of what caches share; streams that are bodies listen to it.
    pub(super) cuts: watch::Sender<u64>,
    seats: Seats,
    pub(super) metrics: StreamMetrics,
}

/// The change that a ping tells of.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// When it was committed, in microseconds since the epoch.
    pub committed_at: i64,
    /// How long ago that was.
    pub since_commit: Duration,
    /// It must not wait: `stream.pings_per_second_max` does not hold for it.
    pub urgent: bool,
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

/// One open stream's place in a channel. Dropping it frees the place. There are very many, so it is
/// small.
#[derive(Debug)]
pub struct Subscription {
    channel: Arc<Channel>,
    /// Known if addresses are counted.
    address: Option<Box<IpAddr>>,
    family: ClientFamily,
    manner: Manner,
    end: StreamEnd,
}

/// Who subscribes.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber {
    /// What kind of client it is.
    pub family: ClientFamily,
    /// Dialect and contract of its stream.
    pub manner: Manner,
    /// Where it comes from.
    pub address: IpAddr,
}

impl Subscription {
    fn new(channel: Arc<Channel>, subscriber: Subscriber) -> Result<Self, Refusal> {
        let Subscriber { family, manner, address } = subscriber;
        let Common { seats, metrics, .. } = &*channel.common;
        let address = seats
            .take(address, channel.seats())
            .inspect_err(|refusal| metrics.refused(refusal.0))?;
        channel.family(family).fetch_add(1, Ordering::Relaxed);
        channel.gauge(manner).increment(1.0);
        Ok(Self { channel, address, family, manner, end: StreamEnd::Client })
    }

    /// The channel that it listens to.
    pub(super) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Wakes at each change and each echo, for streams that are bodies.
    pub(super) fn changes(&self) -> Changes {
        self.channel.changes()
    }

    /// For a stranger: wakes when its key may have become known.
    pub(super) fn arrivals(&self) -> Option<watch::Receiver<u64>> {
        self.channel.id().is_none().then(|| self.channel.common.arrivals.subscribe())
    }

    /// Wakes when what caches share is to be cut.
    pub(super) fn cuts(&self) -> watch::Receiver<u64> {
        self.channel.common.cuts.subscribe()
    }

    /// What streams measure.
    pub(super) fn metrics(&self) -> &StreamMetrics {
        &self.channel.common.metrics
    }

    /// Dialect and contract of its stream.
    pub(super) fn manner(&self) -> Manner {
        self.manner
    }

    /// Says why it ends, unless the client just goes away.
    pub(super) fn ends(&mut self, end: StreamEnd) {
        self.end = end;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Self { channel, address, family, manner, end } = self;
        channel.common.metrics.ended(*end);
        channel.gauge(*manner).decrement(1.0);
        channel.family(*family).fetch_sub(1, Ordering::Relaxed);
        channel.common.seats.free(address.as_deref(), channel.seats());
    }
}

impl Hub {
    /// Makes a hub without channels; `shards` are told of what their streams should hear.
    #[must_use]
    pub fn new(limits: Limits, shards: Shards, metrics: StreamMetrics) -> Self {
        let (arrivals, cuts) = (watch::Sender::new(0), watch::Sender::new(0));
        let seats = Seats::new(limits);
        let common = Arc::new(Common { arrivals, cuts, seats, metrics });
        let silence = Arc::new(Channel::new(&common, None));
        let inner = Inner { channels: DashMap::new(), silence, shards, common };
        Self { inner: Arc::new(inner) }
    }

    /// Sets the state that streams begin with, without telling anybody: what was true at start.
    pub fn seed(&self, id: EnvironmentId, ping: Ping) {
        self.channel(id).set(ping, None);
    }

    /// Wakes the subscribers of an environment, unless `ping` is not newer than the last one.
    /// Tells whether it was.
    #[must_use]
    pub fn publish(&self, id: EnvironmentId, ping: Ping, change: &Change) -> bool {
        let metrics = &self.inner.common.metrics;
        let channel = self.channel(id);
        let streams = channel.open.load(Ordering::Relaxed);
        let Change { committed_at, since_commit, .. } = *change;
        let stamp = ping.stamp;
        let record = PingRecord { stamp, committed_at, change_to_ping: since_commit, streams };
        let is_newer = channel.set(ping, Some(record));
        if is_newer {
            channel.ring();
            metrics.pings.increment(1);
            metrics.change_to_ping.record(since_commit);
            self.inner.shards.tell(id, change, &metrics.fan_out);
        }
        is_newer
    }

    /// Says the newest state once more.
    pub fn echo(&self, id: EnvironmentId) {
        if let Some(channel) = self.inner.channels.get(&id).map(|channel| Arc::clone(&channel)) {
            channel.ring();
            self.inner.shards.echo(id);
            self.inner.common.metrics.echoes.increment(1);
        }
    }

    /// Ends the streams of an environment that is gone.
    pub fn remove(&self, id: EnvironmentId) {
        if let Some((_, channel)) = self.inner.channels.remove(&id) {
            channel.go();
            channel.ring();
            self.inner.shards.look(id);
        }
    }

    /// Joins the stream of an environment.
    pub fn subscribe(
        &self,
        id: EnvironmentId,
        subscriber: Subscriber,
    ) -> Result<Subscription, Refusal> {
        Subscription::new(self.channel(id), subscriber)
    }

    /// Takes a place for a stream whose key no environment has: it says nothing.
    pub fn subscribe_unknown(&self, subscriber: Subscriber) -> Result<Subscription, Refusal> {
        Subscription::new(Arc::clone(&self.inner.silence), subscriber)
    }

    /// Wakes the strangers: an environment became known that may be theirs.
    pub fn welcome(&self) {
        self.inner.common.arrivals.send_modify(|count| *count += 1);
        self.inner.shards.welcome();
    }

    /// Cuts the streams that caches share, so that they come back to a node that knows more. Direct ones
    /// go on: their clients would come back to where they were.
    pub fn cut_cached(&self) {
        self.inner.common.cuts.send_modify(|count| *count += 1);
        self.inner.shards.cut_cached();
    }

    /// Completes when the subscribers of an environment have been told of at least `revision`, or
    /// it is gone, or that took too long. Tells whether it did not: the change is committed and
    /// will be told; only reading it back at once may be a moment early.
    pub async fn told(&self, id: EnvironmentId, revision: Revision) -> bool {
        let told = tokio::time::timeout(TOLD_TIMEOUT, self.reached(id, revision)).await.is_ok();
        if !told {
            tracing::warn!(
                "a change is committed, but not told yet; the change feed or a purge is behind"
            );
        }
        told
    }

    async fn reached(&self, id: EnvironmentId, revision: Revision) {
        let mut changes = self.channel(id).changes();
        loop {
            let newest = changes.newest();
            // That the environment is gone is an answer, too.
            if newest.gone || newest.ping.is_some_and(|ping| ping.stamp.revision >= revision) {
                return;
            }
            changes.changed().await;
        }
    }

    /// How many streams of an environment are open.
    #[must_use]
    pub fn open(&self, id: EnvironmentId) -> usize {
        self.inner.channels.get(&id).map_or(0, |channel| channel.open.load(Ordering::Relaxed))
    }

    /// Open streams of an environment, by family, without those that have none.
    #[must_use]
    pub fn listeners(&self, id: EnvironmentId) -> Vec<(ClientFamily, usize)> {
        let Some(channel) = self.inner.channels.get(&id) else {
            return Vec::new();
        };
        let count = |family: ClientFamily| {
            let open = channel.family(family).load(Ordering::Relaxed);
            usize::try_from(open).unwrap_or(usize::MAX)
        };
        ClientFamily::ALL
            .into_iter()
            .map(|family| (family, count(family)))
            .filter(|(_, open)| *open > 0)
            .collect()
    }

    /// The last pings of an environment, newest first.
    #[must_use]
    pub fn recent(&self, id: EnvironmentId) -> Vec<PingRecord> {
        self.inner.channels.get(&id).map(|channel| channel.recent()).unwrap_or_default()
    }

    /// Cloned out of the map: waking many subscribers must not hold a lock of it.
    fn channel(&self, id: EnvironmentId) -> Arc<Channel> {
        let channel = || Arc::new(Channel::new(&self.inner.common, Some(id)));
        Arc::clone(&self.inner.channels.entry(id).or_insert_with(channel))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::model::UpdatedAt;
    use crate::stream::channel::RECENT_MAX;
    use crate::stream::manner::{Contract, Dialect};

    pub(in crate::stream) const STAGING: EnvironmentId = EnvironmentId(1);
    const PRODUCTION: EnvironmentId = EnvironmentId(2);
    pub(in crate::stream) const DIRECT: Manner =
        Manner { dialect: Dialect::Flagsmith, contract: Contract::Direct };
    pub(in crate::stream) const CACHED: Manner = Manner { contract: Contract::Cached, ..DIRECT };
    pub(in crate::stream) const SUBSCRIBER: Subscriber = Subscriber {
        family: ClientFamily::Curl,
        manner: DIRECT,
        address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    };

    pub(in crate::stream) fn hub() -> Hub {
        let limits = Limits { total: 0, per_environment: 1, per_address: 0, unknown: 1 };
        Hub::new(limits, Shards::default(), Metrics::new().stream())
    }

    pub(in crate::stream) fn publish(hub: &Hub, id: EnvironmentId, revision: u64) -> bool {
        let stamp = Stamp { revision: Revision(revision), updated_at: UpdatedAt::from_micros(0) };
        let ping = Ping::saying(stamp, &format!("ping {revision}"));
        let change = Change { committed_at: 0, since_commit: Duration::ZERO, urgent: false };
        hub.publish(id, ping, &change)
    }

    pub(in crate::stream) fn subscribe(hub: &Hub) -> Result<Subscription, Refusal> {
        hub.subscribe(STAGING, SUBSCRIBER)
    }

    fn newest(subscription: &Subscription) -> u64 {
        subscription.channel().newest().ping.map_or(0, |ping| ping.stamp.revision.0)
    }

    #[test]
    fn an_older_revision_wakes_nobody() {
        let hub = hub();
        let subscription = subscribe(&hub).unwrap();
        assert!(publish(&hub, STAGING, 7));
        let mut changes = subscription.changes();
        assert!(!publish(&hub, STAGING, 6) && !publish(&hub, STAGING, 7));
        assert!(!changes.hear());
        assert_eq!(newest(&subscription), 7);
    }

    #[test]
    fn another_environment_wakes_nobody() {
        let hub = hub();
        let mut changes = subscribe(&hub).unwrap().changes();
        publish(&hub, PRODUCTION, 1);
        assert!(!changes.hear());
    }

    #[test]
    fn an_echo_wakes_with_the_same_state() {
        let hub = hub();
        publish(&hub, STAGING, 3);
        let subscription = subscribe(&hub).unwrap();
        let mut changes = subscription.changes();
        hub.echo(STAGING);
        assert!(changes.hear() && !changes.hear());
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
    fn a_subscription_is_small() {
        assert!(size_of::<Subscription>() <= 24, "{}", size_of::<Subscription>());
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
