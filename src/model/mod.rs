//! What a flag is: ids, revisions, values, environments, targeting and changes.
//!
//! Pure values: no I/O, no async, no clock. Text from outside becomes one of these types once, at
//! the door, and needs no second check inside.

mod access;
mod change;
mod environment;
mod id;
mod pattern;
mod revision;
mod scalar;
mod targeting;
mod value;

pub use access::{Role, Scope, Token};
pub use change::{ChangeEvent, Origin};
pub use environment::{
    Environment, EnvironmentKind, EnvironmentSettings, EnvironmentState, Feature, FeatureDefaults,
    Flag, Project,
};
pub use id::{
    ClientKey, EnvironmentId, FeatureId, FeatureKey, IdentityId, Key, KeyError, ProjectId,
    SERVER_KEY_PREFIX, Secret, SegmentId, TokenId, VariantId,
};
pub use pattern::{PatternError, check_pattern};
pub use revision::{Revision, Stamp, TICK_MICROS, UpdatedAt};
pub use scalar::{Scalar, ScalarError, Traits, lay_trait};
pub use targeting::{
    Condition, Identity, IdentityOverride, IdentityOverrides, KnownIdentity, Operator, Rule,
    RuleKind, Segment, SegmentOverride, ValueType, Variant, Weight, WeightError, WeightsError,
    merge_weights,
};
pub use value::{FlagValue, INTEGER_MAX, ValueError, given_value};
