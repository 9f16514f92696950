//! Renders Flagsmith's environment document: everything that a server SDK needs to evaluate by itself.
//!
//! Sources: the open-source Flagsmith core (`api/environments`, `api/features`) and its SDKs. Every
//! field is there because some SDK fails without it: Rust's wants the ids of project and
//! organisation, Node's wants the arrays. Nothing is left out, not even flags that are off: SDKs
//! filter by themselves. It is one page, because only two of them follow a link to the next.

use std::collections::HashMap;

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::flagsmith::kind;
use crate::evaluation::portable;
use crate::model::{
    Condition, EnvironmentState, Feature, Flag, FlagValue, IdentityOverrides, Rule, Segment,
    SegmentId, UpdatedAt, Variant, Weight,
};

/// Flagsmith has organisations above projects; we have one, whose number means nothing.
const ORGANISATION_ID: u32 = 1;

/// `GET /api/v1/environment-document/`.
pub(super) fn environment_document(state: &EnvironmentState) -> Json {
    let environment = &state.environment;
    let settings = environment.settings;
    let feature_states: Vec<Json> = state.flags.iter().map(flag_state).collect();
    let flags: Flags<'_> = state.flags.iter().map(|flag| (flag.feature.id.0, flag)).collect();
    let client_key = environment.client_key.as_str();
    let overridden = state.identity_overrides.iter();
    let identity_overrides: Vec<Json> =
        overridden.map(|identity| identity_state(client_key, &flags, identity)).collect();
    json!({
        "id": environment.id.0,
        "api_key": environment.client_key.as_str(),
        "name": environment.name,
        "allow_client_traits": settings.allow_client_traits,
        "updated_at": environment.stamp.updated_at.iso(),
        "hide_sensitive_data": settings.hide_sensitive_data,
        "hide_disabled_flags": settings.hide_disabled_flags,
        "use_identity_composite_key_for_hashing": true,
        "use_identity_overrides_in_local_eval": true,
        "project": project(state),
        "feature_states": feature_states,
        "identity_overrides": identity_overrides,
    })
}

fn project(state: &EnvironmentState) -> Json {
    let server_key_only = state.flags.iter().filter(|flag| flag.feature.server_key_only);
    let server_key_only: Vec<i64> = server_key_only.map(|flag| flag.feature.id.0).collect();
    let segments: Vec<Json> = state.segments.iter().map(|one| segment(state, one)).collect();
    json!({
        "id": state.project.id.0,
        "name": state.project.name,
        "hide_disabled_flags": false,
        "enable_realtime_updates": true,
        "server_key_only_feature_ids": server_key_only,
        "organisation": {
            "id": ORGANISATION_ID,
            "name": "Flagcast",
            "feature_analytics": false,
            "stop_serving_flags": false,
            "persist_trait_data": state.environment.settings.persist_traits,
        },
        "segments": segments,
    })
}

fn segment(state: &EnvironmentState, segment: &Segment) -> Json {
    let overrides: Vec<Json> =
        state.flags.iter().filter_map(|flag| segment_state(flag, segment.id)).collect();
    json!({
        "id": segment.id.0,
        "name": segment.key,
        "rules": segment.rules.iter().map(rule).collect::<Vec<_>>(),
        "feature_states": overrides,
    })
}

