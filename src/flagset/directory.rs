//! Which key opens which environment: every environment of the store, held in memory.
//!
//! Doors ask it for each request, so that recognising a caller costs no query and works while the
//! database is away. The change feed keeps it up to date. A relay holds only the environments that are
//! used: there, a key that is not known yet is asked about.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::set::View;
use crate::model::{ClientKey, EnvironmentId, EnvironmentKind, SERVER_KEY_PREFIX};
use crate::store::keys::{DIGEST_PREFIX, DigestBytes, digest_bytes, hex, parse_digest};
use crate::store::{DirectoryEntry, StoreError};

/// Longest wait of a request for word about its key: SDKs give up after a few seconds.
const STRANGER_WAIT: Duration = Duration::from_secs(3);

/// An environment that a key opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Row number.
    pub id: EnvironmentId,
    /// Where its flags live.
    pub kind: EnvironmentKind,
    /// Its public key.
    pub client_key: ClientKey,
    /// Whether the key was a server key.
    pub by_server_key: bool,
}

impl Known {
    /// What the key lets its holder see.
    #[must_use]
    pub fn view(&self) -> View {
        if self.by_server_key { View::Server } else { View::Client }
    }
}

/// All keys of all environments. An environment that nobody uses costs little more than its entries
/// here, so they are small.
#[derive(Debug, Default)]
pub struct Directory {
    by_client_key: DashMap<ClientKey, Found>,
    by_digest: DashMap<DigestBytes, EnvironmentId>,
    entries: DashMap<EnvironmentId, Entry>,
    strangers: Option<mpsc::Sender<Stranger>>,
}

/// What a client key leads to.
#[derive(Debug)]
struct Found {
    id: EnvironmentId,
    kind: EnvironmentKind,
    /// Somebody came with a key of it since that was last looked at; only a relay wants to know.
    used: AtomicBool,
}

/// A key that is not known yet, and who waits for word about it.
#[derive(Debug)]
pub struct Stranger {
    /// A client or server key as it came, or the digest of a server key behind [`DIGEST_PREFIX`].
    pub key: String,
    /// Takes the word.
    pub answer: oneshot::Sender<Word>,
}

/// What became of a question about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The directory knows the key now if anybody does.
    Settled,
    /// Nobody could be asked.
    Away,
}

/// What leads to an environment.
#[derive(Debug)]
struct Entry {
    client_key: ClientKey,
    digests: Box<[DigestBytes]>,
}

impl Directory {
    /// An empty one that asks about keys that it does not know.
    #[must_use]
    pub fn asking(strangers: mpsc::Sender<Stranger>) -> Self {
        Self { strangers: Some(strangers), ..Self::default() }
    }

    /// The environment that `key`, a client or server key, opens, for who comes with it: a key that is not
    /// known is asked about, if there is somebody to ask.
    pub async fn open(&self, key: &str) -> Result<Option<Known>, StoreError> {
        // Whoever knows the digest of a key need not know the key.
        if key.starts_with(DIGEST_PREFIX) {
            return Ok(None);
        }
        self.open_with(key, |directory| directory.find(key)).await
    }

    /// The same for a relay below, which names an environment in a URL: by its client key, or by the digest of a
    /// server key that somebody brought it. Only for who may see all of the environment anyway.
    pub async fn open_for_relay(&self, name: &str) -> Result<Option<Known>, StoreError> {
        let Some(text) = name.strip_prefix(DIGEST_PREFIX) else {
            return self.open_client(name).await;
        };
        let Some(digest) = parse_digest(text) else { return Ok(None) };
        // As we write it: a question about one key has one name.
        let name = format!("{DIGEST_PREFIX}{}", hex(&digest));
        self.open_with(&name, |directory| directory.find_digest(&digest)).await
    }

    async fn open_with(
        &self,
        key: &str,
        find: impl Fn(&Self) -> Option<Known> + Send,
    ) -> Result<Option<Known>, StoreError> {
        let found = find(self);
        let Some(strangers) = &self.strangers else { return Ok(found) };
        if let Some(known) = found {
            self.note_use(&known.client_key);
            return Ok(Some(known));
        }
        // Boxed: hardly any request has to ask.
        Box::pin(async {
            let (answer, word) = oneshot::channel();
            let stranger = Stranger { key: key.to_owned(), answer };
            let away = || StoreError::Away("nobody could be asked about this key".to_owned());
            strangers.try_send(stranger).map_err(|_| away())?;
            match timeout(STRANGER_WAIT, word).await {
                Ok(Ok(Word::Settled)) => Ok(find(self)),
                _ => Err(away()),
            }
        })
        .await
    }

    /// The same for a key that came in a URL, where server keys do not belong.
    pub async fn open_client(&self, client_key: &str) -> Result<Option<Known>, StoreError> {
        if client_key.starts_with(SERVER_KEY_PREFIX) {
            Ok(None)
        } else {
            self.open(client_key).await
        }
    }

