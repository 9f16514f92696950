//! State mode: an endpoint is owed the newest revision, and nothing else.

use serde_json::json;

use super::{Clock, Endpoint, gateway};
use crate::harness::receiver::{Receiver, Reply};

#[tokio::test]
async fn a_flip_is_told_at_once() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    let delivery = receiver.delivery(1).await;
    let told = delivery.json();
    assert_eq!(told["type"], "environment.updated");
    let data = &told["data"];
    assert_eq!(data["project"], "web");
    assert_eq!(data["environment"], "production");
    assert_eq!(data["client_key"], environment.client_key);
    assert_eq!(data["revision"], revision);
    assert_eq!(data["changed"], json!(["dark-mode"]));
    let flags = crate::harness::read_json(data["flags_url"].as_str().unwrap()).await;
    assert_eq!(flags["revision"], revision);
    assert_eq!(flags["updated_at"], data["updated_at"]);
    assert_eq!(delivery.header("content-type"), "application/json");
    assert!(delivery.header("user-agent").starts_with("Flagcast/"));
    let state = endpoint.becomes("delivered_revision", revision).await;
    assert_eq!(state["status"], "healthy");
    assert_eq!(state["pending"], 0);
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn a_hundred_flips_while_a_receiver_is_down_become_one_delivery() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    receiver.always(Reply::Status(503));
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    let admin = gateway.admin();
    admin.switch(&environment, "dark-mode", true).await;
    endpoint.becomes("status", "failing").await;
    let before = receiver.count();
    let mut newest = 0;
    for number in 0..100 {
        newest = admin.set_value(&environment, "limit", number).await;
    }
    assert_eq!(endpoint.read().await["pending"], 1);
    // A failing endpoint is not hammered because much happens.
    assert_eq!(receiver.count(), before);
    receiver.always(Reply::Status(200));
    Clock::of(&gateway).await.step(31).await;
    let delivery = receiver.told(newest).await;
    assert_eq!(delivery.json()["data"]["changed"], json!(["dark-mode", "limit"]));
    endpoint.becomes("pending", 0).await;
    assert_eq!(receiver.count(), before + 1);
    assert_eq!(endpoint.becomes("status", "healthy").await["behind"], 0);
}

#[tokio::test]
async fn what_changes_while_an_attempt_is_under_way_is_told_under_another_id() {
    let gateway = gateway().set("webhook.timeout_ms", 5000).start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    receiver.next([Reply::Hang]);
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    let admin = gateway.admin();
    let first = admin.switch(&environment, "dark-mode", true).await;
    let under_way = receiver.delivery(1).await;
    let second = admin.switch(&environment, "dark-mode", false).await;
    // The attempt runs into its time; what it told is old by then.
    let told = receiver.told(second).await;
    assert_eq!((under_way.revision(), told.revision()), (first, second));
    assert_ne!(under_way.id(), told.id(), "a receiver may drop what it has seen");
    endpoint.becomes("delivered_revision", second).await;
    assert_eq!(receiver.most_at_a_time(), 1);
}

#[tokio::test]
async fn an_attempt_is_repeated_under_its_id_and_freshly_signed() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    receiver.next([Reply::Status(500), Reply::Reset, Reply::Garbage]);
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    gateway.admin().switch(&environment, "dark-mode", true).await;
    let clock = Clock::of(&gateway).await;
    for number in 1..=3 {
        receiver.delivery(number).await;
        clock.next().await;
    }
    endpoint.becomes("status", "healthy").await;
    let all = receiver.deliveries();
    assert!(all.iter().all(|delivery| delivery.id() == all[0].id()));
    assert!(all.iter().all(|delivery| delivery.body == all[0].body));
    let delivery = endpoint.delivery(&endpoint.deliveries().await[0]["id"]).await;
    let outcomes: Vec<_> =
        delivery["log"].as_array().unwrap().iter().map(|attempt| &attempt["outcome"]).collect();
    assert_eq!(json!(outcomes), json!(["failed", "unreachable", "unreachable", "delivered"]));
}

