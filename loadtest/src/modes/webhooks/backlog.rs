//! Every endpoint is owed every change, and all are let go at once.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::Value as Json;

use super::{FLAGS, Figures, Metric, Plan, WAIT_MAX, quietly};
use crate::client::{Manner, Received, Receivers};
use crate::machine::{cpu_time, forget_peak, resident};
use crate::output::{count, milliseconds, quantile, real};
use crate::servers::{BareSender, Change, Endpoint, Environment, Gateway};

/// Of so many deliveries the signature of one is verified.
const VERIFY_EACH: usize = 10;

const MIB: f64 = 1024.0 * 1024.0;

pub(super) const METRICS: [Metric; 16] = [
    Metric::new("deliveries", "deliveries", 0),
    Metric::new("all_ms", "let go until all are confirmed, ms", 0).with_ratio(),
    Metric::new("per_second", "deliveries per second", 0).with_ratio(),
    Metric::new("cpu_s", "CPU of the sender, s", 2).with_ratio(),
    Metric::new("cpu_us", "CPU of the sender per delivery, µs", 0).with_ratio(),
    Metric::new("before_mib", "memory before (RSS), MiB", 1),
    Metric::new("peak_mib", "memory at its peak, MiB", 1),
    Metric::new("after_mib", "memory after, MiB", 1),
    Metric::new("store_mib", "store with its log after, MiB", 1),
    Metric::new("store_bytes", "growth of the store per delivery owed, bytes", 0),
    Metric::new("change_p50_ms", "a change meanwhile owed: request to answer, p50, ms", 2),
    Metric::new("change_p99_ms", "a change meanwhile owed: request to answer, p99, ms", 2),
    Metric::new("missed", "deliveries missed", 0).that_is_a_fault(),
    Metric::new("repeated", "deliveries repeated", 0).that_is_a_fault(),
    Metric::new("disordered", "older ones after newer ones", 0).that_is_a_fault(),
    Metric::new("forged", "signatures refused by an independent verifier", 0).that_is_a_fault(),
];

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Bare,
    Events,
    State,
}

impl Side {
    pub(super) const ALL: [Self; 3] = [Self::Bare, Self::Events, Self::State];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare sender",
            Self::Events => "events",
            Self::State => "state",
        }
    }
}

/// What every receiver should have got, in order.
struct Due<'a> {
    revisions: Vec<u64>,
    /// One for each receiver.
    secrets: Vec<&'a str>,
}

/// What came of one window: the sender's time and CPU.
struct Window {
    nanoseconds: u128,
    cpu: u64,
}

/// A body as the gateway sends it in events mode, for the bare sender.
pub(super) fn sample(plan: &Plan) -> anyhow::Result<String> {
    let one = Plan { endpoints: 1, changes: 1, ..plan.clone() };
    let receivers = Receivers::start(1, Manner::Answers)?;
    let mut owing = Owing::prepare(&one, Side::Events, &receivers)?;
    owing.resume()?;
    receivers.wait(1, WAIT_MAX)?;
    let received = receivers.take();
    let delivery = received.first().and_then(|log| log.first()).context("no delivery came")?;
    Ok(String::from_utf8(delivery.body.to_vec())?)
}

/// Measures one side. Tells whether the machine was quiet.
pub(super) fn measure(plan: &Plan, side: Side, sample: &str) -> anyhow::Result<(Figures, bool)> {
    let receivers = Receivers::start(plan.endpoints, Manner::Answers)?;
    match side {
        Side::Bare => bare(plan, &receivers, sample),
        Side::Events | Side::State => gateway(plan, side, &receivers),
    }
}

