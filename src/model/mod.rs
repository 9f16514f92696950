//! What a flag is: ids, revisions, values, environments and changes.
//!
//! Pure values: no I/O, no async, no clock. Text from outside becomes one of these types once, at
//! the door, and needs no second check inside.

mod access;
mod change;
mod environment;
mod id;
mod revision;
mod value;

pub use access::{Role, Scope, Token};
pub use change::{ChangeEvent, Origin};
pub use environment::{
    Environment, EnvironmentKind, EnvironmentState, Feature, FeatureDefaults, Flag, Project,
};
pub use id::{
    ClientKey, EnvironmentId, FeatureId, FeatureKey, Key, KeyError, ProjectId, SERVER_KEY_PREFIX,
    Secret, TokenId,
};
pub use revision::{Revision, Stamp, TICK_MICROS, UpdatedAt};
pub use value::{FlagValue, ValueError};
