//! Paths into the evaluation context, as far as every engine understands them alike.
//!
//! `JSONPath` has filters, wildcards and slices, and each engine has a parser of its own. A condition needs
//! one value, so a path names one: by names only, nothing that searches.

use super::{Wrong, wrong};
use crate::evaluation::portable::is_plain_name;
use crate::evaluation::property::member_names;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path<'a> {
    /// Something of the environment or the identity.
    Context,
    /// A field of the flag with this key.
    Flag(&'a str),
}

const KNOWN: &str = "a path is `$.identity.identifier`, `$.identity.key`, `$.identity.traits.NAME`, \
    `$.environment.key`, `$.environment.name`, or `$.flags.KEY.enabled`, `.value` or `.variant`; names \
    with other signs than letters, digits and `_` are written as `['dark-mode']`";

/// Reads the property of a condition: none if it is the name of a trait.
pub(super) fn parse(property: &str) -> Result<Option<Path<'_>>, Wrong> {
    let Some(path) = property.strip_prefix('$') else { return Ok(None) };
    if !path.is_empty() && !path.starts_with(['.', '[']) {
        return Ok(None);
    }
    let known = || wrong("property", KNOWN);
    // Engines take for a path only what begins so, and the rest for a trait.
    let names = path.strip_prefix('.').and_then(member_names).ok_or_else(known)?;
    match names.as_slice() {
        ["identity", "identifier" | "key"] | ["environment", "key" | "name"] => {
            Ok(Some(Path::Context))
        }
        ["identity", "traits", name] => {
            plain(name)?;
            Ok(Some(Path::Context))
        }
        ["flags", feature, "enabled" | "value" | "variant"] => {
            plain(feature)?;
            Ok(Some(Path::Flag(feature)))
        }
        _ => Err(known()),
    }
}

/// Refuses names which Node's engine gives a meaning even within quotes, or finds on every object.
pub(super) fn plain(name: &str) -> Result<(), Wrong> {
    if !is_plain_name(name) {
        return Err(wrong(
            "property",
            format!(
                "here a name has letters, digits, spaces and any of `-_:/.?` (and no `__` at its start); \
                 `{name}` would be another one to some engines"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_thing() {
        for property in ["plan", "", "$email", "$9", "a.b", "$", "$.", "$x"] {
            let is_path = property == "$" || property == "$.";
            assert_eq!(parse(property).is_err(), is_path, "{property}");
        }
        for context in [
            "$.identity.identifier",
            "$.identity.key",
            "$.environment.name",
            "$.environment.key",
            "$.identity.traits.plan",
            "$.identity.traits['home town']",
            "$.identity['traits'][\"plan\"]",
        ] {
            assert_eq!(parse(context).unwrap(), Some(Path::Context), "{context}");
        }
        for (path, key) in [
            ("$.flags.banner.enabled", "banner"),
            ("$.flags['dark-mode'].value", "dark-mode"),
            ("$.flags[\"dark-mode\"]['variant']", "dark-mode"),
        ] {
            assert_eq!(parse(path).unwrap(), Some(Path::Flag(key)), "{path}");
        }
    }

    #[test]
    fn a_path_that_searches_or_names_nothing_is_refused_with_what_there_is() {
        for path in [
            "$.identity",
            "$.identity.name",
            "$.identity.traits",
            "$.identity.traits.a.b",
            "$.features.banner.enabled",
            "$.segments.vip.name",
            "$.flags.banner",
            "$.flags.banner.reason",
            "$.flags.dark-mode.enabled",
            "$.flags['a'",
            "$.flags['a'].",
            "$.flags['a'] .enabled",
            "$.flags[0].enabled",
            "$.flags.9.enabled",
            "$..enabled",
            "$.*",
            "$.flags[?@.enabled]",
            "$['identity'].identifier",
        ] {
            let fault = parse(path).expect_err(path);
            assert!(fault.rule.contains("$.identity.traits.NAME"), "{path}: {}", fault.rule);
        }
        for path in
            ["$.identity.traits['it^s']", "$.identity.traits.__proto__", "$.flags[''].value"]
        {
            let fault = parse(path).expect_err(path);
            assert!(fault.rule.contains("some engines"), "{path}: {}", fault.rule);
        }
    }
}