fn bare(plan: &Plan, receivers: &Receivers, body: &str) -> anyhow::Result<(Figures, bool)> {
    let mut sender = BareSender::start(&receivers.urls, body, plan.changes)?;
    let pid = sender.pid();
    let (before, _) = resident(pid)?;
    forget_peak(pid)?;
    let (window, quiet) = quietly(plan, pid, || window(pid, || sender.send()))?;
    let received = receivers.take();
    let deliveries: usize = received.iter().map(Vec::len).sum();
    let missed = (plan.changes * plan.endpoints).saturating_sub(deliveries);
    let forged = received.iter().map(|log| forged(log, BareSender::SECRET)).sum::<usize>();
    let mut figures = figures(&window, deliveries, (pid, before))?;
    figures.extend([("missed", count(missed)), ("forged", count(forged))]);
    Ok((figures, quiet))
}

fn gateway(plan: &Plan, side: Side, receivers: &Receivers) -> anyhow::Result<(Figures, bool)> {
    let mut owing = Owing::prepare(plan, side, receivers)?;
    let pid = owing.gateway.pid();
    let (before, _) = resident(pid)?;
    forget_peak(pid)?;
    let expected = match side {
        Side::State => plan.endpoints,
        _ => plan.endpoints * plan.changes,
    };
    let (window, quiet) = quietly(plan, pid, || {
        if side == Side::Events {
            // Not earlier: what is held runs into the time-out of an attempt.
            receivers.hold(true);
            owing.resume()?;
        }
        window(pid, || {
            if side == Side::State {
                owing.resume()?;
            }
            receivers.hold(false);
            receivers.wait(expected, WAIT_MAX)?;
            owing.wait_confirmed()
        })
    })?;
    let received = receivers.take();
    let mut figures = figures(&window, received.iter().map(Vec::len).sum(), (pid, before))?;
    let answers = owing.changes.iter().map(|change| milliseconds(change.answered - change.sent));
    let answers: Vec<f64> = answers.collect();
    let store = owing.gateway.store_bytes()?;
    figures.extend([
        ("store_mib", real(store) / MIB),
        ("change_p50_ms", quantile(&answers, 50)),
        ("change_p99_ms", quantile(&answers, 99)),
    ]);
    if side == Side::Events {
        // In state mode it grows by the changes, not by the few deliveries.
        let growth = real(store.saturating_sub(owing.store_before));
        figures.insert("store_bytes", growth / count(expected));
    }
    let mut revisions: Vec<u64> = owing.changes.iter().map(|change| change.revision).collect();
    if side == Side::State {
        revisions = revisions.split_off(revisions.len() - 1);
    }
    let secrets = owing.endpoints.iter().map(|endpoint| endpoint.secret.as_str()).collect();
    figures.extend(faults(&received, &Due { revisions, secrets })?);
    Ok((figures, quiet))
}

/// A gateway with paused endpoints that are owed the changes.
struct Owing {
    gateway: Gateway,
    environment: Environment,
    endpoints: Vec<Endpoint>,
    changes: Vec<Change>,
    /// Before the changes, in bytes.
    store_before: u64,
}

impl Owing {
    fn prepare(plan: &Plan, side: Side, receivers: &Receivers) -> anyhow::Result<Self> {
        let mut gateway = Gateway::start(&plan.setup)?;
        let environment = gateway.environment("webhooks", FLAGS)?;
        let mode = if side == Side::State { "state" } else { "events" };
        let mut endpoints = Vec::new();
        for url in &receivers.urls {
            let endpoint = gateway.add_endpoint(&environment, url, mode)?;
            gateway.pause(&endpoint, true)?;
            endpoints.push(endpoint);
        }
        let store_before = gateway.store_bytes()?;
        let mut changes = Vec::new();
        for number in 0..plan.changes {
            // The first is one that changes something: the flag is on.
            changes.push(gateway.flip(&environment, number % 2 == 1)?);
        }
        let pending = gateway.pending(&environment)?;
        let each = if side == Side::State { 1 } else { plan.changes };
        let expected = u64::try_from(plan.endpoints * each)?;
        ensure!(pending == expected, "{pending} deliveries wait, not {expected}");
        Ok(Self { gateway, environment, endpoints, changes, store_before })
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        let Self { gateway, endpoints, .. } = self;
        endpoints.iter().try_for_each(|endpoint| gateway.pause(endpoint, false))
    }

