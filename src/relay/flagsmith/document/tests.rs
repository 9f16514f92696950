//! Documents are read so that everybody gets what Flagsmith's engines would give.

use serde_json::{Value as Json, json};

use super::*;
use crate::evaluation::{Context, Evaluator, Subject};
use crate::flagset::FlagSet;
use crate::flagset::sample::{state, targeted};
use crate::model::{Scalar, Traits};

/// A document as Flagsmith's core writes it, with what a test is about laid over it.
fn document(flags: &Json, segments: &Json, identities: &Json) -> Json {
    json!({
        "id": 23, "api_key": "npfo95nMwUw8cjHXdHi2hG", "name": "Production",
        "allow_client_traits": true, "updated_at": "2026-08-21T12:00:00.123456+00:00",
        "hide_sensitive_data": false, "hide_disabled_flags": null,
        "use_identity_composite_key_for_hashing": true,
        "project": { "id": 12, "name": "P", "hide_disabled_flags": true,
            "server_key_only_feature_ids": [8], "segments": segments,
            "organisation": { "id": 13, "name": "O", "persist_trait_data": false } },
        "feature_states": flags, "identity_overrides": identities,
    })
}

fn flag_state(feature: i64, django_id: i64, value: &Json, shares: &Json) -> Json {
    json!({
        "feature": { "id": feature, "name": format!("flag {feature}"), "type": "STANDARD" },
        "enabled": true, "django_id": django_id, "feature_segment": null,
        "featurestate_uuid": "d7303252-33a7-4991-b20f-8564959e42c8",
        "feature_state_value": value, "multivariate_feature_state_values": shares,
    })
}

/// The share with this id of the variant with that one.
fn share(id: i64, option: i64, percent: f64) -> Json {
    json!({
        "id": id, "mv_fs_value_uuid": "6d96689d-9b1b-4507-9894-b6a0903084f8",
        "percentage_allocation": percent,
        "multivariate_feature_option": { "id": option, "value": format!("v{option}") },
    })
}

fn segment(id: i64, priority: Option<i64>, mut state: Json) -> Json {
    state["feature_segment"] = json!({ "priority": priority });
    json!({ "id": id, "name": format!("Segment {id}"), "feature_states": [state],
        "rules": [{ "type": "ALL", "rules": [], "conditions": [
            { "operator": "EQUAL", "property_": "plan", "value": "pro" } ] }] })
}

fn read_json(document: &Json) -> Result<Read, Unservable> {
    read(parse(document.to_string().as_bytes())?)
}

/// What somebody gets of each flag: on or off, value and variant.
fn given(state: &EnvironmentState, identifier: &str, traits: &Traits) -> Vec<String> {
    let evaluator = Evaluator::compile(Context::of(state));
    let evaluation =
        evaluator.evaluate(&Subject { identifier: Some(identifier), key: None, traits });
    let outcomes = evaluation.outcomes.iter().map(|number| &evaluator.outcomes()[*number as usize]);
    outcomes
        .map(|one| format!("{} {} {:?} {:?}", one.feature, one.enabled, one.value, one.variant))
        .collect()
}

#[test]
fn our_own_documents_say_the_same_again() {
    for before in [state(), targeted()] {
        let set = FlagSet::render(&before);
        let Read { mut state, instant } = read(parse(set.document.plain()).unwrap()).unwrap();
        assert_eq!(instant, Some(before.environment.stamp.updated_at));
        state.environment.stamp = before.environment.stamp;
        let again = FlagSet::render(&state);
        let json =
            |set: &FlagSet| -> Json { serde_json::from_slice(set.document.plain()).unwrap() };
        assert_eq!(json(&again), json(&set));
        assert_eq!(again.sdk.plain(), set.sdk.plain());
        let text = |text: &str| Scalar::Text(text.to_owned());
        let traits = [
            Traits::new(),
            Traits::from([("plan".to_owned(), text("pro")), ("mail".to_owned(), text("bob"))]),
        ];
        let anybody = (0..500).map(|number| format!("user-{number}")).chain(["ann".to_owned()]);
        for identifier in anybody {
            for traits in &traits {
                assert_eq!(
                    given(&state, &identifier, traits),
                    given(&before, &identifier, traits),
                    "{identifier}"
                );
            }
        }
    }
}

#[test]
fn what_the_core_says_is_taken_over() {
    let flags = json!([
        flag_state(8, 502, &json!("secret"), &json!([])),
        flag_state(7, 500, &json!(5), &json!([])),
    ]);
    let segments = json!([
        segment(17, None, flag_state(7, 601, &json!("weakest"), &json!([]))),
        segment(16, Some(3), flag_state(7, 602, &json!("weak"), &json!([]))),
        segment(15, Some(1), flag_state(7, 603, &json!("strong"), &json!([]))),
        // Of a flag that is archived by now.
        segment(14, Some(0), flag_state(99, 604, &json!("gone"), &json!([]))),
    ]);
    let identities = json!([{ "identifier": "ann", "django_id": null, "identity_traits": [],
        "identity_features": [flag_state(7, 0, &json!("only you"), &json!([]))] }]);
    let Read { state, instant } = read_json(&document(&flags, &segments, &identities)).unwrap();
    assert_eq!(instant.map(UpdatedAt::micros), Some(1_787_313_600_123_456));
    let settings = state.environment.settings;
    assert!(settings.hide_disabled_flags && !settings.persist_traits, "{settings:?}");
    let keys: Vec<_> = state.flags.iter().map(|flag| flag.feature.key.as_str()).collect();
    assert_eq!(keys, ["flag 7", "flag 8"]);
    assert!(!state.flags[0].feature.server_key_only && state.flags[1].feature.server_key_only);
    let strongest: Vec<_> = state.flags[0].overrides.iter().map(|one| one.segment.0).collect();
    assert_eq!(strongest, [15, 16, 17]);
    assert_eq!(state.segments.iter().map(|one| one.id.0).collect::<Vec<_>>(), [14, 15, 16, 17]);
    let pro = Traits::from([("plan".to_owned(), Scalar::Text("pro".to_owned()))]);
    assert!(given(&state, "bob", &pro)[0].contains("strong"));
    assert!(given(&state, "ann", &pro)[0].contains("only you"));
}

