//! Keys, names, descriptions and tags that people choose.

use super::Broken;
use crate::evaluation::IDENTITY_OVERRIDES;
use crate::model::{Key, KeyError};

/// Longest name of anything, in characters.
pub const NAME_MAX: usize = 200;

/// Longest description, in characters.
pub const DESCRIPTION_MAX: usize = 2_000;

/// Tags of a feature.
pub const TAGS_MAX: usize = 20;

/// Longest tag, in characters.
pub const TAG_MAX: usize = 50;

/// Checks a name that people choose: not empty, not long, one line.
pub fn check_name(name: &str) -> Result<(), Broken> {
    check_text("name", name, NAME_MAX)?;
    if name.trim().is_empty() {
        return Err(Broken::new("`name` must not be empty".to_owned()));
    }
    Ok(())
}

/// Checks a description: not long; it may be empty and have several lines.
pub fn check_description(description: &str) -> Result<(), Broken> {
    if description.chars().count() > DESCRIPTION_MAX {
        let detail = format!("`description` must have at most {DESCRIPTION_MAX} characters");
        return Err(Broken::new(detail));
    }
    Ok(())
}

/// Checks tags: few, short, one line each.
pub fn check_tags(tags: &[String]) -> Result<(), Broken> {
    if tags.len() > TAGS_MAX {
        return Err(Broken::new(format!("`tags` may hold at most {TAGS_MAX}")));
    }
    tags.iter().try_for_each(|tag| check_text("tags", tag, TAG_MAX))
}

/// A key in a body: refused with its field's name.
pub fn key_of(text: &str) -> Result<Key, Broken> {
    Key::parse(text).map_err(|error| broken_key(error, text))
}

/// The key of a segment, in a body.
pub fn segment_key(text: &str) -> Result<Key, Broken> {
    if text == IDENTITY_OVERRIDES {
        let detail =
            format!("`key` must not be `{IDENTITY_OVERRIDES}`: SDKs take it for something else");
        return Err(Broken::new(detail));
    }
    key_of(text)
}

/// The answer to a key that breaks its rule.
#[must_use]
pub fn broken_key(error: KeyError, text: &str) -> Broken {
    let shown: String = text.chars().take(40).collect();
    Broken::new(format!("`key` {error}, not {shown:?}"))
}

fn check_text(field: &str, text: &str, length_max: usize) -> Result<(), Broken> {
    if text.chars().count() > length_max {
        let detail = format!("`{field}` must have at most {length_max} characters");
        return Err(Broken::new(detail));
    }
    if text.chars().any(char::is_control) {
        let detail = format!("`{field}` must not hold control characters");
        return Err(Broken::new(detail));
    }
    Ok(())
}
