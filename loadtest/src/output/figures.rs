//! Figures of several things that were measured in turn: a column for each, a row for each metric,
//! medians over the rounds, and ratios to the first column.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::stats::{Spread, quantile, ratios};
use super::table::{Table, cell};

/// What one round of one thing gave, by the keys of metrics.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// A row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    pub(crate) key: &'static str,
    pub(crate) words: &'static str,
    pub(crate) decimals: usize,
    /// Whether dividing it by the first column's says something.
    pub(crate) has_ratio: bool,
    /// Whether anything but zero is a fault.
    pub(crate) is_fault: bool,
}

/// A thing that was measured in some rounds.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) rounds: Vec<Figures>,
}

impl Metric {
    pub(crate) const fn new(key: &'static str, words: &'static str, decimals: usize) -> Self {
        Self { key, words, decimals, has_ratio: false, is_fault: false }
    }

    /// The same, shown also as a multiple of the first column's.
    pub(crate) const fn with_ratio(self) -> Self {
        Self { has_ratio: true, ..self }
    }

    /// The same, which must be zero.
    pub(crate) const fn that_is_a_fault(self) -> Self {
        Self { is_fault: true, ..self }
    }
}

impl Column {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), rounds: Vec::new() }
    }

    /// The values of a metric in all rounds that have it.
    pub(crate) fn values(&self, key: &str) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| round.get(key).copied()).collect()
    }
}

/// Rows that no column has a value for are left out.
pub(crate) fn columns_table(metrics: &[Metric], columns: &[Column]) -> Table {
    let has_ratios = metrics.iter().any(|metric| metric.has_ratio);
    let mut head = vec!["median (min–max) over rounds".to_owned()];
    for (index, column) in columns.iter().enumerate() {
        head.push(column.name.clone());
        if has_ratios && index > 0 {
            head.push(format!("{} ÷ {}", column.name, columns[0].name));
        }
    }
    let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
    for metric in metrics {
        if columns.iter().all(|column| column.values(metric.key).is_empty()) {
            continue;
        }
        let mut row = vec![metric.words.to_owned()];
        for (index, column) in columns.iter().enumerate() {
            row.push(cell(&column.values(metric.key), metric.decimals));
            if has_ratios && index > 0 {
                row.push(cell(&to_first(metric, column, columns), 2));
            }
        }
        table.row(row);
    }
    table
}

/// What is not zero in a column although it must be.
pub(crate) fn column_faults(metrics: &[Metric], column: &Column) -> Vec<String> {
    let must_be_zero = metrics.iter().filter(|metric| metric.is_fault);
    let worst = must_be_zero.map(|metric| (metric, quantile(&column.values(metric.key), 100)));
    let faults = worst.filter(|(_, worst)| *worst > 0.0);
    faults.map(|(metric, worst)| format!("{}: {}: {worst}", column.name, metric.words)).collect()
}

/// Every round of every column, with spreads and ratios.
pub(crate) fn columns_json(metrics: &[Metric], columns: &[Column]) -> Json {
    let mut shown = Map::new();
    for column in columns {
        let mut figures = Map::new();
        for metric in metrics {
            let values = column.values(metric.key);
            let Some(spread) = Spread::of(&values) else { continue };
            let ratio = Spread::of(&to_first(metric, column, columns)).map(Spread::json);
            let figure = json!({
                "words": metric.words, "spread": spread.json(), "rounds": values, "to_first": ratio,
            });
            figures.insert(metric.key.to_owned(), figure);
        }
        shown.insert(column.name.clone(), Json::Object(figures));
    }
    Json::Object(shown)
}

fn to_first(metric: &Metric, column: &Column, columns: &[Column]) -> Vec<f64> {
    if metric.has_ratio {
        ratios(&column.values(metric.key), &columns[0].values(metric.key))
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> [Column; 2] {
        let column = |name: &str, values: [f64; 2]| Column {
            name: name.to_owned(),
            rounds: values.iter().map(|value| Figures::from([("ms", *value)])).collect(),
        };
        [column("bare", [2.0, 4.0]), column("ours", [3.0, 4.0])]
    }

    const METRICS: [Metric; 2] =
        [Metric::new("ms", "last, ms", 1).with_ratio(), Metric::new("none", "nobody has it", 0)];

    #[test]
    fn a_column_is_compared_with_the_first_round_by_round() {
        let expected = "\
            | median (min–max) over rounds |          bare |          ours |      ours ÷ bare |\n\
            |------------------------------|--------------:|--------------:|-----------------:|\n\
            | last, ms                     | 3.0 (2.0–4.0) | 3.5 (3.0–4.0) | 1.25 (1.00–1.50) |\n";
        assert_eq!(columns_table(&METRICS, &columns()).to_string(), expected);
    }

    #[test]
    fn a_fault_of_any_round_is_told() {
        let metrics = [Metric::new("ms", "missed", 0).that_is_a_fault(), METRICS[1]];
        assert_eq!(column_faults(&metrics, &columns()[0]), ["bare: missed: 4"]);
        assert!(column_faults(&METRICS, &columns()[0]).is_empty());
    }

    #[test]
    fn json_has_every_round() {
        let json = columns_json(&METRICS, &columns());
        assert_eq!(json["ours"]["ms"]["rounds"], json!([3.0, 4.0]));
        assert_eq!(json["ours"]["ms"]["to_first"]["median"], json!(1.25));
        assert_eq!(json["ours"].get("none"), None);
    }
}
