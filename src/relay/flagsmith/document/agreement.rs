//! The official engine reads documents of Flagsmith itself; what we make of the same document gives the same.

use std::collections::BTreeMap;

use flagsmith_flag_engine::engine::get_evaluation_result;
use flagsmith_flag_engine::engine_eval::mappers::{
    add_identity_to_context, environment_to_context,
};
use flagsmith_flag_engine::environments::Environment as TheirEnvironment;
use flagsmith_flag_engine::identities::Trait;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{parse, read};
use crate::evaluation::{Context, Evaluator, Subject};
use crate::model::Traits;

const UUID: &str = "d7303252-33a7-4991-b20f-8564959e42c8";

/// What somebody gets: on or off, value and variant, by flag.
type Given = BTreeMap<String, Json>;

/// Flags have up to three options, which states share out in an order of their own: by their shares' ids.
fn shares(options: Vec<i64>) -> impl Strategy<Value = Json> {
    let percents = vec(prop::sample::select(vec![0.0, 10.5, 30.0]), options.len());
    (Just(options).prop_shuffle(), percents).prop_map(|(options, percents)| {
        let shares = options.into_iter().zip(percents).zip(900..);
        let shares: Vec<Json> = shares
            .map(|((option, percent), id)| {
                json!({
                    "id": id, "mv_fs_value_uuid": UUID, "percentage_allocation": percent,
                    "multivariate_feature_option":
                        { "id": option, "value": format!("v{option}"), "key": format!("k{option}") },
                })
            })
            .collect();
        json!(shares)
    })
}

/// A state of the feature, with these options shared out.
fn state(feature: i64, options: usize) -> impl Strategy<Value = Json> {
    let options: Vec<i64> = (0..).take(options).collect();
    let value = prop::sample::select(vec![json!("a"), json!(5), json!(true), Json::Null]);
    // Few seeds, so that every run sees the same people in the same places.
    (500_i64..510, any::<bool>(), value, shares(options)).prop_map(
        move |(seed, enabled, value, shares)| {
            json!({
                "feature": { "id": feature, "name": format!("flag {feature}"), "type": "STANDARD" },
                "enabled": enabled, "django_id": seed, "featurestate_uuid": UUID,
                "feature_segment": null, "feature_state_value": value,
                "multivariate_feature_state_values": shares,
            })
        },
    )
}

fn rules() -> impl Strategy<Value = Json> {
    let condition = prop::sample::select(vec![
        json!({ "operator": "EQUAL", "property_": "plan", "value": "pro" }),
        json!({ "operator": "NOT_EQUAL", "property_": "plan", "value": "pro" }),
        json!({ "operator": "GREATER_THAN", "property_": "age", "value": "20" }),
        json!({ "operator": "IS_SET", "property_": "age", "value": null }),
        json!({ "operator": "REGEX", "property_": "plan", "value": "^p.*" }),
        json!({ "operator": "PERCENTAGE_SPLIT", "property_": null, "value": "50" }),
    ]);
    let kind = prop::sample::select(vec!["ALL", "ANY", "NONE"]);
    (kind, vec(condition, 1..3)).prop_map(|(kind, conditions)| {
        let inner = json!({ "type": kind, "rules": [], "conditions": conditions });
        json!([{ "type": "ALL", "rules": [inner], "conditions": [] }])
    })
}

fn document() -> impl Strategy<Value = Json> {
    let features = [(7, 0), (8, 2), (9, 3)];
    let own = features.map(|(feature, options)| state(feature, options));
    let segment = move |id: i64| {
        let states = features
            .map(|(feature, options)| option::of((state(feature, options), option::of(0_i64..3))));
        (states, rules()).prop_map(move |(states, rules)| {
            let states = states.into_iter().flatten().map(|(mut state, priority)| {
                // The official engine wants a number here.
                state["feature_segment"] = json!({ "priority": priority.unwrap_or(9) });
                state
            });
            json!({ "id": id, "name": format!("Segment {id}"), "rules": rules,
                "feature_states": states.collect::<Vec<_>>() })
        })
    };
    let single = vec(state(7, 0), 0..2);
    (own, [segment(1), segment(2), segment(3)], single).prop_map(|(own, segments, single)| {
        json!({
            "id": 23, "api_key": "key", "name": "E", "feature_states": own,
            "project": { "id": 12, "name": "P", "hide_disabled_flags": false, "segments": segments,
                "organisation": { "id": 13, "name": "O", "feature_analytics": false,
                    "stop_serving_flags": false, "persist_trait_data": true } },
            "identity_overrides": [{ "identifier": "user-1", "environment_api_key": "key",
                "created_date": "2026-08-01T00:00:00+00:00", "identity_uuid": UUID, "django_id": 32,
                "identity_traits": [], "identity_features": single }],
        })
    })
}

fn theirs(document: &Json, identifier: &str, traits: &Traits) -> Given {
    let environment: TheirEnvironment = serde_json::from_value(document.clone()).unwrap();
    let traits: Vec<Trait> = traits
        .iter()
        .map(|(key, value)| Trait {
            trait_key: key.clone(),
            trait_value: serde_json::from_value(json!(value)).unwrap(),
        })
        .collect();
    let context =
        add_identity_to_context(&environment_to_context(environment), identifier, &traits);
    let flags = get_evaluation_result(&context).flags.into_iter();
    flags.map(|(name, flag)| (name, json!([flag.enabled, flag.value, flag.variant]))).collect()
}

fn ours(document: &Json, identifier: &str, traits: &Traits) -> Given {
    let read = read(parse(document.to_string().as_bytes()).unwrap()).unwrap();
    let evaluator = Evaluator::compile(Context::of(&read.state));
    let subject = Subject { identifier: Some(identifier), key: None, traits };
    let evaluation = evaluator.evaluate(&subject);
    let outcomes = evaluation.outcomes.iter().map(|number| &evaluator.outcomes()[*number as usize]);
    let flags = read.state.flags.iter().zip(outcomes);
    flags
        .map(|(flag, one)| (flag.feature.key.clone(), json!([one.enabled, one.value, one.variant])))
        .collect()
}

proptest! {
    #[test]
    fn everybody_gets_what_the_official_engine_gives(document in document()) {
        let traits: Traits = serde_json::from_value(json!({ "plan": "pro", "age": 21 })).unwrap();
        for number in 0..10 {
            let identifier = format!("user-{number}");
            for traits in [&traits, &Traits::new()] {
                let expected = theirs(&document, &identifier, traits);
                prop_assert_eq!(ours(&document, &identifier, traits), expected, "{}", identifier);
            }
        }
    }
}
