//! Flags on the wire, with what is overridden for segments.

use serde::{Deserialize, Serialize};

use crate::model::{
    Feature, FeatureDefaults, FeatureId, Flag, FlagValue, SegmentId, SegmentOverride, ValueType,
    Variant, VariantId, Weight,
};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireFlag {
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

impl WireFlag {
    pub(super) fn of(flag: &Flag) -> Self {
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

    pub(super) fn model(self) -> Flag {
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
