//! The database is away, or wrong, when a gateway starts.

use super::{everything_is_read, impatient, readiness, readiness_becomes};
use crate::harness::eventually;
use crate::harness::http;
use crate::harness::postgres::{Cluster, Stop, url_at};

#[tokio::test]
async fn a_gateway_waits_for_its_database() {
    let cluster = Cluster::start().await;
    let url = cluster.create_database().await;
    cluster.stop(Stop::Fast).await;
    let gateway = impatient().launch(&url);
    eventually("the operators' listener answers", async || {
        http().get(gateway.ops_url("/livez")).send().await.ok().filter(|a| a.status() == 200)
    })
    .await;
    assert_eq!(readiness(&gateway).await, (false, "waiting for the store\n".to_owned()));
    eventually("it says what it waits for", async || {
        gateway.logged("waiting for the store").then_some(())
    })
    .await;
    cluster.start_again().await;
    readiness_becomes(&gateway, true).await;
    let environment = gateway.shop().await;
    assert_eq!(gateway.flags(&environment.client_key).await["flags"]["limit"]["value"], 10);
}

/// A mistake does not pass by itself: the process ends with one line that says what is wrong.
#[tokio::test]
async fn a_wrong_url_ends_the_process_without_its_password() {
    let cluster = Cluster::start().await;
    let database = cluster.create_database().await;
    let right = cluster.create_role(&database, "gateway", "a-good-password").await;
    let wrong_password = right.replace("a-good-password", "a-bad-password");
    let no_database = right.replace("flagcast_it_", "flagcast_no_");
    for (url, said) in [(wrong_password, "password"), (no_database, "does not exist")] {
        let mut gateway = impatient().launch(&url);
        assert_eq!(gateway.exited().await.code(), Some(1));
        let lines = gateway.process().stderr.all();
        let last = lines.iter().filter(|line| line.starts_with("flagcast: ")).collect::<Vec<_>>();
        assert_eq!(last.len(), 1, "{lines:?}");
        assert!(last[0].contains(said), "{lines:?}");
        assert!(lines.iter().all(|line| !line.contains("-password")), "{lines:?}");
    }
    // A role that owns its database and nothing else is enough.
    let gateway = impatient().set("store.url", right.as_str()).start().await;
    gateway.shop().await;
}

/// Nothing could be changed through a standby, and its promotion would go unnoticed.
#[tokio::test]
async fn a_standby_is_no_store() {
    let primary = Cluster::start().await;
    let database = primary.create_database().await;
    let standby = primary.standby(false).await;
    let gateway = impatient().launch(&url_at(&database, standby.address()));
    eventually("it says why it waits", async || {
        let mut lines = gateway.process_log();
        lines.any(|line| line.contains("this server is a standby")).then_some(())
    })
    .await;
    assert_eq!(readiness(&gateway).await, (false, "waiting for the store\n".to_owned()));
    primary.stop(Stop::Fast).await;
    standby.promote().await;
    readiness_becomes(&gateway, true).await;
    gateway.shop().await;
}

/// A node that was started a moment ago, and that nobody has asked for anything, knows its flags all the same.
#[tokio::test]
async fn a_node_that_nobody_has_asked_serves_what_it_found_at_its_start() {
    let cluster = Cluster::start().await;
    let url = cluster.create_database().await;
    let first = impatient().set("store.url", url.as_str()).start().await;
    let environment = first.shop().await;
    let known = first.admin().set_value(&environment, "limit", 1).await;
    let second = impatient().set("store.url", url.as_str()).start().await;
    second.metric_becomes("flagcast_flagset_builds_total", &[], 1).await;
    cluster.kill().await;
    everything_is_read(&second, &environment, known).await;
}
