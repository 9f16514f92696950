//! What an event tells a client, in either dialect.

use serde::Deserialize;

use super::events::Event;

/// Which word it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// "The newest revision is N", whether news or not.
    Ping,
    /// The heartbeat of the OFREP dialect, which tells the state too.
    State,
    /// Something that is not ours.
    Other,
}

/// What an event tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Which word it is.
    pub kind: Kind,
    /// The revision that is the newest.
    pub revision: Option<u64>,
    /// When it was committed, in seconds since 1970 by the gateway's clock.
    pub updated_at: Option<f64>,
    /// What `updated_at` is exact to, in seconds.
    pub resolution: f64,
    /// Seconds of silence after which a heartbeat comes.
    pub heartbeat_seconds: Option<f64>,
    /// Where to read the new state.
    pub flags_url: Option<String>,
}

/// The data of all events of both dialects.
#[derive(Deserialize)]
struct Data {
    r#type: Option<String>,
    revision: Option<u64>,
    updated_at: Option<f64>,
    #[serde(rename = "lastModified")]
    last_modified: Option<f64>,
    heartbeat_s: Option<f64>,
    flags_url: Option<String>,
}

impl Told {
    /// Reads what `event` tells.
    #[must_use]
    pub fn read(event: &Event) -> Self {
        let nothing = Self {
            kind: Kind::Other,
            revision: None,
            updated_at: None,
            resolution: 0.0,
            heartbeat_seconds: None,
            flags_url: None,
        };
        let Ok(data) = serde_json::from_str::<Data>(&event.data) else {
            return nothing;
        };
        let kind = match (event.name.as_str(), data.r#type.as_deref()) {
            ("environment_updated", _) | (_, Some("refetchEvaluation")) => Kind::Ping,
            (_, Some("state")) => Kind::State,
            _ => return nothing,
        };
        // OFREP's instant has whole seconds.
        let resolution = if data.updated_at.is_some() { 0.0 } else { 1.0 };
        Self {
            kind,
            revision: data.revision,
            updated_at: data.updated_at.or(data.last_modified),
            resolution,
            heartbeat_seconds: data.heartbeat_s.filter(|seconds| *seconds > 0.0),
            flags_url: data.flags_url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, data: &str) -> Told {
        Told::read(&Event { name: name.to_owned(), data: data.to_owned(), id: String::new() })
    }

    #[test]
    fn both_dialects_tell_the_same() {
        let ping = read(
            "environment_updated",
            r#"{"updated_at": 1763790000.015625, "revision": 42,
                "flags_url": "http://h/f?rev=42", "heartbeat_s": 15}"#,
        );
        let expected = Told {
            kind: Kind::Ping,
            revision: Some(42),
            updated_at: Some(1_763_790_000.015_625),
            resolution: 0.0,
            heartbeat_seconds: Some(15.0),
            flags_url: Some("http://h/f?rev=42".to_owned()),
        };
        assert_eq!(ping, expected);
        let ofrep = read(
            "message",
            r#"{"type":"refetchEvaluation","etag":"\"k.42\"","lastModified":1763790000,
                "revision":42,"flags_url":"http://h/f?rev=42","spread_ms":0,"heartbeat_s":15}"#,
        );
        assert_eq!(
            ofrep,
            Told { updated_at: Some(1_763_790_000.0), resolution: 1.0, ..expected.clone() }
        );
        let state = read("message", r#"{"type":"state","revision":42,"heartbeat_s":15}"#);
        assert_eq!((state.kind, state.revision), (Kind::State, Some(42)));
    }

    #[test]
    fn a_flagsmith_ping_without_our_words_is_a_ping() {
        let ping = read("environment_updated", r#"{"updated_at": 1763790000}"#);
        assert_eq!((ping.kind, ping.revision), (Kind::Ping, None));
        assert_eq!(ping.updated_at, Some(1_763_790_000.0));
    }

    #[test]
    fn what_is_not_ours_tells_nothing() {
        for data in ["", "hello", "[]", "{}", r#"{"type":"news","revision":1}"#] {
            assert_eq!(read("message", data).kind, Kind::Other, "{data}");
        }
    }
}
