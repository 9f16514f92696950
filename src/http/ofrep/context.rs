//! The evaluation context of a request.
//!
//! The protocol wants a context with a `targetingKey`; real providers also send `{}` or nothing when
//! an app has told them nothing. That is a context in which nothing is known.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use super::failure::Failure;
use crate::http::given::Given;
use crate::http::request::begins_with;
use crate::model::{Traits, lay_trait};

/// Who wants to know, and what is known of them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Asked {
    /// Empty text is as good as none.
    pub(super) targeting_key: Option<String>,
    pub(super) traits: Traits,
}

#[derive(Deserialize)]
struct Evaluate {
    #[serde(default)]
    context: Option<Asked>,
}

/// Reads the body of a request.
pub(super) fn parse(body: &[u8]) -> Result<Asked, Failure> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Asked::default());
    }
    // serde would take a list for a structure, field by field.
    if !begins_with(body, b'{') {
        let details = "the body must be a JSON object: `{\"context\":{\"targetingKey\":\"…\"}}`";
        return Err(Failure::parse(details.to_owned()));
    }
    match serde_json::from_slice::<Evaluate>(body) {
        Ok(evaluate) => Ok(evaluate.context.unwrap_or_default()),
        Err(error) if error.is_data() => Err(Failure::context(error.to_string())),
        Err(error) => Err(Failure::parse(format!("the body is not JSON: {error}"))),
    }
}

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Attributes)
    }
}

/// Straight into what the evaluator reads, without a copy of the whole in between.
struct Attributes;

impl<'de> Visitor<'de> for Attributes {
    type Value = Asked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`context` to be an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Asked, A::Error> {
        let mut asked = Asked::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == "targetingKey" {
                asked.targeting_key = match map.next_value()? {
                    Json::Null => None,
                    Json::String(key) => Some(key).filter(|key| !key.is_empty()),
                    _ => return Err(A::Error::custom("`context.targetingKey` must be a string")),
                };
                continue;
            }
            let Given(value) = map.next_value()?;
            lay_trait(&mut asked.traits, name, value);
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Scalar;

    fn asked(key: Option<&str>, traits: &[(&str, Scalar)]) -> Asked {
        let traits = traits.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        Asked { targeting_key: key.map(str::to_owned), traits: traits.collect() }
    }

    #[test]
    fn nothing_is_a_context_in_which_nothing_is_known() {
        for body in ["", " \n", "{}", r#"{"context":{}}"#, r#"{"context":null}"#, r#"{"x":1}"#] {
            assert_eq!(parse(body.as_bytes()).unwrap(), Asked::default(), "{body:?}");
        }
        for body in [r#"{"context":{"targetingKey":""}}"#, r#"{"context":{"targetingKey":null}}"#] {
            assert_eq!(parse(body.as_bytes()).unwrap(), Asked::default(), "{body:?}");
        }
    }

    #[test]
    fn attributes_are_what_is_known() {
        let body = r#"{"context":{"plan":"pro","targetingKey":"ann","age":41,"score":2.5,
            "anonymous":true,"gone":null,"plan":"free","where":{"city":"Köln"},"tags":["a"]}}"#;
        let text = |text: &str| Scalar::Text(text.to_owned());
        let expected = asked(
            Some("ann"),
            &[
                ("plan", text("free")),
                ("age", Scalar::Integer(41)),
                ("score", Scalar::Float(2.5)),
                ("anonymous", Scalar::Bool(true)),
                ("where", text(r#"{"city":"Köln"}"#)),
                ("tags", text(r#"["a"]"#)),
            ],
        );
        assert_eq!(parse(body.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn what_is_no_context_is_told_apart_from_what_is_no_json() {
        let code = |body: &str| parse(body.as_bytes()).unwrap_err().code();
        for body in ["{", "nonsense", "[]", "5", "\"x\"", "{} {}", "\u{feff}{}"] {
            assert_eq!(code(body), "PARSE_ERROR", "{body}");
        }
        assert_eq!(code(&format!("{{\"context\":{{\"a\":{}", "[".repeat(500))), "PARSE_ERROR");
        for context in ["5", "[]", "\"x\"", "true", r#"{"targetingKey":5}"#] {
            assert_eq!(code(&format!("{{\"context\":{context}}}")), "INVALID_CONTEXT", "{context}");
        }
        assert_eq!(code(r#"{"context":{"targetingKey":{"a":1}}}"#), "INVALID_CONTEXT");
    }

    proptest! {
        #[test]
        fn no_body_makes_it_fall(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&body));
        }
    }
}
