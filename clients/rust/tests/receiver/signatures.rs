//! Deliveries and forgeries in one table: the published verifier and ours accept the same.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use standardwebhooks::Webhook;

use crate::builder;
use crate::gateway::Fake;
use crate::sender::{Clock, Delivery, NOW, OTHER_SECRET, SECRET, send};

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs().try_into().unwrap()
}

/// What is done to a good delivery.
type Forge = fn(&mut Delivery, &mut HeaderMap);

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    headers.insert(name, value.parse().unwrap());
}

fn signatures(headers: &HeaderMap) -> String {
    headers["webhook-signature"].to_str().unwrap().to_owned()
}

/// Each with the status that it gets.
const TABLE: &[(&str, u16, Forge)] = &[
    ("as it is", 200, |_, _| {}),
    ("a wrong signature first", 200, |_, headers| {
        let wrong = format!("v1,{} {}", STANDARD.encode([7; 32]), signatures(headers));
        set(headers, "webhook-signature", &wrong);
    }),
    ("a version that is not known first", 200, |_, headers| {
        let list = format!("v1a,AAAA v2,BBBB nonsense {}", signatures(headers));
        set(headers, "webhook-signature", &list);
    }),
    ("signed by both secrets of a rotation", 200, |delivery, headers| {
        delivery.secrets = vec![OTHER_SECRET, SECRET];
        *headers = delivery.headers();
    }),
    ("nearly too old", 200, |delivery, headers| {
        delivery.timestamp -= 295;
        *headers = delivery.headers();
    }),
    ("too old", 400, |delivery, headers| {
        delivery.timestamp -= 305;
        *headers = delivery.headers();
    }),
    ("too new", 400, |delivery, headers| {
        delivery.timestamp += 305;
        *headers = delivery.headers();
    }),
    ("signed by another secret", 401, |delivery, headers| {
        delivery.secrets = vec![OTHER_SECRET];
        *headers = delivery.headers();
    }),
    ("a changed byte", 401, |delivery, _| {
        let mut body = delivery.body.to_vec();
        *body.last_mut().unwrap() = b' ';
        delivery.body = body.into();
    }),
    ("the same JSON, written anew", 401, |delivery, _| {
        let value: serde_json::Value = serde_json::from_slice(&delivery.body).unwrap();
        delivery.body = serde_json::to_vec_pretty(&value).unwrap().into();
    }),
    ("another id", 401, |_, headers| set(headers, "webhook-id", "msg_other")),
    ("another time", 401, |delivery, headers| {
        set(headers, "webhook-timestamp", &(delivery.timestamp - 1).to_string());
    }),
    ("a truncated signature", 401, |_, headers| {
        let list = signatures(headers);
        set(headers, "webhook-signature", &list[..list.len() - 1]);
    }),
    ("a truncated list", 401, |delivery, headers| {
        delivery.secrets = vec![OTHER_SECRET, SECRET];
        let list = signatures(&delivery.headers());
        set(headers, "webhook-signature", list.split(' ').next().unwrap());
    }),
    ("no version", 401, |_, headers| {
        let list = signatures(headers);
        set(headers, "webhook-signature", list.trim_start_matches("v1,"));
    }),
    ("another version", 401, |_, headers| {
        let list = signatures(headers).replace("v1,", "v1a,");
        set(headers, "webhook-signature", &list);
    }),
    ("an empty signature", 401, |_, headers| set(headers, "webhook-signature", "v1,")),
    ("an empty list", 401, |_, headers| set(headers, "webhook-signature", "")),
    ("signatures with commas", 401, |_, headers| {
        let list = signatures(headers).replace("v1,", "v1,,");
        set(headers, "webhook-signature", &list);
    }),
    ("the secret's text as the key", 401, |delivery, headers| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
        let text = [
            delivery.id.as_bytes(),
            b".",
            delivery.timestamp.to_string().as_bytes(),
            b".",
            &delivery.body,
        ]
        .concat();
        let signature = STANDARD.encode(ring::hmac::sign(&key, &text));
        set(headers, "webhook-signature", &format!("v1,{signature}"));
    }),
    ("no id", 400, |_, headers| drop(headers.remove("webhook-id"))),
    ("no time", 400, |_, headers| drop(headers.remove("webhook-timestamp"))),
    ("no signature", 400, |_, headers| drop(headers.remove("webhook-signature"))),
    ("a time in words", 400, |_, headers| set(headers, "webhook-timestamp", "now")),
    ("a time with a fraction", 400, |_, headers| set(headers, "webhook-timestamp", "1796000000.5")),
    ("a signature that is no text", 400, |_, headers| {
        headers.insert("webhook-signature", HeaderValue::from_bytes(b"v1,\xff").unwrap());
    }),
];

