//! Whether a delivery comes from Flagcast, and from now: Standard Webhooks 1.0.
//!
//! The bytes that came are verified, never JSON that was written anew. During a rotation the app has
//! two secrets and a delivery two signatures; any pair that fits is enough.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use ring::hmac;
use subtle::ConstantTimeEq as _;

/// How far a delivery's time may be from ours, in seconds.
pub(crate) const TOLERANCE: i64 = 300;

/// Bytes of a delivery's id at most.
const ID_LENGTH_MAX: usize = 256;

const PREFIX: &str = "whsec_";

/// Bytes that a secret may have.
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// The secrets of an endpoint. They are never printed.
pub(crate) struct Secrets(Vec<hmac::Key>);

/// What a verified delivery is known by.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The same in all attempts of a delivery.
    pub(crate) id: String,
    /// Unix seconds of this attempt.
    pub(crate) timestamp: i64,
}

/// Why a delivery is not believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Doubt {
    #[error("`{0}` is missing, or there more than once")]
    Header(&'static str),
    #[error("`webhook-id` must be visible ASCII without a dot, up to {ID_LENGTH_MAX} bytes")]
    Id,
    #[error("`webhook-timestamp` must be whole seconds")]
    Timestamp,
    #[error("this delivery is too old: more than {TOLERANCE} s; check the clocks of both machines")]
    TooOld,
    #[error(
        "this delivery is too new: more than {TOLERANCE} s ahead; check the clocks of both machines"
    )]
    TooNew,
    #[error("no signature fits; check the secret of the endpoint")]
    Signature,
}

impl Secrets {
    /// Takes secrets apart; an error says what is wrong with the one at this place, but not the secret.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, (usize, String)> {
        let keys = texts
            .iter()
            .enumerate()
            .map(|(place, text)| key(text.trim()).map_err(|why| (place, why)));
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// Checks headers and body of a delivery that arrives at `now` (Unix seconds).
    pub(crate) fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: i64,
    ) -> Result<Attempt, Doubt> {
        let id = single(headers, "webhook-id")?;
        let time = single(headers, "webhook-timestamp")?;
        let signatures = single(headers, "webhook-signature")?;
        if id.is_empty() || id.len() > ID_LENGTH_MAX || id.contains(['.', ' ']) {
            return Err(Doubt::Id);
        }
        let timestamp = seconds(time).ok_or(Doubt::Timestamp)?;
        if timestamp < now - TOLERANCE {
            return Err(Doubt::TooOld);
        }
        if timestamp > now + TOLERANCE {
            return Err(Doubt::TooNew);
        }
        if !self.signed([id.as_bytes(), time.as_bytes(), body], signatures) {
            return Err(Doubt::Signature);
        }
        Ok(Attempt { id: id.to_owned(), timestamp })
    }

    /// Whether one of the signatures is that of `parts` by one of the secrets.
    fn signed(&self, parts: [&[u8]; 3], signatures: &str) -> bool {
        // Once for each secret, however many signatures somebody sends.
        let expected: Vec<String> = self.0.iter().map(|key| sign(key, parts)).collect();
        let given = signatures.split(' ').filter_map(|item| item.strip_prefix("v1,"));
        let fits = |given: &str| {
            let fits = expected.iter().map(|text| text.as_bytes().ct_eq(given.as_bytes()));
            fits.fold(subtle::Choice::from(0), |any, one| any | one)
        };
        given.map(fits).fold(subtle::Choice::from(0), |any, one| any | one).into()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn key(text: &str) -> Result<hmac::Key, String> {
    let coded =
        text.strip_prefix(PREFIX).ok_or_else(|| format!("it must begin with `{PREFIX}`"))?;
    let bytes =
        STANDARD.decode(coded).map_err(|_| format!("what follows `{PREFIX}` must be base64"))?;
    if !KEY_LENGTHS.contains(&bytes.len()) {
        return Err(format!("it must be of 24 to 64 bytes, not {}", bytes.len()));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// The signature of `{id}.{timestamp}.{body}`.
fn sign(key: &hmac::Key, [id, timestamp, body]: [&[u8]; 3]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in [id, b".", timestamp, b".", body] {
        context.update(part);
    }
    STANDARD.encode(context.sign())
}

/// The value of a header that must be there once.
fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Doubt> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| Doubt::Header(name)),
        _ => Err(Doubt::Header(name)),
    }
}

fn seconds(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const NOW: i64 = 1_649_367_553;
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
    const SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

    fn secrets(texts: &[&str]) -> Secrets {
        Secrets::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn headers(id: &str, timestamp: &str, signatures: &str) -> HeaderMap {
        let pairs = [
            ("webhook-id", id),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", signatures),
        ];
        pairs
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn verdict(signatures: &str, now: i64) -> Result<i64, Doubt> {
        let headers = headers(ID, "1649367553", signatures);
        secrets(&[SECRET]).verify(&headers, BODY, now).map(|attempt| attempt.timestamp)
    }

    #[test]
    fn the_published_vector_is_accepted() {
        assert_eq!(verdict(SIGNATURE, NOW), Ok(NOW));
    }

    #[test]
    fn time_is_accepted_within_five_minutes() {
        assert_eq!(verdict(SIGNATURE, NOW + 300), Ok(NOW));
        assert_eq!(verdict(SIGNATURE, NOW + 301), Err(Doubt::TooOld));
        assert_eq!(verdict(SIGNATURE, NOW - 300), Ok(NOW));
        assert_eq!(verdict(SIGNATURE, NOW - 301), Err(Doubt::TooNew));
    }

    #[test]
    fn headers_must_be_there_once_and_whole() {
        let secrets = secrets(&[SECRET]);
        let whole = headers(ID, "1649367553", SIGNATURE);
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            let mut missing = whole.clone();
            missing.remove(name);
            assert_eq!(secrets.verify(&missing, BODY, NOW), Err(Doubt::Header(name)));
            let mut twice = whole.clone();
            twice.append(name, whole[name].clone());
            assert_eq!(secrets.verify(&twice, BODY, NOW), Err(Doubt::Header(name)));
        }
        let doubt = |id: &str, time: &str| {
            secrets.verify(&headers(id, time, SIGNATURE), BODY, NOW).unwrap_err()
        };
        for id in ["", "a.b", "a b", &"a".repeat(257)] {
            assert_eq!(doubt(id, "1649367553"), Doubt::Id, "{id}");
        }
        for time in ["", "x", "1649367553.0", "+1649367553", "-1", "99999999999999999999", "1e9"] {
            assert_eq!(doubt(ID, time), Doubt::Timestamp, "{time}");
        }
        // The text is signed, not the number.
        assert_eq!(doubt(ID, "01649367553"), Doubt::Signature);
    }

    #[test]
    fn secrets_are_told_apart_and_never_told() {
        assert_eq!(format!("{:?}", secrets(&[SECRET])), "***");
        for (text, rule) in [
            ("C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "begin"),
            ("whsec_", "24 to 64"),
            ("whsec_C2FVsBQIhrscChlQIMV+", "24 to 64"),
            ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7o", "base64"),
            ("whsec_C2FVsBQIhrscChlQIMV-b5sSYspob7oD", "base64"),
        ] {
            let texts = [SECRET.to_owned(), text.to_owned()];
            let (place, why) = Secrets::parse(&texts).unwrap_err();
            assert_eq!(place, 1);
            assert!(why.contains(rule) && !why.contains("C2FV"), "{text}: {why}");
        }
    }
}
