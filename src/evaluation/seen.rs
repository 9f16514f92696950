//! What a condition finds: a single value that is there, borrowed from wherever it is.

use std::borrow::Cow;

use crate::model::Scalar;

/// A value that a condition looks at. Null is no value.
#[derive(Clone, Debug)]
pub(super) enum Seen<'a> {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
}

impl<'a> Seen<'a> {
    /// A value as it is kept.
    pub(super) fn of(value: &'a Scalar) -> Option<Self> {
        match value {
            Scalar::Null => None,
            Scalar::Bool(value) => Some(Self::Bool(*value)),
            Scalar::Integer(value) => Some(Self::Integer(*value)),
            Scalar::Float(value) => Some(Self::Float(*value)),
            Scalar::Text(text) => Some(Self::text(text)),
        }
    }

    /// A value that nobody else keeps.
    pub(super) fn owned(value: Scalar) -> Option<Self> {
        match value {
            Scalar::Null => None,
            Scalar::Bool(value) => Some(Self::Bool(value)),
            Scalar::Integer(value) => Some(Self::Integer(value)),
            Scalar::Float(value) => Some(Self::Float(value)),
            Scalar::Text(text) => Some(Self::Text(Cow::Owned(text))),
        }
    }

    /// A text.
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// The value for keeping.
    pub(super) fn into_scalar(self) -> Scalar {
        match self {
            Self::Bool(value) => Scalar::Bool(value),
            Self::Integer(value) => Scalar::Integer(value),
            Self::Float(value) => Scalar::Float(value),
            Self::Text(text) => Scalar::Text(text.into_owned()),
        }
    }

    /// The value as text.
    pub(super) fn shown(&self) -> Cow<'_, str> {
        match self {
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Integer(value) => Cow::Owned(value.to_string()),
            Self::Float(value) => Cow::Owned(value.to_string()),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }
}
