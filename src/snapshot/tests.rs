//! Whatever goes into a snapshot comes out of it, and what was damaged on the way is refused.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::model::{
    ClientKey, Condition, EnvironmentId, EnvironmentKind, EnvironmentSettings, Feature,
    FeatureDefaults, FeatureId, Flag, FlagValue, INTEGER_MAX, Identity, IdentityId,
    IdentityOverride, IdentityOverrides, Operator, Project, ProjectId, Rule, RuleKind, Segment,
    SegmentId, SegmentOverride, Stamp, UpdatedAt, ValueType, Variant, VariantId, Weight,
};

/// Letters of many kinds, quotes and control characters.
fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn value() -> impl Strategy<Value = FlagValue> {
    prop_oneof![
        Just(FlagValue::Null),
        any::<bool>().prop_map(FlagValue::Bool),
        (-INTEGER_MAX..=INTEGER_MAX).prop_map(FlagValue::Integer),
        text().prop_map(FlagValue::Text),
        // A text that looks like something else stays a text.
        prop::sample::select(vec!["7", "null", "true", "1.50"])
            .prop_map(|text| FlagValue::Text(text.to_owned())),
    ]
}

fn weights(count: usize) -> impl Strategy<Value = Vec<Weight>> {
    vec((0..=100_000_u32).prop_map(Weight::from_thousandths), count)
}

fn rule() -> impl Strategy<Value = Rule> {
    let operators = vec![Operator::Equal, Operator::PercentageSplit, Operator::IsNotSet];
    let condition = (text(), prop::sample::select(operators), text())
        .prop_map(|(property, operator, value)| Condition { property, operator, value });
    let kinds = vec![RuleKind::All, RuleKind::Any, RuleKind::None];
    let kind = prop::sample::select(kinds);
    let leaf = (kind.clone(), vec(condition, 0..3)).prop_map(|(kind, conditions)| Rule {
        kind,
        conditions,
        rules: Vec::new(),
    });
    leaf.prop_recursive(9, 12, 2, move |inner| {
        (kind.clone(), vec(inner, 1..3)).prop_map(|(kind, rules)| Rule {
            kind,
            conditions: Vec::new(),
            rules,
        })
    })
}

fn segment() -> impl Strategy<Value = Segment> {
    (any::<i64>(), text(), text(), text(), vec(rule(), 0..3), any::<i64>()).prop_map(
        |(id, key, name, description, rules, created_at)| Segment {
            id: SegmentId(id),
            key,
            name,
            description,
            rules,
            created_at,
        },
    )
}

fn feature() -> impl Strategy<Value = Feature> {
    let variant =
        (any::<i64>(), text(), value(), weights(1)).prop_map(|(id, key, value, weights)| Variant {
            id: VariantId(id),
            key,
            value,
            weight: weights[0],
        });
    let texts = (text(), text(), vec(text(), 0..3));
    let switches = (any::<bool>(), any::<bool>(), any::<bool>());
    (any::<i64>(), texts, switches, value(), vec(variant, 0..4), any::<i64>()).prop_map(
        |(id, (key, description, tags), (enabled, is_json, is_private), value, variants, at)| {
            Feature {
                id: FeatureId(id),
                key,
                description,
                tags,
                defaults: FeatureDefaults { enabled, value },
                value_type: if is_json { ValueType::Json } else { ValueType::Plain },
                server_key_only: is_private,
                variants,
                created_at: at,
            }
        },
    )
}

/// A flag with an override for some of the segments.
fn flag(segments: Vec<SegmentId>) -> impl Strategy<Value = Flag> {
    let most = segments.len();
    feature().prop_flat_map(move |feature| {
        let shares = feature.variants.len();
        let one = (any::<i64>(), text(), any::<bool>(), value(), weights(shares));
        let overrides = (prop::sample::subsequence(segments.clone(), 0..=most).prop_shuffle())
            .prop_flat_map(move |chosen| {
                let state = (any::<i64>(), text(), any::<bool>(), value(), weights(shares));
                (Just(chosen.clone()), vec(state, chosen.len()))
            })
            .prop_map(|(chosen, states)| chosen.into_iter().zip(states).map(overriding).collect());
        (Just(feature), one, overrides).prop_map(
            |(feature, (state_id, state_uuid, enabled, value, weights), overrides)| Flag {
                feature,
                state_id,
                state_uuid,
                enabled,
                value,
                weights,
                overrides,
            },
        )
    })
}

type State = (i64, String, bool, FlagValue, Vec<Weight>);

