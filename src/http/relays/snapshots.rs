//! The snapshots that relays ask for, as bytes. After a ping all relays ask at once for the same: the store is
//! asked once for all who came before, and the bytes are made once and kept for a moment.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use http::HeaderValue;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::flagset::{Body, Encoding};
use crate::model::{EnvironmentId, Revision};
use crate::origin::Truth;
use crate::snapshot::{Mark, Snapshot};
use crate::store::{StoreError, in_time};

/// Longest work for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// How long bytes are kept: a burst of relays is over by then.
const KEPT: Duration = Duration::from_secs(5);

/// Bytes that are kept together, beside those that were made last.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Snapshots of a process. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    truth: Arc<dyn Truth>,
    slots: DashMap<EnvironmentId, Arc<Slot>>,
    kept: Mutex<Kept>,
}

/// What is known of one environment.
#[derive(Debug, Default)]
struct Slot {
    /// Held while the store is asked.
    current: AsyncMutex<Option<Current>>,
    /// Number of the bytes that were made last.
    made: AtomicU64,
}

#[derive(Debug)]
struct Current {
    /// When the question began whose answer this is.
    asked: Instant,
    revision: Revision,
    tag: HeaderValue,
    /// The bytes, with the tag that they show.
    made: Option<(HeaderValue, Arc<Body>)>,
}

/// Which bytes are kept, the oldest first.
#[derive(Debug, Default)]
struct Kept {
    queue: VecDeque<KeptBody>,
    bytes: usize,
    last: u64,
}

#[derive(Debug)]
struct KeptBody {
    id: EnvironmentId,
    number: u64,
    made_at: Instant,
    bytes: usize,
}

/// What was found for a relay.
#[derive(Debug)]
pub(super) enum Found {
    /// There is no such environment any more.
    Gone,
    /// It is not where the relay wants it.
    Behind,
    /// The relay holds it.
    Same(HeaderValue),
    /// Here it is.
    New(HeaderValue, Arc<Body>),
}

