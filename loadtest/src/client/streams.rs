//! The stream client: thousands of sockets in one thread, and the kernel's word for when a ping
//! arrived.
//!
//! Each socket asks the kernel for the time at which bytes came in (`SO_TIMESTAMPNS`). So it does
//! not matter when we read them: the client can sleep while a change is told, takes no time from
//! the servers, and cannot be the bottleneck. It reads in batches, with a nap between them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use mio::{Events, Poll};
use nix::sys::time::TimeSpec;

use super::returns::{Gap, Returns};
use super::silence::Silence;
use super::socket::begin;
use super::stream::{Cut, Desk, Outcome, Reading, State, Stream, register, request};
use super::tally::Tally;
use crate::machine::now;

/// Connections that may be on their way at a time when nobody is in a hurry.
const OPENING_MAX: usize = 100;

/// How long may pass without a stream being opened.
const OPEN_MAX: Duration = Duration::from_mins(1);

/// Sockets that are handled with one look at what is ready.
const EVENTS: usize = 1024;

/// Rest between two reads: arrivals are stamped by the kernel, so haste would only disturb.
pub(crate) const NAP: Duration = Duration::from_millis(2);

/// A client that was refused waits so long before it tries again; one that was cut does not.
const RETRY: Duration = Duration::from_millis(20);

/// What streams are opened at.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Paths of the channels; the clients are dealt to them in turn.
    pub(crate) paths: Vec<String>,
}

/// Many clients of event streams.
#[derive(Debug)]
pub(crate) struct Streams {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    /// The request of each channel.
    requests: Vec<String>,
    clients: Vec<Stream>,
    /// Who is not connected, and from when on it may connect.
    closed: BinaryHeap<Reverse<(Instant, usize)>>,
    /// How clients come back that are not in a hurry.
    returns: Option<Returns>,
    /// How many are on their way.
    opening: usize,
    desk: Desk,
}

/// A ping that told a client of a change. Times are nanoseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) stream: usize,
    pub(crate) revision: u64,
    /// When it came to the client's socket.
    pub(crate) kernel: i64,
    /// When the client had read it.
    pub(crate) user: i64,
    /// Whether it was the first of its connection, and so told of what was missed.
    pub(crate) greets: bool,
}

/// What became of a ping.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// When it came to the socket of each client that got it, and when each had read it.
    pub(crate) kernel: Vec<i64>,
    pub(crate) user: Vec<i64>,
    /// Clients that did not get it in time.
    pub(crate) missed: usize,
}