/// Flagsmith may answer in another order each time.
#[test]
fn the_order_of_an_answer_is_no_change() {
    let state =
        |feature, value: &str| flag_state(feature, 500 + feature, &json!(value), &json!([]));
    let ann = json!({ "identifier": "ann", "identity_features": [state(7, "x"), state(8, "y")] });
    let bob = json!({ "identifier": "bob", "identity_features": [state(8, "y"), state(7, "x")] });
    let one = document(
        &json!([state(7, "a"), state(8, "b")]),
        &json!([segment(15, Some(1), state(7, "c")), segment(16, Some(0), state(7, "d"))]),
        &json!([ann.clone(), bob.clone()]),
    );
    let other = document(
        &json!([state(8, "b"), state(7, "a")]),
        &json!([segment(16, Some(0), state(7, "d")), segment(15, Some(1), state(7, "c"))]),
        &json!([bob, ann]),
    );
    assert_eq!(read_json(&one).unwrap().state, read_json(&other).unwrap().state);
}

/// Flagsmith's engines go through the shares of a state by the shares' own ids.
#[test]
fn who_gets_which_variant_goes_by_the_shares_of_each_state() {
    let own = json!([share(12, 1, 30.0), share(11, 2, 30.0)]);
    let other = json!([share(21, 1, 30.0), share(22, 2, 30.0)]);
    let flags = json!([flag_state(7, 500, &json!("control"), &own)]);
    let segments = json!([segment(15, Some(0), flag_state(7, 501, &json!("control"), &other))]);
    let Read { state, .. } = read_json(&document(&flags, &segments, &json!([]))).unwrap();
    let pro = Traits::from([("plan".to_owned(), Scalar::Text("pro".to_owned()))]);
    for number in 0..500 {
        let identifier = format!("user-{number}");
        let place = |seed: &str| {
            let key = format!("npfo95nMwUw8cjHXdHi2hG_{identifier}");
            crate::evaluation::bucket(seed, &key)
        };
        let expected = |place: f64, order: [&str; 2]| match place {
            place if place <= 30.0 => order[0].to_owned(),
            place if place <= 60.0 => order[1].to_owned(),
            _ => "control".to_owned(),
        };
        let everybody = &given(&state, &identifier, &Traits::new())[0];
        let wanted = expected(place("500"), ["v2", "v1"]);
        assert!(everybody.contains(&format!("\"{wanted}\"")), "{identifier}: {everybody}");
        let paying = &given(&state, &identifier, &pro)[0];
        let wanted = expected(place("501"), ["v1", "v2"]);
        assert!(paying.contains(&format!("\"{wanted}\"")), "{identifier}: {paying}");
    }
    // SDKs that evaluate our document sort by the same numbers.
    let ids: Vec<_> = state.flags[0].feature.variants.iter().map(|one| one.id.0).collect();
    assert!(ids.is_sorted() && ids.len() == 4, "{ids:?}");
}

#[test]
fn somebody_who_has_a_variant_as_an_override_gets_its_value() {
    let shares = json!([share(11, 1, 30.0), share(12, 2, 30.0)]);
    let flags = json!([flag_state(7, 500, &json!("control"), &shares)]);
    let chosen = json!([share(31, 2, 100.0)]);
    let identities = json!([{ "identifier": "ann",
        "identity_features": [flag_state(7, 700, &json!("control"), &chosen)] }]);
    let Read { state, .. } = read_json(&document(&flags, &json!([]), &identities)).unwrap();
    assert!(given(&state, "ann", &Traits::new())[0].contains("v2"));
}

#[test]
fn what_cannot_be_served_is_named() {
    let refused = |document: &Json| read_json(document).unwrap_err().to_string();
    let mut state = flag_state(7, 500, &json!("control"), &json!([share(11, 1, 30.0)]));
    state["django_id"] = Json::Null;
    let error = refused(&document(&json!([state]), &json!([]), &json!([])));
    assert!(error.contains("`feature_states[0]`") && error.contains("`flag 7`"), "{error}");
    let mut odd = segment(15, None, flag_state(7, 1, &json!(1), &json!([])));
    odd["rules"][0]["conditions"][0]["operator"] = json!("SOUNDS_LIKE");
    let error = refused(&document(&json!([]), &json!([odd]), &json!([])));
    let place = "`project.segments[0].rules[0].conditions[0].operator`";
    assert!(error.contains(place) && error.contains("SOUNDS_LIKE"), "{error}");
    let error = refused(&json!({ "detail": "Hello" }));
    assert!(error.contains("missing field"), "{error}");
}
