//! Behind a real cache: one stream of an environment reaches the gateway, and one read of each
//! revision, whoever the clients are and whatever happens to the gateway.
//!
//! The caches run the rules that are shipped in `deploy/varnish`. A proxy between them and the gateway
//! counts; the clients count what must not happen to them (`harness/crowd.rs`).

mod crowds;
mod hostile;
mod lists;
mod outages;
mod purges;
mod recordings;

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use crate::harness::admin::Environment;
use crate::harness::crowd::{Crowd, Tally};
use crate::harness::varnish::Chain;
use crate::harness::{Builder, Gateway};

/// Life of a stream, ± 20 %, in seconds.
const LIFE: u32 = 12;

/// Shortest time for which a cache may share a stream of this life: 80 % of it in whole seconds, less
/// the margin of 3 s.
const FRESH_MIN: Duration = Duration::from_secs(6);

/// One crowd at a time: they share two cores.
static ROOM: Mutex<()> = Mutex::const_new(());

/// Waits until there is room for a crowd.
async fn room() -> MutexGuard<'static, ()> {
    ROOM.lock().await
}

/// A gateway whose streams behind a cache are short, so that a test sees several lives.
fn builder() -> Builder {
    Gateway::builder()
        .set("stream.cached_life_seconds", LIFE)
        .set("stream.cached_heartbeat_seconds", 2)
}

/// How many streams of one path may reach the gateway in `time`, when each is shared for as short as
/// can be. Those that come back at an end may open one more.
fn lives(time: Duration) -> usize {
    usize::try_from(time.as_millis().div_ceil(FRESH_MIN.as_millis())).unwrap()
}

/// A change through the management API, which answers when the subscribers have been told.
async fn change(gateway: &Gateway, environment: &Environment, step: u64) -> u64 {
    gateway.admin().set_value(environment, "limit", step).await
}

/// What must be true of every crowd at every time.
fn nobody_was_misled(crowd: &Crowd) {
    let tally = crowd.tally();
    assert_eq!(Tally::of(&tally.stale), 0, "stale answers: {tally:?}");
    assert_eq!(Tally::of(&tally.immediate_ends), 0, "recordings: {tally:?}");
    assert_eq!(Tally::of(&tally.misshapen), 0, "streams without a state: {tally:?}");
}

/// Asserts that no stream or read of a revision went past a cache.
fn nothing_went_past(chain: &Chain) {
    for cache in chain.edges() {
        for counter in ["MAIN.s_pass", "MAIN.cache_hitmiss", "MAIN.cache_hitpass"] {
            assert_eq!(cache.counter(counter), 0, "{counter}");
        }
    }
}

/// Asserts that each revision was read exactly `times` at the origin.
fn each_revision_was_read(chain: &Chain, environment: &Environment, times: usize) {
    let prefix = format!("/sdk/v1/environments/{}/flags?", environment.client_key);
    let reads = chain.origin().ledger().targets(&prefix);
    assert!(!reads.is_empty() && reads.values().all(|count| *count == times), "{reads:?}");
}

/// Prints what a run has measured.
fn report(name: &str, crowd: &Crowd, chain: &Chain, path: &str, delays: &mut [Duration]) {
    let streams = chain.origin().ledger().streams(path);
    delays.sort_unstable();
    let at = |share: usize| delays.get(delays.len() * share / 100).copied().unwrap_or_default();
    let worst = delays.last().copied().unwrap_or_default();
    eprintln!(
        "{name}: {} clients, {:?}, {streams:?}, change to flags p50 {:?} p90 {:?} p99 {:?} max {worst:?}",
        crowd.len(),
        crowd.tally(),
        at(50),
        at(90),
        at(99),
    );
}
