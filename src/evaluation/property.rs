//! What a condition looks at: a trait, a member of the context, or what a path selects in it.

use indexmap::IndexMap;
use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::parser::parse_json_path;

use super::context::FeatureContext;

/// Longest path that is followed; its parser goes as deep as the path is nested.
const PATH_BYTES_MAX: usize = 500;

/// Where a condition's value comes from. `trait_name` is what else the text may mean.
#[derive(Debug)]
pub(super) enum Property {
    /// Nowhere: a split by identity.
    Nothing,
    /// The trait of this name.
    Trait(String),
    /// The environment's key.
    EnvironmentKey,
    /// The environment's name.
    EnvironmentName,
    /// The identity's identifier.
    Identifier,
    /// The identity's key.
    IdentityKey,
    /// A trait, written as a path.
    TraitPath { name: String, trait_name: String },
    /// A field of another flag.
    Flag { feature: usize, field: FlagField },
    /// Another flag that is not there.
    UnknownFlag { trait_name: String },
    /// What a path selects.
    Path { query: Box<JpQuery>, trait_name: String },
}

/// A field of a flag that conditions may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagField {
    Enabled,
    Value,
    Variant,
}

impl Property {
    /// Whether it looks at another flag.
    pub(super) fn reads_flags(&self) -> bool {
        matches!(self, Self::Flag { .. })
    }

    /// Understands the property of a condition.
    pub(super) fn parse(text: &str, features: &IndexMap<String, FeatureContext>) -> Self {
        if text.is_empty() {
            return Self::Nothing;
        }
        let trait_name = text.to_owned();
        let names = text.strip_prefix("$.").and_then(member_names);
        match names.as_deref() {
            None if !text.starts_with("$.") => Self::Trait(trait_name),
            Some(["environment", "key"]) => Self::EnvironmentKey,
            Some(["environment", "name"]) => Self::EnvironmentName,
            Some(["identity", "identifier"]) => Self::Identifier,
            Some(["identity", "key"]) => Self::IdentityKey,
            Some(["identity", "traits", name]) => {
                Self::TraitPath { name: (*name).to_owned(), trait_name }
            }
            Some(["flags", name, field]) if FlagField::parse(field).is_some() => {
                Self::flag(name, FlagField::parse(field), trait_name, features)
            }
            _ if !is_bounded(text) => Self::Trait(trait_name),
            _ => match parse_json_path(text) {
                Ok(query) => Self::Path { query: Box::new(query), trait_name },
                Err(_) => Self::Trait(trait_name),
            },
        }
    }

    fn flag(
        name: &str,
        field: Option<FlagField>,
        trait_name: String,
        features: &IndexMap<String, FeatureContext>,
    ) -> Self {
        match (features.get_index_of(name), field) {
            (Some(feature), Some(field)) => Self::Flag { feature, field },
            _ => Self::UnknownFlag { trait_name },
        }
    }
}

impl FlagField {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "enabled" => Some(Self::Enabled),
            "value" => Some(Self::Value),
            "variant" => Some(Self::Variant),
            _ => None,
        }
    }
}

/// Whether a path is read and followed in a time that its context bounds. Steps to all descendants,
/// filters and lists of selectors multiply, and the parser tries each parenthesis in several ways, those
/// within included. Such paths are refused when they are written; this is for contexts that nobody
/// checked.
fn is_bounded(path: &str) -> bool {
    let at_most = |most: usize, sign: &str| path.matches(sign).count() <= most;
    path.len() <= PATH_BYTES_MAX
        && at_most(1, "..")
        && at_most(1, "?")
        && at_most(3, "(")
        && at_most(3, ",")
}

/// The names in a path that has nothing else: `flags.banner.enabled`, `flags['dark-mode'].enabled`.
pub(super) fn member_names(path: &str) -> Option<Vec<&str>> {
    let (mut names, mut rest) = (Vec::new(), path);
    loop {
        let end = rest.find(|next: char| !(next.is_ascii_alphanumeric() || next == '_'));
        let (name, behind) = rest.split_at(end.unwrap_or(rest.len()));
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        names.push(name);
        rest = behind;
        while let Some((name, behind)) = bracketed(rest) {
            names.push(name);
            rest = behind;
        }
        match rest.strip_prefix('.') {
            Some(behind) => rest = behind,
            None => return rest.is_empty().then_some(names),
        }
    }
}

/// A name in brackets at the start of a path, and what is behind it. One with a backslash is left to
/// the parser of paths.
fn bracketed(path: &str) -> Option<(&str, &str)> {
    let inside = path.strip_prefix('[')?;
    let quote = inside.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    let (name, behind) = inside[1..].split_once(quote)?;
    let behind = behind.strip_prefix(']')?;
    (!name.contains('\\')).then_some((name, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_names_is_known_without_a_parser() {
        for (path, names) in [
            ("identity.traits.plan", Some(vec!["identity", "traits", "plan"])),
            ("flags['dark-mode'].enabled", Some(vec!["flags", "dark-mode", "enabled"])),
            ("flags[\"it's\"]['value']", Some(vec!["flags", "it's", "value"])),
            ("identity.traits['']", Some(vec!["identity", "traits", ""])),
            ("flags.dark-mode.enabled", None),
            ("flags['a\\'b'].enabled", None),
            ("flags['a'", None),
            ("flags['a'].", None),
            ("flags[0]", None),
            ("flags.*.enabled", None),
            ("flags..enabled", None),
            ("", None),
        ] {
            assert_eq!(member_names(path), names, "{path}");
        }
    }

    #[test]
    fn a_path_that_multiplies_is_taken_for_a_name() {
        let features = IndexMap::new();
        let is_path =
            |path: &str| matches!(Property::parse(path, &features), Property::Path { .. });
        assert!(is_path("$.features[?length(@.name) > 3].value"));
        assert!(is_path("$..plan"));
        for path in [
            "$..*..a".to_owned(),
            format!("$.a[?{}@.a{} > 1]", "length(".repeat(60), ")".repeat(60)),
            format!("$.features.a.metadata{}", "[*,*]".repeat(50)),
            format!("$.a{}", "[*]".repeat(200)),
        ] {
            assert!(!is_path(&path), "{path}");
        }
    }
}
