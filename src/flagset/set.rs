//! The flag set of one revision: every body that clients share, and the headers that go with them.

use bytes::Bytes;
use http::HeaderValue;
use serde_json::{Map, Value as Json, json};

use super::body::Body;
use super::flagsmith;
use crate::model::{ClientKey, EnvironmentState, Stamp};

/// Everything that is served of an environment at one revision. It never changes.
#[derive(Debug)]
pub struct FlagSet {
    /// The state it shows.
    pub stamp: Stamp,
    /// Weak, because one tag stands for every content encoding.
    pub etag: HeaderValue,
    /// `updated_at` as Flagsmith's SDKs read it from a header.
    pub updated_at: HeaderValue,
    /// By which caches are purged of what they hold of this environment's flags.
    pub surrogate_key: HeaderValue,
    /// Our own shape.
    pub sdk: Body,
    /// Flagsmith's flag list.
    pub flags: Body,
    /// Flagsmith's environment document.
    pub document: Body,
    /// Where each flag lies in the plain flag list, by lower-cased key.
    singled: Vec<(String, std::ops::Range<usize>)>,
}

/// One flag of Flagsmith's list, as bytes of the shared body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Singled(pub Bytes);

impl FlagSet {
    /// Renders a state.
    #[must_use]
    pub fn render(state: &EnvironmentState) -> Self {
        let stamp = state.environment.stamp;
        let client_key = &state.environment.client_key;
        let (flags, singled) = flagsmith::flag_list(state);
        Self {
            stamp,
            etag: header(format!("W/\"{client_key}.{}\"", stamp.revision)),
            updated_at: header(stamp.updated_at.to_string()),
            surrogate_key: header(surrogate_key(client_key)),
            sdk: Body::new(sdk_flags(state)),
            flags: Body::new(flags),
            document: Body::new(flagsmith::environment_document(state).to_string()),
            singled,
        }
    }

    /// The single flag `key` of Flagsmith's list.
    #[must_use]
    pub fn single(&self, key: &str) -> Option<Singled> {
        let folded = key.to_ascii_lowercase();
        let (_, range) = self.singled.iter().find(|(key, _)| *key == folded)?;
        Some(Singled(self.flags.plain().slice(range.clone())))
    }

    /// Memory that it may come to hold.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.sdk.weight() + self.flags.weight() + self.document.weight() + 64 * self.singled.len()
    }
}

/// The name under which caches hold the flags of an environment that a change makes old.
#[must_use]
pub fn surrogate_key(client_key: &ClientKey) -> String {
    format!("flags-{client_key}")
}

/// Keys and numbers are visible ASCII, so they make a header.
fn header(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("keys and numbers are visible ASCII")
}

fn sdk_flags(state: &EnvironmentState) -> String {
    let flags: Map<String, Json> = state
        .flags
        .iter()
        .map(|flag| {
            let shown = json!({ "enabled": flag.enabled, "value": flag.value });
            (flag.feature.key.clone(), shown)
        })
        .collect();
    json!({
        "environment": state.environment.client_key.as_str(),
        "revision": state.environment.stamp.revision,
        "updated_at": state.environment.stamp.updated_at,
        "flags": flags,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flagset::flagsmith::tests::state;

    #[test]
    fn our_shape_is_the_contract() {
        let set = FlagSet::render(&state());
        assert_eq!(
            set.sdk.plain(),
            r#"{"environment":"npfo95nMwUw8cjHXdHi2hG","revision":42,"updated_at":1763790000.015625,"flags":{"dark-mode":{"enabled":true,"value":null},"Limit":{"enabled":false,"value":7}}}"#
        );
        assert_eq!(set.etag, "W/\"npfo95nMwUw8cjHXdHi2hG.42\"");
        assert_eq!(set.updated_at, "1763790000.015625");
    }

    #[test]
    fn a_single_flag_is_a_part_of_the_list() {
        let set = FlagSet::render(&state());
        let Singled(bytes) = set.single("limit").unwrap();
        let flag: Json = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(flag["feature"]["name"], "Limit");
        assert_eq!(flag["feature_state_value"], 7);
        let list: Json = serde_json::from_slice(set.flags.plain()).unwrap();
        assert_eq!(list[1], flag);
        assert_eq!(set.single("nothing"), None);
    }
}
