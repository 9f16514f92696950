//! Receivers of webhooks: many small HTTP servers on loopback, each with a port of its own, in one
//! thread. What comes is kept as it came and looked at later, so that receiving costs little.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::Value as Json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::machine::now;

/// How often is looked whether everybody has what is waited for.
const LOOK: Duration = Duration::from_millis(1);

/// How long after a read that came too early the next is made, and how many are made.
const READ_AGAIN: Duration = Duration::from_millis(100);
const READS_MAX: usize = 50;

/// What a receiver does before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Nothing.
    Answers,
    /// Reads the flags at the delivery's `flags_url`, and says which revision it has applied.
    Applies,
}

/// A delivery as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// When the new flags were there, in nanoseconds since the epoch; of receivers that apply.
    pub(crate) applied: Option<(u64, i64)>,
}

/// The receivers. Dropping them ends them.
#[derive(Debug)]
pub(crate) struct Receivers {
    /// Where each is.
    pub(crate) urls: Vec<String>,
    all: Vec<Arc<Receiver>>,
    common: Arc<Common>,
    // Ends with us, and with it every receiver.
    _runtime: Runtime,
}

/// What they share.
#[derive(Debug)]
struct Common {
    manner: Manner,
    /// Nobody answers while it is closed.
    gate: watch::Sender<bool>,
    answered: AtomicUsize,
    /// A receiver could not read the flags.
    failed: AtomicBool,
    reader: reqwest::Client,
}

#[derive(Debug)]
struct Receiver {
    log: Mutex<Vec<Received>>,
    common: Arc<Common>,
}

impl Receivers {
    /// Starts `count` of them.
    pub(crate) fn start(count: usize, manner: Manner) -> anyhow::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let reader = flagcast::outbound::plain_client().no_proxy().build()?;
        let common = Arc::new(Common {
            manner,
            gate: watch::Sender::new(true),
            answered: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            reader,
        });
        let (mut urls, mut all) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = runtime.block_on(TcpListener::bind(any))?;
            urls.push(format!("http://{}/hook", listener.local_addr()?));
            let log = Mutex::new(Vec::new());
            let receiver = Arc::new(Receiver { log, common: Arc::clone(&common) });
            let router = Router::new().route("/hook", post(receive));
            let router = router.with_state(Arc::clone(&receiver));
            runtime.spawn(async move { axum::serve(listener, router).await });
            all.push(receiver);
        }
        Ok(Self { urls, all, common, _runtime: runtime })
    }

    /// Lets what comes wait for its answer, or lets go what waits.
    pub(crate) fn hold(&self, held: bool) {
        self.common.gate.send_replace(!held);
    }

    /// Waits until `count` deliveries were answered in all.
    pub(crate) fn wait(&self, count: usize, limit: Duration) -> anyhow::Result<()> {
        self.wait_until(limit, || self.common.answered.load(Ordering::Relaxed) >= count)
    }

    /// Waits until the newest delivery of the first `count` receivers has led to a revision.
    pub(crate) fn wait_applied(
        &self,
        count: usize,
        revision: u64,
        limit: Duration,
    ) -> anyhow::Result<()> {
        let has = |receiver: &Arc<Receiver>| {
            let applied = receiver.log().last().and_then(|received| received.applied);
            applied.is_some_and(|(applied, _)| applied >= revision)
        };
        self.wait_until(limit, || self.all[..count].iter().all(has))
    }

    fn wait_until(&self, limit: Duration, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
        let began = Instant::now();
        while !is_so() {
            if self.common.failed.load(Ordering::Relaxed) {
                bail!("a receiver could not read the flags");
            }
            if began.elapsed() > limit {
                let answered = self.common.answered.load(Ordering::Relaxed);
                bail!("receivers have answered only {answered} deliveries within {limit:?}");
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// What came to each, in the order in which it came; and begins anew.
    pub(crate) fn take(&self) -> Vec<Vec<Received>> {
        self.common.answered.store(0, Ordering::Relaxed);
        self.all.iter().map(|receiver| std::mem::take(&mut *receiver.log())).collect()
    }
}

impl Receiver {
    fn log(&self) -> MutexGuard<'_, Vec<Received>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let common = &receiver.common;
    let applied = match common.manner {
        Manner::Answers => None,
        Manner::Applies => match read(&common.reader, &body).await {
            Ok(applied) => Some(applied),
            Err(error) => {
                eprintln!("a receiver: {error:#}");
                common.failed.store(true, Ordering::Relaxed);
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
        },
    };
    receiver.log().push(Received { headers, body, applied });
    // It ends only with the program.
    drop(common.gate.subscribe().wait_for(|open| *open).await);
    common.answered.fetch_add(1, Ordering::Relaxed);
    match applied {
        None => StatusCode::OK.into_response(),
        Some((revision, _)) => {
            [("x-flagcast-applied-revision", revision.to_string())].into_response()
        }
    }
}

/// Reads the flags that a delivery tells of. Answers with their revision and when they were there.
async fn read(reader: &reqwest::Client, delivery: &[u8]) -> anyhow::Result<(u64, i64)> {
    let delivery: Json = serde_json::from_slice(delivery)?;
    let url = delivery["data"]["flags_url"].as_str().context("a delivery has no flags_url")?;
    for _ in 0..READS_MAX {
        let answer = reader.get(url).send().await?;
        if answer.status().is_success() {
            let flags: Json = serde_json::from_slice(&answer.bytes().await?)?;
            let revision = flags["revision"].as_u64().context("the flags have no revision")?;
            return Ok((revision, now()));
        }
        tokio::time::sleep(READ_AGAIN).await;
    }
    bail!("the flags of a delivery did not come")
}
