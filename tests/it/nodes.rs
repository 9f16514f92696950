//! Several gateways on one PostgreSQL database are one service.

mod idle;
mod late;
mod together;

use crate::harness::Gateway;
use crate::harness::store::Database;
use crate::harness::stream::Subscription;

/// Nobody polls here and nothing is repeated: what a node hears, the database has told it.
#[tokio::test]
async fn nodes_that_start_at_once_tell_of_each_others_changes() {
    let database = Database::create().await;
    let quiet = Gateway::builder().set("store.poll_ms", 3_600_000).set("stream.echo_seconds", 0);
    let nodes = quiet.nodes(3, database.url()).await;
    let environment = nodes[0].shop().await;
    let mut streams = Vec::new();
    for node in &nodes {
        streams.push(Subscription::open(node.public(), &environment.client_key).await);
    }
    for (number, node) in (0..).zip(&nodes) {
        let revision = node.admin().set_value(&environment, "limit", 200 + number).await;
        for (stream, node) in streams.iter_mut().zip(&nodes) {
            stream.reaches(revision).await;
            assert_eq!(node.flags(&environment.client_key).await["revision"], revision);
        }
    }
}

/// A newcomer needs nothing but the URL.
#[tokio::test]
async fn a_gateway_keeps_everything_in_postgresql() {
    let mut gateway = Gateway::builder().postgres().start().await;
    let environment = gateway.shop().await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    let files = gateway.files();
    assert!(files.is_empty(), "{files:?}");
    gateway.kill();
    gateway.restart().await;
    assert_eq!(gateway.flags(&environment.client_key).await["revision"], revision);
}

/// Each node finds the store empty, and one of them is the first.
#[tokio::test]
async fn of_nodes_that_start_at_once_one_greets() {
    let database = Database::create().await;
    let mut nodes = Gateway::first_start().nodes(4, database.url()).await;
    let mut greetings = 0;
    for node in &mut nodes {
        node.terminate();
        assert!(node.exited().await.success());
        let greets = |line: &String| line.contains("This store is new");
        greetings += node.process().stdout.all().iter().filter(|line| greets(line)).count();
    }
    assert_eq!(greetings, 1);
}
