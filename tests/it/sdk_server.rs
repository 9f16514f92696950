//! The published Flagsmith SDKs for servers with identities and traits: evaluation by the gateway
//! and in the app, in Node, Python and Rust.
//!
//! `matrix` compares what they say of many users and flags; here is how they come to know of changes,
//! and what the gateway keeps of those they ask for.

use serde_json::{Value, json};

use crate::harness::admin::{Admin, Environment};
use crate::harness::driver::{Driver, Evaluation, Language};
use crate::harness::rollout::only;
use crate::harness::{Gateway, eventually};

/// The versions that the tests are about.
fn version(language: Language) -> &'static str {
    match language {
        Language::Node => "8.1.2",
        Language::Python => "6.3.0",
        Language::Rust => "3.1.2",
    }
}

/// A flag for those who pay, and one of the people who do.
async fn paying(admin: &Admin, environment: &Environment) -> Value {
    admin.create_segment_of("web", "paying", &only("plan", "EQUAL", "pro")).await;
    let state = json!({"enabled": true, "value": "thank you"});
    admin.override_for_segment(environment, "banner", "paying", &state).await;
    json!({"identifier": "ann@example.com", "traits": {"plan": "pro", "age": 41}})
}

/// What a user is told of the banner.
async fn banner(driver: &mut Driver, user: &Value) -> Value {
    driver.evaluate(std::slice::from_ref(user)).await[0]["banner"]["value"].clone()
}

async fn follows(language: Language, evaluation: Evaluation) {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let ann = paying(&admin, &environment).await;
    let nobody = json!({});
    let mut sdk = Driver::flagsmith(language, evaluation, &gateway.url(""), &environment).await;
    assert_eq!(sdk.about["version"], version(language));
    assert_eq!(banner(&mut sdk, &ann).await, "thank you");
    assert_eq!(banner(&mut sdk, &nobody).await, "hello");

    let state = json!({"enabled": true, "value": "only you"});
    admin.override_for_identity(&environment, "banner", "ann@example.com", &state).await;
    sees(&mut sdk, &ann, "only you").await;
    admin.forget_identity_override(&environment, "banner", "ann@example.com").await;
    sees(&mut sdk, &ann, "thank you").await;
    admin.change_rules("web", "paying", &only("age", "GREATER_THAN", "41")).await;
    sees(&mut sdk, &ann, "hello").await;
    assert_eq!(banner(&mut sdk, &nobody).await, "hello");
}

/// Waits until the SDK tells a user `wanted`. Those that poll are told to.
async fn sees(sdk: &mut Driver, user: &Value, wanted: &str) {
    let command = json!({"do": "refresh"});
    eventually(&format!("the banner becomes {wanted:?}"), async || {
        if sdk.polls {
            sdk.obey(&command).await;
        }
        (banner(sdk, user).await == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn node_follows_by_remote_evaluation() {
    follows(Language::Node, Evaluation::Remote).await;
}

#[tokio::test]
async fn node_follows_by_local_evaluation() {
    follows(Language::Node, Evaluation::Local).await;
}

#[tokio::test]
async fn python_follows_by_remote_evaluation() {
    follows(Language::Python, Evaluation::Remote).await;
}

/// Told by the stream: nothing asks it to read again.
#[tokio::test]
async fn python_follows_by_local_evaluation() {
    follows(Language::Python, Evaluation::Local).await;
}

#[tokio::test]
async fn rust_follows_by_remote_evaluation() {
    follows(Language::Rust, Evaluation::Remote).await;
}

#[tokio::test]
async fn rust_follows_by_local_evaluation() {
    follows(Language::Rust, Evaluation::Local).await;
}

/// What one SDK sends of a user, the next one that asks for it by name finds again; each kind of
/// value survives.
#[tokio::test]
async fn traits_are_kept_for_the_next_who_asks() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let traits = json!({"plan": "pro", "age": 41, "score": 2.5, "staff": true, "motto": "é\"\n🙂"});
    for language in Language::ALL {
        let url = gateway.url("");
        let mut sdk = Driver::flagsmith(language, Evaluation::Remote, &url, &environment).await;
        let identifier = format!("seen by {language:?}");
        let before = gateway.admin().revision(&environment).await;
        sdk.evaluate(&[json!({"identifier": identifier, "traits": traits})]).await;
        let known = gateway.admin().identity(&environment, &identifier).await;
        assert_eq!(known["traits"], traits, "{language:?}");
        // Else every client would be pinged by each user who comes.
        assert_eq!(gateway.admin().revision(&environment).await, before);
    }
}
