//! The server keys that a relay has for the environments of Flagsmith: it answers only who has one.
//!
//! Keys come from the settings, or with somebody who uses them; they are held in memory only. On the disk are
//! their digests. So after a restart a key that is not named in the settings is *dormant*: it is recognised,
//! and asked with again, when somebody comes with it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::time::Instant;

use crate::model::{ClientKey, SERVER_KEY_PREFIX, Secret};
use crate::store::keys::digest;

/// How long a document may be known by its date alone: not every change of Flagsmith moves that.
const DATE_COUNTS: Duration = Duration::from_mins(5);

/// All server keys, by environment.
#[derive(Debug)]
pub(super) struct Keys {
    /// How long Flagsmith must refuse a key until nobody gets in with it here either.
    forget: Duration,
    named: Vec<Key>,
    rings: Mutex<HashMap<ClientKey, Ring>>,
}

/// The keys of one environment.
#[derive(Debug, Default)]
struct Ring {
    keys: Vec<Key>,
    dormant: Vec<String>,
    /// The date of the document that is held, and when the document was read as a whole.
    date: Option<(HeaderValue, Instant)>,
}

#[derive(Clone, Debug)]
struct Key {
    secret: Secret,
    digest: String,
    refused_since: Option<Instant>,
}

impl Keys {
    pub(super) fn new(named: &[Secret], forget: Duration) -> Self {
        let named = named.iter().map(|secret| Key::new(secret.expose())).collect();
        Self { forget, named, rings: Mutex::default() }
    }

    /// Keys to ask with for an environment, one after the other until one is let in.
    pub(super) fn of(&self, client_key: &ClientKey) -> Vec<Secret> {
        self.ring(client_key, |ring| {
            let is_named = |key: &Key| self.named.iter().any(|named| named.digest == key.digest);
            ring.keys.retain(|key| !key.is_revoked(self.forget) || is_named(key));
            // Each must be seen to be valid now and then.
            if !ring.keys.is_empty() {
                ring.keys.rotate_left(1);
            }
            ring.keys.iter().map(|key| key.secret.clone()).collect()
        })
    }

    /// Flagsmith has let us in with this key.
    pub(super) fn accepted(&self, client_key: &ClientKey, secret: &str) {
        let key = Key::new(secret);
        let mut rings = self.lock();
        for (other, ring) in rings.iter_mut() {
            // The public key of an environment can be changed; then this is another one.
            if other != client_key {
                ring.keys.retain(|known| known.digest != key.digest);
            }
            ring.dormant.retain(|digest| *digest != key.digest);
        }
        let ring = rings.entry(client_key.clone()).or_default();
        match ring.keys.iter_mut().find(|known| known.digest == key.digest) {
            Some(known) => known.refused_since = None,
            None => ring.keys.push(key),
        }
    }

    /// Flagsmith does not know this key any more.
    pub(super) fn refused(&self, client_key: &ClientKey, secret: &Secret) {
        self.ring(client_key, |ring| {
            if let Some(known) = ring.keys.iter_mut().find(|known| known.secret == *secret) {
                known.refused_since.get_or_insert_with(Instant::now);
            }
        });
    }

    /// Digests of the keys with which people get in, sorted.
    pub(super) fn digests(&self, client_key: &ClientKey) -> Vec<String> {
        let mut digests: Vec<String> = self.ring(client_key, |ring| {
            let valid = ring.keys.iter().filter(|key| !key.is_revoked(self.forget));
            valid.map(|key| key.digest.clone()).collect()
        });
        digests.sort_unstable();
        digests
    }

    /// Takes up what the disk knows of the keys of an environment.
    pub(super) fn recall(&self, client_key: &ClientKey, digests: &[String]) {
        let mut rings = self.lock();
        let ring = rings.entry(client_key.clone()).or_default();
        ring.date = None;
        for digest in digests {
            if ring.keys.iter().any(|known| known.digest == *digest) {
                continue;
            }
            match self.named.iter().find(|named| named.digest == *digest) {
                Some(named) => ring.keys.push(named.clone()),
                None if ring.dormant.contains(digest) => {}
                None => ring.dormant.push(digest.clone()),
            }
        }
    }

    /// The environment that a key opened before, which somebody comes with now. A dormant one is awake then.
    pub(super) fn recognise(&self, key: &str) -> Option<ClientKey> {
        if !key.starts_with(SERVER_KEY_PREFIX) {
            return None;
        }
        let key = Key::new(key);
        let client_key = self.owner(&key.digest)?;
        self.ring(&client_key, |ring| {
            if ring.dormant.contains(&key.digest) {
                ring.dormant.retain(|digest| *digest != key.digest);
                ring.keys.push(key);
            }
        });
        Some(client_key)
    }

