//! The published Flagsmith JavaScript SDKs with real-time updates: the current package and the last
//! one under the old name.

use crate::harness::client::Sdk;
use crate::scenarios;

const UNKNOWN_KEY: &str = "npfo95nMwUw8cjHXdHi2hG";

#[tokio::test]
async fn js_follows_changes() {
    scenarios::follows_changes(Sdk::Js).await;
}

#[tokio::test]
async fn js_legacy_follows_changes() {
    scenarios::follows_changes(Sdk::JsLegacy).await;
}

#[tokio::test]
async fn js_converges_after_a_broken_network() {
    scenarios::converges_after_a_broken_network(Sdk::Js).await;
}

#[tokio::test]
async fn js_legacy_converges_after_a_broken_network() {
    scenarios::converges_after_a_broken_network(Sdk::JsLegacy).await;
}

#[tokio::test]
async fn js_converges_after_two_changes_during_a_slow_read() {
    scenarios::converges_after_two_changes_during_a_slow_read(Sdk::Js).await;
}

#[tokio::test]
async fn js_legacy_converges_after_two_changes_during_a_slow_read() {
    scenarios::converges_after_two_changes_during_a_slow_read(Sdk::JsLegacy).await;
}

#[tokio::test]
async fn js_converges_after_a_crash() {
    scenarios::converges_after_a_crash(Sdk::Js).await;
}

#[tokio::test]
async fn js_legacy_converges_after_a_crash() {
    scenarios::converges_after_a_crash(Sdk::JsLegacy).await;
}

#[tokio::test]
async fn js_idles_without_reads() {
    // Both packages at once: a minute of waiting is enough.
    tokio::join!(
        scenarios::idles_without_reads(Sdk::Js),
        scenarios::idles_without_reads(Sdk::JsLegacy),
    );
}

#[tokio::test]
async fn js_with_a_wrong_key_is_calm() {
    tokio::join!(
        scenarios::a_wrong_key_is_calm(Sdk::Js, UNKNOWN_KEY),
        scenarios::a_wrong_key_is_calm(Sdk::JsLegacy, UNKNOWN_KEY),
    );
}
