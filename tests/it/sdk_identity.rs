//! The published Flagsmith JavaScript SDK for a person who signs in: identities and traits, by the
//! client key, with real-time updates.

use serde_json::{Value, json};

use crate::harness::admin::{Admin, Environment};
use crate::harness::driver::Driver;
use crate::harness::rollout::only;
use crate::harness::{Gateway, eventually};

/// A shop whose banner is another one for those who pay.
async fn shop(gateway: &Gateway) -> (Admin, Environment) {
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    admin.create_segment_of("web", "paying", &only("plan", "EQUAL", "pro")).await;
    let state = json!({"enabled": true, "value": "thank you"});
    admin.override_for_segment(&environment, "banner", "paying", &state).await;
    (admin, environment)
}

/// Waits until the SDK shows the banner as `wanted`.
async fn shows(sdk: &mut Driver, wanted: &str) {
    let look = json!({"do": "look"});
    eventually(&format!("the banner becomes {wanted:?}"), async || {
        (sdk.obey(&look).await["flags"]["banner"]["value"] == wanted).then_some(())
    })
    .await;
}

async fn banner(sdk: &mut Driver) -> Value {
    sdk.obey(&json!({"do": "look"})).await["flags"]["banner"]["value"].clone()
}

#[tokio::test]
async fn a_person_signs_in_changes_and_signs_out() {
    let gateway = Gateway::builder().start().await;
    let (admin, environment) = shop(&gateway).await;
    let mut sdk = Driver::flagsmith_js(&gateway.url(""), &environment).await;
    assert_eq!(sdk.about["version"], "12.4.0");
    assert_eq!(banner(&mut sdk).await, "hello");

    let identify =
        json!({"do": "identify", "identifier": "ann", "traits": {"plan": "pro", "age": 41}});
    sdk.obey(&identify).await;
    let seen = sdk.obey(&json!({"do": "look"})).await;
    assert_eq!(seen["flags"]["banner"]["value"], "thank you");
    assert_eq!(seen["identity"], "ann");
    assert_eq!(seen["traits"], json!({"plan": "pro", "age": 41}));
    assert_eq!(admin.identity(&environment, "ann").await["traits"], seen["traits"]);

    sdk.obey(&json!({"do": "set_traits", "traits": {"plan": null}})).await;
    assert_eq!(banner(&mut sdk).await, "hello");
    assert_eq!(admin.identity(&environment, "ann").await["traits"], json!({"age": 41}));
    sdk.obey(&json!({"do": "set_traits", "traits": {"plan": "pro"}})).await;
    assert_eq!(banner(&mut sdk).await, "thank you");

    sdk.obey(&json!({"do": "logout"})).await;
    let seen = sdk.obey(&json!({"do": "look"})).await;
    assert_eq!(
        (&seen["flags"]["banner"]["value"], &seen["identity"]),
        (&json!("hello"), &Value::Null)
    );
}

/// What is changed for segments and single identities reaches the person by the stream.
#[tokio::test]
async fn a_person_who_is_signed_in_follows_changes() {
    let gateway = Gateway::builder().start().await;
    let (admin, environment) = shop(&gateway).await;
    let mut sdk = Driver::flagsmith_js(&gateway.url(""), &environment).await;
    sdk.obey(&json!({"do": "identify", "identifier": "ann", "traits": {"plan": "pro"}})).await;
    shows(&mut sdk, "thank you").await;

    let state = json!({"enabled": true, "value": "only you"});
    admin.override_for_identity(&environment, "banner", "ann", &state).await;
    shows(&mut sdk, "only you").await;
    admin.forget_identity_override(&environment, "banner", "ann").await;
    shows(&mut sdk, "thank you").await;
    admin.change_rules("web", "paying", &only("guest of", "EQUAL", "bob")).await;
    shows(&mut sdk, "hello").await;
    // A trait that the app does not know is set by hand.
    admin.set_traits(&environment, "ann", &json!({"guest of": "bob"})).await;
    shows(&mut sdk, "thank you").await;
}

/// Nothing of a transient identity is kept, and a trait that is told once is there the next time.
#[tokio::test]
async fn a_person_who_passes_by_leaves_nothing() {
    let gateway = Gateway::builder().start().await;
    let (admin, environment) = shop(&gateway).await;
    let mut sdk = Driver::flagsmith_js(&gateway.url(""), &environment).await;
    let identify = json!({"do": "identify", "identifier": "bob", "traits": {"plan": "pro"},
        "transient": true});
    sdk.obey(&identify).await;
    assert_eq!(banner(&mut sdk).await, "thank you");
    assert_eq!(admin.identities(&environment).await, Vec::<Value>::new());

    let mut other = Driver::flagsmith_js(&gateway.url(""), &environment).await;
    let identify = |traits: Value| json!({"do": "identify", "identifier": "eve", "traits": traits});
    other.obey(&identify(json!({"plan": "pro"}))).await;
    let mut third = Driver::flagsmith_js(&gateway.url(""), &environment).await;
    third.obey(&identify(json!({}))).await;
    assert_eq!(banner(&mut third).await, "thank you", "by the trait that is stored");
}
