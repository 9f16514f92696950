//! How bytes get into a socket that may not take them all, and how a stream leaves the shard.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use mio::{Interest, Token};

use super::Shard;
use super::client::{Client, NO_GROUP, Unfinished, discard, send};
use crate::metrics::StreamEnd;
use crate::stream::shards::Returned;

impl Shard {
    /// Writes to a client that has nothing unfinished. With `last` the stream ends behind it.
    pub(super) fn write(&mut self, key: u32, bytes: &Bytes, last: bool) {
        let Some(client) = self.clients.get(key as usize) else { return };
        match send(&client.socket, bytes) {
            Ok(written) if written == bytes.len() => {
                if last {
                    self.give_back(key);
                }
            }
            Ok(written) => {
                let since = self.wheel.now();
                let rest = bytes.slice(written..);
                self.unfinished.insert(key, Unfinished { rest, since, last });
                self.metrics.unfinished.increment(1.0);
                self.watch(key, Interest::READABLE | Interest::WRITABLE);
                self.schedule(key);
            }
            Err(end) => self.leave(key, end),
        }
    }

    /// Goes on with an unfinished frame: the socket takes something again.
    pub(super) fn resume(&mut self, key: u32) {
        let Some(client) = self.clients.get(key as usize) else { return };
        let Some(unfinished) = self.unfinished.get_mut(&key) else { return };
        match send(&client.socket, &unfinished.rest) {
            Ok(written) if written == unfinished.rest.len() => {
                let last = unfinished.last;
                self.unfinished.remove(&key);
                self.metrics.unfinished.decrement(1.0);
                if last {
                    self.give_back(key);
                    return;
                }
                self.watch(key, Interest::READABLE);
                self.schedule(key);
                self.catch_up(key);
            }
            Ok(0) => {}
            Ok(written) => {
                unfinished.rest = unfinished.rest.slice(written..);
                unfinished.since = self.wheel.now();
            }
            Err(end) => self.leave(key, end),
        }
    }

    fn watch(&mut self, key: u32, interest: Interest) {
        let Some(client) = self.clients.get_mut(key as usize) else { return };
        let token = Token(key as usize);
        if let Err(error) = self.registry.reregister(&mut client.socket, token, interest) {
            tracing::warn!(%error, "a fan-out shard cannot watch a socket");
            self.leave(key, StreamEnd::Failed);
        }
    }

    /// A stream is over, and so is its connection.
    pub(super) fn leave(&mut self, key: u32, end: StreamEnd) {
        let (client, _) = self.take_out(key);
        if let Some(mut subscription) = client.and_then(|client| client.subscription) {
            subscription.ends(end);
        }
    }

    /// A stream has ended cleanly: its connection is good for another request.
    fn give_back(&mut self, key: u32) {
        let (Some(mut client), unread) = self.take_out(key) else { return };
        if client.close || self.draining || self.registry.deregister(&mut client.socket).is_err() {
            discard(&client.socket);
            return;
        }
        let Client { socket, place, .. } = client;
        // If the listener does not take it, it is closed.
        drop(self.returns.try_send(Returned { socket: socket.into(), unread, place }));
    }

    fn take_out(&mut self, key: u32) -> (Option<Client>, Bytes) {
        let client = self.clients.try_remove(key as usize);
        if let Some(client) = &client {
            self.inbox.open.fetch_sub(1, Ordering::Relaxed);
            if client.group != NO_GROUP
                && let Some(moved) = self.groups.leave(client.group, client.member)
                && let Some(moved) = self.clients.get_mut(moved as usize)
            {
                moved.member = client.member;
            }
            if self.unfinished.remove(&key).is_some() {
                self.metrics.unfinished.decrement(1.0);
            }
            self.strangers.remove(&key);
        }
        (client, self.unread.remove(&key).unwrap_or_default())
    }
}
