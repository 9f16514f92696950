//! What clients tell a relay and Flagsmith keeps: traits of identities, and how often flags were evaluated.

use reqwest::Method;
use serde_json::{Value, json};

use super::{by_key, relay, started};
use crate::harness::answer::{Answer, send};
use crate::harness::flagsmith_core::{CLIENT_KEY, FlagsmithCore};
use crate::harness::{Gateway, eventually};

async fn post(relay: &Gateway, path: &str, body: &Value) -> Answer {
    let headers = [("x-environment-key", CLIENT_KEY), ("content-type", "application/json")];
    send(relay, (Method::POST, path), &headers, Some(body.to_string())).await
}

fn banner(answer: &Answer) -> Value {
    let flags = answer.json()["flags"].clone();
    let found = flags.as_array().unwrap().iter().find(|flag| flag["feature"]["name"] == "banner");
    found.unwrap()["feature_state_value"].clone()
}

#[tokio::test]
async fn traits_are_kept_by_flagsmith_and_evaluated_here() {
    let core = FlagsmithCore::start().await;
    let relay = started(relay(&core)).await;
    let path = "/api/v1/identities/";
    let told = json!({ "identifier": "ann", "traits": [
        { "trait_key": "plan", "trait_value": "pro" }, { "trait_key": "visits", "trait_value": 4 } ] });
    let answer = post(&relay, path, &told).await;
    assert_eq!((answer.status.as_u16(), banner(&answer)), (200, json!("thank you")));
    assert_eq!(core.traits_of("ann"), Some(json!({ "plan": "pro", "visits": 4 })));
    // Another client of another relay would see the same.
    let again = by_key(&relay, "/api/v1/identities/?identifier=ann", CLIENT_KEY).await;
    assert_eq!(banner(&again), "thank you");
    let bob = by_key(&relay, "/api/v1/identities/?identifier=bob", CLIENT_KEY).await;
    assert_eq!(banner(&bob), "only you");
    assert_eq!(core.traits_of("bob"), None, "who only asks leaves nothing");
    let counted = json!({ "identifier": "ann", "trait_key": "visits", "increment_by": 3 });
    let answer = post(&relay, "/api/v1/traits/increment-value/", &counted).await;
    assert_eq!(answer.json()["trait_value"], 7);
    let wrong = json!({ "identifier": "ann", "trait_key": "plan", "increment_by": 3 });
    assert_eq!(post(&relay, "/api/v1/traits/increment-value/", &wrong).await.status, 400);

    core.be_away(true);
    let answer = post(&relay, path, &told).await;
    assert_eq!((answer.status.as_u16(), banner(&answer)), (200, json!("thank you")));
}

#[tokio::test]
async fn traits_are_kept_nowhere_if_the_settings_say_so() {
    let core = FlagsmithCore::start().await;
    let relay = started(relay(&core).set("relay.traits", "refuse")).await;
    let told = json!({ "identifier": "ann", "transient": true,
        "traits": [{ "trait_key": "plan", "trait_value": "pro" }] });
    let answer = post(&relay, "/api/v1/identities/", &told).await;
    assert_eq!(banner(&answer), "thank you", "they count for this question");
    assert_eq!(core.answered("POST /api/v1/identities/", 200), 0);
}

/// Flagsmith cannot tell a batch that comes twice from two batches.
#[tokio::test]
async fn evaluations_are_counted_by_flagsmith_and_never_sent_twice_on_suspicion() {
    let core = FlagsmithCore::start().await;
    let relay = started(relay(&core).set("analytics.flush_seconds", 1)).await;
    let path = "/api/v1/analytics/flags/";
    let question = format!("POST {path}");
    assert_eq!(post(&relay, path, &json!({ "banner": 3, "colour": 1 })).await.status, 200);
    eventually("it is counted", async || (core.count_of("banner") == 3).then_some(())).await;

    core.lose_answers(true);
    post(&relay, path, &json!({ "banner": 10 })).await;
    relay.metric_becomes("flagcast_relay_usage_batches_total", &["outcome=\"uncertain\""], 1).await;
    core.lose_answers(false);

    // What Flagsmith said no to was not counted, and comes again.
    core.be_away(true);
    post(&relay, path, &json!({ "banner": 100 })).await;
    eventually("it is refused", async || (core.answered(&question, 502) > 0).then_some(())).await;
    core.be_away(false);
    eventually("it is counted", async || (core.count_of("banner") == 113).then_some(())).await;
    assert_eq!(core.count_of("colour"), 1);
}