impl Snapshots {
    pub(super) fn new(truth: Arc<dyn Truth>) -> Self {
        let inner = Inner { truth, slots: DashMap::new(), kept: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The newest snapshot of an environment, if that is at least `wanted` and none that the relay holds.
    pub(super) async fn find(
        &self,
        id: EnvironmentId,
        wanted: Revision,
        holds: impl Fn(&HeaderValue) -> bool + Send,
    ) -> Result<Found, StoreError> {
        self.inner.tidy(&mut self.inner.kept());
        in_time(LIMIT, self.ask(id, wanted, holds)).await
    }

    async fn ask(
        &self,
        id: EnvironmentId,
        wanted: Revision,
        holds: impl Fn(&HeaderValue) -> bool + Send,
    ) -> Result<Found, StoreError> {
        let arrived = Instant::now();
        let slot = Arc::clone(&*self.inner.slots.entry(id).or_default());
        let mut current = slot.current.lock().await;
        // Strictly: a question that began at the same instant may have begun before.
        if current.as_ref().is_none_or(|known| known.asked <= arrived) {
            let asked = Instant::now();
            let Some(mark) = self.inner.truth.mark(id).await? else {
                self.inner.slots.remove(&id);
                return Ok(Found::Gone);
            };
            let made = current.take().and_then(|known| known.made);
            *current = Some(Current::of(asked, &mark, made));
        }
        let Some(known) = current.as_mut() else { return Ok(Found::Gone) };
        if known.revision < wanted {
            return Ok(Found::Behind);
        }
        if holds(&known.tag) {
            return Ok(Found::Same(known.tag.clone()));
        }
        if let Some((tag, body)) = known.made.as_ref().filter(|(tag, _)| *tag == known.tag) {
            return Ok(Found::New(tag.clone(), Arc::clone(body)));
        }
        let asked = Instant::now();
        let Some(snapshot) = self.inner.truth.snapshot(id).await? else {
            self.inner.slots.remove(&id);
            return Ok(Found::Gone);
        };
        let mark = snapshot.mark();
        let body = encoded(snapshot).await?;
        let made = Current::of(asked, &mark, None);
        let found = Found::New(made.tag.clone(), Arc::clone(&body));
        *known = Current { made: Some((made.tag.clone(), Arc::clone(&body))), ..made };
        self.inner.keep(id, &slot, &body);
        Ok(if mark.revision < wanted { Found::Behind } else { found })
    }
}

impl Current {
    fn of(asked: Instant, mark: &Mark, made: Option<(HeaderValue, Arc<Body>)>) -> Self {
        // Digits, letters and quotes always make a header.
        let tag = HeaderValue::try_from(mark.tag()).unwrap_or(HeaderValue::from_static("\"\""));
        Self { asked, revision: mark.revision, tag, made }
    }
}

/// The bytes of a snapshot, packed as relays want them: a large one keeps a core busy for a while.
async fn encoded(snapshot: Snapshot) -> Result<Arc<Body>, StoreError> {
    let encoded = tokio::task::spawn_blocking(move || {
        let body = Body::new(snapshot.encode());
        drop(body.encoded(Encoding::Gzip));
        Arc::new(body)
    });
    encoded.await.map_err(|error| StoreError::Damaged(format!("no snapshot can be made: {error}")))
}

impl Inner {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of bytes that were made.
    fn keep(&self, id: EnvironmentId, slot: &Slot, body: &Body) {
        let mut kept = self.kept();
        kept.last += 1;
        let (number, bytes) = (kept.last, body.weight());
        slot.made.store(number, Ordering::Relaxed);
        kept.queue.push_back(KeptBody { id, number, made_at: Instant::now(), bytes });
        kept.bytes += bytes;
        self.tidy(&mut kept);
    }

    /// Lets go of what is old or too much.
    fn tidy(&self, kept: &mut Kept) {
        while let Some(oldest) = kept.queue.front() {
            let too_much = kept.bytes > KEPT_BYTES_MAX && kept.queue.len() > 1;
            if !too_much && oldest.made_at.elapsed() < KEPT {
                return;
            }
            let Some(KeptBody { id, number, bytes, .. }) = kept.queue.pop_front() else { return };
            kept.bytes -= bytes;
            let is_of_it = |slot: &Arc<Slot>| slot.made.load(Ordering::Relaxed) == number;
            self.slots.remove_if(&id, |_, slot| is_of_it(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::task::JoinSet;

    use super::*;
    use crate::model::{
        ClientKey, Environment, EnvironmentKind, EnvironmentSettings, EnvironmentState, Stamp,
        UpdatedAt,
    };
    use crate::origin::Answer;

    /// A store with one environment, slow enough that questions meet.
    #[derive(Debug)]
    struct Source {
        snapshot: Mutex<Option<Snapshot>>,
        marks: AtomicUsize,
        snapshots: AtomicUsize,
    }

    const ID: EnvironmentId = EnvironmentId(3);

    impl Truth for Source {
        fn is_shared(&self) -> bool {
            false
        }

        fn revision(&self, _: EnvironmentId, _: Revision) -> Answer<'_, Option<Revision>> {
            Box::pin(async { Ok(None) })
        }

        fn environment_state(
            &self,
            _: EnvironmentId,
            _: Revision,
        ) -> Answer<'_, Option<EnvironmentState>> {
            Box::pin(async { Ok(None) })
        }

        fn mark(&self, _: EnvironmentId) -> Answer<'_, Option<Mark>> {
            self.marks.fetch_add(1, Ordering::Relaxed);
            Box::pin(async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(self.snapshot.lock().unwrap().as_ref().map(Snapshot::mark))
            })
        }

        fn snapshot(&self, _: EnvironmentId) -> Answer<'_, Option<Snapshot>> {
            self.snapshots.fetch_add(1, Ordering::Relaxed);
            Box::pin(async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(self.snapshot.lock().unwrap().clone())
            })
        }
    }

