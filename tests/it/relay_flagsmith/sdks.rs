//! The published Flagsmith SDKs at a relay in front of Flagsmith, which they take for Flagsmith.

use serde_json::{Value, json};

use super::{relay, started};
use crate::harness::admin::Environment;
use crate::harness::client::Sdk;
use crate::harness::driver::{Driver, Evaluation, Language};
use crate::harness::flagsmith_core::{CLIENT_KEY, FlagsmithCore, SERVER_KEY};

fn environment() -> Environment {
    let [project, key] = ["p", "production"].map(str::to_owned);
    let (client_key, server_key) = (CLIENT_KEY.to_owned(), SERVER_KEY.to_owned());
    Environment { project, key, client_key, server_key }
}

/// Real-time updates for an unmodified Flagsmith with unmodified SDKs.
async fn follows(sdk: Sdk) {
    let core = FlagsmithCore::start().await;
    let relay = started(relay(&core)).await;
    let client = sdk.start(relay.public(), &environment());
    client.ready().await;
    client.shows("banner", true, "hello").await;
    for value in ["one", "two", "three"] {
        core.set_banner(value);
        assert_eq!(core.announce(&relay.url("")).await.0, 200);
        client.shows("banner", true, value).await;
    }
}

#[tokio::test]
async fn python_follows_flagsmith_in_real_time() {
    follows(Sdk::Python).await;
}

#[tokio::test]
async fn js_follows_flagsmith_in_real_time() {
    tokio::join!(follows(Sdk::Js), follows(Sdk::JsLegacy));
}

fn user(identifier: &str, traits: &Value) -> Value {
    json!({ "identifier": identifier, "traits": traits })
}

/// Whether the relay evaluates or the SDK does with the relay's document, everybody gets the same.
#[tokio::test]
async fn servers_evaluate_alike_here_and_by_themselves() {
    let core = FlagsmithCore::start().await;
    let relay = started(relay(&core)).await;
    let mut users: Vec<Value> =
        (0..50).map(|number| user(&format!("user-{number}"), &json!({}))).collect();
    users.extend([user("ann", &json!({ "plan": "pro" })), user("bob", &json!({}))]);
    let mut first: Option<Vec<Value>> = None;
    for language in Language::ALL {
        for evaluation in [Evaluation::Remote, Evaluation::Local] {
            let url = relay.url("");
            let mut sdk = Driver::flagsmith(language, evaluation, &url, &environment()).await;
            let answers = sdk.evaluate(&users).await;
            assert_eq!(answers[50]["banner"]["value"], "thank you", "{language:?} {evaluation:?}");
            assert_eq!(answers[51]["banner"]["value"], "only you", "{language:?} {evaluation:?}");
            let colours: Vec<Value> =
                answers.iter().map(|answer| answer["colour"]["value"].clone()).collect();
            for colour in ["red", "blue", "grey"] {
                assert!(colours.contains(&json!(colour)), "{colour} of {colours:?}");
            }
            match &first {
                None => first = Some(colours),
                Some(first) => assert_eq!(*first, colours, "{language:?} {evaluation:?}"),
            }
        }
    }
}
