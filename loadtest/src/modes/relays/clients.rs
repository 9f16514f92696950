//! The clients of one relay, in a process of their own (`modes/worker.rs`): one thread, one epoll, and a long
//! nap between two reads, because the kernel says when a ping came. Who loses its stream comes back.

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value as Json, json};

use crate::client::{Stamping, Streams, Tally, Target};
use crate::machine::{available, now};
use crate::modes::worker::READY;

/// What the clients are told to do: open their streams; begin to hold them; say how that went; say when
/// they knew of a revision (`told <channel> <revision>`).
pub(super) const OPEN: &str = "open";
pub(super) const HOLD: &str = "hold";
pub(super) const HELD: &str = "held";
pub(super) const TOLD: &str = "told";

/// Connections of a process that may be on their way at a time.
const OPENING_MAX: usize = 100;

/// How long may pass without a stream being opened.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// Memory of the machine that is left alone: opening ends before the kernel has to end processes.
const RESERVE: u64 = 1536 * 1024 * 1024;

/// Rest between two looks at memory.
const LOOK: Duration = Duration::from_millis(200);

/// Rest between two reads. Many processes do this, and each wake takes time from the relays.
const REST: Duration = Duration::from_millis(50);

/// How long a stream may be silent: two and a half heartbeats.
const PATIENCE: Duration = Duration::from_millis(37_500);

/// How long a ping may take before it counts as missed.
const PING_MAX: Duration = Duration::from_mins(1);

/// Rest between two looks at every client, which are many.
const RECOUNT: Duration = Duration::from_millis(500);

/// How the opening went. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Opened {
    pub(super) open: usize,
    /// Connects that nobody listened to, and streams that were lost on their way; both were tried again.
    pub(super) refused: u64,
    pub(super) failed: u64,
    pub(super) began: i64,
    pub(super) last: i64,
    /// What ended it before all were open.
    pub(super) why: Option<String>,
}

/// How holding them went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Held {
    pub(super) open: usize,
    /// Streams that ended.
    pub(super) ended: u64,
    /// How often a client read something.
    pub(super) reads: u64,
    /// The longest silence in nanoseconds, and how many were too long.
    pub(super) longest: i64,
    pub(super) silent: u64,
}

/// When each client's socket got a ping, in nanoseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Heard {
    pub(super) kernel: Vec<i64>,
    pub(super) missed: usize,
}

/// The clients of one relay.
struct Clients {
    streams: Streams,
    count: usize,
    comes_back: bool,
    /// What had happened when the holding began, and how many pings when nobody waited for one.
    held: Tally,
    pings: u64,
}

