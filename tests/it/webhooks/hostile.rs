//! Receivers that fail in every way, and targets that must not be reached: nobody else notices.

use serde_json::json;

use super::{Endpoint, gateway};
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::{Gateway, eventually};

#[tokio::test]
async fn a_receiver_that_fails_in_any_way_delays_no_other() {
    // Far longer than the test takes: whoever waits for an attempt waits too long.
    let gateway = gateway().set("webhook.timeout_ms", 60_000).start().await;
    let environment = gateway.shop().await;
    let mut ill = Vec::new();
    for reply in [
        Reply::Hang,
        Reply::DripHead,
        Reply::Drip,
        Reply::Huge,
        Reply::Reset,
        Reply::Garbage,
        Reply::Status(302),
        Reply::Status(404),
        Reply::Status(500),
        Reply::With(429, vec![("retry-after", "5".to_owned())]),
    ] {
        let receiver = Receiver::open().await;
        receiver.always(reply);
        Endpoint::of_events(&gateway, &environment, &receiver).await;
        ill.push(receiver);
    }
    let well = Receiver::open().await;
    Endpoint::of_events(&gateway, &environment, &well).await;
    for number in 1..=20 {
        gateway.admin().set_value(&environment, "limit", number).await;
        well.delivery(number).await;
    }
    for (number, receiver) in ill.iter().enumerate() {
        receiver.delivery(1).await;
        assert_eq!(receiver.most_at_a_time(), 1, "{number}");
    }
    assert_eq!((ill[0].count(), ill[1].count()), (1, 1), "they are still being asked");
}

#[tokio::test]
async fn each_way_to_fail_has_its_name() {
    let gateway = gateway()
        .set("webhook.timeout_ms", 400)
        .set("webhook.connect_timeout_ms", 400)
        .start()
        .await;
    let environment = gateway.shop().await;
    let outcome = async |url: &str| {
        let endpoint = Endpoint::create(&gateway, &environment, url, json!({})).await;
        let test = gateway.admin().post(&format!("{}/test", endpoint.path), json!({})).await;
        let attempt = test["log"][0].clone();
        assert!(attempt.to_string().len() < 3000, "{attempt}");
        (
            attempt["outcome"].as_str().unwrap().to_owned(),
            attempt["error"].as_str().unwrap().to_owned(),
        )
    };
    let receiver = Receiver::open().await;
    for (reply, wanted, error) in [
        (Reply::Status(204), "delivered", ""),
        // The head of an answer says it all; what follows is read within bounds.
        (Reply::Huge, "delivered", ""),
        (Reply::Drip, "delivered", ""),
        (Reply::Status(302), "redirected", "redirects are not followed"),
        (Reply::Status(404), "refused", "404"),
        (Reply::Status(429), "throttled", "429"),
        (Reply::Status(500), "failed", "500"),
        (Reply::Hang, "timeout", "timed out"),
        (Reply::DripHead, "timeout", "timed out"),
        (Reply::Reset, "unreachable", ""),
        (Reply::Garbage, "unreachable", ""),
        (Reply::Status(410), "gone", "410"),
    ] {
        receiver.next([reply.clone()]);
        let (name, told) = outcome(&receiver.url()).await;
        assert_eq!(name, wanted, "{reply:?}");
        assert!(told.contains(error), "{reply:?}: {told}");
    }
    // TLS with somebody who speaks none, nobody at all, and a name that does not exist.
    let secure = gateway.url("/").replace("http://", "https://");
    assert_eq!(outcome(&secure).await.0, "unreachable");
    assert_eq!(outcome("http://127.0.0.1:1/").await.0, "unreachable");
    let (name, told) = outcome("http://nobody.invalid/?token=secret").await;
    assert_eq!(name, "unreachable");
    assert!(!told.contains("secret"), "{told}");
    let samples = gateway.metric("flagcast_webhook_attempts_total", &["outcome=\"timeout\""]).await;
    assert!(samples > 1.5, "{samples}");
}

#[tokio::test]
async fn names_that_lead_inside_and_redirects_are_not_followed() {
    // Nothing of the inside is allowed, and a name cannot be refused before it is looked up.
    let gateway = Gateway::builder().set("store.poll_ms", 20).start().await;
    let environment = gateway.shop().await;
    let inside = Receiver::open().await;
    let url = inside.url().replace("127.0.0.1", "localhost");
    let endpoint = Endpoint::create(&gateway, &environment, &url, json!({})).await;
    let test = gateway.admin().post(&format!("{}/test", endpoint.path), json!({})).await;
    assert_eq!(test["log"][0]["outcome"], "blocked", "{test}");
    let error = test["log"][0]["error"].as_str().unwrap();
    assert!(error.contains("webhook.allowed_targets"), "{error}");
    assert_eq!(inside.count(), 0);
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let (from, to) = (Receiver::open().await, Receiver::open().await);
    from.always(Reply::With(307, vec![("location", to.url())]));
    let endpoint = Endpoint::of(&gateway, &environment, &from).await;
    gateway.admin().switch(&environment, "dark-mode", true).await;
    let state = endpoint.becomes("last_outcome", "redirected").await;
    assert!(state["last_error"].as_str().unwrap().contains("307"), "{state}");
    assert_eq!(to.count(), 0);
}

#[tokio::test]
async fn endpoints_that_fail_leave_places_for_those_that_do_not() {
    // Four places: one for those that fail.
    let gateway = gateway()
        .set("webhook.concurrency", 4)
        .set("webhook.timeout_ms", 1000)
        .set("webhook.connect_timeout_ms", 1000)
        .start()
        .await;
    let environment = gateway.shop().await;
    let admin = gateway.admin();
    let mut ill = Vec::new();
    for _ in 0..6 {
        let receiver = Receiver::open().await;
        receiver.always(Reply::Hang);
        ill.push((Endpoint::of(&gateway, &environment, &receiver).await, receiver));
    }
    admin.switch(&environment, "dark-mode", true).await;
    for (endpoint, _) in &ill {
        endpoint.becomes("status", "failing").await;
    }
    let well = Receiver::open().await;
    Endpoint::of_events(&gateway, &environment, &well).await;
    let clock = super::Clock::of(&gateway).await;
    clock.leap(3600).await;
    eventually("one of them is tried again", async || {
        (ill.iter().map(|(_, receiver)| receiver.count()).sum::<usize>() > 6).then_some(())
    })
    .await;
    for number in 1..=10 {
        admin.set_value(&environment, "limit", number).await;
        well.delivery(number).await;
    }
    // One at a time: the other five have had no turn while ten changes were told.
    let tried = ill.iter().map(|(_, receiver)| receiver.count()).sum::<usize>() - 6;
    assert!(tried <= 4, "{tried}");
}
