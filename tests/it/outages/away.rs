//! The database is away for a moment.

use std::time::{Duration, Instant};

use super::{
    THROUGH_A_CACHE, change, change_is_refused, everything_is_read, impatient, readiness,
    readiness_becomes,
};
use crate::harness::postgres::Cluster;
use crate::harness::wire::{ASKS, Wire};

/// The server is killed, as by a crash of its machine, and comes back.
#[tokio::test]
async fn a_crash_of_the_database_is_survived() {
    let cluster = Cluster::start().await;
    let url = cluster.create_database().await;
    let gateway = impatient().set("store.url", url.as_str()).start().await;
    let environment = gateway.shop().await;
    let known = gateway.admin().set_value(&environment, "limit", 1).await;
    let mut direct = Wire::open(&gateway, &environment.client_key, ASKS).await;
    let mut cached = Wire::open(&gateway, &environment.client_key, THROUGH_A_CACHE).await;
    direct.reaches(known).await;
    cached.reaches(known).await;

    let killed = Instant::now();
    cluster.kill().await;
    let (ready, words) = readiness(&gateway).await;
    assert!(ready || killed.elapsed() >= Duration::from_secs(2), "{words}");
    everything_is_read(&gateway, &environment, known).await;
    change_is_refused(&gateway, &environment, "store_unavailable").await;
    assert_eq!(readiness_becomes(&gateway, false).await, "the store is lost\n");
    assert!(killed.elapsed() >= Duration::from_secs(2), "{:?}", killed.elapsed());
    assert!(!cached.ends_cleanly().await, "a cache would replay a clean end");
    eprintln!("lost after {:?}", killed.elapsed());
    let silent = gateway.metric("flagcast_store_silent_seconds", &[]).await;
    assert!(silent >= 1.0, "{silent}");
    everything_is_read(&gateway, &environment, known).await;
    change_is_refused(&gateway, &environment, "store_unavailable").await;
    // Newcomers are served, too.
    Wire::open(&gateway, &environment.client_key, ASKS).await.reaches(known).await;

    cluster.start_again().await;
    let back = Instant::now();
    readiness_becomes(&gateway, true).await;
    eprintln!("ready again after {:?}", back.elapsed());
    let revision = super::change_at_last(&gateway, &environment, 2).await;
    assert_eq!(revision, known + 1, "nothing is lost, nothing was made in between");
    direct.reaches(revision).await;
    eprintln!("told again after {:?}", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(15), "{:?}", back.elapsed());
    everything_is_read(&gateway, &environment, revision).await;
    gateway.metric_becomes("flagcast_store_silent_seconds", &[], 0).await;
}

/// Sessions are ended again and again, as by an administrator or a failover of a proxy.
#[tokio::test]
async fn ended_sessions_cost_nobody_a_change() {
    let cluster = Cluster::start().await;
    let url = cluster.create_database().await;
    let gateway = impatient().set("store.url", url.as_str()).start().await;
    let environment = gateway.shop().await;
    let mut stream = Wire::open(&gateway, &environment.client_key, ASKS).await;
    let before = gateway.admin().revision(&environment).await;
    for step in 1..=10 {
        cluster.terminate_connections().await;
        let (status, answer, _) = change(&gateway, &environment, 100 + step).await;
        // Idle sessions are asked whether they live.
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["revision"], before + step);
        stream.reaches(before + step).await;
        everything_is_read(&gateway, &environment, before + step).await;
    }
}