/// The process of the clients: does what it is told, and reads meanwhile.
#[expect(clippy::print_stdout, reason = "the parent reads there")]
pub(crate) fn work(target: &Target, count: usize) -> anyhow::Result<()> {
    let _stamping = Stamping::keep_on()?;
    let streams = Streams::new(target, count)?;
    let held = Tally::default();
    let mut clients = Clients { streams, count, comes_back: false, held, pings: 0 };
    let words = words();
    println!("{READY}");
    loop {
        match words.try_recv() {
            Ok(word) => println!("{}", clients.answer(&word)?),
            Err(TryRecvError::Empty) => clients.read()?,
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

/// The lines of the input, read by a thread of its own.
fn words() -> Receiver<String> {
    let (sender, words) = sync_channel(1);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(Result::ok);
        for line in lines {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    words
}

impl Clients {
    fn answer(&mut self, word: &str) -> anyhow::Result<Json> {
        let parts: Vec<&str> = word.split(' ').collect();
        let answer = match parts[..] {
            [OPEN] => self.open()?.json(),
            [HOLD] => {
                self.held = self.streams.tally();
                self.streams.listen_for_silence(PATIENCE);
                json!(READY)
            }
            [HELD] => self.how_it_went().json(),
            [TOLD, channel, revision] => self.hear(channel.parse()?, revision.parse()?)?.json(),
            _ => bail!("a worker does not know the word {word:?}"),
        };
        self.pings = self.streams.tally().pings;
        Ok(answer)
    }

    /// Reads what has come, and rests.
    fn read(&mut self) -> anyhow::Result<()> {
        if self.comes_back {
            self.streams.connect(OPENING_MAX)?;
        }
        self.streams.drain()?;
        sleep(REST);
        Ok(())
    }

    fn open(&mut self) -> anyhow::Result<Opened> {
        let began = now();
        let (mut open, mut last, mut progress) = (0, began, Instant::now());
        let mut looked = Instant::now();
        let mut why = None;
        while open < self.count && why.is_none() {
            why = self.streams.connect(OPENING_MAX).err().map(|error| format!("{error:#}"));
            self.streams.turn(Some(LOOK))?;
            if self.streams.open() > open {
                (open, last, progress) = (self.streams.open(), now(), Instant::now());
            }
            if progress.elapsed() > OPEN_MAX {
                why = Some(format!("no stream opened for {} s", OPEN_MAX.as_secs()));
            }
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                let left = available()?;
                if left < RESERVE {
                    why = Some(format!("only {} MiB of memory are left", left / 1024 / 1024));
                }
            }
        }
        self.comes_back = why.is_none();
        let tally = self.streams.tally();
        let failed = tally.losses() - tally.refused;
        Ok(Opened { open: self.streams.open(), refused: tally.refused, failed, began, last, why })
    }

    fn how_it_went(&self) -> Held {
        let silence = self.streams.silence();
        Held {
            open: self.streams.open(),
            ended: self.streams.tally().since(&self.held).losses(),
            reads: silence.reads,
            longest: silence.longest,
            silent: silence.too_long,
        }
    }

    /// Reads until every client of `channel` has `revision`.
    fn hear(&mut self, channel: usize, revision: u64) -> anyhow::Result<Heard> {
        let wanted = u64::try_from(self.streams.listeners(channel))?;
        let deadline = Instant::now() + PING_MAX;
        let mut recount = Instant::now() + RECOUNT;
        loop {
            // Counting pings is cheap, looking at every client is not.
            let pings = self.streams.tally().pings - self.pings;
            if pings >= wanted || Instant::now() >= recount {
                recount = Instant::now() + RECOUNT;
                if self.streams.has_told(channel, revision) || Instant::now() >= deadline {
                    break;
                }
            }
            self.read()?;
        }
        let told = self.streams.wait(channel, revision, Duration::ZERO)?;
        Ok(Heard { kernel: told.kernel, missed: told.missed })
    }
}

impl Opened {
    /// Takes in how the opening of others went, at the same time.
    pub(super) fn join(&mut self, other: Self) {
        self.open += other.open;
        self.refused += other.refused;
        self.failed += other.failed;
        self.began = self.began.min(other.began);
        self.last = self.last.max(other.last);
        self.why = self.why.take().or(other.why);
    }

    fn json(&self) -> Json {
        let Self { open, refused, failed, began, last, why } = self;
        json!([open, refused, failed, began, last, why])
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (open, refused, failed, began, last, why) = serde_json::from_str(text)?;
        Ok(Self { open, refused, failed, began, last, why })
    }
}

impl Held {
    /// Takes in how others were held.
    pub(super) fn join(&mut self, other: &Self) {
        self.open += other.open;
        self.ended += other.ended;
        self.reads += other.reads;
        self.longest = self.longest.max(other.longest);
        self.silent += other.silent;
    }

    fn json(self) -> Json {
        let Self { open, ended, reads, longest, silent } = self;
        json!([open, ended, reads, longest, silent])
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (open, ended, reads, longest, silent) = serde_json::from_str(text)?;
        Ok(Self { open, ended, reads, longest, silent })
    }
}

impl Heard {
    /// Takes in when others got the same ping.
    pub(super) fn join(&mut self, other: Self) {
        self.kernel.extend(other.kernel);
        self.missed += other.missed;
    }

    fn json(&self) -> Json {
        json!([self.kernel, self.missed])
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (kernel, missed) = serde_json::from_str(text).context("a worker's answer is broken")?;
        Ok(Self { kernel, missed })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Begins a stream for each of two clients.
    fn accept(listener: &TcpListener) -> [TcpStream; 2] {
        [(), ()].map(|()| {
            let (mut socket, _) = listener.accept().unwrap();
            assert!(socket.read(&mut [0; 1024]).unwrap() > 0);
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\ndata: {\"revision\": 5}\n\n").unwrap();
            socket
        })
    }

    #[test]
    fn clients_open_hear_and_notice_that_a_stream_ends() {
        let _stamping = Stamping::keep_on().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = Target { address, paths: vec!["/stream".to_owned()] };
        let streams = Streams::new(&target, 2).unwrap();
        let held = Tally::default();
        let mut clients = Clients { streams, count: 2, comes_back: false, held, pings: 0 };
        let server = std::thread::spawn(move || accept(&listener));
        let opened = clients.open().unwrap();
        assert_eq!((opened.open, opened.why), (2, None));

        let sockets = server.join().unwrap();
        assert_eq!(clients.answer(HOLD).unwrap(), json!(READY));
        for mut socket in &sockets {
            socket.write_all(b"data: {\"revision\": 6}\n\n").unwrap();
        }
        let heard = clients.answer("told 0 6").unwrap().to_string();
        let heard = Heard::parse(&heard).unwrap();
        assert_eq!((heard.kernel.len(), heard.missed), (2, 0));

        assert_eq!(clients.how_it_went().ended, 0);
        drop(sockets);
        while clients.streams.open() > 0 {
            clients.read().unwrap();
        }
        assert!(clients.how_it_went().ended >= 2);
        assert!(clients.answer("sing").is_err());
    }

    #[test]
    fn what_the_clients_of_all_relays_say_is_put_together() {
        let one = Opened { open: 5, refused: 1, failed: 2, began: 10, last: 20, why: None };
        let two = Opened { began: 8, last: 15, why: Some("full".to_owned()), ..one.clone() };
        let mut all = Opened::parse(&one.json().to_string()).unwrap();
        assert_eq!(all, one);
        all.join(two);
        assert_eq!((all.open, all.refused, all.failed, all.began, all.last), (10, 2, 4, 8, 20));
        assert_eq!(all.why.as_deref(), Some("full"));

        let held = Held { open: 5, ended: 1, reads: 9, longest: 30, silent: 2 };
        let mut all = Held::parse(&held.json().to_string()).unwrap();
        all.join(&Held { longest: 40, ..held });
        let expected = Held { open: 10, ended: 2, reads: 18, longest: 40, silent: 4 };
        assert_eq!(all, expected);

        let heard = Heard { kernel: vec![3, 4], missed: 1 };
        let mut all = Heard::parse(&heard.json().to_string()).unwrap();
        all.join(heard);
        assert_eq!((all.kernel, all.missed), (vec![3, 4, 3, 4], 2));
    }
}