#[tokio::test]
async fn ours_accepts_what_the_published_verifier_accepts() {
    let gateway = Fake::at(1, 1.0, "red");
    let receiver = builder(&gateway, &Clock::new()).clock(SystemTime::now).start().unwrap();
    for (name, status, forge) in TABLE {
        let mut delivery = Delivery::of(1, 1.0).at(now());
        let mut headers = delivery.headers();
        forge(&mut delivery, &mut headers);
        let oracle = Webhook::new(SECRET).unwrap().verify(&delivery.body, &headers);
        assert_eq!(oracle.is_ok(), *status == 200, "{name}: {oracle:?}");
        let mut request = delivery.request();
        *request.headers_mut() = headers;
        let answer = send(&receiver.service(), request).await;
        assert_eq!(answer.status, *status, "{name}: {}", answer.body);
        if *status != 200 {
            assert!(!answer.error().is_empty(), "{name}");
            assert_eq!(answer.applied(), None, "{name}: strangers learn nothing");
            assert!(!answer.body.to_string().contains("C2FV"), "{name}");
        }
    }
}

/// It is the vector of the specification, so the time of day is of then; its body is no delivery.
#[tokio::test]
async fn the_published_vector_is_believed() {
    let clock = Clock::new();
    clock.set(1_649_367_553);
    let receiver = builder(&Fake::at(1, 1.0, "red"), &clock).start().unwrap();
    let mut delivery = Delivery::of(1, 1.0).at(1_649_367_553);
    delivery.id = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk".to_owned();
    delivery.body = Bytes::from_static(br#"{"email":"test@example.com","username":"test_user"}"#);
    let headers = delivery.headers();
    assert_eq!(headers["webhook-signature"], "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    let answer = delivery.send(&receiver).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("no delivery of Flagcast"), "{}", answer.error());
}

#[tokio::test]
async fn a_rotation_goes_from_secret_to_secret() {
    let gateway = Fake::at(1, 1.0, "red");
    let clock = Clock::new();
    let start = |secrets: &[&str]| {
        let builder = flagcast_receiver::Receiver::builder("http://flags.test/base", crate::KEY);
        let builder = builder.client(gateway.clone()).clock(clock.reader());
        builder.secrets(secrets.iter().copied()).start().unwrap()
    };
    let (old, both, new) =
        (start(&[SECRET]), start(&[OTHER_SECRET, SECRET]), start(&[OTHER_SECRET]));
    for (signed_by, statuses) in [
        (vec![SECRET], [200, 200, 401]),
        (vec![OTHER_SECRET, SECRET], [200, 200, 200]),
        (vec![OTHER_SECRET], [401, 200, 200]),
    ] {
        let mut delivery = Delivery::of(1, 1.0);
        delivery.secrets.clone_from(&signed_by);
        for (receiver, status) in [&old, &both, &new].into_iter().zip(statuses) {
            assert_eq!(delivery.send(receiver).await.status, status, "{signed_by:?}");
        }
    }
}

#[tokio::test]
async fn the_time_is_told_apart() {
    let clock = Clock::new();
    let receiver = builder(&Fake::at(1, 1.0, "red"), &clock).start().unwrap();
    for (timestamp, status, word) in [
        (NOW - 300, 200, ""),
        (NOW + 300, 200, ""),
        (NOW - 301, 400, "too old"),
        (NOW + 301, 400, "too new"),
    ] {
        let answer = Delivery::of(1, 1.0).at(timestamp).send(&receiver).await;
        assert_eq!(answer.status, status, "{timestamp}");
        assert!(answer.error().contains(word), "{}", answer.error());
        assert!(word.is_empty() || answer.error().contains("clocks"), "{}", answer.error());
    }
}