fn rule(of: &Rule) -> Json {
    json!({
        "type": of.kind,
        "conditions": of.conditions.iter().map(condition).collect::<Vec<_>>(),
        "rules": of.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

/// The property's name ends with an underscore in this document, and nowhere else.
fn condition(of: &Condition) -> Json {
    // As written, not every SDK would see it in the same way.
    let Condition { property, operator, value } = portable(of);
    json!({ "operator": operator, "property_": property, "value": value })
}

/// A feature's state, whoever it is for.
struct State<'a> {
    feature: &'a Feature,
    kind: &'a str,
    id: i64,
    uuid: &'a str,
    enabled: bool,
    value: &'a FlagValue,
    weights: &'a [Weight],
    priority: Option<usize>,
}

fn flag_state(flag: &Flag) -> Json {
    State {
        feature: &flag.feature,
        kind: kind(flag),
        id: flag.state_id,
        uuid: &flag.state_uuid,
        enabled: flag.enabled,
        value: &flag.value,
        weights: &flag.weights,
        priority: None,
    }
    .json()
}

/// What a flag is for a segment, if that is not what it is for all. The smallest number is the
/// strongest.
fn segment_state(flag: &Flag, segment: SegmentId) -> Option<Json> {
    let priority = flag.overrides.iter().position(|over| over.segment == segment)?;
    let over = &flag.overrides[priority];
    let state = State {
        feature: &flag.feature,
        kind: kind(flag),
        id: over.state_id,
        uuid: &over.state_uuid,
        enabled: over.enabled,
        value: &over.value,
        weights: &over.weights,
        priority: Some(priority),
    };
    Some(state.json())
}

/// Flags by the numbers of their features.
type Flags<'a> = HashMap<i64, &'a Flag>;

fn identity_state(client_key: &str, flags: &Flags<'_>, of: &IdentityOverrides) -> Json {
    let identity = &of.identity;
    let features: Vec<Json> = of
        .overrides
        .iter()
        .filter_map(|over| {
            let flag = flags.get(&over.feature.0)?;
            // One person is not shared out among variants.
            let state = State {
                feature: &flag.feature,
                kind: kind(flag),
                id: over.state_id,
                uuid: &over.state_uuid,
                enabled: over.enabled,
                value: &over.value,
                weights: &[],
                priority: None,
            };
            Some(state.json())
        })
        .collect();
    json!({
        "identifier": identity.identifier,
        "environment_api_key": client_key,
        "created_date": UpdatedAt::from_micros(identity.created_at).iso(),
        "identity_uuid": identity.uuid,
        "django_id": identity.id.0,
        "dashboard_alias": null,
        "composite_key": format!("{client_key}_{}", identity.identifier),
        "identity_traits": [],
        "identity_features": features,
    })
}

impl State<'_> {
    fn json(&self) -> Json {
        let Self { feature, kind, id, uuid, enabled, value, priority, .. } = self;
        json!({
            "feature": { "id": feature.id.0, "name": feature.key, "type": kind },
            "enabled": enabled,
            "django_id": id,
            "feature_segment": priority.map(|priority| json!({ "priority": priority })),
            "featurestate_uuid": uuid,
            "feature_state_value": value,
            "multivariate_feature_state_values": self.variants(),
        })
    }

    /// The id of a share is its place among the shares, by which SDKs sort them; so it is the
    /// variant's.
    fn variants(&self) -> Vec<Json> {
        let shares = self.feature.variants.iter().zip(self.weights);
        let share = |(variant, weight): (&Variant, &Weight)| {
            json!({
                "id": variant.id.0,
                "mv_fs_value_uuid": share_uuid(self.uuid, variant.id.0),
                "percentage_allocation": weight,
                "multivariate_feature_option": {
                    "id": variant.id.0,
                    "value": variant.value,
                    "key": variant.key,
                },
            })
        };
        shares.map(share).collect()
    }
}

/// A UUID for the share that a state gives a variant: always the same one.
fn share_uuid(state_uuid: &str, variant: i64) -> String {
    let digest = Sha256::digest(format!("{state_uuid}/{variant}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flagset::sample::{state, targeted};

    #[test]
    fn the_document_carries_the_instant_of_the_ping() {
        let document = environment_document(&state());
        assert_eq!(document["updated_at"], "2025-11-22T05:40:00.015625+00:00");
        assert_eq!(document["api_key"], "npfo95nMwUw8cjHXdHi2hG");
    }

    /// What single SDKs refuse to do without (Rust: ids, flags and dates; Node: arrays).
    #[test]
    fn the_document_has_every_field_that_an_sdk_reads() {
        let document = environment_document(&targeted());
        for pointer in [
            "/id",
            "/name",
            "/allow_client_traits",
            "/hide_disabled_flags",
            "/hide_sensitive_data",
            "/use_identity_composite_key_for_hashing",
            "/use_identity_overrides_in_local_eval",
            "/project/id",
            "/project/name",
            "/project/hide_disabled_flags",
            "/project/enable_realtime_updates",
            "/project/server_key_only_feature_ids/0",
            "/project/organisation/id",
            "/project/organisation/name",
            "/project/organisation/feature_analytics",
            "/project/organisation/stop_serving_flags",
            "/project/organisation/persist_trait_data",
            "/project/segments/0/rules/0/rules",
            "/project/segments/0/rules/0/conditions/0/value",
            "/project/segments/0/feature_states/0/feature_segment/priority",
            "/feature_states/0/django_id",
            "/feature_states/0/featurestate_uuid",
            "/feature_states/0/feature_segment",
            "/feature_states/0/multivariate_feature_state_values",
            "/feature_states/2/multivariate_feature_state_values/0/mv_fs_value_uuid",
            "/identity_overrides/0/created_date",
            "/identity_overrides/0/environment_api_key",
            "/identity_overrides/0/identity_uuid",
            "/identity_overrides/0/django_id",
            "/identity_overrides/0/dashboard_alias",
            "/identity_overrides/0/composite_key",
            "/identity_overrides/0/identity_traits",
            "/identity_overrides/0/identity_features/0/feature/type",
            "/identity_overrides/0/identity_features/0/multivariate_feature_state_values",
        ] {
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }

    #[test]
    fn segments_are_told_as_every_engine_reads_them() {
        let document = environment_document(&targeted());
        let segment = &document["project"]["segments"][0];
        assert_eq!((&segment["id"], &segment["name"]), (&json!(16), &json!("paying")));
        let conditions = json!([
            { "operator": "EQUAL", "property_": "plan", "value": "pro" },
            { "operator": "REGEX", "property_": "mail", "value": "^(?:a|b)" },
        ]);
        assert_eq!(segment["rules"][0]["type"], "ALL");
        assert_eq!(segment["rules"][0]["conditions"], conditions);
        let state = &segment["feature_states"][0];
        assert_eq!(state["feature"], json!({"id": 10, "name": "banner", "type": "STANDARD"}));
        assert_eq!(state["feature_segment"], json!({"priority": 0}));
        assert_eq!(state["django_id"], 1_000_000_001);
        assert_eq!(state["feature_state_value"], "thank you");
    }

    #[test]
    fn variants_and_single_people_are_told() {
        let document = environment_document(&targeted());
        let colour = &document["feature_states"][2];
        assert_eq!(colour["feature"]["type"], "MULTIVARIATE");
        let shares = colour["multivariate_feature_state_values"].as_array().unwrap();
        assert_eq!(shares[0]["percentage_allocation"], 12.5);
        let option = json!({ "id": 31, "value": "#f00", "key": "red" });
        assert_eq!(shares[0]["multivariate_feature_option"], option);
        let uuids: Vec<&str> =
            shares.iter().map(|share| share["mv_fs_value_uuid"].as_str().unwrap()).collect();
        assert!(uuids[0] != uuids[1] && uuids[0].parse::<uuid::Uuid>().is_ok(), "{uuids:?}");

        let ann = &document["identity_overrides"][0];
        assert_eq!(ann["identifier"], "ann");
        assert_eq!(ann["composite_key"], "npfo95nMwUw8cjHXdHi2hG_ann");
        assert_eq!(ann["identity_features"][0]["feature_state_value"], "only you");
        assert_eq!(document["project"]["server_key_only_feature_ids"], json!([11]));
    }

    #[test]
    fn settings_are_told() {
        let mut state = state();
        let settings = &mut state.environment.settings;
        settings.allow_client_traits = false;
        settings.hide_disabled_flags = true;
        settings.hide_sensitive_data = true;
        settings.persist_traits = false;
        let document = environment_document(&state);
        assert_eq!(document["allow_client_traits"], false);
        assert_eq!(document["hide_disabled_flags"], true);
        assert_eq!(document["hide_sensitive_data"], true);
        assert_eq!(document["project"]["organisation"]["persist_trait_data"], false);
        assert_eq!(document["feature_states"].as_array().unwrap().len(), 2, "nothing is hidden");
    }
}
