//! What an engine answers to a context: read from JSON, evaluated for its identity, told as JSON.
//!
//! For people who want to know what a context gives without a gateway, and for whoever compares engines.

use indexmap::IndexMap;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::Value as Json;

use super::context::Context;
use super::evaluator::Evaluator;
use super::outcome::{CIRCULAR_REASON, Subject};
use crate::model::{Scalar, Traits};

/// Why a text is no context.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// It cannot be read at all.
    #[error("it is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// It is JSON, but not what a context is.
    #[error("it is no evaluation context: `{path}`: {rule}")]
    Wrong {
        /// Where, such as `segments.7.rules[0].type`; `.` is all of it.
        path: String,
        /// What should be there.
        rule: String,
    },
}

/// What an engine answers to a context.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// Flags by name, in the order of the context.
    pub flags: IndexMap<String, AnsweredFlag>,
    /// Segments that the identity is in, in the order of the context.
    pub segments: Vec<AnsweredSegment>,
}

/// What a flag is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnsweredFlag {
    /// Its name.
    pub name: String,
    /// On or off.
    pub enabled: bool,
    /// Its value.
    pub value: Scalar,
    /// Why.
    pub reason: String,
    /// The variant's key, or `control`.
    pub variant: Option<String>,
    /// As it came with the state that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
}

/// A segment that the identity is in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnsweredSegment {
    /// Its name.
    pub name: String,
    /// As it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
}

impl Context {
    /// Reads a context. What is nested too deeply to be followed is refused.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ContextError> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let context = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = in_one_line(&error.path().to_string());
            let rule = error.into_inner();
            // What is JSON and nested too deeply is not told as an error of data.
            if rule.is_data() || serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
                ContextError::Wrong { path, rule: in_one_line(&rule.to_string()) }
            } else {
                ContextError::NotJson(rule)
            }
        })?;
        json.end().map_err(ContextError::NotJson)?;
        Ok(context)
    }

    /// What this context gives for its identity, or for nobody in particular.
    #[must_use]
    pub fn answer(self) -> Answer {
        let identity = self.identity.clone();
        let nothing = Traits::new();
        let subject = Subject {
            identifier: identity.as_ref().map(|one| one.identifier.as_str()),
            key: identity.as_ref().map(|one| one.key.as_str()),
            traits: identity.as_ref().map_or(&nothing, |one| &one.traits),
        };
        Evaluator::compile(self).answer(&subject)
    }
}

/// Names come from the context, so anything may be in them.
fn in_one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

impl Evaluator {
    fn answer(&self, subject: &Subject<'_>) -> Answer {
        let evaluation = self.evaluate(subject);
        let numbered = evaluation.outcomes.iter().enumerate();
        let flags = numbered.map(|(place, number)| {
            let outcome = &self.outcomes()[*number as usize];
            let is_circular = evaluation.circular.contains(&place);
            let name = self.features[place].name.clone();
            let flag = AnsweredFlag {
                name: name.clone(),
                enabled: outcome.enabled,
                value: outcome.value.clone(),
                reason: if is_circular {
                    CIRCULAR_REASON.to_owned()
                } else {
                    outcome.cause.to_string()
                },
                variant: outcome.variant.clone(),
                metadata: self.state_of(*number).metadata.clone(),
            };
            (name, flag)
        });
        let segments = self.segments_of(subject).into_iter().map(|place| {
            let segment = &self.context().segments[place];
            AnsweredSegment { name: segment.name.clone(), metadata: segment.metadata.clone() }
        });
        Answer { flags: flags.collect(), segments: segments.collect() }
    }
}
