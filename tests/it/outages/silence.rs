//! The network delivers nothing and says nothing.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{
    THROUGH_A_CACHE, change_at_last, change_is_refused, everything_is_read, impatient,
    readiness_becomes,
};
use crate::harness::admin::Environment;
use crate::harness::link::Link;
use crate::harness::postgres::{Cluster, url_at};
use crate::harness::wire::{ASKS, Wire};
use crate::harness::{Gateway, eventually, eventually_within, http, store};

/// A gateway whose way to the database leads through a link.
async fn scene() -> (Cluster, Link, Gateway, Environment, u64) {
    let cluster = Cluster::start().await;
    let url = cluster.create_database().await;
    let link = Link::start(cluster.address()).await;
    let gateway = impatient().set("store.url", url_at(&url, link.address()).as_str()).start().await;
    let environment = gateway.shop().await;
    let known = gateway.admin().revision(&environment).await;
    everything_is_read(&gateway, &environment, known).await;
    (cluster, link, gateway, environment, known)
}

async fn is_well_again(
    gateway: &Gateway,
    environment: &Environment,
    known: u64,
    stream: &mut Wire,
) -> u64 {
    let back = Instant::now();
    readiness_becomes(gateway, true).await;
    let revision = change_at_last(gateway, environment, known + 1000).await;
    assert!(revision > known, "{revision} after {known}");
    stream.reaches(revision).await;
    everything_is_read(gateway, environment, revision).await;
    eprintln!("well again after {:?}", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(20), "{:?}", back.elapsed());
    revision
}

#[tokio::test]
async fn a_network_that_is_cut_without_a_word_is_noticed() {
    let (_cluster, link, gateway, environment, known) = scene().await;
    let mut direct = Wire::open(&gateway, &environment.client_key, ASKS).await;
    let mut cached = Wire::open(&gateway, &environment.client_key, THROUGH_A_CACHE).await;
    let cut = Instant::now();
    link.hold_everything(true);
    everything_is_read(&gateway, &environment, known).await;
    change_is_refused(&gateway, &environment, "store_unavailable").await;
    readiness_becomes(&gateway, false).await;
    eprintln!("lost after {:?}", cut.elapsed());
    // 5 s until a read of the feed counts as failed, and 2 s more.
    assert!(cut.elapsed() < Duration::from_secs(15), "{:?}", cut.elapsed());
    assert!(!cached.ends_cleanly().await, "a cache would replay a clean end");
    everything_is_read(&gateway, &environment, known).await;
    // Whoever asks all the time finds no connection left, and is answered all the same.
    for _ in 0..3 {
        change_is_refused(&gateway, &environment, "store_unavailable").await;
    }
    link.hold_everything(false);
    is_well_again(&gateway, &environment, known, &mut direct).await;
}

/// As after the restart of a firewall: what was open stays silent for ever, and nobody closes it.
#[tokio::test]
async fn connections_that_the_network_has_forgotten_are_replaced() {
    let (_cluster, link, gateway, environment, mut known) = scene().await;
    let mut direct = Wire::open(&gateway, &environment.client_key, ASKS).await;
    for _ in 0..3 {
        // All of them are in use, or were a moment ago.
        let mut asking = Vec::new();
        for _ in 0..12 {
            let (admin, path) = (gateway.admin(), environment.path());
            asking.push(tokio::spawn(async move {
                admin.send(reqwest::Method::GET, &path, None).await.unwrap()
            }));
        }
        link.forget_connections();
        for asking in asking {
            let (status, answer) = asking.await.unwrap();
            assert!(status == 200 || status == 503, "{status} {answer}");
        }
        known = is_well_again(&gateway, &environment, known, &mut direct).await;
    }
    eventually("no connection is missing", async || {
        let (status, _) =
            gateway.admin().send(reqwest::Method::GET, &environment.path(), None).await.unwrap();
        (status == 200).then_some(())
    })
    .await;
}

/// Reads are given up while their transactions begin. A connection that came back with one open would show the
/// same old state to whoever gets it.
#[tokio::test]
async fn reads_that_were_given_up_leave_no_old_state_behind() {
    let cluster = Cluster::start().await;
    let url = cluster.create_database().await;
    let link = Link::start(cluster.address()).await;
    let near = Gateway::builder().set("store.url", url.as_str()).start().await;
    let environment = near.shop().await;
    // What is not confirmed is not served here.
    let far = Gateway::builder().set("store.check_timeout_ms", 20_000);
    let far = far.set("store.url", url_at(&url, link.address()).as_str()).start().await;
    let other = near.admin().create_environment("web", "unread").await;
    Wire::open(&far, &other.client_key, ASKS).await.next_revision().await.unwrap();
    let unread = far.url(&format!("/sdk/v1/environments/{}/flags", other.client_key));
    link.hold_answers_to("REPEATABLE READ");
    assert_eq!(http().get(&unread).send().await.unwrap().status(), 503);
    link.hold_answers(false);
    // Well before the database ends it itself.
    let mut session = store::connect(&url).await;
    eventually_within(Duration::from_secs(4), "no transaction is open", async || {
        let open = "SELECT CAST(COUNT(*) AS BIGINT) FROM pg_stat_activity \
            WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        let open: i64 = sqlx::query_scalar(open).fetch_one(&mut session).await.unwrap();
        (open == 0).then_some(())
    })
    .await;
    for limit in 0..20 {
        let revision = near.admin().set_value(&environment, "limit", limit).await;
        let reads = (0..5).map(|_| far.flags(&environment.client_key));
        for flags in join_all(reads).await {
            assert_eq!(flags["revision"], revision);
        }
        let shown = far.admin().get(&environment.path()).await;
        assert_eq!(shown["revision"], revision);
    }
}
