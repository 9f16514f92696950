//! The database does not answer: what is known goes on being served, and nothing is lost.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use sqlx::Executor as _;

use crate::harness::store::begin_alone;
use crate::harness::stream::Subscription;
use crate::harness::{ADMIN_TOKEN, Gateway, eventually, http};

/// Another process holds the write lock for longer than a change may wait.
#[tokio::test]
async fn a_locked_store_refuses_changes_and_serves_everything_else() {
    let gateway = Gateway::builder().set("store.busy_timeout_ms", 1000).start().await;
    let environment = gateway.shop().await;
    let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
    let before = stream.next_ping().await.unwrap()["revision"].as_u64().unwrap();

    let mut other = gateway.store().await;
    begin_alone(&mut other).await;
    let url = gateway.url(&format!("/admin/v1{}/flags/limit", environment.path()));
    let change = || http().patch(&url).bearer_auth(ADMIN_TOKEN).body(r#"{"value":1}"#).send();
    let refused = change().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "store_unavailable");
    assert_eq!(gateway.flags(&environment.client_key).await["revision"], before);
    let ready = http().get(gateway.ops_url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200, "last-known flags are served");

    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(change().await.unwrap().status(), 200);
    assert_eq!(stream.reaches(before + 1).await["revision"], before + 1, "the stream lived on");
}

/// Another process commits, as the command line does, or a gateway whose wake-up nobody hears: the
/// slow poll finds it.
#[tokio::test]
async fn a_change_that_nobody_announced_is_found() {
    let gateway =
        Gateway::builder().set("store.poll_ms", 100).set("stream.echo_seconds", 0).start().await;
    let environment = gateway.shop().await;
    let mut stream = Subscription::open(gateway.public(), &environment.client_key).await;
    let before = stream.next_ping().await.unwrap()["revision"].as_u64().unwrap();
    let mut other = gateway.store().await;
    begin_alone(&mut other).await;
    other
        .execute(
            "UPDATE flags SET enabled = 1;
             UPDATE environments SET revision = revision + 1, updated_at = updated_at + 15625;
             INSERT INTO change_events (environment_id, revision, updated_at, at, actor, address,
                 action, subject, before_state, after_state)
             SELECT id, revision, updated_at, 0, 'test', 'test', 'flag.updated', 'all', 'null',
                 'null' FROM environments;
             COMMIT;",
        )
        .await
        .unwrap();
    let ping = tokio::time::timeout(Duration::from_secs(20), stream.next_ping()).await.unwrap();
    assert_eq!(ping.unwrap()["revision"], before + 1);
    let flags = gateway.flags(&environment.client_key).await;
    assert_eq!(flags["flags"]["dark-mode"]["enabled"], true);
}

/// Changes that wait for the lock are done in turn when it is free: none is lost, none is doubled.
#[tokio::test]
async fn waiting_changes_are_done_when_the_store_is_free() {
    let gateway = Gateway::builder().start().await;
    let environment = gateway.shop().await;
    let before = gateway.admin().revision(&environment).await;
    let mut other = gateway.store().await;
    begin_alone(&mut other).await;
    let mut waiting = Vec::new();
    for step in 0..10 {
        let (admin, path) = (gateway.admin(), format!("{}/flags/limit", environment.path()));
        let body = json!({ "value": 100 + step });
        waiting.push(tokio::spawn(async move {
            let answer = admin.call(Method::PATCH, &path, Some(&body)).await;
            answer["revision"].as_u64().unwrap()
        }));
    }
    eventually("the changes are waiting", async || {
        let open = gateway.metric("flagcast_connections_open", &["listener=\"public\""]).await;
        (open >= 10.0).then_some(())
    })
    .await;
    other.execute("ROLLBACK").await.unwrap();
    let mut revisions = Vec::new();
    for change in waiting {
        revisions.push(change.await.unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (before + 1..=before + 10).collect::<Vec<_>>());
}
