//! The copy on disk: what a start makes of it, how it is written, who else reads it, and that a store
//! that fails harms nothing.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flagcast_receiver::{FileStore, Store};
use tempfile::TempDir;

use crate::gateway::{Fake, body, flags};
use crate::sender::{Clock, Delivery};
use crate::{KEY, builder, eventually};

const SECOND: Duration = Duration::from_secs(1);

fn revision(path: &Path) -> Option<u64> {
    let copy: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).unwrap();
    assert_eq!(copy["environment"], KEY);
    copy["revision"].as_u64()
}

#[tokio::test]
async fn an_app_starts_from_its_copy_when_the_gateway_is_down() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("flags.json");
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).file(&path).start().unwrap();
    eventually("the copy is saved", || revision(&path) == Some(41)).await;
    gateway.set(42, 101.0, "blue");
    assert_eq!(Delivery::of(42, 101.0).send(&receiver).await.status, 200);
    eventually("the newer is saved", || revision(&path) == Some(42)).await;
    receiver.close();

    let restarted = builder(&Fake::down(), &Clock::new()).file(&path).start().unwrap();
    assert!(restarted.is_ready() && restarted.wait_ready(Duration::ZERO).await);
    assert_eq!(restarted.value("colour"), Some("blue".into()), "at once");
    let answer = Delivery::of(42, 101.0).send(&restarted).await;
    assert_eq!((answer.status, answer.applied()), (200, Some(42)));
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_is_its_owners_and_nothing_is_left_beside_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("flags.json");
    // Somebody has left it open to all.
    std::fs::write(&path, "old").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let store = FileStore::new(&path);
    let before = store.stamp().unwrap();
    store.save(b"new").unwrap();
    assert_ne!(store.stamp().unwrap(), before);
    assert_eq!(store.load().unwrap().unwrap(), b"new");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    // What cannot be replaced is left as it is.
    let folder = directory.path().join("folder");
    std::fs::create_dir_all(folder.join("full")).unwrap();
    FileStore::new(&folder).save(b"new").unwrap_err();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "nor anything beside it");
}

#[tokio::test]
async fn a_copy_that_is_none_is_ignored_and_replaced() {
    let foreign = body(99, 999.0, &flags("foreign")).replace(KEY, "other");
    for copy in ["", "nonsense", "[]", "{}", "{\"environment\":", &foreign, "\0\0\0\0"] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("flags.json");
        std::fs::write(&path, copy).unwrap();
        let gateway = Fake::at(41, 100.0, "red");
        let receiver = builder(&gateway, &Clock::new()).file(&path).start().unwrap();
        assert!(!receiver.is_ready(), "{copy}");
        assert!(receiver.wait_ready(10 * SECOND).await);
        eventually("the copy is replaced", || {
            std::fs::read(&path).unwrap().starts_with(b"{\"environment\":\"npfo")
                && revision(&path) == Some(41)
        })
        .await;
    }
}

/// The gateway knows better, but only if it is newer.
#[tokio::test]
async fn a_newer_copy_outlives_an_older_answer() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("flags.json");
    std::fs::write(&path, body(42, 101.0, &flags("blue"))).unwrap();
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).file(&path).start().unwrap();
    eventually("the gateway was asked", || gateway.count() == 1).await;
    tokio::time::sleep(SECOND / 10).await;
    assert_eq!((receiver.revision(), revision(&path)), (Some(42), Some(42)));
}

/// A copy is no reason to leave the gateway alone: it may have changed while the app was down.
#[tokio::test(start_paused = true)]
async fn a_start_from_the_copy_goes_on_until_the_gateway_has_answered() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("flags.json");
    std::fs::write(&path, body(41, 100.0, &flags("red"))).unwrap();
    let gateway = Fake::down();
    let receiver = builder(&gateway, &Clock::new()).file(&path).start().unwrap();
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(receiver.revision(), Some(41));
    gateway.set(42, 101.0, "blue");
    gateway.always(None);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(receiver.revision(), Some(42));
}

