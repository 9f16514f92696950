//! What an endpoint may be: its headers, its secret, and which events it may ask for.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderName, HeaderValue};

use super::Broken;
use crate::model::{Secret, WEBHOOK_SECRET_PREFIX, WebhookFormat, WebhookMode};

/// Further headers of an endpoint.
pub const HEADERS_MAX: usize = 20;

/// Longest value of one, in bytes.
pub const HEADER_BYTES_MAX: usize = 2_000;

/// Filters of an endpoint.
pub const EVENTS_MAX: usize = 50;

/// Longest filter, in characters.
pub const EVENT_MAX: usize = 50;

/// Bytes of a secret, as Standard Webhooks wants them.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Headers that say how the request is made or who made it: an endpoint's own must not.
const OURS: [&str; 19] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "flipper-cloud-signature",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "x-hub-signature-256",
];

/// What Flagsmith's words can say: states of flags.
const FLAGSMITH_EVENTS: [&str; 4] =
    ["flag.*", "feature.deleted", "segment_override.*", "identity_override.*"];

/// Headers by their names, in lower case.
pub fn headers(given: &BTreeMap<String, String>) -> Result<Vec<(String, Secret)>, Broken> {
    let refuse = |detail: String| Err(Broken::new(detail));
    if given.len() > HEADERS_MAX {
        return refuse(format!("`headers` may hold at most {HEADERS_MAX}"));
    }
    let mut headers = BTreeMap::new();
    for (name, value) in given {
        let shown: String = name.chars().take(40).collect();
        let Ok(known) = HeaderName::try_from(name) else {
            return refuse(format!("`headers`: {shown:?} is no name of a header"));
        };
        if OURS.contains(&known.as_str()) {
            return refuse(format!("`headers`: `{known}` is set by Flagcast; leave it out"));
        }
        let fits = value.len() <= HEADER_BYTES_MAX
            && HeaderValue::try_from(value).is_ok()
            && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if !fits {
            let rule = "may have only printable ASCII characters";
            return refuse(format!(
                "`headers`: the value of `{known}` {rule}, {HEADER_BYTES_MAX} at most"
            ));
        }
        if headers.insert(known.as_str().to_owned(), Secret::new(value.clone())).is_some() {
            return refuse(format!("`headers`: `{known}` is there twice"));
        }
    }
    Ok(headers.into_iter().collect())
}

/// A secret that the caller chose.
pub fn secret(given: &str) -> Result<Secret, Broken> {
    let bytes = given.strip_prefix(WEBHOOK_SECRET_PREFIX).and_then(|text| BASE64.decode(text).ok());
    match bytes {
        Some(bytes) if SECRET_BYTES.contains(&bytes.len()) => Ok(Secret::new(given)),
        _ => Err(Broken::new(
            "`secret` must be `whsec_` and the base64 of 24 to 64 random bytes: \
             `echo whsec_$(openssl rand -base64 32)`; leave it out and one is made"
                .to_owned(),
        )),
    }
}

/// Which events an endpoint is told, by its mode and format.
pub fn events(
    given: &[String],
    mode: WebhookMode,
    format: WebhookFormat,
) -> Result<Vec<String>, Broken> {
    let refuse = |detail: String| Err(Broken::new(detail));
    if format == WebhookFormat::Flagsmith && mode != WebhookMode::Events {
        return refuse(
            "`format` \"flagsmith\" needs `mode` \"events\": its words tell single changes"
                .to_owned(),
        );
    }
    if !given.is_empty() && mode != WebhookMode::Events {
        return refuse(
            "`events` is for `mode` \"events\"; in mode \"state\" every change counts".to_owned(),
        );
    }
    if given.len() > EVENTS_MAX {
        return refuse(format!("`events` may hold at most {EVENTS_MAX}"));
    }
    if let Some(wrong) = given.iter().find(|filter| !is_filter(filter)) {
        let shown: String = wrong.chars().take(EVENT_MAX).collect();
        return refuse(format!(
            "`events` must hold actions such as `flag.updated`, or `flag.*` for all of a kind, not \
             {shown:?}"
        ));
    }
    if format == WebhookFormat::Flagcast {
        return Ok(given.to_vec());
    }
    if given.is_empty() {
        return Ok(FLAGSMITH_EVENTS.map(str::to_owned).to_vec());
    }
    let says = |filter: &String| {
        FLAGSMITH_EVENTS.iter().any(|known| {
            known == filter || known.strip_suffix('*').is_some_and(|kind| filter.starts_with(kind))
        })
    };
    match given.iter().find(|filter| !says(filter)) {
        Some(wrong) => refuse(format!(
            "`events`: Flagsmith's words cannot tell {wrong:?}, only {}",
            FLAGSMITH_EVENTS.join(", ")
        )),
        None => Ok(given.to_vec()),
    }
}

/// `flag.updated` or `flag.*`.
fn is_filter(filter: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let parts = filter.split_once('.');
    filter.len() <= EVENT_MAX
        && parts.is_some_and(|(kind, what)| is_word(kind) && (what == "*" || is_word(what)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<Vec<(String, Secret)>, Broken> {
        headers(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn headers_cannot_break_out_of_their_line_or_replace_ours() {
        assert!(one("Authorization", "Bearer x y").is_ok());
        for (name, value) in [
            ("x-a\r\nx-b", "1"),
            ("x a", "1"),
            ("", "1"),
            ("x-a", "1\r\nx-b: 2"),
            ("x-a", "1\n"),
            ("x-a", "ä"),
            ("x-a", "\0"),
            ("x-a", "\t"),
            ("Content-Length", "0"),
            ("Host", "inside"),
            ("Webhook-Signature", "v1,x"),
            ("Transfer-Encoding", "chunked"),
        ] {
            assert!(one(name, value).is_err(), "{name:?}: {value:?}");
        }
        assert!(one("x-a", &"1".repeat(HEADER_BYTES_MAX + 1)).is_err());
        let twice = ["x-a", "X-A"].map(|name| (name.to_owned(), "1".to_owned()));
        assert!(headers(&BTreeMap::from(twice)).is_err());
    }

    #[test]
    fn a_secret_is_long_enough() {
        let of = |bytes: usize| secret(&format!("whsec_{}", BASE64.encode(vec![7; bytes])));
        assert!(of(24).is_ok() && of(64).is_ok());
        assert!(of(23).is_err() && of(65).is_err());
        assert!(secret(&BASE64.encode([7; 32])).is_err());
        assert!(secret("whsec_not base64").is_err());
    }

    #[test]
    fn events_are_actions_and_flagsmith_knows_few() {
        let of = |filters: &[&str], mode, format| {
            let filters: Vec<_> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            events(&filters, mode, format)
        };
        let (events_mode, ours) = (WebhookMode::Events, WebhookFormat::Flagcast);
        let theirs = WebhookFormat::Flagsmith;
        assert!(of(&["flag.*", "segment.updated"], events_mode, ours).is_ok());
        for wrong in ["flag", "flag.", "*", ".x", "Flag.updated", "flag.up*"] {
            assert!(of(&[wrong], events_mode, ours).is_err(), "{wrong}");
        }
        assert!(of(&["flag.*"], WebhookMode::State, ours).is_err());
        assert!(of(&[], WebhookMode::State, theirs).is_err());
        assert_eq!(of(&[], events_mode, theirs).unwrap().len(), FLAGSMITH_EVENTS.len());
        assert!(of(&["flag.updated"], events_mode, theirs).is_ok());
        assert!(of(&["segment.updated"], events_mode, theirs).is_err());
    }
}
