//! The flag set of one revision: every body that clients share, and the headers that go with them.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderValue;
use serde_json::{Map, Value as Json, json};

use super::body::Body;
use super::document::environment_document;
use super::flagsmith::{self, List};
use super::flipper::Flipper;
use super::personal::Personal;
use crate::model::{ClientKey, EnvironmentSettings, EnvironmentState, Stamp};

/// A feature in Flipper's shape with its compressed forms, if few people are named.
const FLIPPER_BYTES: usize = 450;

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
    /// Our own shape, as everybody may see it.
    pub sdk: Body,
    /// Flagsmith's environment document.
    pub document: Body,
    /// What single people get.
    pub personal: Personal,
    /// What doors must know of the environment.
    pub settings: EnvironmentSettings,
    /// Flagsmith's flag list, as everybody may see it.
    flags: FlagList,
    /// The same for those with a server key, if that is more.
    server_flags: Option<FlagList>,
    /// In Flipper's shape, as each view may see them; made at the first use.
    flipper: [OnceLock<Flipper>; 2],
}

/// Who looks at flags: client keys are public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Anybody.
    Client,
    /// Who has a server key.
    Server,
}

#[derive(Debug)]
struct FlagList {
    body: Body,
    /// Where each flag lies in the plain list, by lower-cased key.
    ranges: Vec<(String, Range<usize>)>,
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
        let heads = flagsmith::heads(state);
        let has_more = state.flags.iter().any(|flag| flag.feature.server_key_only);
        let flags = |view| FlagList::of(flagsmith::flag_list(state, &heads, view));
        Self {
            stamp,
            etag: header(format!("W/\"{client_key}.{}\"", stamp.revision)),
            updated_at: header(stamp.updated_at.to_string()),
            surrogate_key: header(surrogate_key(client_key)),
            sdk: Body::new(sdk_flags(state)),
            flags: flags(View::Client),
            server_flags: has_more.then(|| flags(View::Server)),
            document: Body::new(environment_document(state).to_string()),
            settings: state.environment.settings,
            personal: Personal::new(state, heads),
            flipper: Default::default(),
        }
    }

    /// Flags as Flipper's gates can say them. Client keys are public, so people are named only to who
    /// has a server key.
    #[must_use]
    pub fn flipper(&self, view: View) -> &Flipper {
        let made = match view {
            View::Client => &self.flipper[0],
            View::Server => &self.flipper[1],
        };
        made.get_or_init(|| self.personal.flipper(view))
    }

    /// Flagsmith's flag list.
    #[must_use]
    pub fn flags(&self, view: View) -> &Body {
        &self.list(view).body
    }

    /// The single flag `key` of Flagsmith's list.
    #[must_use]
    pub fn single(&self, view: View, key: &str) -> Option<Singled> {
        let folded = key.to_ascii_lowercase();
        let list = self.list(view);
        let (_, range) = list.ranges.iter().find(|(key, _)| *key == folded)?;
        Some(Singled(list.body.plain().slice(range.clone())))
    }

    fn list(&self, view: View) -> &FlagList {
        match &self.server_flags {
            Some(flags) if view == View::Server => flags,
            _ => &self.flags,
        }
    }

    /// Memory that it may come to hold. A compiled evaluator is about as large as the document, which
    /// says the same.
    #[must_use]
    pub fn weight(&self) -> usize {
        let lists = [Some(&self.flags), self.server_flags.as_ref()];
        let lists: usize = lists.into_iter().flatten().map(FlagList::weight).sum();
        let evaluator = self.document.plain().len();
        let document = self.document.weight();
        let flipper = self.flipper.len() * self.personal.features() * FLIPPER_BYTES;
        self.sdk.weight() + lists + document + evaluator + self.personal.weight() + flipper
    }
}

impl FlagList {
    fn of(list: List) -> Self {
        Self { body: Body::new(list.text), ranges: list.ranges }
    }

