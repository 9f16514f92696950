//! The value of a flag, in the types that every SDK dialect can carry.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value as Json;

/// Largest integer that every client reads exactly: JavaScript's.
pub const INTEGER_MAX: i64 = (1 << 53) - 1;

/// What a flag holds beside being on or off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FlagValue {
    /// No value: the flag is only on or off.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number within ±(2⁵³−1).
    Integer(i64),
    /// Text; structured configuration is text too.
    Text(String),
}

/// Why a JSON value is no flag value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Flagsmith's SDKs know no fractions.
    #[error("a value must be null, a boolean, an integer or a string; send a fraction as a string")]
    Fraction,
    /// Flagsmith's SDKs know no structures.
    #[error(
        "a value must be null, a boolean, an integer or a string; send an object or a list as a string"
    )]
    Structure,
    /// JavaScript would round it.
    #[error("an integer must lie within ±9007199254740991; send a larger one as a string")]
    IntegerTooLarge,
}

impl FlagValue {
    /// Checks a JSON value.
    pub fn from_json(json: Json) -> Result<Self, ValueError> {
        match json {
            Json::Null => Ok(Self::Null),
            Json::Bool(value) => Ok(Self::Bool(value)),
            Json::String(text) => Ok(Self::Text(text)),
            Json::Array(_) | Json::Object(_) => Err(ValueError::Structure),
            Json::Number(number) => match number.as_i64() {
                Some(value) if (-INTEGER_MAX..=INTEGER_MAX).contains(&value) => {
                    Ok(Self::Integer(value))
                }
                None => Self::from_float(number.as_f64().unwrap_or(f64::INFINITY)),
                _ => Err(ValueError::IntegerTooLarge),
            },
        }
    }

    /// JSON knows only numbers: `7.0` is the whole number 7.
    fn from_float(number: f64) -> Result<Self, ValueError> {
        if number.fract() != 0.0 {
            return Err(ValueError::Fraction);
        }
        #[expect(clippy::cast_possible_truncation, reason = "a float beyond is made the limit")]
        let whole = number as i64;
        if (-INTEGER_MAX..=INTEGER_MAX).contains(&whole) {
            Ok(Self::Integer(whole))
        } else {
            Err(ValueError::IntegerTooLarge)
        }
    }

    /// The same value as JSON.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Integer(value) => Json::from(*value),
            Self::Text(text) => Json::String(text.clone()),
        }
    }

    /// Bytes that count against `limits.value_bytes`.
    #[must_use]
    pub fn size(&self) -> usize {
        if let Self::Text(text) = self { text.len() } else { 0 }
    }
}

impl Serialize for FlagValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_i64(*value),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for FlagValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(Json::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// For a field that may be absent: an explicit null is a value, and serde would take it for absence.
pub fn given_value<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<FlagValue>, D::Error> {
    FlagValue::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_sdk_can_carry_is_a_value() {
        let parse = |text: &str| FlagValue::from_json(serde_json::from_str(text).unwrap());
        assert_eq!(parse("null"), Ok(FlagValue::Null));
        assert_eq!(parse("-7"), Ok(FlagValue::Integer(-7)));
        assert_eq!(parse("\"7\""), Ok(FlagValue::Text("7".to_owned())));
        assert_eq!(parse("7.0"), Ok(FlagValue::Integer(7)));
        assert_eq!(parse("7.5"), Err(ValueError::Fraction));
        assert_eq!(parse("1e300"), Err(ValueError::IntegerTooLarge));
        assert_eq!(parse("[]"), Err(ValueError::Structure));
        assert_eq!(parse("9007199254740992"), Err(ValueError::IntegerTooLarge));
        assert_eq!(parse("18446744073709551615"), Err(ValueError::IntegerTooLarge));
    }
}
