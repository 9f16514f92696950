//! A whole project as a file: what `flagcast export` writes and `flagcast import` reads.
//!
//! Pure: the shape (`document`), how it is written piece by piece (`write`), the rules that a file must
//! keep to before anything is made of it (`check`), and Flagsmith's export of features (`flagsmith`).
//! Whoever reads a file gets either something that can be made as it is, or the path of the first
//! wrong field with its rule.

mod check;
mod document;
mod flagsmith;
mod write;

use std::fmt;

use serde::de::DeserializeOwned;

pub use check::Rules;
pub use document::{
    Document, EnvironmentPart, FeaturePart, FlagPart, IdentityFlagPart, IdentityPart, Instant,
    OverridePart, ProjectPart, Schema, SegmentPart, ServerKeyPart, VariantPart, WebhookPart,
};
pub use flagsmith::{FlagsmithFeature, FlagsmithFeatures, FlagsmithVariant};
pub use write::{EnvironmentWriter, Writer};

/// Why a file cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {rule}")]
pub struct Fault {
    /// Where: `project.environments[0].flags[2].value`.
    pub path: String,
    /// What is wrong, by which rule, and what to do.
    pub rule: String,
}

impl Fault {
    fn new(path: impl Into<String>, rule: impl fmt::Display) -> Self {
        Self { path: path.into(), rule: rule.to_string() }
    }
}

/// Reads JSON; a fault names the place.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| Fault::new(error.path().to_string(), error.into_inner()))?;
    json.end().map_err(|error| Fault::new(".", format!("behind the end of the file: {error}")))?;
    Ok(read)
}
