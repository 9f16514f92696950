//! Changes whose numbers come in another order than their commits, and nodes that were not listening.

use serde_json::{Value, json};
use sqlx::{AnyConnection, AssertSqlSafe, Executor as _, Row as _};

use crate::harness::admin::Environment;
use crate::harness::postgres::Cluster;
use crate::harness::store::{self, Database};
use crate::harness::stream::Subscription;
use crate::harness::{Builder, Gateway, eventually};

/// A poll that never comes.
const NEVER: u64 = 3_600_000;

fn polling(every: u64) -> Builder {
    Gateway::builder().set("store.poll_ms", every).set("stream.echo_seconds", 0)
}

/// An environment in a project of its own: its changes wait for nobody else's.
async fn other_environment(gateway: &Gateway) -> Environment {
    let admin = gateway.admin();
    admin.create_project("app").await;
    let environment = admin.create_environment("app", "production").await;
    admin.create_feature("app", "limit", true, 1.into()).await;
    environment
}

async fn subscribe(nodes: &[Gateway], environment: &Environment) -> Vec<Subscription> {
    let mut streams = Vec::new();
    for node in nodes {
        streams.push(Subscription::open(node.public(), &environment.client_key).await);
    }
    streams
}

async fn all_reach(streams: &mut [Subscription], revision: u64) {
    for stream in streams {
        stream.reaches(revision).await;
    }
}

/// Begins a change of an environment as another node does, and leaves it open: the number of its event.
async fn begin_change(session: &mut AnyConnection, environment: &Environment) -> i64 {
    let key = &environment.client_key;
    let statements = format!(
        "BEGIN;
         UPDATE environments SET revision = revision + 1, updated_at = updated_at + 15625
             WHERE client_key = '{key}';
         INSERT INTO change_events (environment_id, revision, updated_at, at, actor, address,
             action, subject, before_state, after_state)
         SELECT id, revision, updated_at, 0, 'test', 'test', 'flag.updated', 'all', 'null',
             'null' FROM environments WHERE client_key = '{key}';"
    );
    session.execute(AssertSqlSafe(statements)).await.unwrap();
    newest_event(session).await
}

async fn newest_event(session: &mut AnyConnection) -> i64 {
    let newest = "SELECT MAX(id) AS id FROM change_events";
    session.fetch_one(newest).await.unwrap().get("id")
}

/// Whether commits say anything.
async fn set_notifying(session: &mut AnyConnection, notifying: bool) {
    let word = if notifying { "ENABLE" } else { "DISABLE" };
    let statement = format!("ALTER TABLE change_events {word} TRIGGER change_events_notify");
    session.execute(AssertSqlSafe(statement)).await.unwrap();
}

/// One change takes its number first and commits last; everybody has read beyond that number meanwhile.
async fn who_commits_late_is_told(notifying: bool, poll: u64) {
    let database = Database::create().await;
    let nodes = polling(poll).nodes(3, database.url()).await;
    let first = nodes[0].shop().await;
    let second = other_environment(&nodes[0]).await;
    let mut session = store::connect(database.url()).await;
    set_notifying(&mut session, notifying).await;
    let mut of_first = subscribe(&nodes, &first).await;
    let mut of_second = subscribe(&nodes, &second).await;
    for round in 0..5 {
        let before = nodes[0].admin().revision(&first).await;
        let early = begin_change(&mut session, &first).await;
        let told = nodes[1].admin().set_value(&second, "limit", 100 + round).await;
        all_reach(&mut of_second, told).await;
        assert!(newest_event(&mut session).await > early, "the numbers are in another order");
        session.execute("COMMIT").await.unwrap();
        all_reach(&mut of_first, before + 1).await;
        for node in &nodes {
            assert_eq!(node.flags(&first.client_key).await["revision"], before + 1);
        }
    }
}

#[tokio::test]
async fn a_change_that_commits_late_is_told_by_its_notification() {
    who_commits_late_is_told(true, NEVER).await;
}

#[tokio::test]
async fn a_change_that_commits_late_is_found_by_the_poll() {
    who_commits_late_is_told(false, 100).await;
}

/// Nobody says anything of this change, and nobody polls; whoever listens anew looks by itself.
#[tokio::test]
async fn what_came_while_nobody_listened_is_found_by_the_next_listener() {
    let database = Database::create().await;
    let nodes = polling(NEVER).nodes(2, database.url()).await;
    let environment = nodes[0].shop().await;
    let mut streams = subscribe(&nodes, &environment).await;
    let mut session = store::connect(database.url()).await;
    for _ in 0..3 {
        let before = nodes[0].admin().revision(&environment).await;
        set_notifying(&mut session, false).await;
        begin_change(&mut session, &environment).await;
        session.execute("COMMIT").await.unwrap();
        set_notifying(&mut session, true).await;
        eventually("the listeners are ended", async || {
            let listeners = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND query LIKE 'LISTEN%'";
            let ended = session.execute(listeners).await.unwrap().rows_affected();
            (ended >= 2).then_some(())
        })
        .await;
        all_reach(&mut streams, before + 1).await;
    }
}

/// A failover, an operator, a firewall: every session ends, and everything goes on.
#[tokio::test]
async fn who_lost_the_connection_listens_again() {
    let cluster = Cluster::start().await;
    let url = cluster.create_database().await;
    let nodes = polling(NEVER).nodes(2, &url).await;
    let environment = nodes[0].shop().await;
    let mut streams = subscribe(&nodes, &environment).await;
    let path = format!("{}/flags/limit", environment.path());
    let admin = nodes[0].admin();
    for round in 0..3 {
        cluster.terminate_connections().await;
        for step in 0..2 {
            let body = json!({ "value": 100 + 2 * round + step });
            // Its session may end in the middle of it.
            let answer: Value = eventually("a change is made", async || {
                let (status, answer) =
                    admin.send(reqwest::Method::PATCH, &path, Some(&body)).await.unwrap();
                assert!(status.is_success() || status == 503, "{status} {answer}");
                status.is_success().then_some(answer)
            })
            .await;
            // The first may be found because the listener is new; the second is heard by it.
            all_reach(&mut streams, answer["revision"].as_u64().unwrap()).await;
        }
    }
}