fn overriding((segment, state): (SegmentId, State)) -> SegmentOverride {
    let (state_id, state_uuid, enabled, value, weights) = state;
    SegmentOverride { segment, state_id, state_uuid, enabled, value, weights }
}

fn identity() -> impl Strategy<Value = IdentityOverrides> {
    let one = (any::<i64>(), any::<i64>(), text(), any::<bool>(), value()).prop_map(
        |(feature, state_id, state_uuid, enabled, value)| IdentityOverride {
            feature: FeatureId(feature),
            state_id,
            state_uuid,
            enabled,
            value,
        },
    );
    (any::<i64>(), text(), text(), any::<i64>(), vec(one, 1..3)).prop_map(
        |(id, uuid, identifier, created_at, overrides)| IdentityOverrides {
            identity: Identity { id: IdentityId(id), uuid, identifier, created_at },
            overrides,
        },
    )
}

fn environment() -> impl Strategy<Value = Environment> {
    let numbers = (any::<i64>(), option::of(any::<i64>()), any::<i64>());
    let stamp = (any::<u64>(), any::<i64>());
    (numbers, text(), text(), "[A-Za-z0-9_-]{1,100}", any::<[bool; 4]>(), stamp).prop_map(
        |((id, project_id, created_at), key, name, client_key, settings, (revision, at))| {
            Environment {
                id: EnvironmentId(id),
                kind: match project_id {
                    Some(_) => EnvironmentKind::Stored,
                    None => EnvironmentKind::PushOnly,
                },
                project_id: project_id.map(ProjectId),
                key,
                name,
                client_key: ClientKey::parse(&client_key).unwrap(),
                settings: EnvironmentSettings {
                    hide_disabled_flags: settings[0],
                    allow_client_traits: settings[1],
                    hide_sensitive_data: settings[2],
                    persist_traits: settings[3],
                },
                stamp: Stamp {
                    revision: Revision(revision),
                    updated_at: UpdatedAt::from_micros(at),
                },
                created_at,
            }
        },
    )
}