    /// The environment that a key with this digest opened when it was used last.
    pub(super) fn owner(&self, digest: &str) -> Option<ClientKey> {
        let rings = self.lock();
        let owns = |ring: &Ring| {
            let awake = ring.keys.iter().any(|key| key.digest == digest);
            awake || ring.dormant.iter().any(|dormant| dormant == digest)
        };
        rings.iter().find(|(_, ring)| owns(ring)).map(|(client_key, _)| client_key.clone())
    }

    /// The date of the document that is held, if it may be asked by.
    pub(super) fn date(&self, client_key: &ClientKey) -> Option<HeaderValue> {
        self.ring(client_key, |ring| {
            let (date, read_at) = ring.date.as_ref()?;
            (read_at.elapsed() < DATE_COUNTS).then(|| date.clone())
        })
    }

    /// Notes the date of a document that was read as a whole; nothing if it must not be asked by.
    pub(super) fn dated(&self, client_key: &ClientKey, date: Option<HeaderValue>) {
        self.ring(client_key, |ring| ring.date = date.map(|date| (date, Instant::now())));
    }

    /// Works with the keys of an environment. One that is not known has none, and costs no memory.
    fn ring<T>(&self, client_key: &ClientKey, work: impl FnOnce(&mut Ring) -> T) -> T {
        match self.lock().get_mut(client_key) {
            Some(ring) => work(ring),
            None => work(&mut Ring::default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientKey, Ring>> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn new(secret: &str) -> Self {
        Self { secret: Secret::new(secret), digest: digest(secret), refused_since: None }
    }

    fn is_revoked(&self, forget: Duration) -> bool {
        self.refused_since.is_some_and(|since| since.elapsed() >= forget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(keys: &[Secret]) -> Vec<&str> {
        keys.iter().map(Secret::expose).collect()
    }

    #[test]
    fn each_key_is_asked_with_in_turn_until_it_is_refused_for_long() {
        let keys = Keys::new(&[], Duration::ZERO);
        let client_key = ClientKey::parse("env").unwrap();
        assert!(keys.of(&client_key).is_empty());
        for key in ["ser.a", "ser.b"] {
            keys.accepted(&client_key, key);
        }
        let first: Vec<String> =
            (0..4).map(|_| keys.of(&client_key)[0].expose().to_owned()).collect();
        assert_eq!(first, ["ser.b", "ser.a", "ser.b", "ser.a"]);
        assert_eq!(keys.digests(&client_key).len(), 2);
        keys.refused(&client_key, &Secret::new("ser.a"));
        assert_eq!(keys.digests(&client_key), [digest("ser.b")]);
        assert_eq!(shown(&keys.of(&client_key)), ["ser.b"]);
        assert_eq!(keys.owner(&digest("ser.a")), None);
    }

    #[test]
    fn a_key_that_is_named_is_asked_with_for_ever() {
        let named = [Secret::new("ser.a")];
        let keys = Keys::new(&named, Duration::ZERO);
        let client_key = ClientKey::parse("env").unwrap();
        keys.recall(&client_key, &[digest("ser.a")]);
        assert_eq!(keys.digests(&client_key), [digest("ser.a")]);
        keys.refused(&client_key, &named[0]);
        assert!(keys.digests(&client_key).is_empty(), "but nobody else gets in with it");
        assert_eq!(shown(&keys.of(&client_key)), ["ser.a"]);
        keys.accepted(&client_key, "ser.a");
        assert_eq!(keys.digests(&client_key), [digest("ser.a")]);
    }

    #[test]
    fn a_key_opens_one_environment() {
        let keys = Keys::new(&[], Duration::from_mins(1));
        let [old, new] = ["old", "new"].map(|key| ClientKey::parse(key).unwrap());
        keys.accepted(&old, "ser.a");
        assert_eq!(keys.owner(&digest("ser.a")), Some(old.clone()));
        keys.accepted(&new, "ser.a");
        assert_eq!(keys.owner(&digest("ser.a")), Some(new));
        assert!(keys.of(&old).is_empty());
        for stranger in 0..1000 {
            keys.of(&ClientKey::parse(&format!("stranger{stranger}")).unwrap());
        }
        assert_eq!(keys.lock().len(), 2, "strangers cost no memory");
    }

    #[test]
    fn a_key_from_the_disk_is_asleep_until_somebody_comes_with_it() {
        let keys = Keys::new(&[], Duration::from_mins(1));
        let client_key = ClientKey::parse("env").unwrap();
        keys.recall(&client_key, &[digest("ser.a")]);
        assert!(keys.digests(&client_key).is_empty() && keys.of(&client_key).is_empty());
        assert_eq!(keys.recognise("ser.b"), None);
        assert_eq!(keys.recognise("env"), None);
        assert_eq!(keys.recognise("ser.a"), Some(client_key.clone()));
        assert_eq!(shown(&keys.of(&client_key)), ["ser.a"]);
    }
}
