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
mod target;
mod targeting;
mod value;
mod webhook;

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
pub use target::{TARGET_URL_MAX, TargetError, may_reach, parse_target};
pub use targeting::{
    Condition, Identity, IdentityOverride, IdentityOverrides, KnownIdentity, Operator, Rule,
    RuleKind, Segment, SegmentOverride, ValueType, Variant, Weight, WeightError, WeightsError,
    merge_weights,
};
pub use value::{FlagValue, INTEGER_MAX, ValueError, given_value};
pub use webhook::{
    Attempt, AttemptOutcome, Delivery, DeliveryKind, DeliveryState, FAILED_AFTER_MICROS,
    WEBHOOK_SECRET_PREFIX, Webhook, WebhookFormat, WebhookId, WebhookMode, WebhookStatus,
    wants_action,
};
