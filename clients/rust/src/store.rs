//! Where the copy outlives the process. A store that fails is told of in the log and harms nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::flags::Flags;
use crate::held::Held;

/// Keeps one copy. Its methods may wait; they are called on threads that are there for that.
pub trait Store: Send + Sync + 'static {
    /// The copy, if there is one.
    ///
    /// # Errors
    ///
    /// When it cannot be read. It is logged, and the receiver begins without a copy.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the copy, as a whole or not at all.
    ///
    /// # Errors
    ///
    /// When it cannot be written. It is logged; the next copy is tried again.
    fn save(&self, copy: &[u8]) -> io::Result<()>;

    /// Something that is another one when somebody has saved, if that is cheap to know. It is asked
    /// for once a second, so that processes with one store follow one another.
    fn stamp(&self) -> Option<String> {
        None
    }
}

/// Bytes of a copy at most.
const COPY_MAX: u64 = 32 << 20;

/// Between looks at what other processes have saved.
const LOOK: Duration = Duration::from_secs(1);

/// A copy in a file, which only its owner may read. Several processes may share it.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// A store in the file at `path`; its folder must be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// A name beside the file that nobody else uses.
    fn aside(&self) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}-{count}.tmp", std::process::id()));
        name.into()
    }
}

impl Store for FileStore {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut copy = Vec::new();
        file.take(COPY_MAX).read_to_end(&mut copy)?;
        Ok(Some(copy))
    }

    fn save(&self, copy: &[u8]) -> io::Result<()> {
        let aside = self.aside();
        let saved = write(&aside, copy).and_then(|()| std::fs::rename(&aside, &self.path));
        if saved.is_err() {
            drop(std::fs::remove_file(&aside));
        }
        saved
    }

    fn stamp(&self) -> Option<String> {
        let about = std::fs::metadata(&self.path).ok()?;
        Some(format!("{:?} {} {}", about.modified().ok()?, about.len(), number(&about)))
    }
}

fn write(path: &Path, copy: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(copy)?;
    file.sync_all()
}

/// What tells a file from the one that was there before, beside its time.
fn number(about: &std::fs::Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::ino(about);
    #[cfg(not(unix))]
    return about.len();
}

/// The store of a receiver.
#[derive(Clone)]
pub(crate) struct Home {
    store: Arc<dyn Store>,
    client_key: String,
}

impl Home {
    pub(crate) fn new(store: Arc<dyn Store>, client_key: &str) -> Self {
        Self { store, client_key: client_key.to_owned() }
    }

    /// The copy, if there is one that can be used.
    pub(crate) fn load(&self) -> Option<Flags> {
        let copy = match self.store.load() {
            Ok(copy) => copy?,
            Err(error) => {
                tracing::warn!(%error, "the stored copy of the flags cannot be read");
                return None;
            }
        };
        Flags::parse(&copy, &self.client_key)
            .inspect_err(|why| tracing::warn!(%why, "the stored copy of the flags is ignored"))
            .ok()
    }

    /// Saves, unless another process has saved what is as new.
    fn save(&self, flags: &Flags) {
        if self.load().is_some_and(|stored| stored.updated_at() >= flags.updated_at()) {
            return;
        }
        if let Err(error) = self.store.save(&flags.to_bytes()) {
            tracing::warn!(%error, "the flags could not be stored");
        }
    }

    /// The copy at the start and its stamp, whatever a store of the app does.
    pub(crate) fn load_first(&self) -> (Option<String>, Option<Flags>) {
        let home = self.clone();
        let loaded = std::thread::spawn(move || (home.store.stamp(), home.load())).join();
        loaded.unwrap_or_else(|_| {
            tracing::warn!("the store panicked when it was to load");
            (None, None)
        })
    }

    /// Saves each new copy; what came while one was being saved is left out.
    pub(crate) async fn keep(self, held: Arc<Held>) {
        let mut states = held.watch();
        while states.changed().await.is_ok() {
            let Some(flags) = states.borrow_and_update().flags.clone() else { continue };
            let home = self.clone();
            if tokio::task::spawn_blocking(move || home.save(&flags)).await.is_err() {
                tracing::warn!("the store panicked when it was to save");
            }
        }
    }

    /// Takes what other processes save, as long as the store can tell.
    pub(crate) async fn watch(self, held: Arc<Held>, mut seen: Option<String>) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (home, before) = (self.clone(), seen.clone());
            let look = move || {
                let stamp = home.store.stamp();
                let is_new = stamp.is_some() && stamp != before;
                (stamp, if is_new { home.load() } else { None })
            };
            let Ok((stamp, flags)) = tokio::task::spawn_blocking(look).await else { continue };
            seen = stamp;
            if let Some(flags) = flags {
                let revision = flags.revision();
                if held.offer(flags) {
                    tracing::info!(revision, "new flags, from another process");
                }
            }
        }
    }
}
