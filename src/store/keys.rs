//! Makes keys and tokens, and the digests under which they are stored.
//!
//! They are random and long, so a plain SHA-256 is enough: there is nothing to guess from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

use crate::model::{ClientKey, SERVER_KEY_PREFIX, Secret, WEBHOOK_SECRET_PREFIX};

/// Letters and digits that are hard to confuse, as Flagsmith's keys use them.
const ALPHABET: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Length of a client key: 128 bits of randomness.
const CLIENT_KEY_LENGTH: usize = 22;

/// Length of a secret: 186 bits of randomness.
const SECRET_LENGTH: usize = 32;

/// Before the digest of a server key where that stands for the key: in a URL, where the key does not belong.
pub const DIGEST_PREFIX: &str = "sha256:";

/// A SHA-256 digest.
pub type DigestBytes = [u8; 32];

/// A new client key.
#[must_use]
pub fn new_client_key() -> ClientKey {
    // The alphabet is part of what a client key may hold, so parsing cannot fail.
    ClientKey::parse(&random_text(CLIENT_KEY_LENGTH)).unwrap_or_else(|_| new_client_key())
}

/// A new server key.
#[must_use]
pub fn new_server_key() -> Secret {
    Secret::new(format!("{SERVER_KEY_PREFIX}{}", random_text(SECRET_LENGTH)))
}

/// A new management token.
#[must_use]
pub fn new_token() -> Secret {
    Secret::new(format!("fct_{}", random_text(SECRET_LENGTH)))
}

/// A new secret of a webhook, as Standard Webhooks writes it: base64 of 32 random bytes.
#[must_use]
pub fn new_webhook_secret() -> Secret {
    let mut bytes = [0_u8; 32];
    rand::rng().fill(&mut bytes);
    Secret::new(format!("{WEBHOOK_SECRET_PREFIX}{}", BASE64.encode(bytes)))
}

/// A new id of a message to a webhook.
#[must_use]
pub fn new_message_id() -> String {
    format!("msg_{}", random_text(CLIENT_KEY_LENGTH))
}

/// The form in which a secret is stored: SHA-256 in hexadecimal.
#[must_use]
pub fn digest(secret: &str) -> String {
    hex(&digest_bytes(secret))
}

/// The form in which a secret is looked up in memory.
#[must_use]
pub fn digest_bytes(secret: &str) -> DigestBytes {
    Sha256::digest(secret.as_bytes()).into()
}

/// What [`digest`] wrote, as [`digest_bytes`] makes it; nothing for any other text.
#[must_use]
pub fn parse_digest(text: &str) -> Option<DigestBytes> {
    let nibble = |at: usize| char::from(*text.as_bytes().get(at)?).to_digit(16);
    let mut bytes = DigestBytes::default();
    for (index, byte) in bytes.iter_mut().enumerate() {
        let value = nibble(2 * index)? * 16 + nibble(2 * index + 1)?;
        *byte = u8::try_from(value).ok()?;
    }
    (text.len() == 2 * bytes.len()).then_some(bytes)
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn random_text(length: usize) -> String {
    let mut random = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_known_one() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest("abc"), known);
        assert_eq!(parse_digest(known), Some(digest_bytes("abc")));
        assert_eq!((parse_digest(&known[1..]), parse_digest("")), (None, None));
    }

    #[test]
    fn keys_differ_and_have_their_form() {
        assert_ne!(new_client_key(), new_client_key());
        assert!(new_server_key().expose().starts_with("ser."));
        assert_eq!(new_token().expose().len(), 36);
    }
}
