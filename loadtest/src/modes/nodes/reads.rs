//! Reads: what it costs to ask the database whether what a node holds is the newest.

use anyhow::Context as _;

use super::Side;
use super::fleet::Fleet;
use crate::client::{Load, Rate};
use crate::output::{Figures, Metric, real};

/// Seconds of load before the measurement.
const WARM_UP: u64 = 1;

pub(super) const METRICS: [Metric; 6] = [
    Metric::new("per_second", "reads per second", 0).with_ratio(),
    Metric::new("p50_ms", "a read, p50, ms", 3).with_ratio(),
    Metric::new("p99_ms", "a read, p99, ms", 3).with_ratio(),
    Metric::new("cpu_us", "CPU of the node per read, µs", 1).with_ratio(),
    Metric::new("database_us", "CPU of PostgreSQL per read, µs", 1),
    Metric::new("statements", "statements per second", 0),
];

/// How flags are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Sqlite,
    /// With `?rev=N`: the node knows that it holds it.
    Pinned,
    /// Without: the database is asked.
    Checked,
}

impl Reading {
    pub(super) const ALL: [Self; 3] = [Self::Sqlite, Self::Pinned, Self::Checked];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Pinned => "PostgreSQL, ?rev",
            Self::Checked => "PostgreSQL",
        }
    }

    /// Where it is measured.
    pub(super) fn side(self) -> Side {
        match self {
            Self::Sqlite => Side::Sqlite,
            Self::Pinned | Self::Checked => Side::One,
        }
    }
}

/// Reads the flags of everybody's environment at the first node.
pub(super) fn measure(
    fleet: &mut Fleet,
    reading: Reading,
    readers: usize,
    seconds: u64,
) -> anyhow::Result<Figures> {
    let node = &mut fleet.nodes[0];
    let path = fleet.environments[0].flags();
    let mut url = format!("http://{}{path}", node.public);
    if reading == Reading::Pinned {
        let revision = node.admin.send("GET", &path, "", "")?.json()?["revision"].take();
        url = format!("{url}?rev={}", revision.as_u64().context("no revision")?);
    }
    let mut load =
        Load { url: &url, headers: &[], connections: readers, seconds: WARM_UP, script: None };
    load.run()?;
    load.seconds = seconds;
    let before = fleet.used()?;
    let Rate { per_second, requests, p50_ms, p99_ms } = load.run()?;
    let used = fleet.used()?.since(before);
    let requests = real(requests.max(1));
    let mut figures = Figures::from([
        ("per_second", per_second),
        ("p50_ms", p50_ms),
        ("p99_ms", p99_ms),
        ("cpu_us", real(used.nodes) / 1000.0 / requests),
    ]);
    if reading == Reading::Checked {
        figures.insert("database_us", real(used.database) / 1000.0 / requests);
    }
    if let Some(statements) = used.statements {
        figures.insert("statements", real(statements) * per_second / requests);
    }
    Ok(figures)
}