/// A webhook reaches one process; the others see it in the file that they share.
#[tokio::test]
async fn processes_with_one_file_follow_one_another() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("flags.json");
    let gateway = Fake::at(41, 100.0, "red");
    let start = |gateway: &Fake| builder(gateway, &Clock::new()).file(&path).start().unwrap();
    let told = start(&gateway);
    eventually("the copy is saved", || revision(&path) == Some(41)).await;
    let other = start(&Fake::down());
    // One that was there before the file.
    let late = TempDir::new().unwrap();
    let early =
        builder(&Fake::down(), &Clock::new()).file(late.path().join("flags.json")).start().unwrap();
    gateway.set(42, 101.0, "blue");
    assert_eq!(Delivery::of(42, 101.0).send(&told).await.status, 200);
    eventually("the other sees it", || other.revision() == Some(42)).await;
    std::fs::copy(&path, late.path().join("flags.json")).unwrap();
    eventually("a file that appears is seen", || early.revision() == Some(42)).await;
    // An older copy moves nobody.
    std::fs::write(&path, body(40, 99.0, &flags("old"))).unwrap();
    tokio::time::sleep(SECOND * 3 / 2).await;
    assert_eq!((told.revision(), other.revision()), (Some(42), Some(42)));
}

/// A store of an app, and every way in which it can fail.
#[derive(Clone, Default)]
struct AppStore {
    copy: Arc<Mutex<Option<Vec<u8>>>>,
    saves: Arc<AtomicUsize>,
    fails: bool,
    panics: bool,
    delay: Duration,
}

impl Store for AppStore {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        assert!(!self.panics, "a panic of the store");
        if self.fails {
            return Err(io::Error::other("the store is away"));
        }
        Ok(self.copy.lock().unwrap().clone())
    }

    fn save(&self, copy: &[u8]) -> io::Result<()> {
        self.saves.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.delay);
        if self.fails {
            return Err(io::Error::other("the store is away"));
        }
        *self.copy.lock().unwrap() = Some(copy.to_vec());
        Ok(())
    }
}

#[tokio::test]
async fn an_app_may_bring_its_store() {
    let store = AppStore::default();
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).store(store.clone()).start().unwrap();
    eventually("it is saved", || store.copy.lock().unwrap().is_some()).await;
    receiver.close();
    let restarted = builder(&Fake::down(), &Clock::new()).store(store).start().unwrap();
    assert_eq!(restarted.revision(), Some(41));
}

#[tokio::test]
async fn a_store_that_fails_harms_nothing() {
    let failing = AppStore { fails: true, ..AppStore::default() };
    let panicking = AppStore { panics: true, ..AppStore::default() };
    for store in [failing, panicking] {
        let gateway = Fake::at(41, 100.0, "red");
        let receiver = builder(&gateway, &Clock::new()).store(store.clone()).start().unwrap();
        assert!(receiver.wait_ready(10 * SECOND).await);
        for revision in 42..45_u32 {
            gateway.set(revision.into(), 100.0 + f64::from(revision), "blue");
            let delivery = Delivery::of(revision.into(), 100.0 + f64::from(revision));
            assert_eq!(delivery.send(&receiver).await.status, 200);
        }
        if store.fails {
            let saves = &store.saves;
            eventually("each time it is tried again", || saves.load(Ordering::SeqCst) >= 2).await;
        }
    }
}

/// A folder that is not there is no reason not to start, either.
#[tokio::test]
async fn a_file_that_cannot_be_written_harms_nothing() {
    let gateway = Fake::at(41, 100.0, "red");
    let receiver = builder(&gateway, &Clock::new()).file("/nowhere/flags.json").start().unwrap();
    assert!(receiver.wait_ready(10 * SECOND).await);
}

/// Saving is off the path: deliveries do not wait for it, and what comes in between is left out.
#[tokio::test]
async fn a_slow_store_holds_nobody_up() {
    let store = AppStore { delay: SECOND / 2, ..AppStore::default() };
    let gateway = Fake::at(1, 1.0, "red");
    let receiver = builder(&gateway, &Clock::new()).store(store.clone()).start().unwrap();
    receiver.wait_ready(10 * SECOND).await;
    let began = std::time::Instant::now();
    for revision in 2..=50_u32 {
        gateway.set(revision.into(), revision.into(), "blue");
        let answer = Delivery::of(revision.into(), revision.into()).send(&receiver).await;
        assert_eq!((answer.status, answer.applied()), (200, Some(revision.into())));
    }
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    let newest = || {
        let copy = store.copy.lock().unwrap().clone().unwrap_or_default();
        String::from_utf8(copy).unwrap().contains("\"revision\":50,")
    };
    eventually("the newest is saved", newest).await;
    assert!(store.saves.load(Ordering::SeqCst) < 10, "what came in between is left out");
}