    fn weight(&self) -> usize {
        self.body.weight() + 64 * self.ranges.len()
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
        .filter(|flag| !flag.feature.server_key_only)
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
    use crate::flagset::sample::{state, targeted};
    use crate::snapshot::Snapshot;

    fn names(list: &Bytes) -> Vec<String> {
        let list: Vec<Json> = serde_json::from_slice(list).unwrap();
        list.iter().map(|flag| flag["feature"]["name"].as_str().unwrap().to_owned()).collect()
    }

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
        let Singled(bytes) = set.single(View::Client, "limit").unwrap();
        let flag: Json = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(flag["feature"]["name"], "Limit");
        assert_eq!(flag["feature_state_value"], 7);
        let list: Json = serde_json::from_slice(set.flags(View::Client).plain()).unwrap();
        assert_eq!(list[1], flag);
        assert_eq!(set.single(View::Client, "nothing"), None);
    }

    #[test]
    fn what_only_server_keys_may_see_is_in_no_public_list() {
        let set = FlagSet::render(&targeted());
        let public = ["dark-mode", "Limit", "colour", "banner"];
        assert_eq!(names(set.flags(View::Client).plain()), public);
        assert_eq!(names(set.flags(View::Server).plain())[4], "secret");
        assert!(set.single(View::Client, "secret").is_none());
        assert!(set.single(View::Server, "secret").is_some());
        let sdk: Json = serde_json::from_slice(set.sdk.plain()).unwrap();
        assert_eq!(sdk["flags"].as_object().unwrap().keys().collect::<Vec<_>>(), public);
        // Without such flags there is one list for all.
        assert!(FlagSet::render(&state()).server_flags.is_none());
    }

    #[test]
    fn what_is_off_can_be_hidden_from_lists() {
        let mut state = targeted();
        state.environment.settings.hide_disabled_flags = true;
        let set = FlagSet::render(&state);
        for view in [View::Client, View::Server] {
            assert!(!names(set.flags(view).plain()).contains(&"Limit".to_owned()), "{view:?}");
            assert!(set.single(view, "Limit").is_none());
        }
        let sdk: Json = serde_json::from_slice(set.sdk.plain()).unwrap();
        assert!(sdk["flags"]["Limit"].is_object(), "our own shape tells what is off");
        let document: Json = serde_json::from_slice(set.document.plain()).unwrap();
        assert_eq!(document["feature_states"].as_array().unwrap().len(), 5);
    }

    #[test]
    fn what_is_sensitive_can_be_hidden() {
        let mut state = targeted();
        let flag = |state: &EnvironmentState| -> Json {
            let Singled(bytes) = FlagSet::render(state).single(View::Client, "colour").unwrap();
            serde_json::from_slice(&bytes).unwrap()
        };
        let open = flag(&state);
        assert_eq!((&open["id"], &open["environment"]), (&json!(109), &json!(3)));
        assert_eq!(open["feature"]["type"], "MULTIVARIATE");
        assert_eq!(open["feature_state_value"], "grey", "shares are for identities");
        state.environment.settings.hide_sensitive_data = true;
        let hidden = flag(&state);
        for pointer in [
            "/id",
            "/environment",
            "/identity",
            "/feature_segment",
            "/feature/created_date",
            "/feature/description",
            "/feature/initial_value",
            "/feature/default_enabled",
        ] {
            assert_eq!(hidden.pointer(pointer), Some(&Json::Null), "{pointer}");
        }
        assert_eq!(hidden["feature"]["id"], 9);
        assert_eq!(hidden["feature_state_value"], "grey");
    }

    /// What a relay serves is byte for byte what its gateway serves.
    #[test]
    fn a_flag_set_is_the_same_behind_a_snapshot() {
        for state in [state(), targeted()] {
            let snapshot = Snapshot {
                epoch: "one".to_owned(),
                environment: state.environment.clone(),
                server_key_hashes: vec!["ab".repeat(32)],
                state: Some(state.clone()),
            };
            let behind = Snapshot::decode(&snapshot.encode()).unwrap();
            assert_eq!(behind, snapshot);
            let sets = [FlagSet::render(&state), FlagSet::render(&behind.state.unwrap())];
            let bodies = sets.each_ref().map(|set| {
                let lists = [View::Client, View::Server].map(|view| set.flags(view).plain());
                let flipper = [View::Client, View::Server]
                    .map(|view| set.flipper(view).all().plain().clone());
                let heads = [&set.etag, &set.updated_at].map(HeaderValue::as_bytes);
                (set.sdk.plain(), set.document.plain(), lists, flipper, heads)
            });
            assert_eq!(bodies[0], bodies[1]);
        }
    }
}