fn state(environment: Environment) -> impl Strategy<Value = EnvironmentState> {
    vec(segment(), 0..3)
        .prop_flat_map(|segments| {
            let ids = segments.iter().map(|segment| segment.id).collect();
            (Just(segments), vec(flag(ids), 0..3))
        })
        .prop_flat_map(move |(segments, flags)| {
            let project = (any::<i64>(), text(), text(), any::<i64>());
            (Just(environment.clone()), project, Just(segments), Just(flags), vec(identity(), 0..3))
        })
        .prop_map(|(environment, (id, key, name, created_at), segments, flags, identities)| {
            EnvironmentState {
                environment,
                project: Project { id: ProjectId(id), key, name, created_at },
                flags,
                segments,
                identity_overrides: identities,
            }
        })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    environment().prop_flat_map(|environment| {
        let state = option::weighted(0.9, state(environment.clone()));
        (Just(environment), text(), vec("[0-9a-f]{64}", 0..3), state).prop_map(
            |(environment, epoch, mut server_key_hashes, state)| {
                server_key_hashes.sort_unstable();
                Snapshot { epoch, environment, server_key_hashes, state }
            },
        )
    })
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(snapshot in snapshot()) {
        let bytes = snapshot.encode();
        let back = Snapshot::decode(&bytes).unwrap();
        prop_assert_eq!(&back, &snapshot);
        prop_assert_eq!(back.mark().tag(), snapshot.mark().tag());
        prop_assert_eq!(back.encode(), bytes);
    }

    /// Wherever it breaks off, it is refused; and whatever byte is another one, nobody panics.
    #[test]
    fn what_is_damaged_does_no_harm(snapshot in snapshot(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = snapshot.encode();
        let at = at.index(bytes.len());
        prop_assert!(Snapshot::decode(&bytes[..at]).is_err());
        bytes[at] = byte;
        drop(Snapshot::decode(&bytes));
    }
}

/// A small snapshot, as bytes.
fn small() -> Json {
    json!({
        "format": 1,
        "epoch": "one",
        "environment": {
            "id": 3, "kind": "stored", "project_id": 2, "key": "production", "name": "Production",
            "client_key": "npfo95nMwUw8cjHXdHi2hG", "revision": 42,
            "updated_at": 1_763_790_000_015_625_i64, "created_at": 0,
            "hide_disabled_flags": false, "allow_client_traits": true,
            "hide_sensitive_data": false, "persist_traits": true,
        },
        "server_keys": ["ab"],
        "state": {
            "project": { "id": 2, "key": "web", "name": "Web", "created_at": 0 },
            "segments": [{
                "id": 16, "key": "paying", "name": "", "description": "", "created_at": 0,
                "rules": [{ "type": "ALL", "rules": [], "conditions": [
                    { "property": "plan", "operator": "EQUAL", "value": "pro" },
                ] }],
            }],
            "flags": [{
                "feature": {
                    "id": 9, "key": "colour", "description": "", "tags": ["a"], "enabled": false,
                    "value": null, "value_type": "plain", "server_key_only": false,
                    "variants": [{ "id": 31, "key": "red", "value": "#f00", "weight": 12.5 }],
                    "created_at": 0,
                },
                "state_id": 109, "state_uuid": "u", "enabled": true, "value": "7",
                "weights": [80.0],
                "overrides": [{
                    "segment_id": 16, "state_id": 7, "state_uuid": "u", "enabled": true,
                    "value": 7, "weights": [0.0],
                }],
            }],
            "identities": [{
                "id": 51, "uuid": "u", "identifier": "ann", "created_at": 0,
                "flags": [{
                    "feature_id": 9, "state_id": 8, "state_uuid": "u", "enabled": false,
                    "value": true,
                }],
            }],
        },
    })
}

fn decode(json: &Json) -> Result<Snapshot, String> {
    Snapshot::decode(json.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// Relays of other versions rely on these words.
#[test]
fn the_format_stays_as_it_is() {
    let snapshot = decode(&small()).unwrap();
    let bytes = snapshot.encode();
    assert_eq!(serde_json::from_slice::<Json>(&bytes).unwrap(), small());
    assert!(bytes.starts_with(b"{\"format\":1,"), "whoever looks at it sees what it is");
    let flag = &snapshot.state.unwrap().flags[0];
    assert_eq!(flag.value, FlagValue::Text("7".to_owned()));
    assert_eq!(flag.overrides[0].value, FlagValue::Integer(7));
}

#[test]
fn fields_of_tomorrow_are_passed_over_and_formats_of_tomorrow_refused() {
    let mut with_more = small();
    with_more["note"] = json!({ "a": [1] });
    with_more["environment"]["colour"] = json!("red");
    with_more["state"]["segments"][0]["rules"][0]["note"] = json!(1);
    with_more["state"]["flags"][0]["feature"]["owner"] = json!(null);
    assert_eq!(decode(&with_more), decode(&small()));

    let refused = decode(&json!({ "format": 2, "environment": "elsewhere" })).unwrap_err();
    assert!(refused.contains("format 2") && refused.contains("reads 1"), "{refused}");
}

#[test]
fn what_does_not_fit_together_is_refused_where_it_is_wrong() {
    for (path, wrong, said) in [
        ("/format", json!("1"), "format"),
        ("/environment/client_key", json!("a b"), "client_key"),
        ("/environment/kind", json!("other"), "environment.kind"),
        ("/state/flags/0/weights", json!([]), "`colour` has not one weight"),
        ("/state/flags/0/overrides/0/weights", json!([0.0, 0.0]), "`colour` has not one weight"),
        ("/state/flags/0/overrides/0/segment_id", json!(17), "no known segment"),
        ("/state/flags/0/value", json!(1.5), "state.flags[0].value"),
        ("/state/flags/0/weights/0", json!(101), "state.flags[0].weights[0]"),
        ("/state/segments/0/rules/0/type", json!("SOME"), "rules[0].type"),
    ] {
        let mut snapshot = small();
        *snapshot.pointer_mut(path).unwrap() = wrong;
        let refused = decode(&snapshot).unwrap_err();
        assert!(refused.contains(said) || path == "/format", "{path}: {refused}");
    }
    let behind = format!("{} x", small());
    assert!(Snapshot::decode(behind.as_bytes()).is_err());
    assert!(Snapshot::decode(&b"[".repeat(100_000)).is_err(), "no stack is as deep");
}

#[test]
fn a_tag_names_the_history_and_the_keys() {
    let mark = decode(&small()).unwrap().mark();
    let others = [
        Mark { epoch: "two".to_owned(), ..mark.clone() },
        Mark { revision: Revision(43), ..mark.clone() },
        Mark { server_key_hashes: vec!["cd".to_owned()], ..mark.clone() },
        Mark { server_key_hashes: Vec::new(), ..mark.clone() },
    ];
    for other in others {
        assert_ne!(other.tag(), mark.tag(), "{other:?}");
    }
    assert!(mark.tag().starts_with("\"42."), "{}", mark.tag());
}
