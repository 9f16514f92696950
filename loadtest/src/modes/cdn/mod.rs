//! `cdn`: many clients behind Varnish with the shipped rules, beside the same clients without it.
//!
//! A round goes through the ways in turn: the gateway alone, one cache, two edges and a shield. Each starts
//! afresh. Clients follow the flags as real ones do; flags are flipped at a pace, across at least one planned
//! end of the streams that a cache shares; then the gateway is killed and started again. A time is from
//! the commit of a change until a client had read the new flags to their last byte.

mod figures;

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value as Json, json};

use self::figures::{METRICS, print, summarize, time_figures};
use super::bench::SETTLE;
use super::fanout::check_descriptors;
use super::refetch::flags_path;
use super::times::known;
use crate::client::{Followed, Followers, Progress, Stamping, attend};
use crate::machine::{Watch, cpu_time, memory, now, wait_until_quiet};
use crate::output::{
    Column, Figures, column_faults, columns_json, count, machine, milliseconds, quantile, real,
};
use crate::servers::{Caches, Daemon, Flips, Meter, Reading, Setup, Subject as _, Way};

/// How long everybody may take to have the newest flags.
const REACH_MAX: Duration = Duration::from_secs(30);

/// How often the gateway is asked what is open.
const LOOK: Duration = Duration::from_millis(250);

/// Changes before those that count.
const WARM_UP: usize = 3;

/// The connections of this program to the gateway that are no client's: for its management.
const OUR_CONNECTIONS: u64 = 1;

/// The gateway's counts of what reaches it.
const READS: (&str, &str) = (
    "flagcast_http_request_duration_seconds_count",
    "route=\"/sdk/v1/environments/{client_key}/flags\"",
);
const STREAMS_OPENED: (&str, &str) = ("flagcast_streams_opened_total", "");
const CONNECTS: (&str, &str) = ("flagcast_connections_total", "listener=\"public\"");

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Numbers of clients, one table for each.
    pub(crate) clients: Vec<usize>,
    pub(crate) ways: Vec<Way>,
    pub(crate) changes: usize,
    pub(crate) pause: Duration,
    pub(crate) rounds: usize,
    pub(crate) quiet: Duration,
    pub(crate) setup: Setup,
    pub(crate) varnish: Daemon,
    pub(crate) nginx: PathBuf,
}

/// Runs the plan, prints the tables and returns the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Json> {
    for clients in &plan.clients {
        // A stream and a kept connection each.
        check_descriptors(2 * clients)?;
    }
    let _stamping = Stamping::keep_on()?;
    let (mut steps, mut shown, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for clients in &plan.clients {
        let (columns, noisy) = step(plan, *clients)?;
        print(plan, *clients, &columns, noisy);
        faults.extend(columns.iter().flat_map(|column| column_faults(&METRICS, column)));
        let ways = columns_json(&METRICS, &columns);
        steps.push(json!({ "clients": clients, "noisy": noisy, "ways": ways }));
        shown.push((*clients, columns));
    }
    summarize(&shown);
    Ok(json!({
        "measurement": "cdn",
        "machine": machine(&plan.nginx),
        "changes": plan.changes, "pause_ms": plan.pause.as_millis(), "rounds": plan.rounds,
        "settings": plan.setup.json(), "varnish": plan.varnish.version(), "varnish_parameters": plan.varnish.parameters,
        "steps": steps, "faults": faults,
    }))
}

/// All rounds with so many clients. Also tells how many measurements others disturbed.
fn step(plan: &Plan, clients: usize) -> anyhow::Result<(Vec<Column>, usize)> {
    let mut columns: Vec<Column> = plan.ways.iter().map(|way| Column::new(way.name())).collect();
    let mut noisy = 0;
    for round in 0..plan.rounds {
        for turn in 0..plan.ways.len() {
            let index = (round + turn) % plan.ways.len();
            let way = plan.ways[index];
            eprintln!("{clients} clients, round {} of {}: {}", round + 1, plan.rounds, way.name());
            let (figures, quiet) = measure(plan, way, clients)?;
            noisy += usize::from(!quiet);
            columns[index].rounds.push(figures);
        }
    }
    Ok((columns, noisy))
}

