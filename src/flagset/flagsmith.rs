//! Renders a state in the shapes of Flagsmith's SDK API, version 1.
//!
//! Sources: the open-source Flagsmith core (`api/environments`, `api/features`) and its SDKs. Every
//! field of the environment document is there because some SDK fails without it: Rust's wants the
//! ids of project and organisation, Node's wants the arrays.

use serde_json::{Value as Json, json};

use crate::model::{EnvironmentState, Flag};

/// Flagsmith has organisations above projects; we have one, whose number means nothing.
const ORGANISATION_ID: u32 = 1;

/// Where each flag lies in the list, by lower-cased key.
type Ranges = Vec<(String, std::ops::Range<usize>)>;

/// `GET /api/v1/flags/`: the list, and where each flag lies in it.
pub(super) fn flag_list(state: &EnvironmentState) -> (String, Ranges) {
    let mut list = String::from("[");
    let mut ranges = Ranges::with_capacity(state.flags.len());
    for flag in &state.flags {
        if !ranges.is_empty() {
            list.push(',');
        }
        let start = list.len();
        list.push_str(&listed(state, flag).to_string());
        ranges.push((flag.feature.key.to_ascii_lowercase(), start..list.len()));
    }
    list.push(']');
    (list, ranges)
}

fn listed(state: &EnvironmentState, flag: &Flag) -> Json {
    json!({
        "id": flag.state_id,
        "feature": {
            "id": flag.feature.id.0,
            "name": flag.feature.key,
            "created_date": iso(flag.feature.created_at),
            "description": flag.feature.description,
            "initial_value": flag.feature.defaults.value,
            "default_enabled": flag.feature.defaults.enabled,
            "type": "STANDARD",
        },
        "feature_state_value": flag.value,
        "environment": state.environment.id.0,
        "identity": null,
        "feature_segment": null,
        "enabled": flag.enabled,
    })
}

/// `GET /api/v1/environment-document/`: everything a server SDK needs to evaluate by itself.
pub(super) fn environment_document(state: &EnvironmentState) -> Json {
    let environment = &state.environment;
    let feature_states: Vec<Json> = state.flags.iter().map(feature_state).collect();
    json!({
        "id": environment.id.0,
        "api_key": environment.client_key.as_str(),
        "name": environment.name,
        "allow_client_traits": true,
        "updated_at": environment.stamp.updated_at.iso(),
        "hide_sensitive_data": false,
        "hide_disabled_flags": null,
        "use_identity_composite_key_for_hashing": true,
        "use_identity_overrides_in_local_eval": true,
        "project": {
            "id": state.project.id.0,
            "name": state.project.name,
            "hide_disabled_flags": false,
            "enable_realtime_updates": true,
            "server_key_only_feature_ids": [],
            "organisation": {
                "id": ORGANISATION_ID,
                "name": "Flagcast",
                "feature_analytics": false,
                "stop_serving_flags": false,
                "persist_trait_data": true,
            },
            "segments": [],
        },
        "feature_states": feature_states,
        "identity_overrides": [],
    })
}

fn feature_state(flag: &Flag) -> Json {
    json!({
        "feature": {
            "id": flag.feature.id.0,
            "name": flag.feature.key,
            "type": "STANDARD",
        },
        "enabled": flag.enabled,
        "django_id": flag.state_id,
        "feature_segment": null,
        "featurestate_uuid": flag.state_uuid,
        "feature_state_value": flag.value,
        "multivariate_feature_state_values": [],
    })
}

fn iso(micros: i64) -> String {
    crate::model::UpdatedAt::from_micros(micros).iso()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{
        ClientKey, Environment, EnvironmentId, EnvironmentKind, EnvironmentSettings, Feature,
        FeatureDefaults, FeatureId, FlagValue, Project, ProjectId, Revision, Stamp, UpdatedAt,
        ValueType,
    };

    pub(in crate::flagset) fn state() -> EnvironmentState {
        let flag = |id: i64, key: &str, enabled: bool, value: FlagValue| Flag {
            feature: Feature {
                id: FeatureId(id),
                key: key.to_owned(),
                description: String::new(),
                tags: Vec::new(),
                defaults: FeatureDefaults::default(),
                value_type: ValueType::Plain,
                server_key_only: false,
                variants: Vec::new(),
                created_at: 1_763_790_000_000_000,
            },
            state_id: 100 + id,
            state_uuid: "d7303252-33a7-4991-b20f-8564959e42c8".to_owned(),
            enabled,
            value,
            weights: Vec::new(),
            overrides: Vec::new(),
        };
        EnvironmentState {
            environment: Environment {
                id: EnvironmentId(3),
                kind: EnvironmentKind::Stored,
                project_id: Some(ProjectId(2)),
                key: "production".to_owned(),
                name: "Production".to_owned(),
                client_key: ClientKey::parse("npfo95nMwUw8cjHXdHi2hG").unwrap(),
                settings: EnvironmentSettings::default(),
                stamp: Stamp {
                    revision: Revision(42),
                    updated_at: UpdatedAt::from_micros(1_763_790_000_015_625),
                },
                created_at: 0,
            },
            project: Project {
                id: ProjectId(2),
                key: "web".to_owned(),
                name: "Web".to_owned(),
                created_at: 0,
            },
            flags: vec![
                flag(7, "dark-mode", true, FlagValue::Null),
                flag(8, "Limit", false, FlagValue::Integer(7)),
            ],
            segments: Vec::new(),
            identity_overrides: Vec::new(),
        }
    }

    #[test]
    fn the_document_carries_the_instant_of_the_ping() {
        let document = environment_document(&state());
        assert_eq!(document["updated_at"], "2025-11-22T05:40:00.015625+00:00");
        assert_eq!(document["api_key"], "npfo95nMwUw8cjHXdHi2hG");
    }

    /// What single SDKs refuse to do without (Rust: ids and flags; Node: arrays).
    #[test]
    fn the_document_has_every_field_that_an_sdk_reads() {
        let document = environment_document(&state());
        for pointer in [
            "/id",
            "/name",
            "/hide_disabled_flags",
            "/identity_overrides",
            "/use_identity_composite_key_for_hashing",
            "/use_identity_overrides_in_local_eval",
            "/project/id",
            "/project/name",
            "/project/segments",
            "/project/server_key_only_feature_ids",
            "/project/organisation/id",
            "/project/organisation/persist_trait_data",
            "/feature_states/0/django_id",
            "/feature_states/0/featurestate_uuid",
            "/feature_states/0/feature_segment",
            "/feature_states/0/multivariate_feature_state_values",
        ] {
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
