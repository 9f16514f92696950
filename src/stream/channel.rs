//! The newest state of one environment, and a bell for the streams that are tasks.
//!
//! `tokio::sync::watch` does this, too, in four times the memory; there is a channel for every
//! environment, and nearly all of them are idle.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::Gauge;
use tokio::sync::Notify;

use super::client::ClientFamily;
use super::hub::{Common, PingRecord};
use super::manner::Manner;
use super::ping::Ping;
use crate::model::EnvironmentId;

/// Pings that are remembered for people to look at.
pub(super) const RECENT_MAX: usize = 20;

/// What the streams of an environment say now.
#[derive(Clone, Debug, Default)]
pub(super) struct Newest {
    /// The state and its frames; nothing before the first.
    pub(super) ping: Option<Ping>,
    /// The environment is gone: streams end.
    pub(super) gone: bool,
}

/// The channel of an environment, or the one of all strangers, which never says anything.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) common: Arc<Common>,
    /// Nothing for the channel of strangers.
    id: Option<EnvironmentId>,
    newest: Mutex<Newest>,
    /// Counts rings of the bell.
    rings: AtomicU64,
    bell: Notify,
    pub(super) open: AtomicUsize,
    families: [AtomicU32; ClientFamily::ALL.len()],
    recent: Mutex<VecDeque<PingRecord>>,
}

/// Hears each ring of a channel's bell, several at once as one.
#[derive(Debug)]
pub(super) struct Changes {
    channel: Arc<Channel>,
    heard: u64,
}

impl Channel {
    pub(super) fn new(common: &Arc<Common>, id: Option<EnvironmentId>) -> Self {
        Self {
            common: Arc::clone(common),
            id,
            newest: Mutex::default(),
            rings: AtomicU64::default(),
            bell: Notify::const_new(),
            open: AtomicUsize::default(),
            families: Default::default(),
            recent: Mutex::default(),
        }
    }

    /// The environment; nothing for strangers.
    pub(super) fn id(&self) -> Option<EnvironmentId> {
        self.id
    }

    /// What its streams say now.
    pub(super) fn newest(&self) -> Newest {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets what its streams say, unless it is older than what they say already. Tells whether it
    /// was newer. `remembered` is for people, before anybody is told: who was told may look it up.
    pub(super) fn set(&self, ping: Ping, remembered: Option<PingRecord>) -> bool {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = newest.ping.as_ref().map(|known| known.stamp.revision);
        if known >= Some(ping.stamp.revision) {
            return false;
        }
        if let Some(record) = remembered {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.truncate(RECENT_MAX - 1);
            // One by one: most environments hardly ever change.
            recent.reserve_exact(1);
            recent.push_front(record);
        }
        newest.ping = Some(ping);
        true
    }

    /// Lets all its streams end.
    pub(super) fn go(&self) {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).gone = true;
    }

    /// Wakes the streams that are tasks.
    pub(super) fn ring(&self) {
        self.rings.fetch_add(1, Ordering::Release);
        self.bell.notify_waiters();
    }

    /// Hears every ring from now on.
    pub(super) fn changes(self: &Arc<Self>) -> Changes {
        Changes { channel: Arc::clone(self), heard: self.rings.load(Ordering::Acquire) }
    }

    fn has_rung(&self, heard: &mut u64) -> bool {
        let rings = self.rings.load(Ordering::Acquire);
        std::mem::replace(heard, rings) != rings
    }

    /// The last pings, newest first.
    pub(super) fn recent(&self) -> Vec<PingRecord> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().copied().collect()
    }

    /// The count that a stream of it is part of; those of strangers are counted elsewhere.
    pub(super) fn seats(&self) -> Option<&AtomicUsize> {
        self.id.map(|_| &self.open)
    }

    pub(super) fn family(&self, family: ClientFamily) -> &AtomicU32 {
        &self.families[family.index()]
    }

    pub(super) fn gauge(&self, manner: Manner) -> &Gauge {
        let open = &self.common.metrics.open[manner.dialect as usize];
        if self.id.is_some() { &open.known[manner.contract as usize] } else { &open.unknown }
    }
}

impl Changes {
    /// Completes at the next ring, or at once if there was one since the last time.
    pub(super) async fn changed(&mut self) {
        let Self { channel, heard } = self;
        loop {
            let mut ring = pin!(channel.bell.notified());
            // Listening first, then looking: a ring in between is heard.
            ring.as_mut().enable();
            if channel.has_rung(heard) {
                return;
            }
            ring.await;
        }
    }

    /// Hears what has rung. Tells whether something had.
    #[cfg(test)]
    pub(super) fn hear(&mut self) -> bool {
        self.channel.has_rung(&mut self.heard)
    }

    /// Makes the present state count as unheard.
    pub(super) fn forget(&mut self) {
        self.heard = self.heard.wrapping_sub(1);
    }

    /// What the channel says now.
    pub(super) fn newest(&self) -> Newest {
        self.channel.newest()
    }
}
