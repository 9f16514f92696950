//! `compare`: the gateway beside its peers in one run, in turn in each round.
//!
//! Pings are measured as `fanout` does, and reads as `reads` does, so that nothing is measured in
//! two ways. A peer that is not installed is left out, and its package is named.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::{Value as Json, json};

use super::{fanout, reads};
use crate::output::{Bar, Column, Panel, chart, median};
use crate::servers::Kind;

/// What the picture shows: key, title, decimals.
const PANELS: [(&str, &str, usize); 3] = [
    ("last_ms", "From a change to the last client, ms", 1),
    ("bytes", "Memory of the server per stream, bytes", 0),
    ("cpu_us", "CPU of the server per delivery, µs", 1),
];

/// What to compare.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// With every peer; those that are not there are left out.
    pub(crate) pings: fanout::Plan,
    /// Reads beside nginx, if they are wanted.
    pub(crate) reads: Option<reads::Plan>,
    /// Where to draw the picture.
    pub(crate) svg: Option<PathBuf>,
}

/// Runs the plan, prints the tables and returns the report.
pub(crate) fn run(mut plan: Plan) -> anyhow::Result<Json> {
    plan.pings.kinds.retain(|kind| {
        let missing = kind.missing();
        if let Some(install) = missing {
            eprintln!("{} is not installed ({install}); comparing without it", kind.name());
        }
        missing.is_none()
    });
    let measured = fanout::run(&plan.pings)?;
    if let Some(file) = &plan.svg {
        let title = format!("A ping to {} streams", plan.pings.streams);
        let svg = chart(&title, &panels(&measured.columns));
        std::fs::write(file, svg).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let reads = plan.reads.as_ref().map(reads::run).transpose()?;
    let faults = measured.report["faults"].clone();
    Ok(json!({
        "measurement": "compare", "pings": measured.report, "reads": reads, "faults": faults,
    }))
}

fn panels(columns: &[Column]) -> Vec<Panel> {
    let panel = |(key, title, decimals): (&str, &str, usize)| Panel {
        title: title.to_owned(),
        bars: columns.iter().map(|column| bar(column, key)).collect(),
        decimals,
    };
    PANELS.into_iter().map(panel).collect()
}

fn bar(column: &Column, key: &str) -> Bar {
    let is_ours = column.name == Kind::GATEWAY;
    Bar { name: column.name.clone(), value: median(&column.values(key)), is_ours }
}
