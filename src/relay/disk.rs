//! Snapshots on the disk: one file for each environment, replaced as a whole.
//!
//! A file is written beside the old one, synced, and renamed over it, so that a crash leaves the old one or
//! the new one. A file that cannot be read is put aside under another name and told of; the upstream gives a
//! new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::model::ClientKey;
use crate::snapshot::Snapshot;
use crate::store::keys::digest;

/// How files of snapshots end.
const ENDING: &str = "snapshot.json";

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
        path.exists().then(|| read(&path)).flatten()
    }

    /// Replaces the snapshot of an environment.
    pub(super) fn write(&self, snapshot: &Snapshot) -> io::Result<()> {
        let path = self.path(&snapshot.environment.client_key);
        let fresh = path.with_extension("new");
        let written = self.replace(&path, &fresh, &snapshot.encode());
        if written.is_err() {
            // What is left of it would only take the room that was missing.
            drop(fs::remove_file(&fresh));
        }
        written
    }

    fn replace(&self, path: &Path, fresh: &Path, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(fresh, path)?;
        // The new name must outlive a loss of power, too.
        File::open(&self.folder)?.sync_all()
    }

    /// Forgets an environment.
    pub(super) fn remove(&self, client_key: &ClientKey) {
        drop(fs::remove_file(self.path(client_key)));
    }

    /// Keys may hold what no file name may.
    fn path(&self, client_key: &ClientKey) -> PathBuf {
        self.folder.join(format!("{}.{ENDING}", &digest(client_key.as_str())[..32]))
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
