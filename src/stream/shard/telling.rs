//! What streams are told: pings in slices, what a client missed, and the end.

use std::time::Instant;

use bytes::Bytes;

use super::groups::Step;
use super::{SLICE, Shard};
use crate::metrics::StreamEnd;
use crate::model::Revision;
use crate::stream::frames::{LAST_CHUNK, goodbye};
use crate::stream::manner::Dialect;
use crate::stream::pace::{drain_retry, refused_retry};
use crate::stream::ping::Ping;

impl Shard {
    /// Writes a slice of pings, the environments taking turns. Tells how many were visited.
    pub(super) fn sweep(&mut self, now: Instant) -> usize {
        let mut visited = 0;
        let mut held_back = 0;
        while visited < SLICE && held_back < self.sweeps.len() {
            let Some(group) = self.sweeps.pop_front() else { break };
            let newest = self.groups.channel(group).newest();
            let throttled = !newest.gone && !self.groups.is_urgent(group);
            let wanted = SLICE - visited;
            let allowed = if throttled { self.throttle.allow(wanted, now) } else { wanted };
            if allowed == 0 {
                held_back += 1;
                self.sweeps.push_back(group);
                continue;
            }
            let mut pings = 0;
            let mut over = false;
            while pings < allowed && visited < SLICE && !over {
                match self.groups.step(group) {
                    Step::Over => over = true,
                    Step::Visit { key, .. } if newest.gone => {
                        self.end(key, StreamEnd::Gone);
                        visited += 1;
                    }
                    Step::Visit { key, echo } => {
                        let told = newest.ping.as_ref().map(|ping| self.tell(key, ping, echo));
                        pings += usize::from(told == Some(true));
                        visited += 1;
                    }
                }
            }
            if throttled {
                self.throttle.take(pings);
            }
            self.metrics.frames.increment(u64::try_from(pings).unwrap_or(0));
            if !over {
                self.sweeps.push_back(group);
            }
        }
        visited
    }

    /// Tells a client the newest state, unless it knows, which an echo does not ask. Who has not
    /// taken the last frame yet gets it behind that. Tells whether a frame was written.
    pub(super) fn tell(&mut self, key: u32, ping: &Ping, echo: bool) -> bool {
        let Some(client) = self.clients.get_mut(key as usize) else { return false };
        let revision = ping.stamp.revision;
        let knows = client.told >= revision;
        // OFREP's clients queue what comes while they read. And an echo makes clients read again, and
        // who cannot connect to a gateway that drains fails: JavaScript's SDK is then deaf for good.
        // Its next stream begins with the state anyway.
        let echo = echo && client.manner.dialect == Dialect::Flagsmith && !self.draining;
        if self.unfinished.contains_key(&key) || (knows && !echo) {
            return false;
        }
        let told = (client.told > Revision(0)).then_some(client.told);
        self.metrics.folded.increment(revision.skipped_since(told));
        client.told = revision;
        client.heartbeat_at = self.wheel.now().saturating_add(client.heartbeat);
        let chunk = ping.frame(client.manner).chunk();
        self.write(key, chunk, false);
        true
    }

    /// Tells a client what it does not know, or ends it if it is time.
    pub(super) fn catch_up(&mut self, key: u32) {
        let Some(client) = self.clients.get(key as usize) else { return };
        let newest = client.newest();
        if newest.gone {
            self.end(key, StreamEnd::Gone);
        } else if client.end_at <= self.wheel.now() {
            self.end(key, StreamEnd::Life);
        } else if let Some(ping) = newest.ping
            && self.tell(key, &ping, false)
        {
            self.metrics.frames.increment(1);
        }
    }

    /// Ends a stream: what came with the end is told before it, a moment earlier than by the next
    /// stream. Waits for an unfinished frame. The end is clean unless a cache shares the stream and
    /// it comes before its time; then the connection is closed without a last chunk.
    pub(super) fn end(&mut self, key: u32, end: StreamEnd) {
        let Some(client) = self.clients.get_mut(key as usize) else { return };
        if self.unfinished.contains_key(&key) {
            client.end_at = self.wheel.now();
            return;
        }
        let cached = client.manner.is_cached();
        client.cut |= cached && end == StreamEnd::Gone;
        client.close |= client.cut;
        let cut = client.cut;
        let mut farewell = Vec::new();
        let newest = client.newest().ping;
        if let Some(ping) = newest.filter(|ping| ping.stamp.revision > client.told) {
            client.told = ping.stamp.revision;
            self.metrics.frames.increment(1);
            farewell.extend_from_slice(ping.frame(client.manner).chunk());
        }
        let draining = self.draining && !cached;
        match &mut client.subscription {
            Some(subscription) => {
                if draining {
                    farewell.extend_from_slice(goodbye(drain_retry()).chunk());
                }
                subscription.ends(match end {
                    StreamEnd::Life if cut => StreamEnd::Cut,
                    StreamEnd::Life if draining => StreamEnd::Drain,
                    other => other,
                });
            }
            None => farewell.extend_from_slice(goodbye(refused_retry()).chunk()),
        }
        if !cut {
            farewell.extend_from_slice(LAST_CHUNK);
        }
        self.write(key, &Bytes::from(farewell), true);
    }
}
