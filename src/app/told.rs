//! Those who are told of a change, in their order: who serves, the caches in front, who listens.

use std::sync::Arc;
use std::time::Duration;

use crate::cdn::{Flip, Flips, Purger};
use crate::config;
use crate::flagset::{Directory, FlagSets, Known};
use crate::model::{ClientKey, EnvironmentId, EnvironmentKind, Stamp};
use crate::store::{Store, StoreError, now_micros};
use crate::stream::{Change, Hub, Ping, PingFacts, PingStyle};
use crate::webhook::WorkerHandle;

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
    /// Makes caches forget; nothing when there is nothing to forget.
    pub purger: Option<Purger>,
    /// Where the canary learns of changes.
    pub flips: Flips,
    /// How a ping looks.
    pub pings: Pings,
    /// Sends what webhooks are owed.
    pub webhooks: WorkerHandle,
}

/// What a batch of events says of one environment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct News {
    /// The newest state and when it was committed.
    pub(super) stamp: Option<(Stamp, i64)>,
    /// One of the changes must not wait.
    pub(super) urgent: bool,
    /// Something about it changed that no flag set shows: its keys, or it is gone.
    pub(super) look_again: bool,
}

/// A change that every read answers with, and that nobody who listens knows of yet.
#[derive(Debug)]
pub(super) struct Due {
    id: EnvironmentId,
    known: Known,
    stamp: Stamp,
    committed_at: i64,
    urgent: bool,
    /// The environment was not known before: strangers may wait for it.
    is_new: bool,
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
    pub(super) fn ping(&self, known: &Known, stamp: Stamp, spread_ms: u64) -> Ping {
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

/// The environments that changed last, newest first, as far as their flags are here.
pub async fn changed_last(store: &Store, count: usize) -> Result<Vec<ClientKey>, StoreError> {
    let mut all: Vec<_> =
        store.directory().await?.into_iter().map(|entry| entry.environment).collect();
    all.retain(|environment| environment.kind == EnvironmentKind::Stored);
    all.sort_by_key(|environment| std::cmp::Reverse(environment.stamp.updated_at));
    Ok(all.into_iter().take(count).map(|environment| environment.client_key).collect())
}

impl Told {
    /// Brings what is served up to date. Answers with what is to be told to those who listen.
    pub(super) async fn serve(
        &self,
        id: EnvironmentId,
        news: News,
    ) -> Result<Option<Due>, StoreError> {
        let is_new = !self.directory.holds(id);
        if (news.look_again || is_new) && !self.directory.refresh(&self.store, id).await? {
            self.forget(id);
            return Ok(None);
        }
        let News { stamp: Some((stamp, committed_at)), urgent, .. } = news else {
            return Ok(None);
        };
        let Some(known) = self.directory.client_key(id) else {
            return Ok(None);
        };
        if known.kind == EnvironmentKind::Stored {
            self.flagsets.advance(id, stamp.revision).await?;
        }
        Ok(Some(Due { id, known, stamp, committed_at, urgent, is_new }))
    }

    /// Forgets an environment that is gone.
    pub(super) fn forget(&self, id: EnvironmentId) {
        self.directory.remove(id);
        self.flagsets.remove(id);
        self.hub.remove(id);
    }

    /// Makes caches forget what a change has made old; there is nothing to forget of an environment
    /// whose flags are not here. Returns within the purge's bound.
    pub(super) async fn purge(&self, known: &Known) {
        if let Some(purger) = &self.purger
            && known.kind == EnvironmentKind::Stored
        {
            purger.purge(&known.client_key).await;
        }
    }

    /// Tells those who listen. Answers with the environment if that was news.
    pub(super) fn ping(&self, due: &Due) -> Option<EnvironmentId> {
        let Due { id, known, stamp, committed_at, urgent, is_new } = due;
        let spread_ms = if *urgent { 0 } else { self.pings.spread_ms(self.hub.open(*id)) };
        let ping = self.pings.ping(known, *stamp, spread_ms);
        let since_commit = since(*committed_at);
        let change = Change { committed_at: *committed_at, since_commit, urgent: *urgent };
        let pinged = self.hub.publish(*id, ping, &change);
        if pinged && known.kind == EnvironmentKind::Stored {
            let (client_key, revision) = (known.client_key.clone(), stamp.revision);
            self.flips.tell(Flip { client_key, revision, since_commit: since(*committed_at) });
        }
        if *is_new {
            self.hub.welcome();
        }
        pinged.then_some(*id)
    }

    /// Purges, then tells.
    pub(super) async fn purge_and_ping(self: Arc<Self>, due: Due) -> Option<EnvironmentId> {
        self.purge(&due.known).await;
        self.ping(&due)
    }

    /// Purges, then says the newest state once more: a cache that filled itself from one that was
    /// purged later is put right before clients read again.
    pub(super) async fn purge_and_echo(self: Arc<Self>, id: EnvironmentId) {
        if let Some(known) = self.directory.client_key(id) {
            self.purge(&known).await;
        }
        self.hub.echo(id);
    }
}

/// How long ago it was; nothing if the clock went back.
pub(super) fn since(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(now_micros() - micros).unwrap_or(0))
}
