//! The gateway's own counts, as it tells them to Prometheus.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value as Json;

use crate::client::Client;

/// Where a gateway tells its metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter(pub(super) SocketAddr);

/// All of them at one moment.
#[derive(Debug)]
pub(crate) struct Reading(String);

impl Meter {
    pub(crate) fn read(self) -> anyhow::Result<Reading> {
        let answer = Client::connect(self.0, String::new())?.send("GET", "/metrics", "", "")?;
        Ok(Reading(String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// What a relay tells of its links.
    pub(crate) fn relay_status(self) -> anyhow::Result<Json> {
        Client::connect(self.0, String::new())?.send("GET", "/relay/status", "", "")?.json()
    }
}

impl Reading {
    /// The sum of a count over everything that has `label`, as written: `listener="public"`; over all
    /// if that is empty.
    pub(crate) fn sum(&self, metric: &str, label: &str) -> u64 {
        let series = self.series(metric).filter(|(labels, _)| labels.contains(label));
        series.map(|(_, value)| value).sum()
    }

    /// How many streams have ended, by reason.
    pub(crate) fn stream_ends(&self) -> BTreeMap<String, u64> {
        let ends = self.series("flagcast_stream_ends_total").filter_map(|(labels, count)| {
            let reason = labels.strip_prefix("reason=\"")?.split('"').next()?;
            Some((reason.to_owned(), count))
        });
        ends.collect()
    }

    /// Labels and value of each line of a metric whose value is a whole number.
    fn series(&self, metric: &str) -> impl Iterator<Item = (&str, u64)> {
        let lines = self.0.lines().filter_map(move |line| line.strip_prefix(metric));
        lines.filter_map(|rest| {
            let (labels, value) = rest.rsplit_once(' ')?;
            let labels = match labels {
                "" => "",
                labels => labels.strip_prefix('{')?.strip_suffix('}')?,
            };
            Some((labels, value.parse().ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_name_and_label() {
        let reading = Reading(
            "# TYPE flagcast_stream_ends_total counter\n\
            flagcast_stream_ends_total{reason=\"client\"} 12\n\
            flagcast_stream_ends_total{reason=\"life\"} 3\n\
            flagcast_streams_open{dialect=\"a\",contract=\"cached\"} 4\n\
            flagcast_streams_open{dialect=\"b\",contract=\"cached\"} 2\n\
            flagcast_streams_open{dialect=\"b\",contract=\"direct\"} 1\nflagcast_pings_total 8\n"
                .to_owned(),
        );
        assert_eq!(reading.sum("flagcast_streams_open", "contract=\"cached\""), 6);
        assert_eq!(reading.sum("flagcast_pings_total", ""), 8);
        assert_eq!(reading.sum("flagcast_pings", ""), 0, "another metric's name begins so");
        let ends = reading.stream_ends();
        assert_eq!((ends.len(), ends["client"], ends["life"]), (2, 12, 3));
    }
}