    /// The environment with this client key, for who may wait: a key that is not known is asked about, and
    /// when it becomes known those who wait are woken.
    #[must_use]
    pub fn open_stream(&self, client_key: &str) -> Option<Known> {
        let found = self.find_client(client_key);
        if let Some(strangers) = &self.strangers {
            match &found {
                Some(known) => self.note_use(&known.client_key),
                None if client_key.starts_with(SERVER_KEY_PREFIX) => {}
                None => {
                    let (answer, _) = oneshot::channel();
                    // Full: it comes back.
                    drop(strangers.try_send(Stranger { key: client_key.to_owned(), answer }));
                }
            }
        }
        found
    }

    fn note_use(&self, client_key: &ClientKey) {
        if let Some(found) = self.by_client_key.get(client_key.as_str())
            && !found.used.load(Ordering::Relaxed)
        {
            found.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether somebody came with a key of the environment since the last call.
    #[must_use]
    pub fn take_use(&self, id: EnvironmentId) -> bool {
        let Some(client_key) = self.entries.get(&id).map(|entry| entry.client_key.clone()) else {
            return false;
        };
        let found = self.by_client_key.get(&client_key);
        found.is_some_and(|found| found.used.swap(false, Ordering::Relaxed))
    }

    /// The environment that `key`, a client or server key, opens.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<Known> {
        if key.starts_with(SERVER_KEY_PREFIX) {
            self.find_digest(&digest_bytes(key))
        } else {
            self.find_client(key)
        }
    }

    /// The environment with a server key of this digest.
    fn find_digest(&self, digest: &DigestBytes) -> Option<Known> {
        let id = *self.by_digest.get(digest)?;
        Some(Known { by_server_key: true, ..self.client_key(id)? })
    }

    /// The environment with this client key.
    #[must_use]
    pub fn find_client(&self, client_key: &str) -> Option<Known> {
        let found = self.by_client_key.get(client_key)?;
        let (id, kind) = (found.id, found.kind);
        Some(Known { id, kind, client_key: found.key().clone(), by_server_key: false })
    }

    /// Whether the environment is known.
    #[must_use]
    pub fn holds(&self, id: EnvironmentId) -> bool {
        self.entries.contains_key(&id)
    }

    /// The client key of an environment.
    #[must_use]
    pub fn client_key(&self, id: EnvironmentId) -> Option<Known> {
        let client_key = self.entries.get(&id)?.client_key.clone();
        self.find_client(client_key.as_str())
    }

    /// Takes an environment in, or takes in what changed of it. Keys that stay valid open it all the
    /// while: a caller that comes in between must not be turned away.
    pub fn insert(&self, entry: &DirectoryEntry) {
        let environment = &entry.environment;
        let (id, client_key) = (environment.id, environment.client_key.clone());
        // The store holds nothing but digests there; another text opens nothing.
        let digests: Box<[_]> =
            entry.server_key_hashes.iter().filter_map(|hash| parse_digest(hash)).collect();
        let found = Found { id, kind: environment.kind, used: AtomicBool::new(true) };
        self.by_client_key.insert(client_key.clone(), found);
        let before = self.entries.insert(id, Entry { client_key, digests: digests.clone() });
        for digest in &digests {
            self.by_digest.insert(*digest, id);
        }
        if let Some(old) =
            before.as_ref().filter(|before| before.client_key != environment.client_key)
        {
            self.by_client_key.remove(&old.client_key);
        }
        for revoked in before.iter().flat_map(|before| &before.digests) {
            if !digests.contains(revoked) {
                self.by_digest.remove(revoked);
            }
        }
    }

    /// Every environment.
    #[must_use]
    pub fn ids(&self) -> Vec<EnvironmentId> {
        self.entries.iter().map(|entry| *entry.key()).collect()
    }

    /// Forgets an environment and its keys.
    pub fn remove(&self, id: EnvironmentId) {
        let Some((_, entry)) = self.entries.remove(&id) else {
            return;
        };
        for digest in &entry.digests {
            self.by_digest.remove(digest);
        }
        self.by_client_key.remove(&entry.client_key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flagset::sample::state;
    use crate::store::keys::digest;

    fn entry(server_keys: &[&str]) -> DirectoryEntry {
        let server_key_hashes = server_keys.iter().map(|key| digest(key)).collect();
        DirectoryEntry { environment: state().environment, server_key_hashes }
    }

    #[test]
    fn a_key_opens_its_environment_until_it_is_revoked() {
        let directory = Directory::default();
        directory.insert(&entry(&["ser.a", "ser.b"]));
        let by_client = directory.find("npfo95nMwUw8cjHXdHi2hG").unwrap();
        assert!(!by_client.by_server_key);
        assert!(directory.find("ser.a").is_some_and(|known| known.by_server_key));
        assert_eq!(directory.find_client("ser.a"), None, "a server key is no client key");
        let named = format!("{DIGEST_PREFIX}{}", digest("ser.a"));
        assert_eq!(directory.find(&named), None, "who knows the digest need not know the key");

        directory.insert(&entry(&["ser.b", "ser.c"]));
        assert_eq!(directory.find("ser.a"), None);
        assert!(directory.find("ser.b").is_some() && directory.find("ser.c").is_some());

        directory.remove(by_client.id);
        for key in ["npfo95nMwUw8cjHXdHi2hG", "ser.b", "ser.c"] {
            assert_eq!(directory.find(key), None, "{key}");
        }
    }
}
