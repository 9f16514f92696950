//! Several nodes have one outbox: each delivery is attempted by one of them at a time, and who dies or
//! stands still is replaced when its lease is over.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::json;

use super::{Clock, Endpoint, gateway};
use crate::harness::receiver::{Delivery, Receiver, Reply};
use crate::harness::store::Database;
use crate::harness::{Gateway, eventually};

const NODES: usize = 3;
const ENDPOINTS: usize = 50;
/// Those that want each change event; the others want the newest state.
const OF_EVENTS: usize = 10;
const CHANGES: usize = 40;

/// Longer than a lease (`webhook.timeout_ms` and some seconds).
const LEASE_SECONDS: i64 = 60;

/// Fifty endpoints of the shop.
async fn endpoints(gateway: &Gateway, mode: impl Fn(usize) -> &'static str) -> Vec<Receiver> {
    let environment = gateway.shop().await;
    let mut receivers = Vec::new();
    for number in 0..ENDPOINTS {
        let receiver = Receiver::open().await;
        let wanted = json!({"mode": mode(number)});
        Endpoint::create(gateway, &environment, &receiver.url(), wanted).await;
        receivers.push(receiver);
    }
    receivers
}

/// Waits until nothing is owed.
async fn all_told(gateway: &Gateway) {
    let clock = Clock::of(gateway).await;
    eventually("everything is told", async || {
        let pending = "SELECT COUNT(*) FROM deliveries WHERE state = 'pending'";
        let pending: i64 = sqlx::query_scalar(pending).fetch_one(&clock.store).await.unwrap();
        (pending == 0).then_some(())
    })
    .await;
}

fn names(deliveries: &[Delivery]) -> HashSet<&str> {
    deliveries.iter().map(Delivery::id).collect()
}

/// Every receiver has had so many requests.
async fn each_has(receivers: &[Receiver], count: usize) {
    join_all(receivers.iter().map(|receiver| receiver.delivery(count))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_the_work_and_do_nothing_twice() {
    let database = Database::create().await;
    let nodes = gateway().nodes(NODES, database.url()).await;
    let mode = |number| if number < OF_EVENTS { "events" } else { "state" };
    let receivers = endpoints(&nodes[0], mode).await;
    let path = "/projects/web/environments/production/flags/limit";
    let mut revisions = Vec::new();
    for number in 0..CHANGES {
        let admin = nodes[number % NODES].admin();
        let answer = admin.patch(path, json!({"value": 500 + number})).await;
        revisions.push(answer["revision"].as_u64().unwrap());
    }
    all_told(&nodes[0]).await;
    for (number, receiver) in receivers.iter().enumerate() {
        let deliveries = receiver.deliveries();
        assert_eq!(receiver.most_at_a_time(), 1, "one attempt at a time");
        assert_eq!(names(&deliveries).len(), deliveries.len(), "nothing came twice");
        let told: Vec<u64> = deliveries.iter().map(Delivery::revision).collect();
        if number < OF_EVENTS {
            assert_eq!(told, revisions, "each change, in order");
        } else {
            assert!(told.is_sorted_by(|one, next| one < next), "{told:?}");
            assert_eq!(told.last(), revisions.last());
        }
    }
    let mut attempts = Vec::new();
    for node in &nodes {
        attempts.push(node.metric("flagcast_webhook_attempts_total", &[]).await);
    }
    eprintln!("attempts of each node: {attempts:?}");
    let busy = attempts.iter().filter(|count| **count > 0.0).count();
    assert!(busy > 1, "the work is shared: {attempts:?}");
}

/// All endpoints are in the hands of a node that dies in the middle of fifty attempts.
#[tokio::test]
async fn others_take_over_from_a_node_that_dies_when_its_lease_is_over() {
    let database = Database::create().await;
    let mut dying = gateway().nodes(1, database.url()).await;
    let receivers = endpoints(&dying[0], |_| "state").await;
    for receiver in &receivers {
        receiver.next([Reply::Hang]);
    }
    let path = "/projects/web/environments/production/flags/limit";
    dying[0].admin().patch(path, json!({"value": 77})).await;
    each_has(&receivers, 1).await;
    let others = gateway().nodes(NODES - 1, database.url()).await;
    dying[0].kill();

    // Another endpoint is told, so the others have looked at what is due.
    let environment = others[0].admin().create_environment("web", "staging").await;
    let bystander = Receiver::open().await;
    Endpoint::of(&others[0], &environment, &bystander).await;
    for (number, node) in others.iter().enumerate() {
        node.admin().set_value(&environment, "limit", 90 + number).await;
        bystander.delivery(number + 1).await;
    }
    assert!(receivers.iter().all(|receiver| receiver.count() == 1), "the lease is not over");

    Clock::of(&others[0]).await.leap(LEASE_SECONDS).await;
    each_has(&receivers, 2).await;
    all_told(&others[0]).await;
    for receiver in &receivers {
        let deliveries = receiver.deliveries();
        assert_eq!((deliveries.len(), names(&deliveries).len()), (2, 1), "again under its name");
        assert_eq!(receiver.most_at_a_time(), 1);
    }
}

/// A node that stood still for longer than its lease finds its work done; what it has to say counts for
/// nothing.
#[tokio::test]
async fn who_stood_still_changes_nothing_of_what_another_has_done() {
    let database = Database::create().await;
    let mut frozen = gateway().nodes(1, database.url()).await;
    let environment = frozen[0].shop().await;
    let receiver = Receiver::open().await;
    let endpoint = Endpoint::of(&frozen[0], &environment, &receiver).await;
    receiver.next([Reply::Reset]);
    receiver.next([Reply::Hang]);
    let revision = frozen[0].admin().switch(&environment, "dark-mode", true).await;
    receiver.delivery(1).await;
    Clock::of(&frozen[0]).await.next().await;
    receiver.delivery(2).await;
    frozen[0].process().signal("STOP");
    let other = gateway().nodes(1, database.url()).await;
    Clock::of(&other[0]).await.leap(LEASE_SECONDS).await;
    receiver.delivery(3).await;
    let there = Endpoint { admin: other[0].admin(), ..endpoint };
    there.becomes("delivered_revision", revision).await;
    frozen[0].process().signal("CONT");
    // It gives up its attempt, which is written down, and fails nothing.
    let log = eventually("its attempt is in the log", async || {
        let delivery = there.delivery(&there.deliveries().await[0]["id"]).await;
        let log = delivery["log"].as_array().unwrap().clone();
        (log.len() == 3).then_some(log)
    })
    .await;
    let state = there.read().await;
    assert_eq!((&state["status"], &state["pending"]), (&json!("healthy"), &json!(0)), "{log:?}");
    assert_eq!(receiver.count(), 3);
}
