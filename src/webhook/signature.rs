//! Signatures: one delivery is accepted by receivers of Standard Webhooks, of Flipper, of GitHub's style
//! and of Flagsmith's.
//!
//! Sources: the Standard Webhooks specification 1.0.0; Flipper's `MessageVerifier`; the header that
//! GitHub's webhooks carry; Flagsmith's `webhooks.generate_signature`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;

use crate::model::{Secret, WEBHOOK_SECRET_PREFIX};
use crate::store::keys::hex;

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) id: &'a str,
    /// Unix seconds of the attempt.
    pub(super) timestamp: i64,
    pub(super) body: &'a str,
}

/// Header names with their values, by the newest secret and those that still count.
pub(super) fn headers(message: Message<'_>, secrets: &[&Secret]) -> Vec<(&'static str, String)> {
    let Message { id, timestamp, body } = message;
    let standard: Vec<_> = secrets
        .iter()
        .map(|secret| {
            let mac = sign(&standard_key(secret), &[id, ".", &timestamp.to_string(), ".", body]);
            format!("v1,{}", BASE64.encode(mac))
        })
        .collect();
    let flipper: Vec<_> = secrets
        .iter()
        .map(|secret| {
            let key = secret.expose().as_bytes();
            format!("v1={}", hex(&sign(key, &[&timestamp.to_string(), ".", body])))
        })
        .collect();
    let newest = secrets.first().map_or(b"".as_slice(), |secret| secret.expose().as_bytes());
    let plain = hex(&sign(newest, &[body]));
    vec![
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", standard.join(" ")),
        ("flipper-cloud-signature", format!("t={timestamp},{}", flipper.join(","))),
        ("x-hub-signature-256", format!("sha256={plain}")),
    ]
}

/// The header of Flagsmith's webhooks, which know one secret.
pub(super) fn flagsmith(body: &str, secret: &Secret) -> (&'static str, String) {
    ("x-flagsmith-signature", hex(&sign(secret.expose().as_bytes(), &[body])))
}

/// The bytes behind the prefix. The door has checked that they are base64.
fn standard_key(secret: &Secret) -> Vec<u8> {
    let text = secret.expose();
    BASE64.decode(text.strip_prefix(WEBHOOK_SECRET_PREFIX).unwrap_or(text)).unwrap_or_default()
}

fn sign(key: &[u8], parts: &[&str]) -> Vec<u8> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part.as_bytes());
    }
    context.sign().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(headers: &[(&'static str, String)], name: &str) -> String {
        headers.iter().find(|(known, _)| *known == name).unwrap().1.clone()
    }

    /// The vector that the libraries of Standard Webhooks share.
    #[test]
    fn the_known_signature_comes_out() {
        let secret = Secret::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        let message = Message {
            id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            timestamp: 1_649_367_553,
            body: r#"{"email":"test@example.com","username":"test_user"}"#,
        };
        let headers = headers(message, &[&secret]);
        let known = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
        assert_eq!(value(&headers, "webhook-signature"), known);
        assert_eq!(value(&headers, "webhook-timestamp"), "1649367553");
    }

    #[test]
    fn a_rotation_signs_with_both_newest_first() {
        let (new, old) = (Secret::new("whsec_bmV3"), Secret::new("whsec_b2xk"));
        let message = Message { id: "msg_1", timestamp: 7, body: "{}" };
        let (both, alone) = (headers(message, &[&new, &old]), headers(message, &[&new]));
        let standard = value(&both, "webhook-signature");
        assert_eq!(standard.split(' ').count(), 2);
        assert!(standard.starts_with(&value(&alone, "webhook-signature")));
        let flipper = value(&both, "flipper-cloud-signature");
        assert_eq!(flipper.matches("v1=").count(), 2);
        assert!(flipper.starts_with(&value(&alone, "flipper-cloud-signature")), "{flipper}");
        let github = "x-hub-signature-256";
        assert_eq!(value(&both, github), value(&alone, github));
    }

    /// As Flagsmith's own code signs: `json.dumps(…, sort_keys=True)` and a plain HMAC.
    #[test]
    fn flagsmiths_known_signature_comes_out() {
        let body = r#"{"data": {"a": 1}, "event_type": "FLAG_UPDATED"}"#;
        let (_, value) = flagsmith(body, &Secret::new("my shared secret"));
        assert_eq!(value, "a0918faed21da929bb813c2ae618e6146fa8cd56a30e3223411c6ec9d2c164fd");
    }
}
