//! Clients of every kind that follow one environment through caches, and a count of what must not
//! happen to any of them.
//!
//! They behave as good clients do: the newest revision wins, one read at a time, by the revision's own
//! URL, and jitter before every new attempt. But each sends something else along: cookies, credentials,
//! origins, encodings, ranges, queries that defeat caches. All of it is to be of no account.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::eventually;
use super::raw::Raw;

/// A stream that ended sooner was no stream: the client must not come back at once.
const IMMEDIATE: Duration = Duration::from_secs(1);

/// How many clients the environment wants.
const SIZE_VARIABLE: &str = "FLAGCAST_TEST_CROWD";

/// Which dialect a crowd speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Flagsmith,
    Ofrep,
}

impl Dialect {
    /// The path of an environment's stream.
    pub(crate) fn path(self, client_key: &str) -> String {
        match self {
            Self::Flagsmith => format!("/sse/environments/{client_key}/stream"),
            Self::Ofrep => format!("/ofrep/v1/streams/{client_key}"),
        }
    }
}

/// What has happened to a crowd.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Streams that began.
    pub(crate) streams: AtomicUsize,
    /// Streams that told a state and ended cleanly within a second: recordings.
    pub(crate) immediate_ends: AtomicUsize,
    /// Streams that broke off.
    pub(crate) cuts: AtomicUsize,
    /// Attempts at a stream that got none.
    pub(crate) refusals: AtomicUsize,
    /// Streams whose first event told no state, or that were compressed.
    pub(crate) misshapen: AtomicUsize,
    /// Pings of an older revision than the client has heard of before, at the same door.
    pub(crate) went_back: AtomicUsize,
    /// Reads that were answered.
    pub(crate) reads: AtomicUsize,
    /// Reads that were answered with an older revision than asked for.
    pub(crate) stale: AtomicUsize,
    /// Reads that were not answered, or with an error.
    pub(crate) failed_reads: AtomicUsize,
}

impl Tally {
    /// The value of one of its counts.
    pub(crate) fn of(count: &AtomicUsize) -> usize {
        count.load(Ordering::SeqCst)
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::SeqCst);
}

/// How many clients a crowd has: so many, or as many as the environment wants.
pub(crate) fn crowd_size(clients: usize) -> usize {
    std::env::var(SIZE_VARIABLE).map_or(clients, |text| text.parse().unwrap())
}

/// Lets this process and those that it starts open enough sockets for so many clients.
pub(crate) fn raise_descriptor_limit(clients: usize) {
    let process = std::process::id().to_string();
    let limit = format!("--nofile={}:", (3 * clients + 4000).max(8192));
    let raised = Command::new("prlimit").args(["--pid", &process, &limit]).status();
    assert!(raised.unwrap().success(), "{limit} descriptors are needed: see `ulimit -Hn`");
}

/// A running crowd. Dropping it ends it.
pub(crate) struct Crowd {
    members: Vec<Arc<Member>>,
    tally: Arc<Tally>,
    tasks: JoinSet<()>,
    client_key: String,
    dialect: Dialect,
}

impl Crowd {
    /// A crowd that has nobody yet.
    pub(crate) fn new(dialect: Dialect, client_key: &str) -> Self {
        Self {
            members: Vec::new(),
            tally: Arc::default(),
            tasks: JoinSet::new(),
            client_key: client_key.to_owned(),
            dialect,
        }
    }