    fn source() -> (Arc<Source>, Snapshots) {
        let environment = Environment {
            id: ID,
            kind: EnvironmentKind::PushOnly,
            project_id: None,
            key: "k".to_owned(),
            name: "k".to_owned(),
            client_key: ClientKey::parse("k").unwrap(),
            settings: EnvironmentSettings::default(),
            stamp: Stamp { revision: Revision(7), updated_at: UpdatedAt::from_micros(0) },
            created_at: 0,
        };
        let snapshot = Snapshot {
            epoch: "one".to_owned(),
            environment,
            server_key_hashes: Vec::new(),
            state: None,
        };
        let source = Arc::new(Source {
            snapshot: Mutex::new(Some(snapshot)),
            marks: AtomicUsize::default(),
            snapshots: AtomicUsize::default(),
        });
        (Arc::clone(&source), Snapshots::new(source))
    }

    async fn find(snapshots: &Snapshots, held: Option<&HeaderValue>) -> Found {
        let held = held.cloned();
        let holds = |tag: &HeaderValue| held.as_ref() == Some(tag);
        snapshots.find(ID, Revision(7), holds).await.unwrap()
    }

    #[tokio::test]
    async fn a_burst_of_relays_costs_one_snapshot() {
        let (source, snapshots) = source();
        let mut relays = JoinSet::new();
        for _ in 0..200 {
            let snapshots = snapshots.clone();
            relays.spawn(async move { find(&snapshots, None).await });
        }
        for found in relays.join_all().await {
            assert!(matches!(found, Found::New(..)), "{found:?}");
        }
        assert_eq!(source.snapshots.load(Ordering::Relaxed), 1);
        let marks = source.marks.load(Ordering::Relaxed);
        assert!(marks <= 2, "{marks} questions");
    }

    #[tokio::test]
    async fn another_key_makes_another_tag_and_what_is_held_is_not_sent_again() {
        let (source, snapshots) = source();
        let Found::New(tag, _) = find(&snapshots, None).await else { panic!() };
        assert!(matches!(find(&snapshots, Some(&tag)).await, Found::Same(_)));
        let hashes = vec!["ab".to_owned()];
        source.snapshot.lock().unwrap().as_mut().unwrap().server_key_hashes = hashes.clone();
        let Found::New(other, body) = find(&snapshots, Some(&tag)).await else { panic!() };
        assert_ne!(other, tag);
        assert_eq!(Snapshot::decode(body.plain()).unwrap().server_key_hashes, hashes);
        assert_eq!(source.snapshots.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn what_is_behind_or_gone_is_told_so() {
        let (source, snapshots) = source();
        let behind = snapshots.find(ID, Revision(8), |_| true).await.unwrap();
        assert!(matches!(behind, Found::Behind), "no 304 for what is too old: {behind:?}");
        *source.snapshot.lock().unwrap() = None;
        assert!(matches!(find(&snapshots, None).await, Found::Gone));
        assert!(snapshots.inner.slots.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_kept_for_a_moment() {
        let (source, snapshots) = source();
        for _ in 0..3 {
            find(&snapshots, None).await;
        }
        assert_eq!(source.snapshots.load(Ordering::Relaxed), 1);
        tokio::time::sleep(KEPT).await;
        let other = snapshots.find(EnvironmentId(4), Revision(0), |_| true).await.unwrap();
        assert!(matches!(other, Found::Same(_)));
        assert!(snapshots.inner.slots.get(&ID).is_none(), "whoever asks next tidies up");
        assert_eq!(snapshots.inner.kept().bytes, 0);
        find(&snapshots, None).await;
        assert_eq!(source.snapshots.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn bytes_are_kept_within_bounds() {
        let (source, snapshots) = source();
        let large = "x".repeat(KEPT_BYTES_MAX / 4);
        source.snapshot.lock().unwrap().as_mut().unwrap().environment.name = large;
        for id in 1..=4 {
            snapshots.find(EnvironmentId(id), Revision(0), |_| false).await.unwrap();
        }
        let kept = snapshots.inner.kept();
        assert!(kept.bytes <= KEPT_BYTES_MAX && kept.queue.len() == 2, "{kept:?}");
        assert_eq!(snapshots.inner.slots.len(), 2);
    }
}
