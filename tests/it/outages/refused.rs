//! The database answers, and takes no changes.

use std::time::{Duration, Instant};

use sqlx::Executor as _;

use super::{change, change_at_last, change_is_refused, everything_is_read, impatient, readiness};
use crate::harness::postgres::Cluster;
use crate::harness::store::begin_alone;
use crate::harness::wire::{ASKS, Wire};
use crate::harness::{Gateway, eventually, store};

#[tokio::test]
async fn a_database_that_only_reads_refuses_changes_and_nothing_else() {
    let cluster = Cluster::start().await;
    let url = cluster.create_database().await;
    let gateway = impatient().set("store.url", url.as_str()).start().await;
    let environment = gateway.shop().await;
    let known = gateway.admin().revision(&environment).await;
    let mut stream = Wire::open(&gateway, &environment.client_key, ASKS).await;
    cluster.set_read_only(true).await;
    eventually("changes are refused", async || {
        // Sessions read the settings between two statements.
        (change(&gateway, &environment, known).await.0 == 503).then_some(())
    })
    .await;
    change_is_refused(&gateway, &environment, "store_unavailable").await;
    // New sessions see the same.
    cluster.terminate_connections().await;
    change_is_refused(&gateway, &environment, "store_unavailable").await;
    let known = gateway.admin().revision(&environment).await;
    everything_is_read(&gateway, &environment, known).await;
    assert!(readiness(&gateway).await.0, "what is served is the newest");
    cluster.set_read_only(false).await;
    let revision = change_at_last(&gateway, &environment, 2).await;
    assert_eq!(revision, known + 1);
    stream.reaches(revision).await;
}

/// Somebody else holds a lock, and every connection for changes waits for it.
#[tokio::test]
async fn without_a_free_connection_changes_are_refused_in_time() {
    let cluster = Cluster::start().await;
    let url = cluster.create_database().await;
    let gateway =
        impatient().set("store.connections", 2).set("store.url", url.as_str()).start().await;
    let environment = gateway.shop().await;
    let known = gateway.admin().revision(&environment).await;
    let mut stream = Wire::open(&gateway, &environment.client_key, ASKS).await;
    let mut other = store::connect(&url).await;
    begin_alone(&mut other).await;
    let began = Instant::now();
    let changes = (0..5).map(|value| change(&gateway, &environment, value));
    for (status, problem, _) in futures_util::future::join_all(changes).await {
        assert_eq!((status, problem["code"].as_str()), (503, Some("store_unavailable")));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    everything_is_read(&gateway, &environment, known).await;
    assert!(readiness(&gateway).await.0);
    other.execute("ROLLBACK").await.unwrap();
    let revision = change_at_last(&gateway, &environment, 2).await;
    assert_eq!(revision, known + 1, "nothing was made in between");
    stream.reaches(revision).await;
}

/// No file may grow, or be written at all: what SQLite sees of a full disk.
#[tokio::test]
async fn a_full_disk_under_sqlite_refuses_changes_and_loses_nothing() {
    let file = tempfile::TempDir::new().unwrap();
    let url = format!("sqlite://{}/store.db", file.path().display());
    let mut gateway = impatient().descriptors(1024).set("store.url", url.as_str()).start().await;
    let environment = gateway.shop().await;
    let known = gateway.admin().set_value(&environment, "limit", 1).await;
    let mut stream = Wire::open(&gateway, &environment.client_key, ASKS).await;
    gateway.limit_files(Some(1));
    for _ in 0..3 {
        change_is_refused(&gateway, &environment, "store_unavailable").await;
    }
    everything_is_read(&gateway, &environment, known).await;
    assert!(readiness(&gateway).await.0, "what is served is the newest");
    gateway.limit_files(None);
    let revision = change_at_last(&gateway, &environment, 2).await;
    assert_eq!(revision, known + 1, "nothing is lost, and what was refused was not made");
    stream.reaches(revision).await;
    // Full once more, and the process ends there: what was acknowledged is in the file.
    gateway.limit_files(Some(1));
    change_is_refused(&gateway, &environment, "store_unavailable").await;
    gateway.kill();
    gateway.restart().await;
    everything_is_read(&gateway, &environment, revision).await;
    assert_eq!(gateway.flags(&environment.client_key).await["flags"]["limit"]["value"], 2);
    let _: &Gateway = &gateway;
}