    /// Waits until the store knows that nothing waits.
    fn wait_confirmed(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let pending = self.gateway.pending(&self.environment)?;
            if pending == 0 {
                return Ok(());
            }
            ensure!(began.elapsed() < WAIT_MAX, "{pending} deliveries were not confirmed");
        }
    }
}

fn window(pid: u32, send: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Window> {
    let (before, began) = (cpu_time(&[pid])?, Instant::now());
    send()?;
    let nanoseconds = began.elapsed().as_nanos();
    Ok(Window { nanoseconds, cpu: cpu_time(&[pid])?.saturating_sub(before) })
}

fn figures(
    window: &Window,
    deliveries: usize,
    (pid, before): (u32, u64),
) -> anyhow::Result<Figures> {
    let (after, peak) = resident(pid)?;
    let all_ms = milliseconds(i64::try_from(window.nanoseconds)?);
    let cpu_us = real(window.cpu) / 1000.0;
    Ok(Figures::from([
        ("deliveries", count(deliveries)),
        ("all_ms", all_ms),
        ("per_second", count(deliveries) / (all_ms / 1000.0)),
        ("cpu_s", cpu_us / 1e6),
        ("cpu_us", cpu_us / count(deliveries.max(1))),
        ("before_mib", real(before) / MIB),
        ("peak_mib", real(peak) / MIB),
        ("after_mib", real(after) / MIB),
    ]))
}

/// What should not be: counted over all receivers.
fn faults(received: &[Vec<Received>], due: &Due<'_>) -> anyhow::Result<Figures> {
    let (mut missed, mut repeated, mut disordered, mut forgeries) = (0, 0, 0, 0);
    for (log, secret) in received.iter().zip(&due.secrets) {
        let revisions = log.iter().map(|received| {
            let body: Json = serde_json::from_slice(&received.body)?;
            body["data"]["revision"].as_u64().context("a delivery has no revision")
        });
        let revisions: Vec<u64> = revisions.collect::<anyhow::Result<_>>()?;
        let seen = compare(&revisions, &due.revisions);
        missed += seen.0;
        repeated += seen.1;
        disordered += seen.2;
        forgeries += forged(log, secret);
    }
    Ok(Figures::from([
        ("missed", count(missed)),
        ("repeated", count(repeated)),
        ("disordered", count(disordered)),
        ("forged", count(forgeries)),
    ]))
}

/// How many of `due` are not in `seen`, how many came more than once or were not due, and how often an
/// older one came after a newer one.
fn compare(seen: &[u64], due: &[u64]) -> (usize, usize, usize) {
    let missed = due.iter().filter(|revision| !seen.contains(revision)).count();
    let repeated = seen.len().saturating_sub(due.len() - missed);
    let disordered = seen.windows(2).filter(|pair| pair[0] > pair[1]).count();
    (missed, repeated, disordered)
}

/// Deliveries of a sample whose signature does not hold.
fn forged(log: &[Received], secret: &str) -> usize {
    let Ok(verifier) = standardwebhooks::Webhook::new(secret) else { return log.len() };
    let sample = log.iter().step_by(VERIFY_EACH);
    sample.filter(|one| verifier.verify(&one.body, &one.headers).is_err()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_held_against_what_was_due() {
        assert_eq!(compare(&[3, 4, 5], &[3, 4, 5]), (0, 0, 0));
        assert_eq!(compare(&[3, 5], &[3, 4, 5]), (1, 0, 0));
        assert_eq!(compare(&[3, 4, 4, 5], &[3, 4, 5]), (0, 1, 0));
        assert_eq!(compare(&[3, 5, 4], &[3, 4, 5]), (0, 0, 1));
        assert_eq!(compare(&[4, 5], &[5]), (0, 1, 0));
    }
}
