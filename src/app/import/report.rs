//! What an import is told, and what it tells: how, what was made, why nothing was.

use crate::model::{Secret, WebhookId};
use crate::store::StoreError;
use crate::transfer::Fault;

/// Why nothing was imported, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ImportError(pub(super) String);

/// How to import.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImportOptions {
    /// Where the store uses the number of a split for something else, people are dealt out anew.
    pub new_seeds: bool,
    /// Environments get new client keys and server keys.
    pub new_keys: bool,
}

/// What was made.
#[derive(Debug)]
pub struct Imported {
    /// Key of the project.
    pub project: String,
    /// How many features came.
    pub features: usize,
    /// How many segments came.
    pub segments: usize,
    /// How many identities came.
    pub identities: usize,
    /// Splits for which people were dealt out anew.
    pub dealt_anew: Vec<String>,
    /// Environments.
    pub environments: Vec<ImportedEnvironment>,
}

/// An environment that was made or added to.
#[derive(Debug)]
pub struct ImportedEnvironment {
    /// Its key.
    pub key: String,
    /// Its public key.
    pub client_key: String,
    /// Where its revisions are.
    pub revision: u64,
    /// Server keys that are new, by their names.
    pub server_keys: Vec<(String, Secret)>,
    /// Endpoints that need somebody.
    pub webhooks: Vec<ImportedWebhook>,
}

/// An endpoint that does not work as it did.
#[derive(Debug)]
pub struct ImportedWebhook {
    /// Row number.
    pub id: WebhookId,
    /// Where requests go.
    pub url: String,
    /// What signs its requests, if it is new.
    pub secret: Option<Secret>,
    /// Names of the headers that are to be set again.
    pub headers: Vec<String>,
}

impl From<Fault> for ImportError {
    fn from(fault: Fault) -> Self {
        Self(format!("the file cannot be imported: {fault}"))
    }
}

/// What the store refuses because of what is in the file is for the caller to put right.
pub(super) fn refusal(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::LimitReached { .. } | StoreError::AlreadyExists { .. } => {
            ImportError(error.to_string()).into()
        }
        other => other.into(),
    }
}