#[tokio::test]
async fn who_has_not_applied_the_newest_is_told_again_until_they_have() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    receiver.always(Reply::Applied(1));
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    let clock = Clock::of(&gateway).await;
    let mut pauses = Vec::new();
    for number in 1..=4 {
        assert_eq!(receiver.delivery(number).await.revision(), revision);
        clock.step(0).await;
        let state = endpoint.read().await;
        assert_eq!(
            (&state["applied_revision"], &state["behind"]),
            (&json!(1), &json!(revision - 1))
        );
        assert_eq!(state["status"], "healthy", "it confirms");
        pauses.push(clock.due_in().await);
        clock.step(3600).await;
    }
    assert!(pauses.is_sorted() && pauses[3] > 60.0 && pauses[0] < 10.0, "{pauses:?}");
    receiver.always(Reply::Applied(revision));
    clock.step(3600).await;
    let state = endpoint.becomes("behind", 0).await;
    assert_eq!(state["applied_revision"], revision);
    let count = receiver.count();
    clock.step(7 * 86400).await;
    // Whatever was still to be told is told by the next change.
    let next = gateway.admin().switch(&environment, "dark-mode", false).await;
    receiver.told(next).await;
    assert_eq!(receiver.count(), count + 1, "who has applied it is left alone");
}

#[tokio::test]
async fn a_receiver_that_returns_is_found_by_itself() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    receiver.always(Reply::Status(500));
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    let revision = gateway.admin().switch(&environment, "dark-mode", true).await;
    let clock = Clock::of(&gateway).await;
    // The whole schedule, and a month of probes.
    let mut pauses = Vec::new();
    for number in 1..=20 {
        receiver.delivery(number).await;
        pauses.push(clock.next().await);
    }
    let state = endpoint.read().await;
    assert_eq!(state["status"], "failed");
    assert!(state["failing_since"].is_string(), "{state}");
    assert_eq!(state["last_outcome"], "failed");
    assert!(pauses[0] < 7.0 && pauses[9] > 12.0 * 3600.0, "{pauses:?}");
    assert!(pauses[11..].iter().all(|pause| *pause > 19.0 * 3600.0), "{pauses:?}");
    receiver.always(Reply::Status(200));
    clock.step(100 * 3600).await;
    assert_eq!(endpoint.becomes("status", "healthy").await["delivered_revision"], revision);
}

#[tokio::test]
async fn retry_after_is_honoured_even_when_something_changes() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    receiver.next([Reply::With(429, vec![("retry-after", "600".to_owned())])]);
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    let admin = gateway.admin();
    admin.switch(&environment, "dark-mode", true).await;
    let state = endpoint.becomes("status", "failing").await;
    assert_eq!(state["last_outcome"], "throttled");
    let clock = Clock::of(&gateway).await;
    let newest = admin.switch(&environment, "dark-mode", false).await;
    let pause = clock.due_in().await;
    assert!((590.0..=600.0).contains(&pause), "{pause}");
    clock.step(601).await;
    receiver.told(newest).await;
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn who_answers_410_is_left_alone_until_somebody_resumes_it() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    receiver.always(Reply::Status(410));
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    let admin = gateway.admin();
    admin.switch(&environment, "dark-mode", true).await;
    let state = endpoint.becomes("status", "stopped").await;
    assert!(state["stopped_at"].is_string());
    let newest = admin.switch(&environment, "dark-mode", false).await;
    let clock = Clock::of(&gateway).await;
    clock.step(30 * 86400).await;
    receiver.always(Reply::Status(200));
    // A test goes through, and changes nothing about it.
    admin.post(&format!("{}/test", endpoint.path), json!({})).await;
    assert_eq!(endpoint.read().await["status"], "stopped");
    assert_eq!(receiver.count(), 2);
    endpoint.pause(false).await;
    assert_eq!(receiver.delivery(3).await.revision(), newest);
    assert_eq!(endpoint.becomes("status", "healthy").await["behind"], 0);
}

#[tokio::test]
async fn a_paused_endpoint_hears_the_newest_when_it_goes_on() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    endpoint.pause(true).await;
    assert_eq!(endpoint.read().await["status"], "paused");
    let admin = gateway.admin();
    admin.switch(&environment, "dark-mode", true).await;
    let newest = admin.switch(&environment, "dark-mode", false).await;
    // Another endpoint is told meanwhile, so this one would have been.
    let other = Receiver::open().await;
    Endpoint::of(&gateway, &environment, &other).await;
    let later = admin.set_value(&environment, "limit", 3).await;
    other.told(later).await;
    assert_eq!(receiver.count(), 0);
    endpoint.pause(false).await;
    assert!(receiver.delivery(1).await.revision() >= newest);
    endpoint.becomes("behind", 0).await;
    assert_eq!(receiver.count(), 1);
}
