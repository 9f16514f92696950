//! Values of flags, and the variants among which identities are shared out.

use super::Broken;
use super::text::broken_key;
use crate::config::Limits;
use crate::evaluation::CONTROL;
use crate::model::{FeatureKey, FlagValue, ValueType, Weight};

/// Refuses a value that is too large to be served to every client.
pub fn check_value(place: &str, value: &FlagValue, limits: &Limits) -> Result<(), Broken> {
    let limit = limits.value_bytes;
    if value.size() > limit {
        let detail = format!("`{place}` is larger than {limit} bytes (`limits.value_bytes`)");
        return Err(Broken::new(detail));
    }
    Ok(())
}

/// Refuses a text that cannot be understood as the feature's values are to be.
pub fn check_type(place: &str, value: &FlagValue, value_type: ValueType) -> Result<(), Broken> {
    if value_type.fits(value) {
        return Ok(());
    }
    let detail = format!(
        "`{place}`: the feature's `value_type` is json, so a text must be a JSON object or a number"
    );
    Err(Broken::new(detail))
}

/// Refuses a key that no variant may have.
pub fn check_variant_key(key: &str) -> Result<(), Broken> {
    FeatureKey::parse(key).map_err(|error| broken_key(error, key))?;
    if key == CONTROL {
        let detail = "`key` must not be `control`: that is what nobody's variant is called";
        return Err(Broken::new(detail.to_owned()));
    }
    Ok(())
}

/// Refuses shares of variants that are more than the whole.
pub fn check_sum(place: &str, weights: &[Weight]) -> Result<(), Broken> {
    if Weight::fit(weights) {
        return Ok(());
    }
    let detail = format!("`{place}`: the weights of a feature's variants must sum to at most 100");
    Err(Broken::new(detail))
}
