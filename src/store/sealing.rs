//! Seals the secrets that must be read again: those that sign webhooks and open their endpoints.
//!
//! With `secrets.key` they are AES-256-GCM, a fresh nonce each; without it they are plain text, which a
//! copy of the database gives away. What was written plain stays readable, and is sealed at the next
//! start with a key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::model::Secret;

/// In front of what is sealed; the number is that of this way of sealing.
const SEALED: &str = "sealed:1:";

/// In front of what is not.
const PLAIN: &str = "plain:";

/// Seals and opens, by the key of the settings if there is one.
#[derive(Debug, Default)]
pub(super) struct Sealer {
    key: Option<LessSafeKey>,
}

/// A text that cannot be opened: it was sealed with a key that is not ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotOurs;

impl Sealer {
    /// By this key, base64 of 32 bytes; none if it is empty. The settings have checked its form.
    pub(super) fn new(key: &Secret) -> Self {
        let bytes = BASE64.decode(key.expose()).unwrap_or_default();
        let key = UnboundKey::new(&AES_256_GCM, &bytes).ok().map(LessSafeKey::new);
        Self { key }
    }

    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The form in which a secret is stored.
    pub(super) fn seal(&self, secret: &str) -> String {
        let sealed = self.key.as_ref().and_then(|key| {
            let mut nonce = [0; NONCE_LEN];
            SystemRandom::new().fill(&mut nonce).ok()?;
            let mut bytes = secret.as_bytes().to_vec();
            let unique = Nonce::assume_unique_for_key(nonce);
            key.seal_in_place_append_tag(unique, Aad::from(SEALED), &mut bytes).ok()?;
            let all = [nonce.as_slice(), &bytes].concat();
            Some(format!("{SEALED}{}", BASE64.encode(all)))
        });
        sealed.unwrap_or_else(|| format!("{PLAIN}{secret}"))
    }

    pub(super) fn open(&self, stored: &str) -> Result<Secret, NotOurs> {
        if let Some(plain) = stored.strip_prefix(PLAIN) {
            return Ok(Secret::new(plain));
        }
        let sealed = stored.strip_prefix(SEALED).ok_or(NotOurs)?;
        let all = BASE64.decode(sealed).map_err(|_| NotOurs)?;
        let key = self.key.as_ref().ok_or(NotOurs)?;
        let (nonce, bytes) = all.split_at_checked(NONCE_LEN).ok_or(NotOurs)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotOurs)?;
        let mut bytes = bytes.to_vec();
        let text = key.open_in_place(nonce, Aad::from(SEALED), &mut bytes).map_err(|_| NotOurs)?;
        let text = std::str::from_utf8(text).map_err(|_| NotOurs)?;
        Ok(Secret::new(text))
    }

    /// Whether a stored text could be sealed and is not.
    pub(super) fn should_seal(&self, stored: &str) -> bool {
        self.has_key() && stored.starts_with(PLAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&Secret::new(BASE64.encode([byte; 32])))
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_only() {
        let stored = sealer(1).seal("whsec_x");
        assert!(!stored.contains("whsec_x") && stored.starts_with(SEALED), "{stored}");
        assert_ne!(stored, sealer(1).seal("whsec_x"));
        assert_eq!(sealer(1).open(&stored).unwrap().expose(), "whsec_x");
        assert!(sealer(2).open(&stored).is_err());
        assert!(Sealer::default().open(&stored).is_err());
        let mut changed = stored.clone();
        changed.insert(SEALED.len(), 'A');
        assert!(sealer(1).open(&changed).is_err());
    }

    #[test]
    fn without_a_key_it_is_plain_and_stays_readable() {
        let plain = Sealer::default().seal("whsec_x");
        assert_eq!(plain, "plain:whsec_x");
        assert_eq!(sealer(1).open(&plain).unwrap().expose(), "whsec_x");
        assert!(sealer(1).should_seal(&plain) && !Sealer::default().should_seal(&plain));
        assert!(!sealer(1).should_seal(&sealer(1).seal("x")));
    }
}
