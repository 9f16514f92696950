//! Which number each split gets: its own if the store has room for it, so that everybody stays where they
//! are. A number that is taken is a refusal if anybody is dealt out by it, and otherwise of no account.

use std::collections::BTreeMap;

use super::ImportError;
use crate::model::{Operator, Rule};
use crate::store::{Change, Numbered, Store, StoreError};
use crate::transfer::{Document, FeaturePart};

/// The number of each row, by its seed in the file.
pub(super) struct Numbers {
    flags: BTreeMap<i64, i64>,
    segments: BTreeMap<i64, i64>,
    overrides: BTreeMap<i64, i64>,
    /// Splits that people are dealt out to anew.
    pub(super) dealt_anew: Vec<String>,
}

/// A seed of the file.
struct Seed {
    number: i64,
    /// Where it is.
    path: String,
    /// What is split by it, for people; nothing if nothing is.
    splits: Option<String>,
}

/// Keeps the database from giving out numbers of the file to rows that are made meanwhile.
pub(super) async fn reserve(store: &Store, document: &Document) -> Result<(), StoreError> {
    for of in Numbered::ALL {
        if let Some(last) = last(&seeds(document, of)) {
            store.reserve_numbers(of, last).await?;
        }
    }
    Ok(())
}

impl Numbers {
    /// Looks which are free. With `new_seeds` splits get other numbers, too.
    pub(super) async fn find(
        change: &mut Change,
        document: &Document,
        new_seeds: bool,
    ) -> anyhow::Result<Self> {
        let mut all = Self {
            flags: BTreeMap::new(),
            segments: BTreeMap::new(),
            overrides: BTreeMap::new(),
            dealt_anew: Vec::new(),
        };
        for of in Numbered::ALL {
            let seeds = seeds(document, of);
            let numbers: Vec<i64> = seeds.iter().map(|seed| seed.number).collect();
            let taken = change.taken_numbers(of, &numbers).await?;
            let (taken, free): (Vec<_>, Vec<_>) =
                seeds.iter().partition(|seed| taken.contains(&seed.number));
            let splits = taken.iter().filter(|seed| seed.splits.is_some());
            if let Some(first) = splits.clone().next().filter(|_| !new_seeds) {
                return Err(in_the_way(first, splits.count()).into());
            }
            all.dealt_anew.extend(splits.filter_map(|seed| seed.splits.clone()));
            let above = last(&seeds).unwrap_or(0);
            let fresh = change.fresh_numbers(of, taken.len(), above).await?;
            let renumbered = taken.iter().map(|seed| seed.number).zip(fresh);
            let kept = free.iter().map(|seed| (seed.number, seed.number));
            all.of(of).extend(kept.chain(renumbered));
        }
        Ok(all)
    }

    pub(super) fn flag(&self, seed: i64) -> i64 {
        self.flags.get(&seed).copied().unwrap_or(seed)
    }

    pub(super) fn segment(&self, seed: i64) -> i64 {
        self.segments.get(&seed).copied().unwrap_or(seed)
    }

    pub(super) fn segment_override(&self, seed: i64) -> i64 {
        self.overrides.get(&seed).copied().unwrap_or(seed)
    }

    fn of(&mut self, of: Numbered) -> &mut BTreeMap<i64, i64> {
        match of {
            Numbered::Flags => &mut self.flags,
            Numbered::Segments => &mut self.segments,
            Numbered::SegmentOverrides => &mut self.overrides,
        }
    }
}

fn in_the_way(first: &Seed, count: usize) -> ImportError {
    ImportError(format!(
        "people are dealt out by `{}` = {}, which this store uses for something else ({count} such in \
         this file); import into an empty store, or say --new-seeds to deal them out anew there",
        first.path, first.number
    ))
}

fn last(seeds: &[Seed]) -> Option<i64> {
    seeds.iter().map(|seed| seed.number).max()
}

fn seeds(document: &Document, of: Numbered) -> Vec<Seed> {
    match of {
        Numbered::Segments => of_segments(document),
        Numbered::Flags => of_states(document, false),
        Numbered::SegmentOverrides => of_states(document, true),
    }
}

fn of_segments(document: &Document) -> Vec<Seed> {
    let segments = document.project.segments.iter().enumerate();
    let seed = |(number, segment): (usize, &crate::transfer::SegmentPart)| Seed {
        number: segment.seed,
        path: format!("project.segments[{number}].seed"),
        splits: has_split(&segment.rules).then(|| format!("segment `{}`", segment.key)),
    };
    segments.map(seed).collect()
}

/// Those of flags, or of what they are for segments.
fn of_states(document: &Document, for_segments: bool) -> Vec<Seed> {
    let project = &document.project;
    let is_split: BTreeMap<&str, bool> = project.features.iter().map(is_split).collect();
    let mut seeds = Vec::new();
    for (number, environment) in project.environments.iter().enumerate() {
        let place = format!("project.environments[{number}]");
        for (number, flag) in environment.flags.iter().enumerate() {
            let path = format!("{place}.flags[{number}]");
            let splits = is_split.get(flag.feature.as_str()).copied().unwrap_or(true);
            let splits =
                splits.then(|| format!("flag `{}` in `{}`", flag.feature, environment.key));
            if !for_segments {
                let path = format!("{path}.seed");
                seeds.push(Seed { number: flag.seed, path, splits });
                continue;
            }
            for (number, state) in flag.segments.iter().enumerate() {
                let path = format!("{path}.segments[{number}].seed");
                let splits = splits.clone().map(|of| format!("{of} for `{}`", state.segment));
                seeds.push(Seed { number: state.seed, path, splits });
            }
        }
    }
    seeds
}

/// Whether people are shared out among variants of a feature.
fn is_split(feature: &FeaturePart) -> (&str, bool) {
    (feature.key.as_str(), !feature.variants.is_empty())
}

fn has_split(rules: &[Rule]) -> bool {
    let splits = |rule: &Rule| {
        let mut conditions = rule.conditions.iter();
        conditions.any(|condition| condition.operator == Operator::PercentageSplit)
            || has_split(&rule.rules)
    };
    rules.iter().any(splits)
}
