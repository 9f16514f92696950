//! What a body wants of a flag's state, be it for all, for a segment or for one identity.
//!
//! It is checked twice: alone, before anything waits for the store, and then against the feature.

use std::collections::BTreeMap;

use crate::config::Limits;
use crate::http::errors::Problem;
use crate::model::{Feature, FlagValue, Weight, merge_weights};
use crate::rules::{check_type, check_value};
use crate::store::{FlagUpdate, OverrideUpdate};

/// What is wanted; what is absent stays.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Where the body says it, with a dot behind: `flags[2].`; empty at the top.
    pub(super) place: String,
    pub(super) enabled: Option<bool>,
    pub(super) value: Option<FlagValue>,
    pub(super) weights: Option<BTreeMap<String, Weight>>,
}

impl Wanted {
    /// Whether nothing is wanted.
    pub(super) fn is_empty(&self) -> bool {
        self.enabled.is_none() && self.value.is_none() && self.weights.is_none()
    }

    /// Checks what needs no feature.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), Problem> {
        let place = format!("{}value", self.place);
        self.value.as_ref().map_or(Ok(()), |value| Ok(check_value(&place, value, limits)?))
    }

    /// The change of a flag that is wanted; its present weights are `weights`.
    pub(super) fn of_flag(
        &self,
        feature: &Feature,
        weights: &[Weight],
    ) -> Result<FlagUpdate, Problem> {
        let place = &self.place;
        if let Some(value) = &self.value {
            check_type(&format!("{place}value"), value, feature.value_type)?;
        }
        let merged = self.weights.as_ref().map(|named| {
            merge_weights(&feature.variants, weights, named)
                .map_err(|error| Problem::invalid_field(format!("`{place}weights`: {error}")))
        });
        let weights = merged.transpose()?;
        Ok(FlagUpdate { enabled: self.enabled, value: self.value.clone(), weights })
    }

    /// The change of an override that is wanted.
    pub(super) fn of_override(
        &self,
        feature: &Feature,
        weights: &[Weight],
        priority: Option<usize>,
    ) -> Result<OverrideUpdate, Problem> {
        let FlagUpdate { enabled, value, weights } = self.of_flag(feature, weights)?;
        Ok(OverrideUpdate { enabled, value, weights, priority })
    }
}
