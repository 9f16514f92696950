//! Those who are told of a change, in their order: who serves, the caches in front, who listens.
//!
//! Whoever learns of changes tells them here: the change feed of a gateway, the links of a relay.

use std::sync::Arc;
use std::time::Duration;

use crate::cdn::{Flip, Flips, Purger};
use crate::config;
use crate::flagset::{Directory, FlagSets, Known};
use crate::model::{EnvironmentId, EnvironmentKind, Stamp};
use crate::store::{DirectoryEntry, StoreError, now_micros};
use crate::stream::{Change, Hub, Ping, PingFacts, PingStyle};

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
}

/// A newer state of an environment.
#[derive(Clone, Copy, Debug)]
pub struct News {
    /// The state.
    pub stamp: Stamp,
    /// When it was committed, in microseconds since the epoch.
    pub committed_at: i64,
    /// The change must not wait.
    pub urgent: bool,
    /// The environment was not known before: strangers may wait for it.
    pub is_new: bool,
}

/// A change that every read answers with, and that nobody who listens knows of yet.
#[derive(Debug)]
pub struct Due {
    id: EnvironmentId,
    known: Known,
    news: News,
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

impl Told {
    /// Takes an environment in as it is now, without telling anybody.
    pub fn seed(&self, entry: &DirectoryEntry) {
        let (id, stamp) = (entry.environment.id, entry.environment.stamp);
        self.directory.insert(entry);
        if let Some(known) = self.directory.client_key(id) {
            self.hub.seed(id, self.pings.ping(&known, stamp, 0));
        }
    }

    /// Brings what is served up to date. Answers with what is to be told to those who listen.
    pub async fn serve(&self, id: EnvironmentId, news: News) -> Result<Option<Due>, StoreError> {
        let Some(known) = self.directory.client_key(id) else {
            return Ok(None);
        };
        if known.kind == EnvironmentKind::Stored {
            self.flagsets.advance(id, news.stamp.revision).await?;
        }
        Ok(Some(Due { id, known, news }))
    }

    /// Forgets an environment that is gone.
    pub fn forget(&self, id: EnvironmentId) {
        self.directory.remove(id);
        self.flagsets.remove(id);
        self.hub.remove(id);
    }

    /// Makes caches forget what a change has made old; there is nothing to forget of an environment
    /// whose flags are not here. Returns within the purge's bound.
    async fn purge(&self, known: &Known) {
        if let Some(purger) = &self.purger
            && known.kind == EnvironmentKind::Stored
        {
            purger.purge(&known.client_key).await;
        }
    }

    /// Tells those who listen. Answers with the environment if that was news.
    #[must_use = "who was told needs an echo"]
    pub fn ping(&self, due: &Due) -> Option<EnvironmentId> {
        let Due { id, known, news: News { stamp, committed_at, urgent, is_new } } = due;
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
    pub async fn purge_and_ping(self: Arc<Self>, due: Due) -> Option<EnvironmentId> {
        self.purge(&due.known).await;
        self.ping(&due)
    }

    /// Purges, then says the newest state once more: a cache that filled itself from one that was
    /// purged later is put right before clients read again.
    pub async fn purge_and_echo(self: Arc<Self>, id: EnvironmentId) {
        if let Some(known) = self.directory.client_key(id) {
            self.purge(&known).await;
        }
        self.hub.echo(id);
    }
}

/// How long ago it was; nothing if the clock went back.
#[must_use]
pub fn since(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(now_micros() - micros).unwrap_or(0))
}
