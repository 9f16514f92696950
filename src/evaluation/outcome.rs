//! Who asks, and what they get, and why.

use std::fmt;

use crate::model::{Scalar, Traits};

/// The engine's reason for a flag that depends on itself.
pub const CIRCULAR_REASON: &str = "ERROR; code=CIRCULAR_DEPENDENCY";

/// What a split's rest is called.
pub const CONTROL: &str = "control";

/// What engines call the segments that they make of identity overrides.
pub const IDENTITY_OVERRIDES: &str = "identity_overrides";

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What the app calls the identity; none for somebody unnamed.
    pub identifier: Option<&'a str>,
    /// Its key in splits; made of the environment's key and the identifier when absent.
    pub key: Option<&'a str>,
    /// What is known of it.
    pub traits: &'a Traits,
}

/// Something that a flag can be for somebody.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Place of the feature in the context.
    pub feature: usize,
    /// On or off.
    pub enabled: bool,
    /// Its value.
    pub value: Scalar,
    /// The variant's key, or `control`; none where no split applies.
    pub variant: Option<String>,
    /// Why.
    pub cause: Cause,
}

/// Why a flag is what it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// Nothing targets the feature.
    Static,
    /// Nothing that targets the feature applies.
    Default,
    /// A segment that the identity is in.
    Segment(String),
    /// The share of a variant.
    Split {
        /// In percent.
        weight: f64,
        /// The segment whose split it is, if it is one's.
        segment: Option<String>,
    },
    /// This identity has a state of its own.
    Identity,
}

/// The engine's words.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static => f.write_str("STATIC"),
            Self::Default => f.write_str("DEFAULT"),
            Self::Segment(name) => write!(f, "TARGETING_MATCH; segment={name}"),
            Self::Split { weight, .. } => write!(f, "SPLIT; weight={weight}"),
            Self::Identity => write!(f, "TARGETING_MATCH; segment={IDENTITY_OVERRIDES}"),
        }
    }
}

/// What somebody gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// For each feature, in the order of the context, the number of its outcome.
    pub outcomes: Vec<u32>,
    /// Features that depend on themselves, in ascending order.
    pub circular: Vec<usize>,
}
