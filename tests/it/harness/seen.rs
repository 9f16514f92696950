//! What a client has seen, which nothing may undo, and how much it is to read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use reqwest::Response;
use tokio::time::sleep;

use super::admin::{Admin, Environment};

/// How many reads the environment wants.
const READS_VARIABLE: &str = "FLAGCAST_TEST_READS";

/// Reads that are still to be made.
pub(crate) struct Budget {
    left: AtomicUsize,
    over: AtomicBool,
}

impl Budget {
    /// So many, or as many as the environment wants.
    pub(crate) fn or_wanted(reads: usize) -> (Arc<Self>, usize) {
        let wanted = std::env::var(READS_VARIABLE).map_or(reads, |reads| reads.parse().unwrap());
        (Self::of(wanted), wanted)
    }

    fn of(reads: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(reads), over: AtomicBool::new(false) })
    }

    /// Whether one more is to be made.
    pub(crate) fn take(&self) -> bool {
        let taken =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        self.over.fetch_or(taken.is_err(), Ordering::SeqCst);
        taken.is_ok()
    }

    /// Whether all have been made.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// The newest state that a client has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) revision: u64,
    pub(crate) updated_at: f64,
}

impl Seen {
    /// Takes in a revision, which must not be older.
    pub(crate) fn sees_revision(&mut self, revision: u64, what: &str) {
        assert!(revision >= self.revision, "{what} is of {revision}, and {self:?} was seen");
        self.revision = revision;
    }

    /// The same of the time of a change.
    pub(crate) fn sees_instant(&mut self, updated_at: f64, what: &str) {
        assert!(updated_at >= self.updated_at, "{what} is of {updated_at}, and {self:?} was seen");
        self.updated_at = updated_at;
    }
}

/// Every tag names the revision behind the environment's key: `W/"<key>.42"`, `"<key>.42.<digest>"`.
pub(crate) fn revision_of(answer: &Response) -> u64 {
    let tag = answer.headers()["etag"].to_str().unwrap();
    tag.split(['.', '"']).find_map(|part| part.parse().ok()).expect(tag)
}

/// Changes a flag at random nodes until the reads are over.
pub(crate) async fn change(
    admins: Vec<Admin>,
    environment: Environment,
    mut rng: StdRng,
    budget: Arc<Budget>,
) {
    while !budget.is_over() {
        let admin = admins.choose(&mut rng).unwrap();
        admin.set_value(&environment, "limit", rng.random_range(0..1_000_000)).await;
        sleep(Duration::from_millis(rng.random_range(5..80))).await;
    }
}