    /// Brings `count` more clients, spread over `doors`.
    pub(crate) fn join(&mut self, doors: &[SocketAddr], count: usize) {
        for _ in 0..count {
            let number = self.members.len();
            let member = Arc::new(Member {
                door: doors[number % doors.len()],
                number,
                dialect: self.dialect,
                client_key: self.client_key.clone(),
                heard: watch::Sender::new(0),
                have: AtomicU64::new(0),
                arrivals: Mutex::default(),
                tally: Arc::clone(&self.tally),
            });
            self.members.push(Arc::clone(&member));
            let reading = Arc::clone(&member);
            self.tasks.spawn(async move { member.listen().await });
            self.tasks.spawn(async move { reading.read().await });
        }
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How many it has.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// How many have flags of `revision` or later.
    pub(crate) fn with(&self, revision: u64) -> usize {
        self.members.iter().filter(|member| member.has(revision)).count()
    }

    /// How many have heard of `revision` or a later one.
    pub(crate) fn who_heard_of(&self, revision: u64) -> usize {
        self.members.iter().filter(|member| *member.heard.borrow() >= revision).count()
    }

    /// Waits until everybody has the flags of `revision` or later.
    pub(crate) async fn reaches(&self, revision: u64) {
        let what = format!("a crowd of {} has revision {revision}", self.len());
        let everybody = async || (self.with(revision) == self.len()).then_some(());
        eventually(&what, everybody).await;
    }

    /// When each client first had `revision` or a later one, counted from `since`, in order.
    pub(crate) fn delays(&self, revision: u64, since: Instant) -> Vec<Duration> {
        let mut delays: Vec<_> = self.members.iter().filter_map(|m| m.arrival(revision)).collect();
        delays.sort_unstable();
        delays.into_iter().map(|at| at.saturating_duration_since(since)).collect()
    }
}

/// One client.
struct Member {
    door: SocketAddr,
    number: usize,
    dialect: Dialect,
    client_key: String,
    /// The newest revision that a stream told of.
    heard: watch::Sender<u64>,
    /// The revision of its flags.
    have: AtomicU64,
    arrivals: Mutex<Vec<(u64, Instant)>>,
    tally: Arc<Tally>,
}

impl Member {
    fn has(&self, revision: u64) -> bool {
        self.have.load(Ordering::SeqCst) >= revision
    }

    fn arrival(&self, revision: u64) -> Option<Instant> {
        let arrivals = self.arrivals.lock().unwrap();
        arrivals.iter().find(|(held, _)| *held >= revision).map(|(_, at)| *at)
    }

