//! The little statistics that the tables need: quantiles of a sample, spread over rounds, ratios.
//!
//! No means: one pause of the machine would move them.

use serde_json::{Value as Json, json};

/// Smallest, middle and largest value of the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of `values`; nothing when there are none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        Some(Self { min: *sorted.first()?, median: middle(&sorted), max: *sorted.last()? })
    }

    pub(crate) fn json(self) -> Json {
        json!({ "min": self.min, "median": self.median, "max": self.max })
    }
}

/// The value below or at which `percent` of the values are (nearest rank); 0 without values.
pub(crate) fn quantile(values: &[f64], percent: usize) -> f64 {
    let sorted = sorted(values);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Half of the values are below it; 0 without values.
pub(crate) fn median(values: &[f64]) -> f64 {
    Spread::of(values).map_or(0.0, |spread| spread.median)
}

/// `ours` by `theirs`, round by round: both were measured in the same minute.
pub(crate) fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    let pairs = ours.iter().zip(theirs);
    pairs.filter(|(_, theirs)| **theirs > 0.0).map(|(ours, theirs)| ours / theirs).collect()
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub(crate) fn real(count: u64) -> f64 {
    count as f64
}

/// A number of things as a number to calculate with.
pub(crate) fn count(things: usize) -> f64 {
    real(u64::try_from(things).unwrap_or(u64::MAX))
}

/// A span of nanoseconds in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "spans here are far below 2^52")]
pub(crate) fn milliseconds(nanoseconds: i64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The mean of the two middle values when their number is even.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exactly(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-12
    }

    #[test]
    fn a_spread_has_the_ends_and_the_middle() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]).unwrap();
        assert!(exactly(spread.min, 1.0) && exactly(spread.median, 2.0));
        assert!(exactly(spread.max, 3.0) && exactly(median(&[4.0, 1.0]), 2.5));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_quantile_is_a_value_of_the_sample() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert!(exactly(quantile(&values, 50), 500.0));
        assert!(exactly(quantile(&values, 99), 990.0));
        assert!(exactly(quantile(&values, 100), 1000.0));
        assert!(exactly(quantile(&[7.0], 1), 7.0) && exactly(quantile(&[], 50), 0.0));
    }

    #[test]
    fn ratios_pair_the_rounds_and_skip_what_cannot_be_divided() {
        let ratios = ratios(&[1.0, 4.0, 9.0], &[2.0, 0.0, 3.0]);
        assert_eq!(ratios.len(), 2);
        assert!(exactly(ratios[0], 0.5) && exactly(ratios[1], 3.0));
    }
}
