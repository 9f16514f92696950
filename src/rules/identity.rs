//! Names and traits of identities.

use std::collections::BTreeMap;

use super::Broken;
use crate::config::Limits;
use crate::model::Scalar;

/// Longest name of a trait, in characters.
pub const TRAIT_KEY_MAX: usize = 200;

/// Checks what an app calls an identity.
pub fn check_identifier(identifier: &str, limits: &Limits) -> Result<(), Broken> {
    let max = limits.identifier_bytes;
    let refuse = |rule: String| Err(Broken::new(format!("`identifier` {rule}")));
    match identifier {
        "" => refuse("must not be empty".to_owned()),
        long if long.len() > max => {
            refuse(format!("must have at most {max} bytes (`limits.identifier_bytes`)"))
        }
        text if text.contains('\0') => refuse("must not hold a NUL".to_owned()),
        _ => Ok(()),
    }
}

/// Checks traits before they are laid over those that are known.
pub fn check_traits(
    update: &BTreeMap<String, Option<Scalar>>,
    limits: &Limits,
) -> Result<(), Broken> {
    update.iter().try_for_each(|(key, value)| check_trait(key, value.as_ref(), limits))
}

/// Checks one trait, or the name of one that goes.
pub fn check_trait(key: &str, value: Option<&Scalar>, limits: &Limits) -> Result<(), Broken> {
    let shown: String = key.chars().take(40).collect();
    let refuse = |rule: String| Err(Broken::new(format!("trait `{shown}`: {rule}")));
    if key.is_empty() || key.chars().count() > TRAIT_KEY_MAX {
        return refuse(format!("a name must have 1 to {TRAIT_KEY_MAX} characters"));
    }
    let max = limits.trait_bytes;
    if value.is_some_and(|value| value.size() > max) {
        return refuse(format!("a value must have at most {max} bytes (`limits.trait_bytes`)"));
    }
    let text = if let Some(Scalar::Text(text)) = value { text } else { "" };
    if key.contains('\0') || text.contains('\0') {
        return refuse("name and value must not hold a NUL".to_owned());
    }
    Ok(())
}
