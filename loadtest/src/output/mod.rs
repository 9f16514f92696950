//! What is said at the end: statistics, tables, the report, charts.

mod chart;
mod figures;
mod report;
mod stats;
mod table;

pub(crate) use chart::{Bar, Panel, chart};
pub(crate) use figures::{Column, Figures, Metric, column_faults, columns_json, columns_table};
pub(crate) use report::{deliver, machine, print_noise};
pub(crate) use stats::{Spread, count, median, milliseconds, quantile, ratios, real};
pub(crate) use table::{Table, cell};
