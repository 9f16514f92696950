//! Projects, environments, features and flags as the store tells of them.

use super::{
    ClientKey, EnvironmentId, FeatureId, FlagValue, IdentityOverrides, ProjectId, Segment,
    SegmentOverride, Stamp, ValueType, Variant, Weight,
};

/// A set of features with the environments in which they have states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Row number.
    pub id: ProjectId,
    /// Key, unique in the store.
    pub key: String,
    /// What people call it.
    pub name: String,
    /// When it was made, in microseconds since the epoch.
    pub created_at: i64,
}

/// Where the flags of an environment live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvironmentKind {
    /// In our store.
    Stored,
    /// In another system, which announces changes to us; we only ping.
    PushOnly,
}

/// What an environment shows, and of whom it takes what.
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvironmentSettings {
    /// Flags that are off are left out of Flagsmith's lists.
    pub hide_disabled_flags: bool,
    /// Whether traits count that come with a client key, which anybody may have.
    pub allow_client_traits: bool,
    /// Descriptions, ids and traits are left out of what Flagsmith's SDKs get.
    pub hide_sensitive_data: bool,
    /// Whether traits that SDKs send are kept for later evaluations.
    pub persist_traits: bool,
}

impl Default for EnvironmentSettings {
    fn default() -> Self {
        Self {
            hide_disabled_flags: false,
            allow_client_traits: true,
            hide_sensitive_data: false,
            persist_traits: true,
        }
    }
}

/// The unit that has a revision, a flag set and a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Row number.
    pub id: EnvironmentId,
    /// Where its flags live.
    pub kind: EnvironmentKind,
    /// Its project; push-only environments have none.
    pub project_id: Option<ProjectId>,
    /// Key, unique in its project.
    pub key: String,
    /// What people call it.
    pub name: String,
    /// The public key in URLs.
    pub client_key: ClientKey,
    /// What it shows.
    pub settings: EnvironmentSettings,
    /// Its newest state.
    pub stamp: Stamp,
    /// When it was made, in microseconds since the epoch.
    pub created_at: i64,
}

/// The definition of a flag in a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Row number; Flagsmith SDKs see it.
    pub id: FeatureId,
    /// The name that code asks for.
    pub key: String,
    /// What it is for.
    pub description: String,
    /// Labels for people.
    pub tags: Vec<String>,
    /// What it is in an environment that was never told otherwise.
    pub defaults: FeatureDefaults,
    /// How its texts are to be understood.
    pub value_type: ValueType,
    /// Whether client keys do not get to see it.
    pub server_key_only: bool,
    /// Values among which identities are shared out, in the order of their ids.
    pub variants: Vec<Variant>,
    /// When it was made, in microseconds since the epoch.
    pub created_at: i64,
}

/// What a feature is in an environment that was never told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureDefaults {
    /// On or off.
    pub enabled: bool,
    /// Its value.
    pub value: FlagValue,
}

/// A feature's state in one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The feature.
    pub feature: Feature,
    /// Row number of the state: the bucketing seed of SDKs that evaluate locally, so it stays.
    pub state_id: i64,
    /// The same as a UUID, which newer SDKs prefer.
    pub state_uuid: String,
    /// On or off here.
    pub enabled: bool,
    /// Its value here; with variants, what those get whom no variant gets.
    pub value: FlagValue,
    /// Shares of the feature's variants here, in their order.
    pub weights: Vec<Weight>,
    /// Its states for segments, the strongest first.
    pub overrides: Vec<SegmentOverride>,
}

/// Everything that the flag set of one revision is rendered from, read in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentState {
    /// The environment with its stamp at the time of reading.
    pub environment: Environment,
    /// Its project.
    pub project: Project,
    /// Its flags, by feature key.
    pub flags: Vec<Flag>,
    /// The segments of its project, by id.
    pub segments: Vec<Segment>,
    /// What single identities get, by identifier.
    pub identity_overrides: Vec<IdentityOverrides>,
}
