//! Names and numbers that identify things, each with the rule it was checked against.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Row number of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectId(pub i64);

/// Row number of an environment. Also the order in which a change locks environments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnvironmentId(pub i64);

/// Row number of a feature; Flagsmith SDKs see it as the feature's id, and Rust's reads 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeatureId(pub i64);

/// Row number of a segment; Flagsmith SDKs see it as the segment's id, and it seeds percentage splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub i64);

/// Row number of a variant; its order is the order in which variants share out their percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariantId(pub i64);

/// Row number of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityId(pub i64);

/// Row number of a management token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub i64);

/// Every server key begins so; it is how Flagsmith's SDKs and we tell it from a client key.
pub const SERVER_KEY_PREFIX: &str = "ser.";

/// Longest project, environment or feature key. Long enough for any name that is typed, short
/// enough for a URL, a log line and a metric label.
const KEY_LENGTH_MAX: usize = 100;

/// Longest client key that is looked up; ours have 22 characters, other systems' may have more.
const CLIENT_KEY_LENGTH_MAX: usize = 100;

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text has more characters than any key.
    #[error("must have at most 100 characters")]
    TooLong,
    /// A project's or environment's key goes into paths.
    #[error("may hold only a-z, 0-9, `-` and `_`, and must begin with a letter or digit")]
    NotAKey,
    /// A feature's key is what code asks for.
    #[error(
        "may hold only letters, digits, `-`, `_` and `.`, and must begin with a letter or digit"
    )]
    NotAFeatureKey,
    /// A client key is part of public URLs.
    #[error("may hold only letters, digits, `-` and `_`")]
    NotAClientKey,
}

fn checked(text: &str, length_max: usize, fits: bool, rule: KeyError) -> Result<&str, KeyError> {
    match text {
        "" => Err(KeyError::Empty),
        long if long.len() > length_max => Err(KeyError::TooLong),
        _ if !fits => Err(rule),
        _ => Ok(text),
    }
}

/// Key of a project or an environment, unique in its parent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Key(String);

impl Key {
    /// The rule of keys as a regular expression, for documents; `parse` is what decides.
    pub const PATTERN: &str = "^[a-z0-9][a-z0-9_-]{0,99}$";

    /// Checks `text` against the rule of keys.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let fits = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
            && !text.starts_with(['-', '_']);
        checked(text, KEY_LENGTH_MAX, fits, KeyError::NotAKey).map(|key| Self(key.to_owned()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Key of a feature: the name that code asks for. Case is kept, but two keys of a project must
/// differ in more than case, because Flagsmith's JavaScript SDK lower-cases them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct FeatureKey(String);

impl FeatureKey {
    /// The rule of feature keys as a regular expression, for documents; `parse` is what decides.
    pub const PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$";

    /// Checks `text` against the rule of feature keys.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        checked(text, KEY_LENGTH_MAX, fits, KeyError::NotAFeatureKey)
            .map(|key| Self(key.to_owned()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which keys of one project must differ.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// The public key of an environment. It is part of stream and flag-set URLs, so it is no secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(Arc<str>);

impl ClientKey {
    /// Checks `text` against the rule of client keys. Wide enough for the keys of other systems.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        checked(text, CLIENT_KEY_LENGTH_MAX, fits, KeyError::NotAClientKey)
            .map(|key| Self(Arc::from(key)))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ClientKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that must not reach a log. Its `Debug` form is `***`; reading it takes a named call.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text that is secret from now on.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that sends or compares it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no secret at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_rules() {
        assert_eq!(Key::parse(""), Err(KeyError::Empty));
        assert_eq!(Key::parse(&"a".repeat(101)), Err(KeyError::TooLong));
        for wrong in ["Web", "a b", "-a", "a/b", "ä"] {
            assert_eq!(Key::parse(wrong), Err(KeyError::NotAKey), "{wrong}");
        }
        assert!(Key::parse("eu-production_2").is_ok());
        assert!(FeatureKey::parse("Dark.mode-2_x").is_ok());
        assert_eq!(FeatureKey::parse(".x"), Err(KeyError::NotAFeatureKey));
        assert_eq!(FeatureKey::parse("flags:batch"), Err(KeyError::NotAFeatureKey));
        assert_eq!(FeatureKey::parse("Dark").map(|key| key.folded()), Ok("dark".to_owned()));
        assert_eq!(ClientKey::parse("ser.x"), Err(KeyError::NotAClientKey));
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", Secret::new("hush")), "***");
    }
}
