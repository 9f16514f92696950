//! Snapshots on the disk: one file for each environment, replaced as a whole.
//!
//! A change is written in two steps. Before anybody is told of it, it is *staged*: written beside the old
//! file, without a sync, which costs next to nothing, and enough that a process that dies begins again with
//! what its clients have seen. Behind the pings it is *kept*: synced and put in the old one's place. A machine
//! that dies leaves the old one or the new one. A file that cannot be read is put aside under another name and
//! told of; the upstream gives a new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::ClientKey;
use crate::snapshot::Snapshot;
use crate::store::keys::digest;

/// How files of snapshots end.
const ENDING: &str = "snapshot.json";

/// How files end that are staged, and those that are being written.
const STAGED: &str = "new";
const UNFINISHED: &str = "part";

/// Names files that are being written: an environment may be taken up while its last link still writes.
static PARTS: AtomicU64 = AtomicU64::new(0);

/// A folder of snapshots.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Opens a folder and makes it if it is not there; only its owner may read it.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // Found out now, not at the first change.
        let probe = folder.join("probe.new");
        File::create(&probe)?;
        fs::remove_file(&probe)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The newest `max` snapshots.
    pub(super) fn load(&self, max: usize) -> io::Result<Vec<Snapshot>> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            match path.extension().and_then(|ending| ending.to_str()) {
                Some(STAGED) => settle(&path),
                Some(UNFINISHED) => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(ENDING) {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort_unstable_by(|a, b| b.cmp(a));
        let paths = files.into_iter().take(max).map(|(_, path)| path);
        Ok(paths.filter_map(|path| read(&path)).collect())
    }

    /// The snapshot of one environment, if there is one.
    pub(super) fn find(&self, client_key: &ClientKey) -> Option<Snapshot> {
        let path = self.path(client_key);
        settle(&path.with_extension(STAGED));
        path.exists().then(|| read(&path)).flatten()
    }

    /// Writes a snapshot so that a start of this process would find it.
    pub(super) fn stage(&self, snapshot: &Snapshot) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.path(&snapshot.environment.client_key);
        let part =
            path.with_extension(format!("{}.{UNFINISHED}", PARTS.fetch_add(1, Ordering::Relaxed)));
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options
            .open(&part)
            .and_then(|mut file| file.write_all(&snapshot.encode()))
            .and_then(|()| fs::rename(&part, path.with_extension(STAGED)));
        if written.is_err() {
            // What is left of it would only take the room that was missing.
            drop(fs::remove_file(&part));
        }
        written
    }

    /// Puts what is staged of an environment in the old one's place, for good.
    pub(super) fn keep(&self, client_key: &ClientKey) -> io::Result<()> {
        let path = self.path(client_key);
        let staged = path.with_extension(STAGED);
        File::open(&staged)?.sync_all()?;
        fs::rename(&staged, &path)?;
        // The new name must outlive a loss of power, too.
        File::open(&self.folder)?.sync_all()
    }

    /// Forgets an environment.
    pub(super) fn remove(&self, client_key: &ClientKey) {
        let path = self.path(client_key);
        drop(fs::remove_file(path.with_extension(STAGED)));
        drop(fs::remove_file(path));
    }

    /// Keys may hold what no file name may.
    fn path(&self, client_key: &ClientKey) -> PathBuf {
        self.folder.join(format!("{}.{ENDING}", &digest(client_key.as_str())[..32]))
    }
}

/// Somebody may have been told of what is staged, so it counts, if it is whole: a loss of power may have
/// taken some of it.
fn settle(staged: &Path) {
    let is_whole = fs::read(staged).is_ok_and(|bytes| Snapshot::decode(&bytes).is_ok());
    if is_whole {
        drop(fs::rename(staged, staged.with_extension("json")));
    } else {
        drop(fs::remove_file(staged));
    }
}

fn read(path: &Path) -> Option<Snapshot> {
    let read = fs::read(path).map_err(|error| error.to_string());
    match read.and_then(|bytes| Snapshot::decode(&bytes).map_err(|error| error.to_string())) {
        Ok(snapshot) => Some(snapshot),
        Err(error) => {
            let file = path.display();
            tracing::error!(%error, %file, "cannot read a snapshot; it is put aside");
            drop(fs::rename(path, path.with_extension("damaged")));
            None
        }
    }
}
