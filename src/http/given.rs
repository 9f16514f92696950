//! What apps tell of people: any JSON, of which conditions can compare single values.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;

use crate::model::Scalar;

/// A single value. A list or an object becomes its JSON as text, as in Flagsmith: an app that sends one
/// gets its flags all the same, and a condition can look into the text. A whole number beyond 64 bits
/// becomes text, too.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Given(pub(super) Scalar);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson).map(Self)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        let exact = i64::try_from(value).map(Scalar::Integer);
        Ok(exact.unwrap_or_else(|_| Scalar::Text(value.to_string())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Scalar, E> {
        Ok(Scalar::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Scalar, A::Error> {
        let json = Json::deserialize(SeqAccessDeserializer::new(list))?;
        Ok(Scalar::Text(json.to_string()))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Scalar, A::Error> {
        let json = Json::deserialize(MapAccessDeserializer::new(object))?;
        Ok(Scalar::Text(json.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_becomes_a_single_value() {
        let given = |text: &str| serde_json::from_str::<Given>(text).unwrap().0;
        let text = |text: &str| Scalar::Text(text.to_owned());
        assert_eq!(given("null"), Scalar::Null);
        assert_eq!(given("true"), Scalar::Bool(true));
        assert_eq!(given("-7"), Scalar::Integer(-7));
        assert_eq!(given("7.0"), Scalar::Float(7.0));
        assert_eq!(given("\"7\\n\""), text("7\n"));
        assert_eq!(given("18446744073709551615"), text("18446744073709551615"));
        assert_eq!(given(r#"{"b": [1, null], "a": "x"}"#), text(r#"{"b":[1,null],"a":"x"}"#));
        assert_eq!(given(r#"["NL", {}]"#), text(r#"["NL",{}]"#));
    }
}
