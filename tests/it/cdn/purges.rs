//! What the rules do with a PURGE: who may, and that nothing older comes back after its answer, not even
//! from a read that was under way.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::harness::admin::Environment;
use crate::harness::varnish::Chain;
use crate::harness::{Gateway, eventually, http, read_json};

use super::builder;

/// A purge as the gateway sends it, from `source`; its status.
async fn purge(door: SocketAddr, environment: &Environment, source: &str) -> u16 {
    let key = &environment.client_key;
    let from = source.parse::<std::net::IpAddr>().unwrap();
    let http = reqwest::Client::builder().no_proxy().local_address(from).build().unwrap();
    let url = format!("http://{door}/sdk/v1/environments/{key}/flags");
    let method = reqwest::Method::from_bytes(b"PURGE").unwrap();
    let request = http.request(method, url).header("surrogate-key", format!("flags-{key}"));
    request.send().await.unwrap().status().as_u16()
}

/// The flags by path.
async fn read(door: SocketAddr, environment: &Environment) -> u64 {
    let path = format!("/sdk/v1/environments/{}/flags", environment.client_key);
    read_json(&format!("http://{door}{path}")).await["revision"].as_u64().unwrap()
}

/// The flag `limit` in the list that `key` opens.
async fn limit(door: SocketAddr, key: &str) -> u64 {
    let request = http().get(format!("http://{door}/api/v1/flags/"));
    let list = request.header("x-environment-key", key).send().await.unwrap();
    let list: Value = list.json().await.unwrap();
    let flags = list.as_array().unwrap();
    let flag = flags.iter().find(|flag| flag["feature"]["name"] == "limit").unwrap();
    flag["feature_state_value"].as_u64().unwrap()
}

/// Fills the caches with the present state, makes a change, and tells what reads then show without a
/// purge: mostly the old state, unless a second has passed.
async fn change(gateway: &Gateway, environment: &Environment, door: SocketAddr, to: u64) -> u64 {
    read(door, environment).await;
    limit(door, &environment.client_key).await;
    limit(door, &environment.server_key).await;
    gateway.admin().set_value(environment, "limit", to).await
}

#[tokio::test]
async fn after_a_purge_nothing_older_is_read() {
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::single(gateway.public()).await;
    let door = chain.door();
    let reads = || chain.origin().requests("GET /sdk/");
    for step in 1..=5 {
        let revision = change(&gateway, &environment, door, step).await;
        let before = reads();
        assert_eq!(purge(door, &environment, "127.0.0.1").await, 200);
        assert_eq!(read(door, &environment).await, revision);
        assert_eq!(limit(door, &environment.client_key).await, step, "the list by client key");
        assert_eq!(limit(door, &environment.server_key).await, step, "the list by server key");
        assert_eq!(reads(), before + 1, "the purge itself fetches nothing");
    }
    // That the purge is what does it: without one, an old read is found soon.
    let stale = async || {
        let revision = change(&gateway, &environment, door, 77).await;
        (read(door, &environment).await < revision).then_some(())
    };
    eventually("a read that is a moment old", stale).await;
}

/// The hard case: the old answer is on its way from the gateway while the purge comes.
#[tokio::test]
async fn a_purge_waits_for_a_read_that_is_under_way() {
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::single(gateway.public()).await;
    let door = chain.door();
    for (number, prefix) in ["GET /sdk/", "GET /api/v1/flags/"].into_iter().enumerate() {
        assert_eq!(purge(door, &environment, "127.0.0.1").await, 200, "the caches are empty");
        chain.origin().slow_down(prefix, Duration::from_millis(700));
        let (key, by_path) = (environment.client_key.clone(), number == 0);
        let shop = environment.clone();
        let under_way = tokio::spawn(async move {
            if by_path { read(door, &shop).await } else { limit(door, &key).await }
        });
        chain.origin().holds(number + 1).await;
        let revision = gateway.admin().set_value(&environment, "limit", 500 + number).await;
        assert_eq!(purge(door, &environment, "127.0.0.1").await, 200);
        assert!(under_way.is_finished() || under_way.await.is_ok(), "{prefix}");
        chain.origin().slow_down("none", Duration::ZERO);
        assert_eq!(read(door, &environment).await, revision, "{prefix}");
        assert_eq!(limit(door, &environment.client_key).await, 500 + number as u64, "{prefix}");
    }
}

/// The whole way: the gateway purges both tiers before its ping, so that who was told reads nothing
/// older, without a revision in the question and without the echo.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_told_by_a_gateway_that_purges_reads_nothing_older() {
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let chain = Chain::shielded(nowhere).await;
    let caches: Vec<_> = chain.caches().iter().map(|cache| format!("http://{cache}")).collect();
    let gateway = builder()
        .set("cdn.purge", "varnish")
        .set("cdn.purge_urls", caches.join(",").as_str())
        .set("cdn.purge_timeout_ms", 5_000)
        .start()
        .await;
    chain.origin().lead_to(gateway.public());
    let environment = gateway.shop().await;
    for step in 1..=10 {
        for door in chain.doors() {
            read(door, &environment).await;
            limit(door, &environment.client_key).await;
        }
        // The answer leaves when the subscribers have been told, and they after the purge.
        let revision = gateway.admin().set_value(&environment, "limit", step).await;
        for door in chain.doors() {
            assert_eq!(read(door, &environment).await, revision);
            assert_eq!(limit(door, &environment.client_key).await, step);
        }
    }
    assert!(gateway.metric("flagcast_purge_duration_seconds_count", &["done"]).await >= 10.0);
}

/// Anybody could make the gateway work by purging all the time.
#[tokio::test]
async fn only_who_is_listed_may_purge() {
    let gateway = builder().start().await;
    let environment = gateway.shop().await;
    let chain = Chain::single(gateway.public()).await;
    let door = chain.door();
    read(door, &environment).await;
    assert_eq!(purge(door, &environment, "127.0.0.2").await, 403);

    let url = format!("http://{door}/sdk/v1/environments/{}/flags", environment.client_key);
    let method = || reqwest::Method::from_bytes(b"PURGE").unwrap();
    let through_a_proxy = http().request(method(), &url).header("x-forwarded-for", "192.0.2.1");
    assert_eq!(through_a_proxy.send().await.unwrap().status(), 403, "a proxy's client");
    for bad in ["flags-x || obj.status == 200", "flags-x && req.url ~ .", "\"", "a b"] {
        let request = http().request(method(), &url).header("surrogate-key", bad);
        assert_eq!(request.send().await.unwrap().status(), 400, "{bad:?}");
    }
    let no_key = http().request(method(), &url).send().await.unwrap();
    assert_eq!(no_key.status(), 200, "by its URL alone");
}
