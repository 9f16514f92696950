//! Signatures: verifiers that others wrote accept every attempt and reject every forgery.

use flagcast::store::keys::hex;
use reqwest::header::HeaderMap;
use serde_json::json;
use standardwebhooks::Webhook;

use super::{Clock, Endpoint, gateway};
use crate::harness::receiver::{Delivery, Receiver, Reply};

fn head(delivery: &Delivery) -> HeaderMap {
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let pair = |name: &'static str| {
        (
            name.parse::<reqwest::header::HeaderName>().unwrap(),
            delivery.header(name).parse().unwrap(),
        )
    };
    names.map(pair).into_iter().collect()
}

fn accepts(secret: &str, delivery: &Delivery) -> bool {
    let verifier = Webhook::new(secret).unwrap();
    verifier.verify(delivery.body.as_bytes(), &head(delivery)).is_ok()
}

fn hmac_hex(key: &str, parts: &[&str]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    let mac = ring::hmac::sign(&key, parts.concat().as_bytes());
    hex(mac.as_ref())
}

#[tokio::test]
async fn every_attempt_verifies_and_no_forgery_does() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    receiver.next([Reply::Status(500)]);
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    gateway.admin().switch(&environment, "dark-mode", true).await;
    receiver.delivery(1).await;
    Clock::of(&gateway).await.step(3600).await;
    let delivery = receiver.delivery(2).await;
    for attempt in receiver.deliveries() {
        assert!(accepts(&endpoint.secret, &attempt));
    }
    let timestamp: i64 = delivery.header("webhook-timestamp").parse().unwrap();
    let now = flagcast::store::now_micros() / 1_000_000;
    assert!((now - 60..=now).contains(&timestamp));

    let other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    assert!(!accepts(other, &delivery));
    let forge = |name: &str, value: &str| {
        let mut forged = delivery.clone();
        forged.headers.insert(name.to_owned(), value.to_owned());
        forged
    };
    let signature = delivery.header("webhook-signature").to_owned();
    for forged in [
        forge("webhook-id", "msg_other"),
        forge("webhook-timestamp", &(timestamp - 1).to_string()),
        forge("webhook-timestamp", &(timestamp - 301).to_string()),
        forge("webhook-signature", &signature[..signature.len() - 1]),
        forge("webhook-signature", signature.trim_start_matches("v1,")),
        forge("webhook-signature", "v1,"),
        forge("webhook-signature", ""),
        forge("webhook-signature", &signature.replace("v1,", "v1a,")),
        Delivery { body: delivery.body.replace("true", "false") + " ", ..delivery.clone() },
        Delivery { body: delivery.body[1..].to_owned(), ..delivery.clone() },
    ] {
        assert!(!accepts(&endpoint.secret, &forged), "{forged:?}");
    }
}

#[tokio::test]
async fn flippers_and_githubs_ways_to_sign_are_there() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    gateway.admin().switch(&environment, "dark-mode", true).await;
    let delivery = receiver.delivery(1).await;
    let (secret, body) = (endpoint.secret.as_str(), delivery.body.as_str());
    let timestamp = delivery.header("webhook-timestamp");
    let flipper = hmac_hex(secret, &[timestamp, ".", body]);
    assert_eq!(delivery.header("flipper-cloud-signature"), format!("t={timestamp},v1={flipper}"));
    let github = hmac_hex(secret, &[body]);
    assert_eq!(delivery.header("x-hub-signature-256"), format!("sha256={github}"));
}

#[tokio::test]
async fn a_rotation_signs_with_both_secrets_until_its_time_is_over() {
    let gateway = gateway().start().await;
    let environment = gateway.shop().await;
    let receiver = Receiver::open().await;
    let endpoint = Endpoint::of(&gateway, &environment, &receiver).await;
    let admin = gateway.admin();
    let rotate = format!("{}/secret:rotate", endpoint.path);
    let answer = admin.post(&rotate, json!({"overlap_seconds": 600})).await;
    let new = answer["secret"].as_str().unwrap();
    assert_eq!(answer["rotating"], true);
    assert_ne!(new, endpoint.secret);
    admin.switch(&environment, "dark-mode", true).await;
    let delivery = receiver.delivery(1).await;
    assert!(accepts(new, &delivery) && accepts(&endpoint.secret, &delivery));
    let timestamp = delivery.header("webhook-timestamp");
    let flipper = delivery.header("flipper-cloud-signature");
    for secret in [new, &endpoint.secret] {
        let mac = hmac_hex(secret, &[timestamp, ".", &delivery.body]);
        assert!(flipper.contains(&format!("v1={mac}")), "{flipper}");
    }
    Clock::of(&gateway).await.step(601).await;
    admin.switch(&environment, "dark-mode", false).await;
    let delivery = receiver.delivery(2).await;
    assert!(accepts(new, &delivery) && !accepts(&endpoint.secret, &delivery));
    assert_eq!(endpoint.read().await["rotating"], false);
    // At once, when the old one is known to somebody.
    let answer = admin.post(&rotate, json!({"overlap_seconds": 0})).await;
    admin.switch(&environment, "dark-mode", true).await;
    let delivery = receiver.delivery(3).await;
    assert!(accepts(answer["secret"].as_str().unwrap(), &delivery) && !accepts(new, &delivery));
}
