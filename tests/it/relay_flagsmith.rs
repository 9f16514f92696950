//! A relay in front of Flagsmith: what Flagsmith's document says is served as a gateway serves its own, and a
//! change arrives when Flagsmith announces it, tells it on its own stream, or is asked.
//!
//! Flagsmith's API is no package anywhere, so it is played by a double (`harness/flagsmith_core.rs`); the SDKs
//! are the published ones.

mod changes;
mod identities;
mod keys;
mod sdks;

use serde_json::{Value, json};

use crate::harness::answer::{Answer, get};
use crate::harness::flagsmith_core::{CLIENT_KEY, FlagsmithCore, SERVER_KEY, SSE_TOKEN};
use crate::harness::{ADMIN_TOKEN, Builder, Gateway, eventually};

/// A relay that is told of changes, and else asks once an hour.
fn relay(core: &FlagsmithCore) -> Builder {
    Gateway::relay(&core.url())
        .set("relay.upstream_kind", "flagsmith")
        .set("relay.token", "")
        .set("relay.flagsmith_keys", SERVER_KEY)
        .set("relay.poll_seconds", 3600)
        .set("auth.push_token", SSE_TOKEN)
}

/// A relay that holds the environment by now.
async fn started(builder: Builder) -> Gateway {
    let relay = builder.start().await;
    link_is(&relay, "live").await;
    relay
}

/// Waits until the link of the only environment is in `state`.
async fn link_is(relay: &Gateway, state: &str) -> Value {
    eventually(&format!("the link is {state}"), async || {
        let line = relay.relay_status().await["environments"][0].clone();
        (line["state"] == state).then_some(line)
    })
    .await
}

/// Reads with a key, as SDKs send it.
async fn by_key(relay: &Gateway, path: &str, key: &str) -> Answer {
    get(relay, path, &[("x-environment-key", key)]).await
}

/// The banner as everybody gets it.
async fn banner(relay: &Gateway) -> Value {
    relay.flags(CLIENT_KEY).await["flags"]["banner"]["value"].clone()
}

async fn banner_becomes(relay: &Gateway, value: &str) {
    let what = format!("the banner becomes {value}");
    eventually(&what, async || (banner(relay).await == value).then_some(())).await;
}

#[tokio::test]
async fn everybody_gets_what_flagsmiths_document_says() {
    let core = FlagsmithCore::start().await;
    let one = started(relay(&core)).await;
    let flags = one.flags(CLIENT_KEY).await;
    let expected = json!({
        "banner": { "enabled": true, "value": "hello" },
        "colour": { "enabled": true, "value": "grey" },
    });
    assert_eq!(flags["flags"], expected, "what is for server keys is not public");
    let server = by_key(&one, "/api/v1/flags/", SERVER_KEY).await.json();
    assert_eq!(server[2]["feature"]["name"], "secret");
    let document = by_key(&one, "/api/v1/environment-document/", SERVER_KEY).await.json();
    assert_eq!(document["project"]["segments"][0]["name"], "Paying customers");
    assert_eq!(document["updated_at"], "2026-08-21T12:00:00.109375+00:00", "in ticks");
    assert_eq!(flags["revision"], 1_787_313_600_123_456_u64);
    // A client may go from one relay to another.
    let other = started(relay(&core)).await;
    assert_eq!(other.flags(CLIENT_KEY).await, flags);
    let status = one.relay_status().await;
    assert_eq!((&status["kind"], &status["upstream"]), (&json!("flagsmith"), &json!(core.url())));
    assert!(!status.to_string().contains("ser."), "{status}");
}

#[tokio::test]
async fn while_flagsmith_is_away_the_last_known_flags_are_served() {
    let core = FlagsmithCore::start().await;
    let mut relay = started(relay(&core).set("relay.poll_seconds", 1)).await;
    core.be_away(true);
    let line = link_is(&relay, "away").await;
    assert!(line["error"].as_str().unwrap().contains("502"), "{line}");
    assert_eq!(banner(&relay).await, "hello");
    core.set_banner("while away");
    core.be_away(false);
    banner_becomes(&relay, "while away").await;
    link_is(&relay, "live").await;

    // An organisation that is turned off does not take its keys with it.
    core.be_blocked(true);
    let line = link_is(&relay, "refused").await;
    assert!(line["error"].as_str().unwrap().contains("Organisation is disabled"), "{line}");
    assert_eq!(by_key(&relay, "/api/v1/flags/", SERVER_KEY).await.status, 200);
    relay.kill();
    relay.restart().await;
    assert_eq!(banner(&relay).await, "while away");
    assert_eq!(by_key(&relay, "/api/v1/flags/", SERVER_KEY).await.status, 200);
}

/// Something new in a document is not served by guessing: the flags of before are.
#[tokio::test]
async fn a_document_that_cannot_be_understood_is_told_of() {
    let core = FlagsmithCore::start().await;
    let relay = started(relay(&core)).await;
    core.change(|document| {
        let rule = &mut document["project"]["segments"][0]["rules"][0];
        rule["rules"][0]["conditions"][0]["operator"] = json!("SOUNDS_LIKE");
        document["feature_states"][0]["feature_state_value"] = json!("news");
    });
    assert_eq!(core.announce(&relay.url("")).await.0, 200);
    let line = link_is(&relay, "away").await;
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("rules[0].conditions[0].operator"), "{error}");
    assert!(error.contains("SOUNDS_LIKE"), "{error}");
    assert_eq!(banner(&relay).await, "hello");
}

/// Flagsmith announces changes to one place only; others follow that one.
#[tokio::test]
async fn relays_follow_a_relay_in_front_of_flagsmith() {
    let core = FlagsmithCore::start().await;
    let upper = started(relay(&core).set("relay.token", ADMIN_TOKEN)).await;
    let below = Gateway::relay(&upper.url("")).start().await;
    assert_eq!(below.flags(CLIENT_KEY).await, upper.flags(CLIENT_KEY).await);
    assert_eq!(by_key(&below, "/api/v1/flags/", SERVER_KEY).await.status, 200);
    core.set_banner("news");
    assert_eq!(core.announce(&upper.url("")).await.0, 200);
    banner_becomes(&below, "news").await;
    assert_eq!(link_is(&below, "live").await["epoch"], "flagsmith");
    assert_eq!(below.flags(CLIENT_KEY).await, upper.flags(CLIENT_KEY).await);
    let announced = core.announce(&below.url("")).await.0;
    assert_eq!(announced, 403, "it has no token of its own for that");
}
