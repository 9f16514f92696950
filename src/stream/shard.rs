//! A fan-out shard: one thread that holds very many sockets and writes each frame to all of them.
//!
//! A socket comes here when its answer's head is out. From then on it is a record of a hundred
//! bytes: no task, no buffer, no timer. A turn of the loop looks at the sockets that the kernel
//! names, reads the letters, looks at the streams that the wheel names, and writes one slice of
//! pings; so neither a crowd, nor a storm, nor a client that does not read holds up anybody else by
//! more than a slice. A frame that a socket does not take whole is remembered with its rest; when it
//! is out, the newest state follows, whatever happened in between.
//!
//! Here is the loop; `arriving`, `telling` and `writing` are what it does with a stream, in that order.
//!
//! Sockets are watched edge-triggered for hang-ups. What a client sends stays in the kernel, which
//! bounds it, until the stream is over and the connection goes back to the listener.

mod arriving;
mod client;
mod groups;
mod telling;
mod throttle;
mod writing;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::event::Event;
use mio::{Events, Poll, Registry, Token};
use slab::Slab;
use tokio::sync::mpsc;

use self::client::{Client, Unfinished, end_of};
use self::groups::Groups;
use self::throttle::Throttle;
use super::opening::Join;
use super::pace::{cut_of_drain, share_of_cut, share_of_drain};
use super::ping::heartbeat;
use super::shards::{Adoption, Inbox, Returned, Times};
use super::wheel::{TICK, Tick, Wheel, ticks};
use crate::metrics::{StreamEnd, StreamMetrics};
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
        if letters.cut {
            let cached = self.clients.iter().filter(|(_, client)| client.manner.is_cached());
            let keys: Vec<usize> = cached.map(|(key, _)| key).collect();
            for key in keys {
                self.cut(u32::try_from(key).unwrap_or(u32::MAX));
            }
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

    /// Lets a stream end within its share of the drain. What a cache shares goes on to its planned
    /// end, which is clean, as far as the grace period reaches.
    fn hurry(&mut self, key: u32) {
        let (now, drain) = (self.wheel.now(), self.times.drain);
        if let Some(client) = self.clients.get_mut(key as usize) {
            let cached = client.manner.is_cached();
            let share = if cached { cut_of_drain(drain) } else { share_of_drain(drain) };
            let end_at = now.saturating_add(ticks(share));
            client.cut |= cached && end_at < client.end_at;
            client.end_at = client.end_at.min(end_at);
            self.schedule(key);
        }
    }

    /// Cuts a stream within a moment.
    fn cut(&mut self, key: u32) {
        let end_at = self.wheel.now().saturating_add(ticks(share_of_cut()));
        if let Some(client) = self.clients.get_mut(key as usize).filter(|of| end_at < of.end_at) {
            (client.cut, client.end_at) = (true, end_at);
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
                let frame = heartbeat(client.manner, || client.newest().ping);
                self.write(key, frame.chunk(), false);
            }
            self.schedule(key);
        }
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
