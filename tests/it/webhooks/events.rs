//! Events mode: each change event, in order, also across failures and restarts.

use flagcast::store::keys::hex;
use serde_json::json;

use super::{Clock, Endpoint, gateway};
use crate::harness::eventually;
use crate::harness::receiver::{Delivery, Receiver, Reply};

#[tokio::test]
async fn each_change_event_is_told_in_order() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let endpoint = Endpoint::of_events(&gateway, &environment, &receiver).await;
    let admin = gateway.admin();
    for number in 0..30 {
        admin.set_value(&environment, "limit", number).await;
    }
    admin.create_segment("web", "staff", ("plan", "pro")).await;
    receiver.delivery(31).await;
    let all = receiver.deliveries();
    for (number, delivery) in all.iter().take(30).enumerate() {
        let told = delivery.json();
        assert_eq!(told["type"], "flag.updated");
        assert_eq!(told["data"]["event"]["after"]["value"], number);
        assert_eq!(told["data"]["event"]["subject"], "limit");
        assert_eq!(told["data"]["changed"], json!(["limit"]));
        assert!(told["data"]["event"]["actor"].is_string());
    }
    assert_eq!(all[30].kind(), "segment.created");
    assert!(all.is_sorted_by_key(Delivery::revision));
    endpoint.becomes("pending", 0).await;
    assert_eq!(receiver.most_at_a_time(), 1);
    let told = endpoint.deliveries().await;
    assert_eq!(told.len(), 31);
    assert!(told.iter().all(|delivery| delivery["state"] == "delivered"), "{told:?}");
}

#[tokio::test]
async fn a_head_that_fails_holds_back_its_own_queue_only() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let (stuck, well) = (Receiver::open().await, Receiver::open().await);
    stuck.always(Reply::Status(500));
    let endpoint = Endpoint::of_events(&gateway, &environment, &stuck).await;
    Endpoint::of_events(&gateway, &environment, &well).await;
    let admin = gateway.admin();
    for number in 0..5 {
        admin.set_value(&environment, "limit", number).await;
    }
    well.delivery(5).await;
    let state = endpoint.becomes("pending", 5).await;
    assert_eq!(state["status"], "failing");
    let first = stuck.deliveries()[0].id().to_owned();
    assert!(stuck.deliveries().iter().all(|delivery| delivery.id() == first));
    stuck.always(Reply::Status(200));
    let before = stuck.count();
    Clock::of(&gateway).await.step(60).await;
    stuck.delivery(before + 5).await;
    let values: Vec<_> = stuck.deliveries()[before..]
        .iter()
        .map(|delivery| delivery.json()["data"]["event"]["after"]["value"].clone())
        .collect();
    assert_eq!(json!(values), json!([0, 1, 2, 3, 4]));
}

#[tokio::test]
async fn an_endpoint_hears_only_what_it_asked_for() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let wanted = json!({"mode": "events", "events": ["segment.*", "feature.created"]});
    Endpoint::create(&gateway, &environment, &receiver.url(), wanted).await;
    let admin = gateway.admin();
    admin.set_value(&environment, "limit", 1).await;
    admin.create_segment("web", "staff", ("plan", "pro")).await;
    admin.create_feature("web", "new", true, json!(null)).await;
    receiver.delivery(2).await;
    let kinds: Vec<_> = receiver.deliveries().iter().map(Delivery::kind).collect();
    assert_eq!(kinds, ["segment.created", "feature.created"]);
}