/// Gateway, caches and clients of one measurement.
struct Site {
    flips: Flips,
    caches: Caches,
    groups: Vec<Followers>,
    clients: usize,
}

/// What the servers have used so far.
struct Usage {
    gateway_cpu: u64,
    cache_cpu: u64,
    reading: Reading,
}

/// What was changed, and what was seen at the gateway meanwhile.
#[derive(Default)]
struct Changed {
    /// Revisions and the instants of their commits.
    commits: Vec<(u64, i64)>,
    connections: u64,
    streams: u64,
}

/// One way, one round. Also tells whether the machine was quiet.
fn measure(plan: &Plan, way: Way, clients: usize) -> anyhow::Result<(Figures, bool)> {
    let flips = Flips::start(&plan.setup, 1)?;
    let caches = Caches::start(&plan.varnish, way, flips.gateway.public, clients)?;
    let mut site = Site { flips, caches, groups: Vec::new(), clients };
    let cache_memory = memory(&site.caches.pids())?;
    // Before the clients come: nobody would serve them meanwhile.
    let quiet_before = wait_until_quiet(plan.quiet)?;
    site.gather()?;
    let watch = Watch::start(&[site.pids(), site.caches.pids()].concat())?;
    let before = Usage::take(&site)?;
    let Site { flips, groups, .. } = &mut site;
    let changed = attend(groups, |progress| follow(plan, flips, progress))?;
    let after = Usage::take(&site)?;
    let quiet = watch.was_quiet()? && quiet_before;
    let followed = site.take();
    let each = count(clients);
    let mut figures = changed.figures(&before, &after);
    let known = known(&changed.commits, clients, &followed.bodies);
    figures.extend(time_figures(&changed.commits, clients, &followed, &known));
    figures.insert("reads", real(followed.reads.answers) / count(plan.changes));
    figures.insert("gateway_mib", real(memory(&site.pids())?) / 1024.0 / 1024.0);
    if way != Way::Direct {
        let cpu = real(after.cache_cpu.saturating_sub(before.cache_cpu));
        let bytes = memory(&site.caches.pids())?;
        figures.extend([
            ("cache_cpu_us", cpu / 1000.0 / count(plan.changes) / each),
            ("cache_mib", real(bytes) / 1024.0 / 1024.0),
            ("cache_kb", real(bytes.saturating_sub(cache_memory)) / 1000.0 / each),
            ("threads", real(site.caches.counter("MAIN.threads")?)),
            ("queued", real(site.caches.counter("MAIN.sess_queued")?)),
        ]);
    }
    let mut missed = known.missed;
    let (crashed, rest) = crash(&mut site)?;
    figures.extend(crashed);
    missed += rest.missed;
    figures.insert("missed", count(missed));
    figures.insert("stale", real(followed.reads.stale + rest.stale));
    figures.insert("immediate", real(followed.immediate + rest.immediate));
    if way != Way::Direct {
        figures.insert("dropped", real(site.caches.counter("MAIN.sess_dropped")?));
    }
    Ok((figures, quiet))
}

impl Site {
    /// Lets all clients come and read their flags, and makes the first changes.
    fn gather(&mut self) -> anyhow::Result<()> {
        let Self { flips, caches, groups, clients } = self;
        let stream = flips.environments[0].stream();
        let flags = flags_path(flips)?;
        let doors = caches.doors.len();
        for (index, door) in caches.doors.iter().enumerate() {
            // The first ones take what cannot be dealt evenly.
            let share = *clients / doors + usize::from(index < *clients % doors);
            groups.push(Followers::new(*door, &stream, &flags, share)?);
        }
        attend(groups, |progress| {
            let mut revision = flips.change(0)?.revision;
            for _ in 0..WARM_UP {
                ensure!(progress.reach(revision, REACH_MAX), "the clients do not all get flags");
                revision = flips.change(0)?.revision;
            }
            ensure!(progress.reach(revision, REACH_MAX), "the clients do not all get flags");
            ensure!(progress.all_last(*clients, REACH_MAX), "the clients do not all have a stream");
            sleep(SETTLE);
            Ok(())
        })?;
        self.take();
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        self.flips.pids()
    }

