//! Flags whose segments read other flags: a flag that depends on itself has no state.

use std::collections::{BTreeMap, BTreeSet};

use super::path::{Path, parse};
use crate::model::Rule;

/// What each feature reads.
type Graph<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Flags that may depend on one another in a row. Engines decide them on their stacks, and people
/// have to follow them.
const CHAIN_MAX: usize = 10;

/// Flags that depend on one another in a way that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Circle {
    /// A flag depends on itself.
    #[error(
        "`{}`: each of these flags has a segment that reads the next, so none can be decided; take \
         one condition or one override away",
        .0.join(" -> ")
    )]
    Closed(Vec<String>),
    /// Too many in a row.
    #[error(
        "`{}`: flags may depend on one another {CHAIN_MAX} times in a row, no more; let a segment read \
         a trait instead",
        .0.join(" -> ")
    )]
    TooLong(Vec<String>),
}

/// The keys of features that rules read, by paths such as `$.flags['dark-mode'].enabled`.
#[must_use]
pub fn features_read(rules: &[Rule]) -> BTreeSet<String> {
    let mut read = BTreeSet::new();
    let mut left: Vec<&Rule> = rules.iter().collect();
    while let Some(rule) = left.pop() {
        left.extend(&rule.rules);
        for condition in &rule.conditions {
            if let Ok(Some(Path::Flag(feature))) = parse(&condition.property) {
                read.insert(feature.to_owned());
            }
        }
    }
    read
}

/// Checks the flags of one environment: each pair is a feature and another that one of its segments
/// reads.
pub fn check_dependencies<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), Circle> {
    let mut graph = Graph::new();
    for (feature, read) in pairs {
        graph.entry(feature).or_default().insert(read);
    }
    // Takes away, again and again, those that nothing left depends upon; in a circle something is left.
    let mut left: BTreeSet<&str> = graph.keys().copied().collect();
    let mut layers = Vec::new();
    loop {
        let (kept, gone): (BTreeSet<&str>, BTreeSet<&str>) =
            left.iter().partition(|feature| !graph[**feature].is_disjoint(&left));
        if gone.is_empty() {
            break;
        }
        layers.push(gone);
        left = kept;
    }
    if let Some(start) = left.first() {
        return Err(Circle::Closed(closed(&graph, start, &left)));
    }
    if layers.len() > CHAIN_MAX {
        return Err(Circle::TooLong(longest(&graph, &layers)));
    }
    Ok(())
}

/// A circle among flags each of which reads another of them.
fn closed<'a>(graph: &Graph<'a>, start: &'a str, left: &BTreeSet<&'a str>) -> Vec<String> {
    let mut row = vec![start];
    let mut at = start;
    while let Some(next) = graph[at].intersection(left).next() {
        let begins = row.iter().position(|feature| feature == next);
        row.push(next);
        if let Some(begins) = begins {
            row.drain(..begins);
            break;
        }
        at = next;
    }
    row.into_iter().map(str::to_owned).collect()
}

/// The longest row: from the last layer, each reads one of the layer before.
fn longest(graph: &Graph<'_>, layers: &[BTreeSet<&str>]) -> Vec<String> {
    let mut row: Vec<&str> =
        layers.last().and_then(|layer| layer.first()).copied().into_iter().collect();
    for layer in layers.iter().rev().skip(1) {
        row.extend(row.last().and_then(|last| graph[last].intersection(layer).next()).copied());
    }
    row.extend(row.last().and_then(|last| graph[last].first()).copied());
    row.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)]) -> Result<(), String> {
        check_dependencies(pairs.iter().copied()).map_err(|circle| circle.to_string())
    }

    #[test]
    fn a_circle_is_named_from_where_it_closes() {
        assert_eq!(check(&[("a", "b"), ("b", "c"), ("a", "c")]), Ok(()));
        let named = |pairs: &[(&str, &str)]| {
            check(pairs).unwrap_err().split('`').nth(1).unwrap_or_default().to_owned()
        };
        assert_eq!(named(&[("a", "a")]), "a -> a");
        assert_eq!(named(&[("a", "b"), ("b", "a")]), "a -> b -> a");
        assert_eq!(named(&[("a", "b"), ("b", "c"), ("c", "b")]), "b -> c -> b");
    }

    #[test]
    fn a_row_has_an_end_and_a_long_circle_is_still_called_one() {
        let keys: Vec<String> = (0..40).map(|number| format!("f{number:02}")).collect();
        let row = |length: usize| -> Vec<(&str, &str)> {
            keys.windows(2).take(length).map(|two| (two[0].as_str(), two[1].as_str())).collect()
        };
        assert_eq!(check(&row(10)), Ok(()));
        let fault = check(&row(11)).unwrap_err();
        assert!(fault.contains("f10 -> f11`") && fault.contains("10 times in a row"), "{fault}");
        let mut circle = row(39);
        circle.push(("f39", "f00"));
        let fault = check(&circle).unwrap_err();
        assert!(fault.starts_with("`f00 -> f01") && fault.contains("f39 -> f00`"), "{fault}");
    }

    #[test]
    fn a_net_of_flags_is_as_long_as_its_longest_row() {
        let keys: Vec<String> = (0..11).map(|number| format!("f{number:02}")).collect();
        let pairs: Vec<_> = keys
            .iter()
            .enumerate()
            .flat_map(|(at, one)| keys[at + 1..].iter().map(|other| (one.as_str(), other.as_str())))
            .collect();
        assert_eq!(check(&pairs), Ok(()));
    }
}
