//! A fan-out shard: one thread that holds very many sockets and writes each frame to all of them.
//!
//! A socket comes here when its answer's head is out. From then on it is a record of a hundred
//! bytes: no task, no buffer, no timer. A turn of the loop looks at the sockets that the kernel
//! names, reads the letters, looks at the streams that the wheel names, and writes one slice of
//! pings; so neither a crowd, nor a storm, nor a client that does not read holds up anybody else by
//! more than a slice. A frame that a socket does not take whole is remembered with its rest; when it
//! is out, the newest state follows, whatever happened in between.
//!
//! Sockets are watched edge-triggered for hang-ups. What a client sends stays in the kernel, which
//! bounds it, until the stream is over and the connection goes back to the listener.

mod client;
mod groups;
mod throttle;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;
use tokio::sync::mpsc;

use self::client::{Client, NO_GROUP, Unfinished, discard, end_of, send};
use self::groups::{Groups, Step};
use self::throttle::Throttle;
use super::channel::Ping;
use super::frames::{HEARTBEAT_CHUNK, LAST_CHUNK, goodbye};
use super::hub::Subscription;
use super::opening::{Join, Opening, Who};
use super::pace::{drain_retry, refused_retry, share_of_drain};
use super::shards::{Adoption, Inbox, Returned, Times};
use super::wheel::{TICK, Tick, Wheel, ticks};
use crate::metrics::{StreamEnd, StreamMetrics};
use crate::model::Revision;
use crate::shutdown::Hold;

/// The token of a shard's waker; those of sockets are their keys.
pub(super) const CALL: Token = Token(usize::MAX);

/// Sockets that the kernel names at once.
const EVENTS_MAX: usize = 1024;

/// Pings of a slice, and as many timers and adoptions of a turn: some 10 µs each, so that whatever
/// comes next waits for a few milliseconds at most.
const SLICE: usize = 256;

/// The state of a shard.
pub(super) struct Shard {
    registry: Registry,
    inbox: Arc<Inbox>,
    times: Times,
    returns: mpsc::Sender<Returned>,
    metrics: StreamMetrics,
    clients: Slab<Client>,
    groups: Groups,
    /// Groups that are swept, each in its turn.
    sweeps: VecDeque<u32>,
    throttle: Throttle,
    wheel: Wheel,
    /// Streams to look at, with the tick of their entry on the wheel.
    due: VecDeque<(u32, Tick)>,
    adoptions: VecDeque<Adoption>,
    unfinished: HashMap<u32, Unfinished>,
    strangers: HashMap<u32, Join>,
    /// What clients sent behind their requests.
    unread: HashMap<u32, Bytes>,
    draining: bool,
    /// Lets the end of the process wait while there are streams.
    hold: Option<Hold>,
}

impl Shard {
    pub(super) fn new(
        registry: Registry,
        inbox: Arc<Inbox>,
        times: Times,
        returns: mpsc::Sender<Returned>,
        metrics: StreamMetrics,
    ) -> Self {
        let now = Instant::now();
        Self {
            registry,
            inbox,
            times,
            returns,
            metrics,
            clients: Slab::new(),
            groups: Groups::default(),
            sweeps: VecDeque::new(),
            throttle: Throttle::new(times.pings_per_second_max, now),
            wheel: Wheel::new(now),
            due: VecDeque::new(),
            adoptions: VecDeque::new(),
            unfinished: HashMap::new(),
            strangers: HashMap::new(),
            unread: HashMap::new(),
            draining: false,
            hold: None,
        }
    }