    /// What all clients went through since this was taken.
    fn take(&mut self) -> Followed {
        let mut whole = Followed::default();
        let mut first = 0;
        for group in &mut self.groups {
            whole.join(group.take(first));
            first += group.count();
        }
        whole
    }
}

/// Makes the changes at their pace, and looks at the gateway in between.
fn follow(plan: &Plan, flips: &mut Flips, progress: &Progress) -> anyhow::Result<Changed> {
    let meter = flips.gateway.meter();
    let mut changed = Changed::default();
    let mut due = Instant::now();
    for _ in 0..plan.changes {
        let change = flips.change(0)?;
        let told = flips.told(0, change)?;
        changed.commits.push((change.revision, told.map_or(change.sent, |told| told.committed)));
        due += plan.pause;
        while Instant::now() + LOOK < due {
            changed.look(meter)?;
            sleep(LOOK);
        }
        sleep(due.saturating_duration_since(Instant::now()));
    }
    let last = changed.commits.last().map_or(0, |(revision, _)| *revision);
    progress.reach(last, REACH_MAX);
    Ok(changed)
}

impl Changed {
    fn look(&mut self, meter: Meter) -> anyhow::Result<()> {
        let reading = meter.read()?;
        let open = reading.sum("flagcast_connections_open", "listener=\"public\"");
        self.connections = self.connections.max(open.saturating_sub(OUR_CONNECTIONS));
        self.streams = self.streams.max(reading.sum("flagcast_streams_open", ""));
        Ok(())
    }

    /// What the changes cost the gateway.
    fn figures(&self, before: &Usage, after: &Usage) -> Figures {
        let changes = count(self.commits.len());
        let grown = |(metric, label): (&str, &str)| {
            real(after.reading.sum(metric, label) - before.reading.sum(metric, label))
        };
        let cpu = real(after.gateway_cpu.saturating_sub(before.gateway_cpu));
        Figures::from([
            ("connections", real(self.connections)),
            ("streams", real(self.streams)),
            ("connects", grown(CONNECTS)),
            ("streams_opened", grown(STREAMS_OPENED)),
            ("requests", grown(READS) / changes),
            ("gateway_cpu_ms", cpu / 1e6 / changes),
        ])
    }
}

impl Usage {
    fn take(site: &Site) -> anyhow::Result<Self> {
        Ok(Self {
            gateway_cpu: cpu_time(&site.pids())?,
            cache_cpu: cpu_time(&site.caches.pids())?,
            reading: site.flips.gateway.meter().read()?,
        })
    }
}

/// What went wrong around a crash.
struct Faults {
    missed: usize,
    stale: u64,
    immediate: u64,
}

/// Kills the gateway and starts it again on the same store, and changes a flag at once.
fn crash(site: &mut Site) -> anyhow::Result<(Figures, Faults)> {
    let Site { flips, groups, clients, .. } = site;
    let (began, down, change, reading) = attend(groups, |progress| {
        // A stream that is killed shortly after it began would look like one that ended at once.
        ensure!(progress.all_last(*clients, REACH_MAX), "the clients do not all have a stream");
        let began = now();
        flips.gateway.crash_and_restart()?;
        let down = now() - began;
        let change = flips.change(0)?;
        progress.reach(change.revision, REACH_MAX);
        Ok((began, down, change, flips.gateway.meter().read()?))
    })?;
    let followed = site.take();
    let known = known(&[(change.revision, began)], site.clients, &followed.bodies);
    let mut figures = Figures::from([
        ("down_ms", milliseconds(down)),
        ("crash_streams", real(reading.sum(STREAMS_OPENED.0, STREAMS_OPENED.1))),
        ("crash_reads", real(reading.sum(READS.0, READS.1))),
    ]);
    if known.missed == 0 {
        figures.insert("crash_all_ms", quantile(&known.times, 100));
    }
    let (stale, immediate) = (followed.reads.stale, followed.immediate);
    Ok((figures, Faults { missed: known.missed, stale, immediate }))
}
