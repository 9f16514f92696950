//! A snapshot: everything that a relay needs to serve an environment by itself, as one value and as bytes.
//!
//! It is what `GET /sdk/v1/environments/{key}/snapshot` answers with and what a relay keeps on its disk. It
//! holds what only server keys may see and the digests of those keys, so it is not for the public.

#[cfg(test)]
mod tests;
mod wire;

use sha2::{Digest as _, Sha256};

use self::wire::{FORMAT, Head, Wire};
use crate::model::{Environment, EnvironmentState, Revision};

/// An environment as of one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// In which history of the store the revision counts: in another one, a smaller number may be newer.
    pub epoch: String,
    /// The environment, with its stamp.
    pub environment: Environment,
    /// Digests of its server keys, sorted.
    pub server_key_hashes: Vec<String>,
    /// Its flags and what belongs to them; nothing of an environment that only pings.
    pub state: Option<EnvironmentState>,
}

/// By what one snapshot of an environment is told from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The history.
    pub epoch: String,
    /// The revision in it.
    pub revision: Revision,
    /// Digests of its server keys, sorted: they change without a revision.
    pub server_key_hashes: Vec<String>,
}

/// Why bytes are no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

impl Mark {
    /// The same as an entity tag.
    #[must_use]
    pub fn tag(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(&self.epoch);
        for hash in &self.server_key_hashes {
            digest.update([0]);
            digest.update(hash);
        }
        let digest = digest.finalize();
        let short = digest[..8].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        format!("\"{}.{short:016x}\"", self.revision)
    }
}

impl Snapshot {
    /// As bytes: JSON without a secret in it, but with what only server keys may see.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let encoded = serde_json::to_vec(&Wire::of(self));
        // Texts and numbers always have a JSON form.
        encoded.unwrap_or_default()
    }

    /// Reads what [`Self::encode`] wrote, here or in another version that keeps to the same format.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        // Before all else: what a newer format holds need not make sense here.
        let Head { format } =
            serde_json::from_slice(bytes).map_err(|error| Unreadable(error.to_string()))?;
        if format != FORMAT {
            return Err(Unreadable(format!(
                "it has the format {format}, and this version of Flagcast reads {FORMAT}; take the \
                 version that wrote it, or a newer one"
            )));
        }
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let wire: Wire = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| Unreadable(error.to_string()))?;
        wire.snapshot()
    }

    /// Its mark.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            epoch: self.epoch.clone(),
            revision: self.environment.stamp.revision,
            server_key_hashes: self.server_key_hashes.clone(),
        }
    }
}