    /// Turns until it is told to stop.
    pub(super) fn run(&mut self, poll: &mut Poll) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut rest = None;
        loop {
            if let Err(error) = poll.poll(&mut events, rest)
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "a fan-out shard cannot poll");
                std::thread::sleep(TICK);
            }
            let began = Instant::now();
            let mut called = false;
            // Sockets first: a letter may bring one that gets the key of one that hung up.
            for event in &events {
                match event.token() {
                    CALL => called = true,
                    Token(key) => self.heed(key, event),
                }
            }
            if called && !self.read_letters() {
                return;
            }
            let due = &mut self.due;
            self.wheel.advance(began, |key, tick| due.push_back((key, tick)));
            let worked = called || !events.is_empty() || !self.due.is_empty();
            self.adopt_some();
            self.look_at_due();
            let pings = self.sweep(began);
            if self.clients.is_empty() && self.adoptions.is_empty() {
                self.hold = None;
            }
            if worked || pings > 0 {
                self.metrics.turn.record(began.elapsed());
            }
            rest = self.rest(pings);
        }
    }

    /// How long nothing will be due.
    fn rest(&self, pings: usize) -> Option<Duration> {
        let busy = pings > 0 || !self.due.is_empty() || !self.adoptions.is_empty();
        if busy {
            return Some(Duration::ZERO);
        }
        let next = self.wheel.rest(Instant::now());
        if self.sweeps.is_empty() {
            return next;
        }
        // Sweeps without a ping: the throttle holds them back.
        Some(next.map_or(Throttle::pause(), |next| next.min(Throttle::pause())))
    }

    /// The kernel has something to say about a socket.
    fn heed(&mut self, key: usize, event: &Event) {
        let Some(client) = self.clients.get(key) else { return };
        let Ok(key) = u32::try_from(key) else { return };
        if event.is_error() || event.is_read_closed() || event.is_write_closed() {
            let error = client.socket.take_error().ok().flatten();
            let end = error.map_or(StreamEnd::Client, |error| end_of(&error));
            // The same time-out; but here the peer lives and just does not read.
            let stalled = end == StreamEnd::Timeout && self.unfinished.contains_key(&key);
            self.leave(key, if stalled { StreamEnd::Stalled } else { end });
        } else if event.is_writable() {
            self.resume(key);
        }
    }

    /// Tells whether to go on.
    fn read_letters(&mut self) -> bool {
        let letters = self.inbox.take();
        if letters.stop {
            return false;
        }
        for (adoption, hold) in letters.adoptions {
            self.adoptions.push_back(adoption);
            self.hold.get_or_insert(hold);
        }
        for (id, nudge) in letters.nudges {
            self.sweeps.extend(self.groups.nudge(id, nudge));
        }
        if letters.welcome {
            self.welcome();
        }
        if letters.drain && !self.draining {
            self.draining = true;
            let keys: Vec<usize> = self.clients.iter().map(|(key, _)| key).collect();
            for key in keys {
                self.hurry(u32::try_from(key).unwrap_or(u32::MAX));
            }
        }
        true
    }

    fn adopt_some(&mut self) {
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
        let Opening { who, pace, told } = opening;
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
            close,
        });
        if !unread.is_empty() {
            self.unread.insert(key, unread);
        }
        if let Some(join) = join {
            self.strangers.insert(key, join);
        }
        self.schedule(key);
        if self.draining {
            self.hurry(key);
        }
        if let Some(subscription) = subscription {
            self.metrics.opened_in_shards.increment(1);
            self.listen(key, subscription);
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
    fn welcome(&mut self) {
        let joined: Vec<(u32, Subscription)> =
            self.strangers.iter().filter_map(|(key, join)| Some((*key, join()?))).collect();
        for (key, subscription) in joined {
            self.strangers.remove(&key);
            // Who has an unfinished heartbeat joins all the same; the state follows it.
            self.listen(key, subscription);
        }
    }

    /// Lets a stream end within its share of the drain.
    fn hurry(&mut self, key: u32) {
        let now = self.wheel.now();
        if let Some(client) = self.clients.get_mut(key as usize) {
            let share = ticks(share_of_drain(self.times.drain));
            client.end_at = client.end_at.min(now.saturating_add(share));
            self.schedule(key);
        }
    }

    /// Enters a stream on the wheel, where it is due next.
    fn schedule(&mut self, key: u32) {
        let Some(client) = self.clients.get_mut(key as usize) else { return };
        let deadline = match self.unfinished.get(&key) {
            Some(unfinished) => unfinished.since.saturating_add(ticks(self.times.stall)),
            None => client.heartbeat_at.min(client.end_at),
        };
        client.wheel_at = self.wheel.insert(key, deadline);
    }

    fn look_at_due(&mut self) {
        for _ in 0..SLICE {
            let Some((key, tick)) = self.due.pop_front() else { return };
            // Another entry of the same stream, or of one that had its key before, is an old one.
            if self.clients.get(key as usize).is_some_and(|client| client.wheel_at == tick) {
                self.look_at(key);
            }
        }
    }

    fn look_at(&mut self, key: u32) {
        let now = self.wheel.now();
        let Some(client) = self.clients.get_mut(key as usize) else { return };
        if let Some(unfinished) = self.unfinished.get(&key) {
            if unfinished.since.saturating_add(ticks(self.times.stall)) <= now {
                self.leave(key, StreamEnd::Stalled);
            } else {
                self.schedule(key);
            }
        } else if client.end_at <= now {
            self.end(key, StreamEnd::Life);
        } else {
            if client.heartbeat_at <= now {
                client.heartbeat_at = now.saturating_add(client.heartbeat);
                self.write(key, &Bytes::from_static(HEARTBEAT_CHUNK), false);
            }
            self.schedule(key);
        }
    }

    /// Writes a slice of pings, the environments taking turns. Tells how many were visited.
    fn sweep(&mut self, now: Instant) -> usize {
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
    fn tell(&mut self, key: u32, ping: &Ping, echo: bool) -> bool {
        let Some(client) = self.clients.get_mut(key as usize) else { return false };
        let revision = ping.stamp.revision;
        let knows = client.told >= revision;
        // An echo makes clients read again, and who cannot connect to a gateway that drains fails:
        // JavaScript's SDK is then deaf for good. Its next stream begins with the state anyway.
        if self.unfinished.contains_key(&key) || (knows && (!echo || self.draining)) {
            return false;
        }
        let told = (client.told > Revision(0)).then_some(client.told);
        self.metrics.folded.increment(revision.skipped_since(told));
        client.told = revision;
        client.heartbeat_at = self.wheel.now().saturating_add(client.heartbeat);
        self.write(key, ping.frame.chunk(), false);
        true
    }

    /// Tells a client what it does not know, or ends it if it is time.
    fn catch_up(&mut self, key: u32) {
        let Some(client) = self.clients.get(key as usize) else { return };
        let newest =
            client.subscription.as_ref().map(|subscription| subscription.channel().newest());
        let newest = newest.unwrap_or_default();
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

    /// Ends a stream cleanly: what came with the end is told before it, a moment earlier than by
    /// the next stream. Waits for an unfinished frame.
    fn end(&mut self, key: u32, end: StreamEnd) {
        let Some(client) = self.clients.get_mut(key as usize) else { return };
        if self.unfinished.contains_key(&key) {
            client.end_at = self.wheel.now();
            return;
        }
        let mut farewell = Vec::new();
        match &mut client.subscription {
            Some(subscription) => {
                let newest = subscription.channel().newest().ping;
                if let Some(ping) = newest.filter(|ping| ping.stamp.revision > client.told) {
                    client.told = ping.stamp.revision;
                    self.metrics.frames.increment(1);
                    farewell.extend_from_slice(ping.frame.chunk());
                }
                if self.draining {
                    farewell.extend_from_slice(goodbye(drain_retry()).chunk());
                }
                let draining = self.draining && end == StreamEnd::Life;
                subscription.ends(if draining { StreamEnd::Drain } else { end });
            }
            None => farewell.extend_from_slice(goodbye(refused_retry()).chunk()),
        }
        farewell.extend_from_slice(LAST_CHUNK);
        self.write(key, &Bytes::from(farewell), true);
    }

    /// Writes to a client that has nothing unfinished. With `last` the stream ends behind it.
    fn write(&mut self, key: u32, bytes: &Bytes, last: bool) {
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
    fn resume(&mut self, key: u32) {
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
    fn leave(&mut self, key: u32, end: StreamEnd) {
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

impl Drop for Shard {
    fn drop(&mut self) {
        let gone = self.clients.len() + self.adoptions.len();
        self.inbox.open.fetch_sub(gone, Ordering::Relaxed);
        for _ in &self.unfinished {
            self.metrics.unfinished.decrement(1.0);
        }
    }
}
