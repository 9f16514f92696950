//! A flag set: what an environment says at one revision. It never changes; a newer one replaces it.

use std::collections::HashMap;
use std::collections::hash_map;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flag {
    /// Whether it is on.
    pub enabled: bool,
    /// Its value; null when it has none. A flag that is off keeps its value.
    #[serde(default)]
    pub value: Value,
}

/// All flags of an environment at one revision.
///
/// It is also the form of the copy on disk: the answer of
/// `GET /sdk/v1/environments/{client_key}/flags`, so that a copy can be made by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flags {
    environment: String,
    revision: u64,
    updated_at: f64,
    #[serde(rename = "flags")]
    by_key: HashMap<String, Flag>,
}

impl Flags {
    /// Reads a flag set of the environment with this client key.
    pub(crate) fn parse(body: &[u8], client_key: &str) -> Result<Self, String> {
        let flags: Self = serde_json::from_slice(body)
            .map_err(|error| format!("this is no flag set of Flagcast: {error}"))?;
        if flags.environment != client_key {
            let of = &flags.environment;
            return Err(format!("this is the flag set of `{of}`, not of `{client_key}`"));
        }
        Ok(flags)
    }

    /// The same as bytes, for the store.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text, numbers and JSON values can be written")
    }

    /// The number of the state. After a restore of the gateway from a backup it may go back.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// When the state came to be, in seconds since the epoch. It only ever goes on, so it decides
    /// which of two sets is newer.
    #[must_use]
    pub fn updated_at(&self) -> f64 {
        self.updated_at
    }

    /// A flag by its key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Flag> {
        self.by_key.get(key)
    }

    /// Whether a flag is on; `false` when it is not known.
    #[must_use]
    pub fn enabled(&self, key: &str) -> bool {
        self.enabled_or(key, false)
    }

    /// Whether a flag is on; `otherwise` when it is not known.
    #[must_use]
    pub fn enabled_or(&self, key: &str, otherwise: bool) -> bool {
        self.get(key).map_or(otherwise, |flag| flag.enabled)
    }

    /// A flag's value, whether it is on or not; nothing when it is not known or its value is null.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.get(key).map(|flag| &flag.value).filter(|value| !value.is_null())
    }

    /// All flags with their keys, in no order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.by_key.iter())
    }

    /// How many flags there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

/// What [`Flags::iter`] goes through.
#[derive(Clone, Debug)]
pub struct Iter<'a>(hash_map::Iter<'a, String, Flag>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a Flag);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, flag)| (key.as_str(), flag))
    }
}

impl<'a> IntoIterator for &'a Flags {
    type Item = (&'a str, &'a Flag);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"environment":"k","revision":42,"updated_at":1763790000.015625,"flags":{
        "on":{"enabled":true,"value":null},"text":{"enabled":false,"value":"blue"}},"later":1}"#;

    #[test]
    fn a_null_value_is_none() {
        let flags = Flags::parse(BODY.as_bytes(), "k").unwrap();
        assert_eq!((flags.revision(), flags.len(), flags.is_empty()), (42, 2, false));
        assert!((flags.updated_at() - 1_763_790_000.015_625).abs() < f64::EPSILON);
        assert!(flags.enabled("on") && flags.enabled_or("on", false));
        assert!(!flags.enabled_or("text", true), "what is known counts");
        assert!(!flags.enabled("nobody") && flags.enabled_or("nobody", true));
        assert_eq!(flags.value("on"), None);
        assert_eq!(flags.value("text"), Some(&Value::from("blue")), "also when it is off");
        assert_eq!(flags.value("nobody"), None);
        assert_eq!(flags.iter().filter(|(_, flag)| flag.enabled).count(), 1);
    }

    #[test]
    fn it_survives_being_written() {
        let flags = Flags::parse(BODY.as_bytes(), "k").unwrap();
        assert_eq!(Flags::parse(&flags.to_bytes(), "k"), Ok(flags));
    }

    #[test]
    fn what_is_none_of_ours_is_refused() {
        for body in
            ["", "{", "[]", "{}", r#"{"environment":"k","revision":-1,"updated_at":1,"flags":{}}"#]
        {
            assert!(Flags::parse(body.as_bytes(), "k").is_err(), "{body}");
        }
        let foreign = Flags::parse(BODY.as_bytes(), "other").unwrap_err();
        assert!(foreign.contains("`k`") && foreign.contains("`other`"), "{foreign}");
    }
}