    /// Holds a stream open, always.
    async fn listen(&self) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let ended = self.stream().await;
            match &ended {
                Ok(()) if began.elapsed() < IMMEDIATE => count(&self.tally.immediate_ends),
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    count(&self.tally.refusals);
                }
                Err(_) => count(&self.tally.cuts),
            }
            // An early end is a failure, whatever it looks like.
            failures = if began.elapsed() < IMMEDIATE { failures + 1 } else { 0 };
            tokio::time::sleep(pause(failures)).await;
        }
    }

    /// Reads one stream to its clean end; an error when it broke off, or told nothing.
    async fn stream(&self) -> io::Result<()> {
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        let answer = Raw::ask(self.door, &self.stream_request()).await;
        let mut answer = answer.map_err(|_| refused())?;
        if answer.status != 200 {
            return Err(refused());
        }
        count(&self.tally.streams);
        if answer.headers.contains_key("content-encoding") {
            count(&self.tally.misshapen);
        }
        let mut begun = false;
        let mut heard = 0;
        let mut text = String::new();
        while let Some(chunk) = answer.chunk().await? {
            text.push_str(&String::from_utf8_lossy(&chunk));
            while let Some((event, rest)) = text.split_once("\n\n") {
                let revision = revision_of(event);
                let is_first = !std::mem::replace(&mut begun, true);
                if is_first && revision.is_none() && !event.starts_with("retry:") {
                    count(&self.tally.misshapen);
                }
                if revision.is_some_and(|revision| revision < *self.heard.borrow()) {
                    count(&self.tally.went_back);
                }
                heard = heard.max(revision.unwrap_or(0));
                self.hears(heard);
                text = rest.to_owned();
            }
        }
        if heard > 0 { Ok(()) } else { Err(refused()) }
    }

    fn hears(&self, revision: u64) {
        self.heard.send_if_modified(|heard| {
            let is_news = revision > *heard;
            *heard = revision.max(*heard);
            is_news
        });
    }

    /// Reads the flags whenever a newer revision was told, one read at a time.
    async fn read(&self) {
        let mut news = self.heard.subscribe();
        let mut failures = 0;
        loop {
            let wanted = *news.borrow_and_update();
            if self.has(wanted) {
                drop(news.changed().await);
                continue;
            }
            match self.read_flags(wanted).await {
                Ok(revision) if revision >= wanted => {
                    failures = 0;
                    count(&self.tally.reads);
                    self.arrivals.lock().unwrap().push((revision, Instant::now()));
                    self.have.store(revision, Ordering::SeqCst);
                }
                Ok(_) => {
                    // It believes what it got: that is how an old body under a new name does harm.
                    count(&self.tally.stale);
                    self.have.store(wanted, Ordering::SeqCst);
                }
                Err(_) => {
                    count(&self.tally.failed_reads);
                    failures += 1;
                    tokio::time::sleep(pause(failures)).await;
                }
            }
        }
    }

    async fn read_flags(&self, wanted: u64) -> io::Result<u64> {
        let answer = Raw::ask(self.door, &self.read_request(wanted)).await?;
        if answer.status != 200 {
            return Err(io::ErrorKind::Other.into());
        }
        let flags: Value = answer.json().await?;
        flags["revision"].as_u64().ok_or(io::ErrorKind::InvalidData.into())
    }

    fn stream_request(&self) -> String {
        let path = self.dialect.path(&self.client_key);
        let query = match self.number % 4 {
            0 => String::new(),
            1 => format!("?_={}", self.number),
            2 => format!("?lastEventId={}&t={}", self.number, rand::random::<u32>()),
            _ => "?".to_owned(),
        };
        let mut request = format!("GET {path}{query} HTTP/1.1\r\n");
        self.write_headers(&mut request);
        request.push_str(match self.number % 3 {
            0 => "Accept: text/event-stream\r\n",
            1 => "Accept: application/json, text/event-stream\r\n",
            _ => "",
        });
        if self.number.is_multiple_of(2) {
            write!(request, "Last-Event-ID: {}\r\n", self.number).unwrap();
        }
        if self.number.is_multiple_of(11) {
            request.push_str("If-None-Match: \"1\"\r\n");
        }
        request.push_str("\r\n");
        request
    }

    fn read_request(&self, wanted: u64) -> String {
        let query = match self.number % 3 {
            0 => format!("?rev={wanted}"),
            1 => format!("?_={}&rev={wanted}", self.number),
            _ => format!("?rev=0{wanted}&utm={}", self.number),
        };
        let key = &self.client_key;
        let mut request = format!("GET /sdk/v1/environments/{key}/flags{query} HTTP/1.1\r\n");
        self.write_headers(&mut request);
        request.push_str("\r\n");
        request
    }

    /// What makes one client unlike another.
    fn write_headers(&self, request: &mut String) {
        let n = self.number;
        write!(request, "Host: flags{}.example\r\n", n % 3).unwrap();
        if n.is_multiple_of(3) {
            write!(request, "Cookie: session={n}; theme=dark\r\n").unwrap();
        }
        if n % 4 == 1 {
            write!(request, "Authorization: Bearer token-of-{n}\r\n").unwrap();
        }
        if n % 2 == 1 {
            write!(request, "Origin: https://site{}.example\r\n", n % 7).unwrap();
        }
        if let Some(coding) = ["gzip", "identity", "br", "gzip, deflate, br"].get(n % 5) {
            write!(request, "Accept-Encoding: {coding}\r\n").unwrap();
        }
        if n % 3 != 1 {
            request.push_str("Cache-Control: no-cache\r\nPragma: no-cache\r\n");
        }
        if n % 6 == 5 {
            request.push_str("Range: bytes=0-\r\n");
        }
        if !n.is_multiple_of(5) {
            write!(request, "User-Agent: client/{n}\r\n").unwrap();
        }
        write!(request, "X-Request-Id: {n}\r\nAccept-Language: l{n}\r\n").unwrap();
    }
}

/// The revision that an event tells of.
fn revision_of(event: &str) -> Option<u64> {
    let data = event.lines().find_map(|line| line.strip_prefix("data: "))?;
    let facts: Value = serde_json::from_str(data).ok()?;
    facts["revision"].as_u64()
}

/// How long a client rests after so many failures in a row.
fn pause(failures: u32) -> Duration {
    let jitter = rand::random_range(0.5..1.5);
    match failures {
        0 => Duration::from_secs(1).mul_f64(jitter),
        _ => Duration::from_millis(100 << failures.min(5)).mul_f64(jitter),
    }
}
