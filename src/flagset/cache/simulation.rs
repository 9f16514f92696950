//! A deterministic simulation of several nodes: the real cache over a played store, with a clock that only
//! moves when everybody waits, and delays and failures out of a seed.
//!
//! It looks for a client that was told of a revision, or has read it, and then reads less from whatever node.
//! `FLAGCAST_SIMULATION_SEEDS` plays more stories than the usual ones; a story that fails tells its seed, and
//! `FLAGCAST_SIMULATION_SEED` plays that one alone.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Bounds, FlagSets};
use crate::flagset::sample::state;
use crate::metrics::Metrics;
use crate::model::{EnvironmentId, EnvironmentState, Revision};
use crate::origin::{Answer, Truth};
use crate::snapshot::{Mark, Snapshot};
use crate::store::StoreError;

const HERE: EnvironmentId = EnvironmentId(3);
const NODES: usize = 3;
const CLIENTS: u64 = 12;
const READS: usize = 100;
const CHANGES: u64 = 60;
/// Stories of the usual run.
const SEEDS: u64 = 150;
/// Longer than any answer of the store takes, one after the other: then a read is never unconfirmed.
const CHECK: Duration = Duration::from_secs(5);

/// One database, as all nodes see it.
#[derive(Clone, Debug)]
struct Played {
    newest: Arc<watch::Sender<u64>>,
    random: Arc<Mutex<StdRng>>,
    /// One question in so many fails.
    fails_one_in: u32,
}

impl Played {
    fn draw(&self, range: Range<u64>) -> u64 {
        self.random.lock().unwrap().random_range(range)
    }

    async fn rest(&self, millis: Range<u64>) {
        let millis = self.draw(millis);
        sleep(Duration::from_millis(millis)).await;
    }

    /// An answer is what was true at some instant between question and answer, and takes its time.
    async fn ask(&self) -> Result<Revision, StoreError> {
        self.rest(0..40).await;
        let newest = Revision(*self.newest.borrow());
        self.rest(0..40).await;
        if self.fails_one_in > 0 && self.draw(0..u64::from(self.fails_one_in)) == 0 {
            return Err(StoreError::Damaged("the story wants it".to_owned()));
        }
        Ok(newest)
    }
}

impl Truth for Played {
    fn is_shared(&self) -> bool {
        true
    }

    fn revision(&self, _: EnvironmentId, _: Revision) -> Answer<'_, Option<Revision>> {
        Box::pin(async { self.ask().await.map(Some) })
    }

    fn environment_state(
        &self,
        _: EnvironmentId,
        _: Revision,
    ) -> Answer<'_, Option<EnvironmentState>> {
        Box::pin(async {
            let mut state = state();
            state.environment.stamp.revision = self.ask().await?;
            Ok(Some(state))
        })
    }

    fn mark(&self, _: EnvironmentId) -> Answer<'_, Option<Mark>> {
        unreachable!("no relay is in the story")
    }

    fn snapshot(&self, _: EnvironmentId) -> Answer<'_, Option<Snapshot>> {
        unreachable!("no relay is in the story")
    }
}

/// A node: its cache, and what it tells those who listen.
struct Node {
    flagsets: FlagSets,
    pings: watch::Sender<u64>,
}

/// Follows the database as a feed does, late by whatever the story wants: the flag set first, then the ping.
async fn feed(node: Arc<Node>, played: Played) {
    loop {
        // Most are prompt; now and then one is far behind.
        let slow = played.draw(0..10) == 0;
        played.rest(if slow { 200..2_000 } else { 0..30 }).await;
        let Ok(newest) = played.ask().await else { continue };
        if newest.0 > *node.pings.borrow() && node.flagsets.advance(HERE, newest).await.is_ok() {
            node.pings.send_replace(newest.0);
        }
    }
}

/// Listens at one node and reads from all of them. Answers with how many reads had an answer.
async fn client(nodes: Arc<Vec<Arc<Node>>>, played: Played, mut seen: u64) -> usize {
    let mut answered = 0;
    let any = || usize::try_from(played.draw(0..NODES as u64)).unwrap();
    let home = any();
    for _ in 0..READS {
        played.rest(0..60).await;
        seen = seen.max(*nodes[home].pings.borrow());
        let flagsets = &nodes[any()].flagsets;
        let pinned = played.draw(0..2) == 0;
        let read = if pinned {
            flagsets.at_least(HERE, Revision(seen)).await
        } else {
            flagsets.get(HERE).await
        };
        let Ok(Some(set)) = read else { continue };
        // A store that fails is served from what is known, which may be old; a pinned read never is.
        if pinned || played.fails_one_in == 0 {
            let read = set.stamp.revision.0;
            assert!(read >= seen, "read {read} after {seen} (pinned: {pinned})");
            seen = read;
        }
        answered += 1;
    }
    answered
}

/// Plays a story. Answers with how many reads had an answer.
async fn story(seed: u64) -> usize {
    let played = Played {
        newest: Arc::new(watch::Sender::new(1)),
        random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
        fails_one_in: if seed % 4 == 3 { 10 } else { 0 },
    };
    let bounds = Bounds { bytes: usize::MAX, waiting: 100, check: CHECK };
    let node = |_| {
        let flagsets = FlagSets::new(Arc::new(played.clone()), bounds, Metrics::new().flagset());
        Arc::new(Node { flagsets, pings: watch::Sender::new(1) })
    };
    let nodes: Arc<Vec<_>> = Arc::new((0..NODES).map(node).collect());
    let mut feeds = JoinSet::new();
    for node in nodes.iter() {
        feeds.spawn(feed(Arc::clone(node), played.clone()));
    }
    let writer = played.clone();
    feeds.spawn(async move {
        for _ in 0..CHANGES {
            writer.rest(0..200).await;
            writer.newest.send_modify(|newest| *newest += 1);
        }
        std::future::pending::<()>().await;
    });
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(Arc::clone(&nodes), played.clone(), 1));
    }
    let answered = clients.join_all().await;
    answered.into_iter().sum()
}

#[test]
fn nobody_reads_less_than_what_they_have_seen() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("FLAGCAST_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FLAGCAST_SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    let mut answered = 0;
    for seed in seeds.clone() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        let played = std::panic::AssertUnwindSafe(|| runtime.block_on(story(seed)));
        let played = std::panic::catch_unwind(played);
        assert!(played.is_ok(), "the story of FLAGCAST_SIMULATION_SEED={seed} failed");
        answered += played.unwrap_or_default();
    }
    eprintln!("{answered} reads in {} stories, none of them stale", seeds.end - seeds.start);
}
