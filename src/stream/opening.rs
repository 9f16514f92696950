//! A stream that is about to begin, whichever way it goes: through a shard or as a body.

use bytes::Bytes;

use super::channel::Changes;
use super::frames;
use super::hub::Subscription;
use super::manner::Manner;
use super::pace::Pace;
use crate::model::Revision;

/// Looks whether a stranger's key has become known.
pub type Join = Box<dyn Fn() -> Option<Subscription> + Send + Sync>;

/// Who begins a stream, in which manner, and its times.
pub struct Opening {
    pub(super) who: Who,
    pub(super) manner: Manner,
    pub(super) pace: Pace,
    /// The newest revision that was handed out.
    pub(super) told: Option<Revision>,
}

/// Who begins a stream.
pub(super) enum Who {
    /// Hears of an environment; a stranger hears nothing until it can join one.
    Subscriber(Subscription, Option<Join>),
    /// Was refused by a limit: hears nothing for the pace's life, then when to come back.
    Refused,
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { manner, pace, .. } = self;
        f.debug_struct("Opening")
            .field("manner", manner)
            .field("pace", pace)
            .finish_non_exhaustive()
    }
}

impl Opening {
    /// A stream of an environment.
    #[must_use]
    pub fn subscriber(subscription: Subscription, pace: Pace) -> Self {
        Self::listening(subscription, None, pace)
    }

    /// A stream of a key that no environment has, until `join` finds that one has it now.
    #[must_use]
    pub fn stranger(subscription: Subscription, join: Join, pace: Pace) -> Self {
        Self::listening(subscription, Some(join), pace)
    }

    fn listening(subscription: Subscription, join: Option<Join>, pace: Pace) -> Self {
        let manner = subscription.manner();
        Self::new(Who::Subscriber(subscription, join), manner, pace.spread())
    }

    fn new(who: Who, manner: Manner, pace: Pace) -> Self {
        let pace = if manner.is_cached() { pace.cacheable() } else { pace };
        Self { who, manner, pace, told: None }
    }

    /// A stream that a limit refused. An error would make some clients come back at once.
    #[must_use]
    pub fn refused(manner: Manner, pace: Pace) -> Self {
        Self::new(Who::Refused, manner, pace)
    }

    /// How long a cache may hand the stream out to further clients, in whole seconds; nothing
    /// under the direct contract.
    #[must_use]
    pub fn fresh_seconds(&self) -> Option<u64> {
        self.manner.is_cached().then(|| self.pace.fresh_seconds())
    }

    /// Wakes at each change from now on; nothing for a refused stream.
    pub(super) fn changes(&self) -> Option<Changes> {
        match &self.who {
            Who::Subscriber(subscription, _) => Some(subscription.changes()),
            Who::Refused => None,
        }
    }

    /// The first event, right behind the head. A change between the client's last read and this
    /// stream wakes nobody, so every stream begins with the present state. A refused one is silent.
    pub fn first_event(&mut self) -> Option<Bytes> {
        let Who::Subscriber(subscription, _) = &self.who else { return None };
        let newest = subscription.channel().newest();
        self.told = newest.ping.as_ref().map(|ping| ping.stamp.revision);
        if self.told.is_some() {
            subscription.metrics().frames.increment(1);
        }
        Some(
            newest
                .ping
                .map_or_else(|| frames::hello().event(), |ping| ping.frame(self.manner).event()),
        )
    }
}