#[tokio::test]
async fn an_event_that_cannot_be_told_is_given_up_and_can_be_recovered() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let endpoint = Endpoint::of_events(&gateway, &environment, &receiver).await;
    receiver.always(Reply::Status(422));
    let admin = gateway.admin();
    admin.set_value(&environment, "limit", 1).await;
    admin.set_value(&environment, "limit", 2).await;
    endpoint.becomes("status", "failing").await;
    let clock = Clock::of(&gateway).await;
    // Two days later: the head is given up, and the next has its turn at once.
    let before = receiver.count();
    receiver.next([Reply::Status(422), Reply::Status(200)]);
    clock.step(49 * 3600).await;
    receiver.delivery(before + 2).await;
    let state = endpoint.becomes("status", "healthy").await;
    assert_eq!(state["pending"], 0);
    let told = endpoint.deliveries().await;
    assert_eq!((&told[0]["state"], &told[1]["state"]), (&json!("failed"), &json!("delivered")));
    let failed = admin.get(&format!("{}/deliveries?state=failed", endpoint.path)).await;
    assert_eq!(failed["items"].as_array().unwrap().len(), 1);

    receiver.always(Reply::Status(200));
    let recover = format!("{}/recover", endpoint.path);
    let later = json!({"since": "2999-01-01T00:00:00Z"});
    assert_eq!(admin.post(&recover, later).await["recovered"], 0);
    let since = json!({"since": "2020-01-01T00:00:00Z"});
    assert_eq!(admin.post(&recover, since).await["recovered"], 1);
    let again = receiver.delivery(before + 3).await;
    assert_eq!(again.json()["data"]["event"]["after"]["value"], 1);
    assert_eq!(again.id(), told[0]["message_id"], "its name stays");
    eventually("it is delivered", async || {
        (endpoint.deliveries().await[0]["state"] == "delivered").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_queue_and_its_order_outlive_the_process() {
    let mut gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    receiver.always(Reply::Hang);
    let endpoint = Endpoint::of_events(&gateway, &environment, &receiver).await;
    let admin = gateway.admin();
    for number in 0..10 {
        admin.set_value(&environment, "limit", number).await;
    }
    receiver.delivery(1).await;
    gateway.kill();
    receiver.always(Reply::Status(200));
    let before = receiver.count();
    gateway.restart().await;
    // Whoever died had claimed the endpoint; nobody has it when that time is over.
    Clock::of(&gateway).await.leap(60).await;
    receiver.delivery(before + 10).await;
    let all = receiver.deliveries();
    let values: Vec<_> = all[before..]
        .iter()
        .map(|delivery| delivery.json()["data"]["event"]["after"]["value"].as_u64().unwrap())
        .collect();
    assert_eq!(values, (0..10).collect::<Vec<_>>());
    assert_eq!(all[0].id(), all[before].id(), "what may have arrived keeps its name");
    endpoint.becomes("pending", 0).await;
}

#[tokio::test]
async fn flagsmiths_receivers_get_flagsmiths_words() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let wanted = json!({"mode": "events", "format": "flagsmith"});
    let endpoint = Endpoint::create(&gateway, &environment, &receiver.url(), wanted).await;
    let admin = gateway.admin();
    admin.create_segment("web", "staff", ("plan", "pro")).await;
    admin.switch(&environment, "dark-mode", true).await;
    let delivery = receiver.delivery(1).await;
    let told = delivery.json();
    assert_eq!(told["event_type"], "FLAG_UPDATED");
    let (new, old) = (&told["data"]["new_state"], &told["data"]["previous_state"]);
    assert_eq!((&new["enabled"], &old["enabled"]), (&json!(true), &json!(false)));
    assert_eq!(new["feature"]["name"], "dark-mode");
    assert_eq!(new["feature"]["project"]["name"], "web");
    assert_eq!(new["environment"]["name"], "production");
    assert!(new["feature"]["id"].is_i64() && new["feature"]["created_date"].is_string(), "{new}");
    // The signature is over the bytes, in Python's way of writing JSON.
    assert!(delivery.body.starts_with(r#"{"data": {"changed_by": "#), "{}", delivery.body);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, endpoint.secret.as_bytes());
    let mac = ring::hmac::sign(&key, delivery.body.as_bytes());
    assert_eq!(delivery.header("x-flagsmith-signature"), hex(mac.as_ref()));
    admin.delete("/projects/web/features/banner").await;
    let gone = receiver.delivery(2).await.json();
    assert_eq!(
        (&gone["event_type"], &gone["data"]["new_state"]),
        (&json!("FLAG_DELETED"), &json!(null))
    );
    assert_eq!(gone["data"]["previous_state"]["feature"]["name"], "banner");
}
