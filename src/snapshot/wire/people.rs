//! Who is meant, on the wire: segments by their rules, and single identities with what is overridden for them.

use serde::{Deserialize, Serialize};

use crate::model::{
    Condition, FeatureId, FlagValue, Identity, IdentityId, IdentityOverride, IdentityOverrides,
    Operator, Rule, RuleKind, Segment, SegmentId,
};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireSegment {
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
pub(super) struct WireIdentity {
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

impl WireSegment {
    pub(super) fn of(segment: &Segment) -> Self {
        Self {
            id: segment.id.0,
            key: segment.key.clone(),
            name: segment.name.clone(),
            description: segment.description.clone(),
            rules: segment.rules.iter().map(WireRule::of).collect(),
            created_at: segment.created_at,
        }
    }

    pub(super) fn model(self) -> Segment {
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

impl WireIdentity {
    pub(super) fn of(one: &IdentityOverrides) -> Self {
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

    pub(super) fn model(self) -> IdentityOverrides {
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
