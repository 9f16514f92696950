//! Changes: one at a time, and as many as possible, until every listener at every node has the newest.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};

use super::Plan;
use super::fleet::Fleet;
use crate::client::Streams;
use crate::modes::bench::PING_MAX;
use crate::output::{Figures, Metric, count, milliseconds, quantile, real};
use crate::servers::{Change, Writer};

/// Changes before those that count.
const WARM_UP: usize = 5;

pub(super) const REST: [Metric; 8] = [
    Metric::new("change_p50_ms", "change: request to answer, p50, ms", 2).with_ratio(),
    Metric::new("change_p99_ms", "change: request to answer, p99, ms", 2).with_ratio(),
    Metric::new("same_p50_ms", "commit to ping, same node, p50, ms", 2).with_ratio(),
    Metric::new("same_p99_ms", "commit to ping, same node, p99, ms", 2).with_ratio(),
    Metric::new("other_p50_ms", "commit to ping, another node, p50, ms", 2),
    Metric::new("other_p99_ms", "commit to ping, another node, p99, ms", 2),
    Metric::new("after_p50_ms", "another node's ping after our own, p50, ms", 2),
    Metric::new("missed", "listeners that a change did not reach", 0).that_is_a_fault(),
];

pub(super) const LOAD: [Metric; 8] = [
    Metric::new("together", "one project: changes per second", 0).with_ratio(),
    Metric::new("together_p99_ms", "one project: request to answer, p99, ms", 1),
    Metric::new("apart", "a project each: changes per second", 0).with_ratio(),
    Metric::new("apart_p99_ms", "a project each: request to answer, p99, ms", 1),
    Metric::new("statements", "a project each: statements per change", 1),
    Metric::new("database_ms", "a project each: CPU of PostgreSQL per change, ms", 2),
    Metric::new("last_ms", "last answer to last listener, at any node, ms", 1),
    Metric::new("missed", "listeners without the newest revision", 0).that_is_a_fault(),
];

/// Where a change has arrived.
#[derive(Debug, Default)]
struct Times {
    answered: Vec<f64>,
    same: Vec<f64>,
    other: Vec<f64>,
    after: Vec<f64>,
    missed: usize,
}

/// One change after the other, made at another node each time.
pub(super) fn at_rest(plan: &Plan, fleet: &mut Fleet) -> anyhow::Result<Figures> {
    let mut times = Times::default();
    for number in 0..WARM_UP + plan.changes {
        sleep(plan.pause);
        let node = number % fleet.nodes.len();
        let change = fleet.together[node].flip()?;
        let mut arrivals = Vec::with_capacity(fleet.nodes.len());
        let mut missed = 0;
        for streams in &mut fleet.streams {
            let told = streams.wait(0, change.revision, PING_MAX)?;
            missed += told.missed;
            arrivals.push(told.kernel.first().copied());
        }
        times.missed += missed;
        if number < WARM_UP || missed > 0 {
            continue;
        }
        let ping = fleet.nodes[node].newest_ping(&fleet.environments[0])?;
        let committed: jiff::Timestamp =
            ping["committed_at"].as_str().context("no committed_at")?.parse()?;
        times.note(change, committed.as_microsecond() * 1000, node, &arrivals);
    }
    Ok(times.figures())
}

impl Times {
    fn note(&mut self, change: Change, committed: i64, node: usize, arrivals: &[Option<i64>]) {
        self.answered.push(milliseconds(change.answered - change.sent));
        let own = arrivals[node];
        for (index, at) in arrivals.iter().enumerate() {
            let Some(at) = at else { continue };
            let since = milliseconds(at - committed);
            if index == node {
                self.same.push(since);
            } else {
                self.other.push(since);
                self.after.extend(own.map(|own| milliseconds(at - own)));
            }
        }
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::from([
            ("change_p50_ms", quantile(&self.answered, 50)),
            ("change_p99_ms", quantile(&self.answered, 99)),
            ("same_p50_ms", quantile(&self.same, 50)),
            ("same_p99_ms", quantile(&self.same, 99)),
            ("missed", count(self.missed)),
        ]);
        if !self.other.is_empty() {
            figures.insert("other_p50_ms", quantile(&self.other, 50));
            figures.insert("other_p99_ms", quantile(&self.other, 99));
            figures.insert("after_p50_ms", quantile(&self.after, 50));
        }
        figures
    }
}

/// What a crowd of writers did.
struct Crowd {
    per_second: f64,
    p99_ms: f64,
    changes: usize,
    last_ms: f64,
    missed: usize,
}

