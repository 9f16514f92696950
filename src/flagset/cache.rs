//! The newest flag set of each environment, built once at a time and bounded in memory.
//!
//! Reads take what is there without a lock. A build reads the store; builds of one environment
//! queue, and one that waited takes what the build before it found if that began late enough. A read
//! of a revision that the store does not have yet waits a moment for it.

#[cfg(test)]
mod simulation;

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::set::FlagSet;
use crate::metrics::{Counted, FlagSetMetrics};
use crate::model::{EnvironmentId, Revision};
use crate::origin::Truth;
use crate::store::{StoreError, in_time};

/// Longest wait of a read for a revision that the store does not have yet: its commit may be on its
/// way here from another node, and a client that is told to come back does so after a second.
const AHEAD_WAIT: Duration = Duration::from_millis(500);

/// Longest build: it holds up every read of its environment.
const BUILD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the store is left alone after it has not answered, so that reads are quick meanwhile.
const UNASKED: Duration = Duration::from_secs(1);

/// What the flag sets of a process may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Memory of rendered sets, in bytes.
    pub bytes: usize,
    /// Reads that wait for a revision.
    pub waiting: usize,
    /// How long a read waits for the store's word that nothing is newer, if nodes share it.
    pub check: Duration,
}

/// The flag sets of a process. Clones share them.
#[derive(Clone, Debug)]
pub struct FlagSets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    truth: Arc<dyn Truth>,
    slots: DashMap<EnvironmentId, Arc<Slot>>,
    /// Memory that the slots may hold together.
    bytes_max: usize,
    bytes: AtomicUsize,
    /// Counts reads; a slot remembers its last one.
    reads: AtomicU64,
    /// Reads that may wait for a revision.
    waits: Semaphore,
    check: Duration,
    /// Until then the store is not asked whether anything is newer: it has not answered a moment ago.
    unasked_until: Mutex<Option<Instant>>,
    metrics: FlagSetMetrics,
}

#[derive(Debug, Default)]
struct Slot {
    current: ArcSwapOption<FlagSet>,
    last_read: AtomicU64,
    /// Rings when a newer set is in place.
    advanced: Notify,
    /// Held by the build; holds when the last one began that succeeded.
    began: AsyncMutex<Option<Instant>>,
}

