//! The bytes of a snapshot: JSON, in words of its own, so that what the program holds may change its shape
//! without those who read snapshots having to.
//!
//! A reader passes over fields that it does not know, so new ones may be added. A change that an older
//! reader would misread gets another number of the format, and such a reader refuses it.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Snapshot, Unreadable};
use crate::model::{
    ClientKey, Condition, Environment, EnvironmentId, EnvironmentKind, EnvironmentSettings,
    EnvironmentState, Feature, FeatureDefaults, FeatureId, Flag, FlagValue, Identity, IdentityId,
    IdentityOverride, IdentityOverrides, Operator, Project, ProjectId, Revision, Rule, RuleKind,
    Segment, SegmentId, SegmentOverride, Stamp, UpdatedAt, ValueType, Variant, VariantId, Weight,
};

/// The number of this format.
pub(super) const FORMAT: u32 = 1;

/// What tells whether the rest can be read.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    pub(super) format: u32,
}

/// All of it. Instants are microseconds since the epoch, weights are percentages.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wire {
    format: u32,
    epoch: String,
    environment: WireEnvironment,
    /// Digests in hexadecimal.
    server_keys: Vec<String>,
    state: Option<WireState>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Debug, Serialize, Deserialize)]
struct WireEnvironment {
    id: i64,
    kind: WireKind,
    project_id: Option<i64>,
    key: String,
    name: String,
    client_key: String,
    revision: u64,
    updated_at: i64,
    created_at: i64,
    hide_disabled_flags: bool,
    allow_client_traits: bool,
    hide_sensitive_data: bool,
    persist_traits: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireKind {
    Stored,
    PushOnly,
}

/// What belongs to an environment that does not only ping.
#[derive(Debug, Serialize, Deserialize)]
struct WireState {
    project: WireProject,
    segments: Vec<WireSegment>,
    flags: Vec<WireFlag>,
    identities: Vec<WireIdentity>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireProject {
    id: i64,
    key: String,
    name: String,
    created_at: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireSegment {
    id: i64,
    key: String,
    name: String,
    description: String,
    rules: Vec<WireRule>,
    created_at: i64,
}

/// The model's own form refuses fields that it does not know.
#[derive(Debug, Serialize, Deserialize)]
struct WireRule {
    #[serde(rename = "type")]
    kind: RuleKind,
    conditions: Vec<WireCondition>,
    rules: Vec<WireRule>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireCondition {
    property: String,
    operator: Operator,
    value: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireFlag {
    feature: WireFeature,
    state_id: i64,
    state_uuid: String,
    enabled: bool,
    value: FlagValue,
    weights: Vec<Weight>,
    overrides: Vec<WireOverride>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireFeature {
    id: i64,
    key: String,
    description: String,
    tags: Vec<String>,
    enabled: bool,
    value: FlagValue,
    value_type: ValueType,
    server_key_only: bool,
    variants: Vec<WireVariant>,
    created_at: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireVariant {
    id: i64,
    key: String,
    value: FlagValue,
    weight: Weight,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireOverride {
    segment_id: i64,
    state_id: i64,
    state_uuid: String,
    enabled: bool,
    value: FlagValue,
    weights: Vec<Weight>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireIdentity {
    id: i64,
    uuid: String,
    identifier: String,
    created_at: i64,
    flags: Vec<WireIdentityFlag>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WireIdentityFlag {
    feature_id: i64,
    state_id: i64,
    state_uuid: String,
    enabled: bool,
    value: FlagValue,
}

impl Wire {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        Self {
            format: FORMAT,
            epoch: snapshot.epoch.clone(),
            environment: WireEnvironment::of(&snapshot.environment),
            server_keys: snapshot.server_key_hashes.clone(),
            state: snapshot.state.as_ref().map(WireState::of),
        }
    }

    pub(super) fn snapshot(self) -> Result<Snapshot, Unreadable> {
        let environment = self.environment.model()?;
        let state = self.state.map(|state| state.model(environment.clone())).transpose()?;
        Ok(Snapshot { epoch: self.epoch, environment, server_key_hashes: self.server_keys, state })
    }
}

impl WireEnvironment {
    fn of(environment: &Environment) -> Self {
        let settings = environment.settings;
        Self {
            id: environment.id.0,
            kind: match environment.kind {
                EnvironmentKind::Stored => WireKind::Stored,
                EnvironmentKind::PushOnly => WireKind::PushOnly,
            },
            project_id: environment.project_id.map(|id| id.0),
            key: environment.key.clone(),
            name: environment.name.clone(),
            client_key: environment.client_key.as_str().to_owned(),
            revision: environment.stamp.revision.0,
            updated_at: environment.stamp.updated_at.micros(),
            created_at: environment.created_at,
            hide_disabled_flags: settings.hide_disabled_flags,
            allow_client_traits: settings.allow_client_traits,
            hide_sensitive_data: settings.hide_sensitive_data,
            persist_traits: settings.persist_traits,
        }
    }

    fn model(self) -> Result<Environment, Unreadable> {
        let client_key = ClientKey::parse(&self.client_key)
            .map_err(|error| Unreadable(format!("environment.client_key {error}")))?;
        Ok(Environment {
            id: EnvironmentId(self.id),
            kind: match self.kind {
                WireKind::Stored => EnvironmentKind::Stored,
                WireKind::PushOnly => EnvironmentKind::PushOnly,
            },
            project_id: self.project_id.map(ProjectId),
            key: self.key,
            name: self.name,
            client_key,
            settings: EnvironmentSettings {
                hide_disabled_flags: self.hide_disabled_flags,
                allow_client_traits: self.allow_client_traits,
                hide_sensitive_data: self.hide_sensitive_data,
                persist_traits: self.persist_traits,
            },
            stamp: Stamp {
                revision: Revision(self.revision),
                updated_at: UpdatedAt::from_micros(self.updated_at),
            },
            created_at: self.created_at,
        })
    }
}

impl WireState {
    fn of(state: &EnvironmentState) -> Self {
        let EnvironmentState { environment: _, project, flags, segments, identity_overrides } =
            state;
        Self {
            project: WireProject {
                id: project.id.0,
                key: project.key.clone(),
                name: project.name.clone(),
                created_at: project.created_at,
            },
            segments: segments.iter().map(WireSegment::of).collect(),
            flags: flags.iter().map(WireFlag::of).collect(),
            identities: identity_overrides.iter().map(WireIdentity::of).collect(),
        }
    }

    /// The state, if its parts fit together: a flag set is made of it without a further look.
    fn model(self, environment: Environment) -> Result<EnvironmentState, Unreadable> {
        let segments: Vec<Segment> = self.segments.into_iter().map(WireSegment::model).collect();
        let flags: Vec<Flag> = self.flags.into_iter().map(WireFlag::model).collect();
        let known: HashSet<SegmentId> = segments.iter().map(|segment| segment.id).collect();
        for Flag { feature, weights, overrides, .. } in &flags {
            let key = &feature.key;
            let fit = |weights: &[Weight]| weights.len() == feature.variants.len();
            if !fit(weights) || !overrides.iter().all(|one| fit(&one.weights)) {
                return Err(Unreadable(format!("`{key}` has not one weight for each variant")));
            }
            if !overrides.iter().all(|one| known.contains(&one.segment)) {
                return Err(Unreadable(format!("`{key}` is overridden for no known segment")));
            }
        }
        Ok(EnvironmentState {
            environment,
            project: Project {
                id: ProjectId(self.project.id),
                key: self.project.key,
                name: self.project.name,
                created_at: self.project.created_at,
            },
            flags,
            segments,
            identity_overrides: self.identities.into_iter().map(WireIdentity::model).collect(),
        })
    }
}

impl WireSegment {
    fn of(segment: &Segment) -> Self {
        Self {
            id: segment.id.0,
            key: segment.key.clone(),
            name: segment.name.clone(),
            description: segment.description.clone(),
            rules: segment.rules.iter().map(WireRule::of).collect(),
            created_at: segment.created_at,
        }
    }

    fn model(self) -> Segment {
        Segment {
            id: SegmentId(self.id),
            key: self.key,
            name: self.name,
            description: self.description,
            rules: self.rules.into_iter().map(WireRule::model).collect(),
            created_at: self.created_at,
        }
    }
}

impl WireRule {
    fn of(rule: &Rule) -> Self {
        let condition = |condition: &Condition| WireCondition {
            property: condition.property.clone(),
            operator: condition.operator,
            value: condition.value.clone(),
        };
        Self {
            kind: rule.kind,
            conditions: rule.conditions.iter().map(condition).collect(),
            rules: rule.rules.iter().map(Self::of).collect(),
        }
    }

    fn model(self) -> Rule {
        let condition =
            |WireCondition { property, operator, value }| Condition { property, operator, value };
        Rule {
            kind: self.kind,
            conditions: self.conditions.into_iter().map(condition).collect(),
            rules: self.rules.into_iter().map(Self::model).collect(),
        }
    }
}

impl WireFlag {
    fn of(flag: &Flag) -> Self {
        Self {
            feature: WireFeature::of(&flag.feature),
            state_id: flag.state_id,
            state_uuid: flag.state_uuid.clone(),
            enabled: flag.enabled,
            value: flag.value.clone(),
            weights: flag.weights.clone(),
            overrides: flag.overrides.iter().map(WireOverride::of).collect(),
        }
    }

    fn model(self) -> Flag {
        Flag {
            feature: self.feature.model(),
            state_id: self.state_id,
            state_uuid: self.state_uuid,
            enabled: self.enabled,
            value: self.value,
            weights: self.weights,
            overrides: self.overrides.into_iter().map(WireOverride::model).collect(),
        }
    }
}

impl WireFeature {
    fn of(feature: &Feature) -> Self {
        let variant = |variant: &Variant| WireVariant {
            id: variant.id.0,
            key: variant.key.clone(),
            value: variant.value.clone(),
            weight: variant.weight,
        };
        Self {
            id: feature.id.0,
            key: feature.key.clone(),
            description: feature.description.clone(),
            tags: feature.tags.clone(),
            enabled: feature.defaults.enabled,
            value: feature.defaults.value.clone(),
            value_type: feature.value_type,
            server_key_only: feature.server_key_only,
            variants: feature.variants.iter().map(variant).collect(),
            created_at: feature.created_at,
        }
    }

    fn model(self) -> Feature {
        let variant = |WireVariant { id, key, value, weight }| Variant {
            id: VariantId(id),
            key,
            value,
            weight,
        };
        Feature {
            id: FeatureId(self.id),
            key: self.key,
            description: self.description,
            tags: self.tags,
            defaults: FeatureDefaults { enabled: self.enabled, value: self.value },
            value_type: self.value_type,
            server_key_only: self.server_key_only,
            variants: self.variants.into_iter().map(variant).collect(),
            created_at: self.created_at,
        }
    }
}

impl WireOverride {
    fn of(one: &SegmentOverride) -> Self {
        Self {
            segment_id: one.segment.0,
            state_id: one.state_id,
            state_uuid: one.state_uuid.clone(),
            enabled: one.enabled,
            value: one.value.clone(),
            weights: one.weights.clone(),
        }
    }

    fn model(self) -> SegmentOverride {
        SegmentOverride {
            segment: SegmentId(self.segment_id),
            state_id: self.state_id,
            state_uuid: self.state_uuid,
            enabled: self.enabled,
            value: self.value,
            weights: self.weights,
        }
    }
}

impl WireIdentity {
    fn of(one: &IdentityOverrides) -> Self {
        let flag = |flag: &IdentityOverride| WireIdentityFlag {
            feature_id: flag.feature.0,
            state_id: flag.state_id,
            state_uuid: flag.state_uuid.clone(),
            enabled: flag.enabled,
            value: flag.value.clone(),
        };
        Self {
            id: one.identity.id.0,
            uuid: one.identity.uuid.clone(),
            identifier: one.identity.identifier.clone(),
            created_at: one.identity.created_at,
            flags: one.overrides.iter().map(flag).collect(),
        }
    }

    fn model(self) -> IdentityOverrides {
        let flag = |flag: WireIdentityFlag| IdentityOverride {
            feature: FeatureId(flag.feature_id),
            state_id: flag.state_id,
            state_uuid: flag.state_uuid,
            enabled: flag.enabled,
            value: flag.value,
        };
        IdentityOverrides {
            identity: Identity {
                id: IdentityId(self.id),
                uuid: self.uuid,
                identifier: self.identifier,
                created_at: self.created_at,
            },
            overrides: self.flags.into_iter().map(flag).collect(),
        }
    }
}