impl Streams {
    /// Makes `count` clients that are not connected.
    pub(crate) fn new(target: &Target, count: usize) -> anyhow::Result<Self> {
        let now = Instant::now();
        let requests = target.paths.iter().map(|path| request(target.address, path));
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            address: target.address,
            requests: requests.collect(),
            clients: std::iter::repeat_with(Stream::default).take(count).collect(),
            closed: (0..count).map(|index| Reverse((now, index))).collect(),
            returns: None,
            opening: 0,
            desk: Desk {
                buffer: vec![0; 16 * 1024],
                control: nix::cmsg_space!(TimeSpec),
                tally: Tally::default(),
                log: None,
                silence: Silence::default(),
            },
        })
    }

    /// Opens all streams; none may be refused or end meanwhile.
    pub(crate) fn open_all(&mut self) -> anyhow::Result<()> {
        let before = self.desk.tally;
        let (mut latest, mut known) = (Instant::now(), self.open());
        while self.open() < self.clients.len() {
            self.connect(OPENING_MAX)?;
            self.turn(Some(Duration::from_millis(100)))?;
            let lost = self.desk.tally.losses() - before.losses();
            ensure!(lost == 0, "{} lost {lost} streams while they were opened", self.address);
            if self.open() > known {
                (latest, known) = (Instant::now(), self.open());
            }
            let count = self.clients.len();
            ensure!(latest.elapsed() < OPEN_MAX, "only {known} of {count} streams opened");
        }
        Ok(())
    }

    /// Sets clients on their way that may come (back), while less than `opening_max` are.
    pub(crate) fn connect(&mut self, opening_max: usize) -> anyhow::Result<()> {
        while self.opening < opening_max
            && let Some(Reverse((due, index))) = self.closed.peek().copied()
            && due <= Instant::now()
        {
            let client = &mut self.clients[index];
            let is_slow = client.reading != Reading::Promptly;
            let begun = begin(self.address, index, is_slow)?;
            self.closed.pop();
            let Some(mut socket) = begun else {
                self.desk.tally.refused += 1;
                self.rest(index, RETRY);
                continue;
            };
            register(&self.poll, &mut socket, index)?;
            client.begin(socket);
            self.opening += 1;
        }
        Ok(())
    }

    /// Handles what is ready, waiting for it if nothing is.
    pub(crate) fn turn(&mut self, wait: Option<Duration>) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        let mut lost = Vec::new();
        for event in &self.events {
            let index = event.token().0;
            let client = &mut self.clients[index];
            let was_opening = client.is_opening();
            let opened = self.desk.tally.opened;
            let mut outcome = Outcome::Same;
            if client.state == State::Connecting && event.is_writable() {
                let request = &self.requests[index % self.requests.len()];
                outcome = client.ask(request, &mut self.desk.tally);
            }
            let reads = client.reading == Reading::Promptly || client.state == State::Head;
            if event.is_readable() && reads && outcome != Outcome::Lost {
                outcome = client.read(index, event.is_read_closed(), &mut self.desk)?;
            }
            // It may be over again by now: a recording comes at once.
            let opened = self.desk.tally.opened > opened;
            if let Some(returns) = self.returns.as_mut().filter(|_| opened) {
                returns.opened(index, Instant::now());
            }
            let is_lost = outcome == Outcome::Lost;
            self.opening -= usize::from(opened || (was_opening && is_lost));
            if is_lost {
                lost.push((index, if was_opening { RETRY } else { Duration::ZERO }));
            }
        }
        for (index, rest) in lost {
            self.rest(index, rest);
        }
        Ok(())
    }

    /// Handles all that is ready, and waits for nothing.
    pub(crate) fn drain(&mut self) -> anyhow::Result<()> {
        loop {
            self.turn(Some(Duration::ZERO))?;
            if self.events.iter().count() < EVENTS {
                return Ok(());
            }
        }
    }

    /// Lets clients come back as real ones do. `seed` makes it differ from others' coming back.
    pub(crate) fn come_back_calmly(&mut self, seed: u64) {
        self.returns = Some(Returns::new(self.clients.len(), seed));
    }

    /// Streams that ended within a second, and the times that clients were without a stream, since
    /// this was taken; of clients that come back calmly.
    pub(crate) fn take_returns(&mut self) -> (u64, Vec<Gap>) {
        let Some(returns) = &mut self.returns else { return (0, Vec::new()) };
        (std::mem::take(&mut returns.immediate), std::mem::take(&mut returns.gaps))
    }

    /// Reads until every prompt client of `channel` has `revision`, or `limit` is over.
    pub(crate) fn wait(
        &mut self,
        channel: usize,
        revision: u64,
        limit: Duration,
    ) -> anyhow::Result<Arrivals> {
        let deadline = Instant::now() + limit;
        while !self.has_told(channel, revision) && Instant::now() <= deadline {
            self.turn(Some(NAP))?;
            sleep(NAP);
        }
        let told = self.prompt(channel).filter(|client| client.newest == revision);
        let (kernel, user): (Vec<i64>, Vec<i64>) =
            told.map(|client| (client.kernel_at, client.user_at)).unzip();
        let missed = self.prompt(channel).count() - kernel.len();
        Ok(Arrivals { kernel, user, missed })
    }

    /// Reads along while `work` is done by another thread, and calls `each` in between.
    pub(crate) fn read_while<T: Send>(
        &mut self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
        mut each: impl FnMut(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<T> {
        scope(|threads| {
            let working = threads.spawn(work);
            while !working.is_finished() {
                self.turn(Some(NAP))?;
                each(self)?;
                sleep(NAP);
            }
            working.join().map_err(|_| anyhow!("the thread that makes changes panicked"))?
        })
    }

    /// Lets one client leave. It may come back with the next `connect`.
    pub(crate) fn cut(&mut self, index: usize, how: Cut) -> anyhow::Result<()> {
        let client = &mut self.clients[index];
        let was_opening = client.is_opening();
        if client.cut(how)? {
            self.opening -= usize::from(was_opening);
            self.rest(index, Duration::ZERO);
        }
        Ok(())
    }

    /// Sets how a client reads. One that begins to read promptly reads what has gathered.
    pub(crate) fn set_reading(&mut self, index: usize, reading: Reading) -> anyhow::Result<()> {
        self.clients[index].reading = reading;
        if reading == Reading::Promptly {
            let outcome = self.clients[index].read(index, true, &mut self.desk)?;
            self.settle(index, outcome);
        }
        Ok(())
    }

    /// Lets every client that reads by bytes read one.
    pub(crate) fn read_bytes(&mut self) -> anyhow::Result<()> {
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.reading == Reading::ByBytes && client.state == State::Open {
                let outcome = client.read_a_byte(index, &mut self.desk)?;
                self.settle(index, outcome);
            }
        }
        Ok(())
    }

    /// Streams that are open.
    pub(crate) fn open(&self) -> usize {
        self.clients.len() - self.closed.len() - self.opening
    }

    /// Streams of clients that come back calmly that have been open for a second.
    pub(crate) fn lasting(&self) -> usize {
        self.returns.as_ref().map_or(0, |returns| returns.lasting(Instant::now()))
    }

    /// Whether every prompt client of `channel` has `revision`.
    pub(crate) fn has_told(&self, channel: usize, revision: u64) -> bool {
        self.behind(channel, revision) == 0
    }

    /// Prompt clients of `channel` that do not have `revision`.
    pub(crate) fn behind(&self, channel: usize, revision: u64) -> usize {
        self.prompt(channel).filter(|client| client.newest < revision).count()
    }

    /// Prompt clients of `channel`.
    pub(crate) fn listeners(&self, channel: usize) -> usize {
        self.prompt(channel).count()
    }

    /// Begins to listen for silences of open streams; one may last `patience`.
    pub(crate) fn listen_for_silence(&mut self, patience: Duration) {
        self.desk.silence = Silence::new(i64::try_from(patience.as_nanos()).unwrap_or(i64::MAX));
    }

    /// What was heard since then, with the silences that go on.
    pub(crate) fn silence(&self) -> Silence {
        let (mut silence, now) = (self.desk.silence, now());
        for client in self.clients.iter().filter(|client| client.state == State::Open) {
            silence.lasted(now - client.heard_at);
        }
        silence
    }

    pub(crate) fn tally(&self) -> Tally {
        self.desk.tally
    }

    /// Begins to keep every ping that tells a client something new.
    pub(crate) fn keep_log(&mut self) {
        self.desk.log = Some(Vec::new());
    }

    /// The pings since the log was kept or taken.
    pub(crate) fn take_log(&mut self) -> Vec<Arrival> {
        self.desk.log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn prompt(&self, channel: usize) -> impl Iterator<Item = &Stream> {
        let clients = self.clients.iter().skip(channel).step_by(self.requests.len());
        clients.filter(|client| client.reading == Reading::Promptly)
    }

    fn settle(&mut self, index: usize, outcome: Outcome) {
        if outcome == Outcome::Lost {
            self.rest(index, Duration::ZERO);
        }
    }

    /// A client without a stream may connect again after `rest`; a calm one chooses for itself.
    fn rest(&mut self, index: usize, rest: Duration) {
        let now = Instant::now();
        let rest = self.returns.as_mut().map_or(rest, |returns| returns.lost(index, now));
        self.closed.push(Reverse((now + rest, index)));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Serves one client so many bytes, and keeps the connection, as a cache does.
    fn immediate_ends(answer: &'static str) -> (u64, Tally) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = Target { address, paths: vec!["/stream".to_owned()] };
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            assert!(socket.read(&mut [0; 1024]).unwrap() > 0);
            socket.write_all(answer.as_bytes()).unwrap();
            socket
        });
        let mut streams = Streams::new(&target, 1).unwrap();
        streams.come_back_calmly(1);
        while streams.tally().ended == 0 {
            streams.connect(1).unwrap();
            streams.turn(Some(NAP)).unwrap();
        }
        assert_eq!((streams.open(), streams.opening), (0, 0));
        drop(server.join().unwrap());
        (streams.take_returns().0, streams.tally())
    }

    #[test]
    fn a_recording_that_comes_at_once_is_an_immediate_end() {
        let chunked =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n:\n\n\r\n0\r\n\r\n";
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n:\n\n";
        for answer in [chunked, whole] {
            let (immediate, tally) = immediate_ends(answer);
            assert_eq!((immediate, tally.opened, tally.ended), (1, 1, 1));
        }
    }
}
