//! The end of the process, in order and without warning: nothing is lost, nothing is told out of order,
//! and what is told twice has the same name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use reqwest::Method;
use serde_json::json;

use super::{Clock, Endpoint, gateway};
use crate::harness::admin::Admin;
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::{Gateway, eventually, eventually_within};

const CHANGES: usize = 1000;
const ENDPOINTS: usize = 50;
/// Those that want each change event; the others want the newest state.
const OF_EVENTS: usize = 10;
const CRASHES: usize = 5;

/// How long a thousand changes may take beside other tests, with fifty deliveries each.
const LONG: Duration = Duration::from_mins(4);

#[tokio::test]
async fn an_attempt_under_way_is_finished_before_the_process_ends() {
    let mut gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    receiver.next([Reply::AtTheGate]);
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    receiver.delivery(1).await;
    gateway.terminate();
    eventually("the gateway drains", async || gateway.logged("draining").then_some(())).await;
    receiver.open_gate();
    assert!(gateway.exited().await.success());
    gateway.restart().await;
    let state = endpoint.becomes("delivered_revision", revision).await;
    assert_eq!((&state["pending"], receiver.count()), (&json!(0), 1));
}

#[tokio::test]
async fn what_cannot_be_finished_is_left_for_later() {
    let mut gateway = gateway().set("server.grace_seconds", 1).start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    receiver.next([Reply::Hang]);
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    let first = receiver.delivery(1).await;
    gateway.terminate();
    assert!(gateway.exited().await.success());
    gateway.restart().await;
    // Its claim was given back: nobody waits for the time of the attempt to be over.
    let again = receiver.delivery(2).await;
    assert_eq!((again.revision(), again.id()), (revision, first.id()));
    endpoint.becomes("pending", 0).await;
}

#[tokio::test]
async fn nothing_is_lost_however_often_the_process_dies() {
    let mut gateway = gateway()
        .set("webhook.timeout_ms", 2000)
        .set("webhook.connect_timeout_ms", 2000)
        .set("limits.requests_per_second", 100_000)
        .start()
        .await;
    let environment = gateway.shop().await;
    let mut receivers = Vec::new();
    for number in 0..ENDPOINTS {
        let receiver = Receiver::open().await;
        let mode = if number < OF_EVENTS { "events" } else { "state" };
        let wanted = json!({"mode": mode});
        Endpoint::create(&gateway, &environment, &receiver.url(), wanted).await;
        receivers.push(receiver);
    }
    let written = write(gateway.admin(), format!("{}/flags/limit", environment.path()));
    let mut points: Vec<_> = (0..CRASHES).map(|_| rand::rng().random_range(0..CHANGES)).collect();
    points.sort_unstable();
    for point in &points {
        eventually_within(LONG, &format!("{points:?}: {point} changes are made"), async || {
            (written.load(Ordering::Relaxed) > *point).then_some(())
        })
        .await;
        gateway.kill();
        gateway.restart().await;
        // Who died had claims; nobody has them when their time is over.
        Clock::of(&gateway).await.leap(60).await;
    }
    eventually_within(LONG, "every change is made", async || {
        (written.load(Ordering::Relaxed) == CHANGES).then_some(())
    })
    .await;
    all_told(&gateway, &receivers).await;

    let newest = gateway.admin().revision(&environment).await;
    let mut events: Vec<i64> = gateway
        .admin()
        .list("/audit?action=flag.updated&limit=200")
        .await
        .iter()
        .map(|event| event["id"].as_i64().unwrap())
        .collect();
    events.reverse();
    assert!(events.len() >= CHANGES, "{} changes were made", events.len());
    for (number, receiver) in receivers.iter().enumerate() {
        if number < OF_EVENTS {
            assert_each_in_order(receiver, &events);
        } else {
            assert_newest(receiver, newest);
        }
    }
}

/// Makes changes one behind the other, through every crash; counts those that were acknowledged.
fn write(admin: Admin, path: String) -> Arc<AtomicUsize> {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    tokio::spawn(async move {
        while count.load(Ordering::Relaxed) < CHANGES {
            let body = json!({"value": rand::rng().random_range(0..1_000_000_000)});
            // An error is the crash; what it left unsaid may or may not have been done.
            if let Ok((status, _)) = admin.send(Method::PATCH, &path, Some(&body)).await {
                assert!(status.is_success(), "{status}");
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    written
}

/// Waits until no endpoint is owed anything.
async fn all_told(gateway: &Gateway, receivers: &[Receiver]) {
    let clock = Clock::of(gateway).await;
    eventually_within(LONG, "everything is told", async || {
        let pending: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM deliveries WHERE state = 'pending'")
                .fetch_one(&clock.store)
                .await
                .unwrap();
        (pending == 0).then_some(())
    })
    .await;
    assert!(receivers.iter().all(|receiver| receiver.most_at_a_time() >= 1));
}

/// Each event came, in order; what came twice came under its name.
fn assert_each_in_order(receiver: &Receiver, events: &[i64]) {
    let mut names = BTreeMap::<i64, String>::new();
    let mut order = Vec::new();
    for delivery in receiver.deliveries() {
        let event = delivery.json()["data"]["event"]["id"].as_i64().unwrap();
        let name = names.entry(event).or_insert_with(|| {
            order.push(event);
            delivery.id().to_owned()
        });
        assert_eq!(name, delivery.id(), "event {event}");
        // A repetition is of the event that was under way, never of an older one.
        assert_eq!(order.last(), Some(&event));
    }
    assert_eq!(order, events);
}

/// The newest revision came last, and no name told two revisions.
fn assert_newest(receiver: &Receiver, newest: u64) {
    let mut revisions = HashMap::new();
    let deliveries = receiver.deliveries();
    for delivery in &deliveries {
        let known = *revisions.entry(delivery.id().to_owned()).or_insert(delivery.revision());
        assert_eq!(known, delivery.revision(), "{}", delivery.id());
    }
    assert!(deliveries.is_sorted_by_key(crate::harness::receiver::Delivery::revision));
    assert_eq!(deliveries.last().unwrap().revision(), newest);
}
