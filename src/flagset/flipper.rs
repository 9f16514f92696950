//! Renders flags in the shape that Flipper's HTTP adapter reads: features with gates.
//!
//! A gate gives a feature to somebody. Gates that take one away are only in the newest versions of
//! Flipper and would be passed over by others, so none is used, and a flag is told as its
//! [`Audience`]. Gates have no values: what else a flag is stays here. Names of gates are left out; no
//! adapter reads them.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use serde_json::{Map, Number, Value as Json, json};

use super::body::Body;
use crate::evaluation::Audience;

/// What stands around the features.
const HEAD: &str = "{\"features\":[";
const TAIL: &str = "]}";

/// All features of an environment in Flipper's shape.
#[derive(Debug)]
pub struct Flipper {
    body: Body,
    /// Where each feature lies in the plain body, by key, in the order of keys.
    ranges: Vec<(String, Range<usize>)>,
}

impl Flipper {
    /// Renders features. Unless it tells names, nobody is in it by name.
    pub(super) fn of<'a>(
        features: impl Iterator<Item = (&'a str, &'a Audience)>,
        tells_names: bool,
    ) -> Self {
        let mut text = HEAD.to_owned();
        let mut ranges = Vec::new();
        for (key, audience) in features {
            if !ranges.is_empty() {
                text.push(',');
            }
            let start = text.len();
            text.push_str(&feature(key, audience, tells_names).to_string());
            ranges.push((key.to_owned(), start..text.len()));
        }
        text.push_str(TAIL);
        ranges.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Self { body: Body::new(text), ranges }
    }

    /// All features.
    #[must_use]
    pub fn all(&self) -> &Body {
        &self.body
    }

    /// One feature, by its key to the letter.
    #[must_use]
    pub fn feature(&self, key: &str) -> Option<Bytes> {
        let place = self.ranges.binary_search_by(|(known, _)| known.as_str().cmp(key)).ok()?;
        Some(self.body.plain().slice(self.ranges[place].1.clone()))
    }

    /// Those of the keys that there are, as a list like that of all.
    #[must_use]
    pub fn features<'k>(&self, keys: impl Iterator<Item = &'k str>) -> Vec<u8> {
        let mut list = HEAD.as_bytes().to_vec();
        for (place, feature) in keys.filter_map(|key| self.feature(key)).enumerate() {
            if place > 0 {
                list.push(b',');
            }
            list.extend_from_slice(&feature);
        }
        list.extend_from_slice(TAIL.as_bytes());
        list
    }
}

fn feature(key: &str, audience: &Audience, tells_names: bool) -> Json {
    let nobody = BTreeSet::new();
    let named = if tells_names { &audience.named } else { &nobody };
    let share = (audience.share > 0.0).then(|| percentage(audience.share));
    let state = match audience {
        Audience { everybody: true, .. } => "on",
        _ if named.is_empty() && share.is_none() => "off",
        _ => "conditional",
    };
    // What was never set is null, except lists.
    let gates = [
        gate("boolean", json!(audience.everybody.then_some(true))),
        gate("expression", Json::Null),
        gate("actors", json!(named)),
        gate("percentage_of_actors", json!(share)),
        gate("percentage_of_time", Json::Null),
        gate("groups", json!([])),
    ];
    json!({ "key": key, "state": state, "gates": gates })
}

fn gate(key: &str, value: Json) -> Json {
    Json::Object(Map::from_iter([("key".to_owned(), json!(key)), ("value".to_owned(), value)]))
}

/// A percentage as Ruby writes it: the adapter keeps it as text.
fn percentage(percent: f64) -> Number {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    let whole = percent as u64;
    if percent.fract() == 0.0 {
        return whole.into();
    }
    Number::from_f64(percent).unwrap_or_else(|| whole.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audience(everybody: bool, named: &[&str], share: f64) -> Audience {
        Audience { everybody, named: named.iter().map(|name| (*name).to_owned()).collect(), share }
    }

    fn told(flipper: &Flipper) -> Json {
        serde_json::from_slice(flipper.all().plain()).unwrap()
    }

    #[test]
    fn a_feature_is_told_as_its_gates() {
        let list = [
            ("on", audience(true, &[], 0.0)),
            ("off", audience(false, &[], 0.0)),
            ("some", audience(false, &["b", "a"], 12.5)),
            ("part", audience(false, &[], 25.0)),
        ];
        let flipper = Flipper::of(list.iter().map(|(key, audience)| (*key, audience)), true);
        assert_eq!(
            flipper.feature("on").unwrap(),
            r#"{"key":"on","state":"on","gates":[{"key":"boolean","value":true},{"key":"expression","value":null},{"key":"actors","value":[]},{"key":"percentage_of_actors","value":null},{"key":"percentage_of_time","value":null},{"key":"groups","value":[]}]}"#
        );
        let told = told(&flipper);
        let of = |place: usize, gate: usize| &told["features"][place]["gates"][gate]["value"];
        let state = |place: usize| told["features"][place]["state"].as_str().unwrap();
        assert_eq!((state(1), state(2), state(3)), ("off", "conditional", "conditional"));
        assert_eq!((of(1, 0), of(2, 0)), (&Json::Null, &Json::Null));
        assert_eq!((of(2, 2), of(2, 3)), (&json!(["a", "b"]), &json!(12.5)));
        assert_eq!(of(3, 3).to_string(), "25");
    }

    #[test]
    fn without_names_nobody_is_named() {
        let some = audience(false, &["ann"], 0.0);
        let flipper = Flipper::of([("f", &some)].into_iter(), false);
        assert!(!String::from_utf8_lossy(flipper.all().plain()).contains("ann"));
        assert_eq!(told(&flipper)["features"][0]["state"], "off");
    }

    #[test]
    fn features_are_found_to_the_letter() {
        let off = audience(false, &[], 0.0);
        let flipper = Flipper::of(["b", "B", "a"].map(|key| (key, &off)).into_iter(), true);
        assert!(flipper.feature("A").is_none());
        for key in ["a", "b", "B"] {
            let one: Json = serde_json::from_slice(&flipper.feature(key).unwrap()).unwrap();
            assert_eq!(one["key"], key);
        }
        let list = flipper.features(["B", "none", "a"].into_iter());
        let list: Json = serde_json::from_slice(&list).unwrap();
        assert_eq!(
            (&list["features"][0]["key"], &list["features"][1]["key"]),
            (&json!("B"), &json!("a"))
        );
        assert_eq!(list["features"].as_array().unwrap().len(), 2);
        assert_eq!(flipper.features([].into_iter()), b"{\"features\":[]}");
    }
}
