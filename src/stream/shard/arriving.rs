//! How a socket becomes a stream of a shard, and a stranger a subscriber.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mio::net::TcpStream;
use mio::{Interest, Token};

use super::client::{Client, NO_GROUP};
use super::{SLICE, Shard};
use crate::metrics::StreamEnd;
use crate::model::Revision;
use crate::stream::hub::Subscription;
use crate::stream::opening::{Opening, Who};
use crate::stream::shards::Adoption;
use crate::stream::wheel::{Tick, ticks};

impl Shard {
    pub(super) fn adopt_some(&mut self) {
        for _ in 0..SLICE {
            let Some(adoption) = self.adoptions.pop_front() else {
                // A storm is over; its room is not needed any more.
                if self.adoptions.capacity() > SLICE {
                    self.adoptions = VecDeque::new();
                }
                return;
            };
            self.adopt(adoption);
        }
    }

    fn adopt(&mut self, adoption: Adoption) {
        let Adoption { opening, socket, unread, place, close } = adoption;
        let Opening { who, manner, pace, told } = opening;
        let (mut subscription, join) = match who {
            Who::Subscriber(subscription, join) => (Some(subscription), join),
            Who::Refused => (None, None),
        };
        let mut socket = TcpStream::from_std(socket);
        let entry = self.clients.vacant_entry();
        let key = u32::try_from(entry.key()).expect("fewer streams than 2^32");
        if let Err(error) =
            self.registry.register(&mut socket, Token(entry.key()), Interest::READABLE)
        {
            tracing::warn!(%error, "a fan-out shard cannot watch a socket");
            self.inbox.open.fetch_sub(1, Ordering::Relaxed);
            if let Some(subscription) = &mut subscription {
                subscription.ends(StreamEnd::Failed);
            }
            return;
        }
        let now = self.wheel.now();
        let heartbeat = ticks(pace.heartbeat);
        let silent = subscription.is_none();
        entry.insert(Client {
            socket,
            place,
            subscription: None,
            told: told.unwrap_or(Revision(0)),
            group: NO_GROUP,
            member: 0,
            heartbeat_at: if silent { Tick::MAX } else { now.saturating_add(heartbeat) },
            heartbeat,
            end_at: now.saturating_add(ticks(pace.life)),
            wheel_at: 0,
            manner,
            close,
            cut: false,
        });
        if !unread.is_empty() {
            self.unread.insert(key, unread);
        }
        self.schedule(key);
        if self.draining {
            self.hurry(key);
        }
        if let Some(subscription) = subscription {
            self.metrics.opened_in_shards.increment(1);
            self.listen(key, subscription);
        }
        if let Some(join) = join {
            // Its key may have become known on the way here.
            match join() {
                Some(subscription) => self.listen(key, subscription),
                None => drop(self.strangers.insert(key, join)),
            }
        }
    }

    /// Joins a client to what it hears of, and tells it what it does not know yet.
    fn listen(&mut self, key: u32, subscription: Subscription) {
        let channel = Arc::clone(subscription.channel());
        let Some(client) = self.clients.get_mut(key as usize) else { return };
        if let Some(mut before) = client.subscription.replace(subscription) {
            before.ends(StreamEnd::Joined);
        }
        if let Some(id) = channel.id() {
            (client.group, client.member) = self.groups.join(id, &channel, key);
            self.catch_up(key);
        }
    }

    /// Strangers look whether their key is known now.
    pub(super) fn welcome(&mut self) {
        let joined: Vec<(u32, Subscription)> =
            self.strangers.iter().filter_map(|(key, join)| Some((*key, join()?))).collect();
        for (key, subscription) in joined {
            self.strangers.remove(&key);
            // Who has an unfinished heartbeat joins all the same; the state follows it.
            self.listen(key, subscription);
        }
    }
}
