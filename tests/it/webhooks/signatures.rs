//! Signatures: verifiers that others wrote accept every attempt and reject every forgery.

use std::io::Write as _;
use std::process::{Command, Stdio};

use flagcast::store::keys::hex;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
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

/// A delivery as somebody may have changed it, and whether a receiver must take it.
struct Case {
    secret: String,
    delivery: Delivery,
    is_genuine: bool,
}

/// What a verifier in another language says of each case.
fn verdicts(mut command: Command, cases: &[Case]) -> Vec<bool> {
    let line = |case: &Case| {
        let Delivery { headers, body } = &case.delivery;
        format!("{}\n", json!({"secret": case.secret, "headers": headers, "body": body}))
    };
    let lines: String = cases.iter().map(line).collect();
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk"));
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // A table is shorter than a pipe.
    process.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let accepted = |line: &str| serde_json::from_str::<Value>(line).unwrap()["accepted"] == true;
    said.lines().map(accepted).collect()
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
    let mut cases: Vec<_> = receiver
        .deliveries()
        .into_iter()
        .map(|delivery| Case { secret: endpoint.secret.clone(), delivery, is_genuine: true })
        .collect();
    let timestamp: i64 = delivery.header("webhook-timestamp").parse().unwrap();
    let now = flagcast::store::now_micros() / 1_000_000;
    assert!((now - 60..=now).contains(&timestamp));

    let other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned();
    cases.push(Case { secret: other, delivery: delivery.clone(), is_genuine: false });
    let forge = |name: &str, value: &str| {
        let mut forged = delivery.clone();
        forged.headers.insert(name.to_owned(), value.to_owned());
        forged
    };
    let signature = delivery.header("webhook-signature").to_owned();
    // One signature of several is enough; what follows is none.
    let listed = forge("webhook-signature", &format!("v1a,AAAA v1,AAAA {signature}"));
    cases.push(Case { secret: endpoint.secret.clone(), delivery: listed, is_genuine: true });
    for forged in [
        forge("webhook-id", "msg_other"),
        forge("webhook-timestamp", &(timestamp - 1).to_string()),
        forge("webhook-timestamp", &(timestamp - 301).to_string()),
        forge("webhook-timestamp", &(timestamp + 400).to_string()),
        forge("webhook-signature", &signature[..signature.len() - 5]),
        forge("webhook-signature", &format!("v1,AAAA {}", &signature[..10])),
        forge("webhook-signature", "v1,"),
        forge("webhook-signature", &signature.replace("v1,", "v1a,")),
        Delivery { body: delivery.body.replace("dark", "dusk"), ..delivery.clone() },
        Delivery { body: delivery.body[1..].to_owned(), ..delivery.clone() },
    ] {
        let secret = endpoint.secret.clone();
        cases.push(Case { secret, delivery: forged, is_genuine: false });
    }
    let wanted: Vec<_> = cases.iter().map(|case| case.is_genuine).collect();
    let rust: Vec<_> = cases.iter().map(|case| accepts(&case.secret, &case.delivery)).collect();
    assert_eq!(rust, wanted, "the crate");
    let mut node = Command::new("node");
    node.arg("verify.js");
    assert_eq!(verdicts(node, &cases), wanted, "npm's package");
    let mut python =
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-venv/bin/python"));
    python.arg("verify.py");
    assert_eq!(verdicts(python, &cases), wanted, "PyPI's package");
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
