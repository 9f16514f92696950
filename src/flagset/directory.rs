//! Which key opens which environment: every environment of the store, held in memory.
//!
//! Doors ask it for each request, so that recognising a caller costs no query and works while the
//! database is away. The change feed keeps it up to date.

use dashmap::DashMap;

use super::set::View;
use crate::model::{ClientKey, EnvironmentId, EnvironmentKind, SERVER_KEY_PREFIX};
use crate::store::keys::{DigestBytes, digest_bytes, parse_digest};
use crate::store::{DirectoryEntry, Store, StoreError};

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
    by_client_key: DashMap<ClientKey, (EnvironmentId, EnvironmentKind)>,
    by_digest: DashMap<DigestBytes, EnvironmentId>,
    entries: DashMap<EnvironmentId, Entry>,
}

/// What leads to an environment.
#[derive(Debug)]
struct Entry {
    client_key: ClientKey,
    digests: Box<[DigestBytes]>,
}

impl Directory {
    /// The environment that `key`, a client or server key, opens.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<Known> {
        if key.starts_with(SERVER_KEY_PREFIX) {
            let id = *self.by_digest.get(&digest_bytes(key))?;
            Some(Known { by_server_key: true, ..self.client_key(id)? })
        } else {
            self.find_client(key)
        }
    }

    /// The environment with this client key.
    #[must_use]
    pub fn find_client(&self, client_key: &str) -> Option<Known> {
        let found = self.by_client_key.get(client_key)?;
        let (id, kind) = *found;
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
        self.by_client_key.insert(client_key.clone(), (id, environment.kind));
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

    /// Reads an environment again. Tells whether it still exists.
    pub async fn refresh(&self, store: &Store, id: EnvironmentId) -> Result<bool, StoreError> {
        let entry = store.directory_entry(id).await?;
        let exists = entry.is_some();
        match entry {
            Some(entry) => self.insert(&entry),
            None => self.remove(id),
        }
        Ok(exists)
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

        directory.insert(&entry(&["ser.b", "ser.c"]));
        assert_eq!(directory.find("ser.a"), None);
        assert!(directory.find("ser.b").is_some() && directory.find("ser.c").is_some());

        directory.remove(by_client.id);
        for key in ["npfo95nMwUw8cjHXdHi2hG", "ser.b", "ser.c"] {
            assert_eq!(directory.find(key), None, "{key}");
        }
    }
}