impl FlagSets {
    /// Makes an empty cache over `truth`.
    #[must_use]
    pub fn new(truth: Arc<dyn Truth>, bounds: Bounds, metrics: FlagSetMetrics) -> Self {
        let inner = Inner {
            truth,
            slots: DashMap::new(),
            bytes_max: bounds.bytes,
            bytes: AtomicUsize::new(0),
            reads: AtomicU64::new(0),
            waits: Semaphore::new(bounds.waiting.min(Semaphore::MAX_PERMITS)),
            check: bounds.check,
            unasked_until: Mutex::default(),
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The newest flag set, or nothing when the environment is gone. Where nodes share the store, another
    /// one may have told of a change that this one has not heard of: so the store is asked whether what is
    /// held is the newest. If it does not answer, what is held is served.
    pub async fn get(&self, id: EnvironmentId) -> Result<Option<Arc<FlagSet>>, StoreError> {
        let is_shared = self.inner.truth.is_shared();
        // Nothing that is held counts as new enough unless it was asked for since.
        let newest = if is_shared { Revision(u64::MAX) } else { Revision(0) };
        let Some(held) = self.peek(id) else {
            return in_time(BUILD_TIMEOUT, self.boxed_build(id, newest)).await;
        };
        if !is_shared || self.is_unasked() {
            return Ok(Some(held));
        }
        // Reads that come together share one question; it begins after all of them have come.
        let asked = in_time(self.inner.check, self.boxed_build(id, newest));
        match asked.await {
            Ok(newest) => Ok(newest),
            Err(error) => {
                tracing::warn!(%error, "cannot ask the store for the newest revision; serving the last known");
                self.inner.metrics.unconfirmed.increment(1);
                let until = Instant::now() + UNASKED;
                *self.inner.unasked_until.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(until);
                Ok(Some(held))
            }
        }
    }

    fn is_unasked(&self) -> bool {
        let until = self.inner.unasked_until.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unasked = until.is_some_and(|until| Instant::now() < until);
        if is_unasked {
            self.inner.metrics.unconfirmed.increment(1);
        }
        is_unasked
    }

    /// No older than any change that was committed when this was called, or an error: for who reads once
    /// and never again.
    pub async fn fresh(&self, id: EnvironmentId) -> Result<Option<Arc<FlagSet>>, StoreError> {
        match self.inner.truth.revision(id, Revision(u64::MAX)).await? {
            Some(revision) => self.at_least(id, revision).await,
            None => Ok(None),
        }
    }

    /// A flag set of at least `revision`. Reads through when this process is behind, waits a moment
    /// when the store is, too, or does not answer, and then answers with nothing.
    pub async fn at_least(
        &self,
        id: EnvironmentId,
        revision: Revision,
    ) -> Result<Option<Arc<FlagSet>>, StoreError> {
        let reaches = |set: &Arc<FlagSet>| set.stamp.revision >= revision;
        let held = self.peek(id);
        if let Some(set) = held.as_ref().filter(|set| reaches(set)) {
            return Ok(Some(Arc::clone(set)));
        }
        match in_time(BUILD_TIMEOUT, self.boxed_build(id, revision)).await {
            Ok(None) => return Ok(None),
            Ok(Some(set)) if reaches(&set) => return Ok(Some(set)),
            Ok(Some(_)) => {}
            Err(error) if held.is_none() => return Err(error),
            Err(error) => tracing::warn!(%error, "cannot read a revision that is ahead of ours"),
        }
        Ok(Box::pin(self.wait_for(id, revision)).await)
    }

    /// Waits for a revision that the store did not have a moment ago.
    async fn wait_for(&self, id: EnvironmentId, revision: Revision) -> Option<Arc<FlagSet>> {
        let Ok(_waiting) = self.inner.waits.try_acquire() else {
            self.inner.metrics.waits_refused.increment(1);
            return None;
        };
        // A client may hang up while its read waits.
        let _counted = Counted::new(&self.inner.metrics.waiting);
        let deadline = Instant::now() + AHEAD_WAIT;
        loop {
            let slot = Arc::clone(&*self.inner.slots.get(&id)?);
            let mut advanced = pin!(slot.advanced.notified());
            // Listening first, then looking: what comes in between is heard.
            advanced.as_mut().enable();
            if let Some(set) = self.peek(id).filter(|set| set.stamp.revision >= revision) {
                return Some(set);
            }
            timeout_at(deadline, advanced).await.ok()?;
        }
    }

    /// Brings a flag set that is held to at least `revision`. One that nobody read stays unbuilt:
    /// its next reader builds the newest.
    pub async fn advance(&self, id: EnvironmentId, revision: Revision) -> Result<(), StoreError> {
        let Some(slot) = self.inner.slots.get(&id).map(|slot| Arc::clone(&slot)) else {
            return Ok(());
        };
        // Wait for a build under way: it may have read the store before the change and would
        // otherwise put an older flag set in place behind our back.
        let build = slot.began.lock().await;
        let held = slot.current.load().is_some();
        drop(build);
        if held {
            self.boxed_build(id, revision).await?;
        }
        Ok(())
    }

    /// Drops what is held of an environment that is gone.
    pub fn remove(&self, id: EnvironmentId) {
        if let Some((_, slot)) = self.inner.slots.remove(&id) {
            self.inner.put(&slot, None);
        }
    }

    /// Whether another set would push none out soon: a quarter is left free.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.inner.bytes.load(Ordering::Relaxed) < self.inner.bytes_max / 4 * 3
    }

    fn peek(&self, id: EnvironmentId) -> Option<Arc<FlagSet>> {
        let slot = self.inner.slots.get(&id)?;
        let set = slot.current.load_full()?;
        let read = self.inner.reads.fetch_add(1, Ordering::Relaxed);
        slot.last_read.store(read, Ordering::Relaxed);
        Some(set)
    }

    /// A build is rare and its future large; inside the future of every read it would cost each open
    /// connection its size.
    fn boxed_build(
        &self,
        id: EnvironmentId,
        wanted: Revision,
    ) -> Pin<Box<impl Future<Output = Result<Option<Arc<FlagSet>>, StoreError>> + Send>> {
        Box::pin(self.build(id, wanted))
    }

    /// Builds the flag set from the store unless a build that began after this call did, or the
    /// store is no further than what is held.
    async fn build(
        &self,
        id: EnvironmentId,
        wanted: Revision,
    ) -> Result<Option<Arc<FlagSet>>, StoreError> {
        let arrived = Instant::now();
        let slot = Arc::clone(&self.inner.slots.entry(id).or_default());
        let mut began = slot.began.lock().await;
        let held = slot.current.load_full();
        // Strictly: one that began at the same instant may have asked before.
        let fresh = began.is_some_and(|at| at > arrived);
        if held.as_ref().is_some_and(|set| fresh || set.stamp.revision >= wanted.max(Revision(1))) {
            return Ok(held);
        }
        // Noted when it has succeeded: who waited for one that failed asks again.
        let begins = Instant::now();
        if let Some(held) = &held {
            // Cheaper than a build: a revision that was never issued costs one row. A database that has
            // lost its last changes may be behind: nobody is ever given an older set than before.
            let present = self.inner.truth.revision(id, wanted).await?;
            if present.is_some_and(|present| present <= held.stamp.revision) {
                *began = Some(begins);
                return Ok(Some(Arc::clone(held)));
            }
        }
        let state = self.inner.truth.environment_state(id, wanted).await?;
        *began = Some(begins);
        let Some(state) = state else {
            self.remove(id);
            return Ok(None);
        };
        let set = Arc::new(FlagSet::render(&state));
        self.inner.metrics.builds.increment(1);
        self.inner.put(&slot, Some(Arc::clone(&set)));
        slot.advanced.notify_waiters();
        let read = self.inner.reads.fetch_add(1, Ordering::Relaxed);
        slot.last_read.store(read, Ordering::Relaxed);
        self.inner.evict(id);
        Ok(Some(set))
    }
}

impl Inner {
    fn put(&self, slot: &Slot, set: Option<Arc<FlagSet>>) {
        let added = set.as_ref().map_or(0, |set| set.weight());
        let removed = slot.current.swap(set).map_or(0, |set| set.weight());
        self.bytes.fetch_add(added, Ordering::Relaxed);
        self.bytes.fetch_sub(removed, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a gauge needs no exact byte")]
        self.metrics.bytes.set(self.bytes.load(Ordering::Relaxed) as f64);
    }

    /// Empties the slots that were read longest ago until the rest fits; never `kept`.
    fn evict(&self, kept: EnvironmentId) {
        while self.bytes.load(Ordering::Relaxed) > self.bytes_max {
            let oldest = self
                .slots
                .iter()
                .filter(|slot| *slot.key() != kept && slot.current.load().is_some())
                .min_by_key(|slot| slot.last_read.load(Ordering::Relaxed))
                .map(|slot| Arc::clone(slot.value()));
            let Some(slot) = oldest else { return };
            self.put(&slot, None);
            self.metrics.evictions.increment(1);
        }
    }
}
