//! The published Flagsmith Python SDK with local evaluation and real-time updates.

use crate::harness::client::Sdk;
use crate::harness::proxy::Proxy;
use crate::harness::{Gateway, eventually};
use crate::scenarios;

#[tokio::test]
async fn python_follows_changes() {
    scenarios::follows_changes(Sdk::Python).await;
}

#[tokio::test]
async fn python_converges_after_a_broken_network() {
    scenarios::converges_after_a_broken_network(Sdk::Python).await;
}

#[tokio::test]
async fn python_converges_after_two_changes_during_a_slow_read() {
    scenarios::converges_after_two_changes_during_a_slow_read(Sdk::Python).await;
}

#[tokio::test]
async fn python_converges_after_a_crash() {
    scenarios::converges_after_a_crash(Sdk::Python).await;
}

#[tokio::test]
async fn python_idles_without_reads() {
    scenarios::idles_without_reads(Sdk::Python).await;
}

#[tokio::test]
async fn python_with_a_wrong_key_is_calm() {
    scenarios::a_wrong_key_is_calm(Sdk::Python, "ser.0000000000000000000000").await;
}

/// The Python SDK reconnects without any delay after an error or a clean end. A deleted environment
/// must not turn its clients into a storm.
#[tokio::test]
async fn python_of_a_deleted_environment_is_calm() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let proxy = Proxy::start(gateway.public()).await;
    let client = Sdk::Python.start(proxy.address(), &environment);
    client.ready().await;

    gateway.admin().delete_environment(&environment).await;
    let before = proxy.connections();
    proxy.break_down();
    proxy.restore();
    eventually("the client comes back", async || (proxy.connections() > before).then_some(()))
        .await;
    scenarios::stays_calm(&proxy).await;
    assert!(client.flag("banner").is_some(), "the client goes on with what it has");
}
