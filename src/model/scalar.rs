//! A single value as traits and conditions know it. Wider than a flag's value: traits may be fractions.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value as Json;

use super::FlagValue;

/// What is known of an identity, by the name of the trait.
pub type Traits = BTreeMap<String, Scalar>;

/// The value of a trait, or what a condition compares.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Scalar {
    /// Nothing; a condition takes it for absent.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A fraction, or a whole number written as one.
    Float(f64),
    /// Text.
    Text(String),
}

/// Why a JSON value is no scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScalarError {
    /// Conditions compare single values.
    #[error("must be null, a boolean, a number or a string; send an object or a list as a string")]
    Structure,
    /// It has no exact form here.
    #[error("a whole number must fit into 64 bits; send a larger one as a string")]
    TooLarge,
}

impl Scalar {
    /// Checks a JSON value.
    pub fn from_json(json: Json) -> Result<Self, ScalarError> {
        match json {
            Json::Null => Ok(Self::Null),
            Json::Bool(value) => Ok(Self::Bool(value)),
            Json::String(text) => Ok(Self::Text(text)),
            Json::Array(_) | Json::Object(_) => Err(ScalarError::Structure),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Ok(Self::Integer(value)),
                (None, Some(value)) if number.is_f64() => Ok(Self::Float(value)),
                _ => Err(ScalarError::TooLarge),
            },
        }
    }

    /// Bytes that count against a limit.
    #[must_use]
    pub fn size(&self) -> usize {
        if let Self::Text(text) = self { text.len() } else { 0 }
    }
}

/// Lays a trait over those that are known; null takes it away.
pub fn lay_trait(traits: &mut Traits, name: String, value: Scalar) {
    match value {
        Scalar::Null => drop(traits.remove(&name)),
        value => drop(traits.insert(name, value)),
    }
}

impl From<&FlagValue> for Scalar {
    fn from(value: &FlagValue) -> Self {
        match value {
            FlagValue::Null => Self::Null,
            FlagValue::Bool(value) => Self::Bool(*value),
            FlagValue::Integer(value) => Self::Integer(*value),
            FlagValue::Text(text) => Self::Text(text.clone()),
        }
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(Json::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_and_a_fraction_stay_what_they_were() {
        for text in ["null", "true", "-7", "7.0", "0.5", "\"7\""] {
            let scalar: Scalar = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&scalar).unwrap(), text);
        }
        assert_eq!(Scalar::from_json(serde_json::json!([])), Err(ScalarError::Structure));
        let parsed = serde_json::from_str::<Json>("18446744073709551615").unwrap();
        assert_eq!(Scalar::from_json(parsed), Err(ScalarError::TooLarge));
    }
}
