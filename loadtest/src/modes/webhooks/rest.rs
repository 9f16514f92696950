//! One change at a time: what it costs with no endpoint, with one and with all, and when the receivers
//! have the new flags.

use std::thread::sleep;

use super::{Column, FLAGS, Figures, Metric, Plan, WAIT_MAX, quietly};
use crate::client::{Manner, Received, Receivers};
use crate::machine::cpu_time;
use crate::output::{count, median, milliseconds, quantile, real};
use crate::servers::{Change, Environment, Gateway};

/// Changes before those that count.
const WARM_UP: usize = 3;

pub(super) const METRICS: [Metric; 11] = [
    Metric::new("change_p50_ms", "change: request to answer, p50, ms", 2).with_ratio(),
    Metric::new("change_p99_ms", "change: request to answer, p99, ms", 2).with_ratio(),
    Metric::new("sent_p50_ms", "request to flags at the receiver, p50, ms", 2),
    Metric::new("sent_p99_ms", "request to flags at the receiver, p99, ms", 2),
    Metric::new("answered_p50_ms", "answer to flags at the receiver, p50, ms", 2),
    Metric::new("answered_p99_ms", "answer to flags at the receiver, p99, ms", 2),
    Metric::new("last_ms", "request to flags at the last receiver, median change, ms", 2),
    Metric::new("cpu_ms", "CPU of the gateway per change, reads included, ms", 2).with_ratio(),
    Metric::new("cpu_us", "… more than without endpoints, per delivery, µs", 0),
    Metric::new("deliveries", "deliveries per change", 2),
    Metric::new("missed", "changes that a receiver has not applied", 0).that_is_a_fault(),
];

/// One for each number of endpoints.
pub(super) fn columns(plan: &Plan) -> Vec<Column> {
    let name = |count: &usize| match count {
        0 => Column::new("no endpoint"),
        1 => Column::new("1 endpoint"),
        count => Column::new(&format!("{count} endpoints")),
    };
    counts(plan).iter().map(name).collect()
}

fn counts(plan: &Plan) -> Vec<usize> {
    if plan.endpoints > 1 { vec![0, 1, plan.endpoints] } else { vec![0, 1] }
}

/// Measures with each number of endpoints, on one gateway. Tells whether the machine was quiet.
pub(super) fn measure(plan: &Plan) -> anyhow::Result<(Vec<Figures>, bool)> {
    let receivers = Receivers::start(plan.endpoints, Manner::Applies)?;
    let mut gateway = Gateway::start(&plan.setup)?;
    let environment = gateway.environment("webhooks", FLAGS)?;
    let mut quiet = true;
    let mut all: Vec<Figures> = Vec::new();
    let mut rest =
        Rest { plan, receivers: &receivers, endpoints: 0, environment: &environment, on: true };
    for endpoints in counts(plan) {
        for url in &receivers.urls[rest.endpoints..endpoints] {
            gateway.add_endpoint(&environment, url, "state")?;
        }
        rest.endpoints = endpoints;
        rest.changes(&mut gateway, WARM_UP)?;
        let pid = gateway.pid();
        let (figures, was_quiet) = quietly(plan, pid, || rest.measure(&mut gateway))?;
        quiet &= was_quiet;
        all.push(figures);
    }
    let alone = all.first().and_then(|figures| figures.get("cpu_ms")).copied().unwrap_or(0.0);
    for figures in &mut all {
        let (cpu, deliveries) = (figures["cpu_ms"], figures["deliveries"]);
        if deliveries > 0.0 {
            figures.insert("cpu_us", (cpu - alone) * 1000.0 / deliveries);
        }
    }
    Ok((all, quiet))
}

struct Rest<'a> {
    plan: &'a Plan,
    receivers: &'a Receivers,
    endpoints: usize,
    environment: &'a Environment,
    /// Whether the flag that is flipped is on; new ones are.
    on: bool,
}

impl Rest<'_> {
    fn measure(&mut self, gateway: &mut Gateway) -> anyhow::Result<Figures> {
        let pids = [gateway.pid()];
        self.receivers.take();
        let before = cpu_time(&pids)?;
        let changes = self.changes(gateway, self.plan.rest_changes)?;
        let cpu = real(cpu_time(&pids)?.saturating_sub(before)) / 1e6;
        let received = self.receivers.take();
        let received = &received[..self.endpoints];
        let answers = changes.iter().map(|change| milliseconds(change.answered - change.sent));
        let answers: Vec<f64> = answers.collect();
        let deliveries = received.iter().map(Vec::len).sum();
        let mut figures = Figures::from([
            ("change_p50_ms", quantile(&answers, 50)),
            ("change_p99_ms", quantile(&answers, 99)),
            ("cpu_ms", cpu / count(changes.len())),
            ("deliveries", count(deliveries) / count(changes.len())),
        ]);
        if self.endpoints > 0 {
            figures.extend(times(&changes, received));
        }
        Ok(figures)
    }

    /// Makes changes, each when everybody has applied the one before.
    fn changes(&mut self, gateway: &mut Gateway, count: usize) -> anyhow::Result<Vec<Change>> {
        let mut changes: Vec<Change> = Vec::with_capacity(count);
        for _ in 0..count {
            sleep(self.plan.pause);
            self.on = !self.on;
            let change = gateway.flip(self.environment, self.on)?;
            self.receivers.wait_applied(self.endpoints, change.revision, WAIT_MAX)?;
            changes.push(change);
        }
        Ok(changes)
    }
}

/// From each change to the new flags at each receiver.
fn times(changes: &[Change], received: &[Vec<Received>]) -> Figures {
    let (mut sent, mut answered, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
    let mut missed = 0;
    for change in changes {
        let mut last = 0.0_f64;
        for log in received {
            let applied = log.iter().filter_map(|received| received.applied);
            // A receiver may have read something newer than it was told of.
            let at = applied.filter(|(revision, _)| *revision >= change.revision).map(|(_, at)| at);
            let Some(at) = at.min() else {
                missed += 1;
                continue;
            };
            let since_sent = milliseconds(at - change.sent);
            last = last.max(since_sent);
            sent.push(since_sent);
            answered.push(milliseconds(at - change.answered));
        }
        lasts.push(last);
    }
    Figures::from([
        ("sent_p50_ms", quantile(&sent, 50)),
        ("sent_p99_ms", quantile(&sent, 99)),
        ("answered_p50_ms", quantile(&answered, 50)),
        ("answered_p99_ms", quantile(&answered, 99)),
        ("last_ms", median(&lasts)),
        ("missed", count(missed)),
    ])
}
