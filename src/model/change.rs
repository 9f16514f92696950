//! A committed change: the audit entry and the outbox message in one.

use serde_json::Value as Json;

use super::{EnvironmentId, Stamp};

/// Who asked for a change, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `token:<name>`, `push`, `demo`, or `command line`.
    pub actor: String,
    /// Address of the caller, or the command.
    pub address: String,
}

/// What happened, in the order of `id`. It is written in the transaction of the change, so it
/// exists exactly when the change does.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeEvent {
    /// Position in the feed.
    pub id: i64,
    /// The environment it touched, if it touched one.
    pub environment_id: Option<EnvironmentId>,
    /// The state it made, if it moved the environment's revision.
    pub stamp: Option<Stamp>,
    /// When, in microseconds since the epoch.
    pub at: i64,
    /// Whether its pings did not wait.
    pub urgent: bool,
    /// Who asked for it, and from where.
    pub origin: Origin,
    /// What was done, in the past tense: `flag.updated`.
    pub action: String,
    /// Key of the project, kept as text because the project may be gone.
    pub project: Option<String>,
    /// Key of the environment, likewise.
    pub environment: Option<String>,
    /// Key of what was changed.
    pub subject: String,
    /// What it was, or null.
    pub before: Json,
    /// What it is, or null.
    pub after: Json,
}