/// As many changes as `writers` can make, in one project and then each in their own.
pub(super) fn under_load(
    fleet: &mut Fleet,
    writers: usize,
    length: Duration,
) -> anyhow::Result<Figures> {
    let Fleet { together, streams, .. } = fleet;
    let one = crowd(&mut together[..writers], streams, |_| 0, length)?;
    let before = fleet.used()?;
    let Fleet { apart, streams, .. } = fleet;
    let many = crowd(&mut apart[..writers], streams, |writer| writer + 1, length)?;
    let used = fleet.used()?.since(before);
    let mut figures = Figures::from([
        ("together", one.per_second),
        ("together_p99_ms", one.p99_ms),
        ("apart", many.per_second),
        ("apart_p99_ms", many.p99_ms),
        ("last_ms", one.last_ms.max(many.last_ms)),
        ("missed", count(one.missed + many.missed)),
    ]);
    if let Some(statements) = used.statements {
        figures.insert("statements", real(statements) / count(many.changes));
    }
    if used.database > 0 {
        figures.insert("database_ms", real(used.database) / 1e6 / count(many.changes));
    }
    Ok(figures)
}

/// Lets the writers write, then looks whether every listener of their environments has the newest.
fn crowd(
    writers: &mut [Writer],
    streams: &mut [Streams],
    channel: impl Fn(usize) -> usize,
    length: Duration,
) -> anyhow::Result<Crowd> {
    let began = Instant::now();
    let made = std::thread::scope(|threads| {
        let threads: Vec<_> = writers
            .iter_mut()
            .map(|writer| threads.spawn(move || write(writer, began + length)))
            .collect();
        let ends = threads.into_iter().map(|thread| {
            thread.join().map_err(|_| anyhow!("a thread that makes changes panicked"))?
        });
        ends.collect::<anyhow::Result<Vec<Vec<Change>>>>()
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let answers = made.iter().flatten().map(|change| milliseconds(change.answered - change.sent));
    let answers: Vec<f64> = answers.collect();
    let last_answer = made.iter().flatten().map(|change| change.answered).max().unwrap_or(0);
    let (mut last_ping, mut missed) = (last_answer, 0);
    for (channel, revision) in newest(&made, channel) {
        for streams in &mut *streams {
            let told = streams.wait(channel, revision, PING_MAX)?;
            missed += told.missed;
            last_ping = told.kernel.into_iter().fold(last_ping, i64::max);
        }
    }
    Ok(Crowd {
        per_second: count(answers.len()) / seconds,
        p99_ms: quantile(&answers, 99),
        changes: answers.len(),
        last_ms: milliseconds(last_ping - last_answer),
        missed,
    })
}

fn write(writer: &mut Writer, until: Instant) -> anyhow::Result<Vec<Change>> {
    let mut changes = Vec::new();
    while Instant::now() < until {
        changes.push(writer.flip()?);
    }
    Ok(changes)
}

/// The newest revision of each channel that somebody wrote to.
fn newest(
    made: &[Vec<Change>],
    channel: impl Fn(usize) -> usize,
) -> std::collections::BTreeMap<usize, u64> {
    let mut newest = std::collections::BTreeMap::new();
    for (writer, changes) in made.iter().enumerate() {
        for change in changes {
            let known = newest.entry(channel(writer)).or_insert(0);
            *known = change.revision.max(*known);
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64) -> Change {
        Change { revision, sent: 1_000_000, answered: 4_000_000 }
    }

    #[test]
    fn the_newest_of_each_channel_counts() {
        let made = [vec![change(3), change(9)], vec![change(7)], Vec::new()];
        assert_eq!(newest(&made, |_| 0).into_iter().collect::<Vec<_>>(), [(0, 9)]);
        let apart = newest(&made, |writer| writer + 1);
        assert_eq!(apart.into_iter().collect::<Vec<_>>(), [(1, 9), (2, 7)]);
    }

    #[test]
    fn the_writers_node_is_told_apart_from_the_others() {
        let mut times = Times::default();
        times.note(change(2), 2_000_000, 1, &[Some(5_000_000), Some(3_000_000), None]);
        let figures = times.figures();
        for (key, ms) in [
            ("change_p50_ms", 3.0),
            ("same_p50_ms", 1.0),
            ("other_p50_ms", 3.0),
            ("after_p50_ms", 2.0),
        ] {
            assert!((figures[key] - ms).abs() < 1e-9, "{key}: {}", figures[key]);
        }
    }
}
