//! `relays`: one gateway, relays in front of it, and as many clients as fit: one stream of each relay and
//! environment at the gateway, however many clients there are.
//!
//! Everything is started once (`fleet.rs`), each relay with the clients in a process of their own
//! (`clients.rs`). Then: all clients come at once; they are held while nothing happens but heartbeats; and
//! changes are made at the gateway, one after the other, until every client at every relay knows. The clients
//! read all the while: what millions of sockets hold unread would fill the kernel.

pub(crate) mod clients;
mod fleet;

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value as Json, json};

use self::clients::{Held, Opened};
use self::fleet::{Fleet, Memory};
use crate::client::Stamping;
use crate::machine::{Kernel, Watch, descriptor_limit, load, wait_until_quiet};
use crate::output::{
    Column, Figures, Metric, column_faults, columns_json, columns_table, count, machine,
    milliseconds, print_noise, real,
};
use crate::servers::Setup;

/// Descriptors of a gateway that are for other things than streams: so many, and a tenth of the rest.
const RESERVED: usize = 256;

const MIB: f64 = 1024.0 * 1024.0;

const CROWD: [Metric; 26] = [
    Metric::new("open", "streams opened", 0),
    Metric::new("refused", "connects refused, and tried again", 0),
    Metric::new("lost_early", "streams lost while all were opened, and tried again", 0),
    Metric::new("missing", "streams missing", 0).that_is_a_fault(),
    Metric::new("open_s", "first connect to last stream, s", 1),
    Metric::new("open_rate", "streams opened per second", 0),
    Metric::new("relay_rest", "a relay at rest, nobody there: resident memory, MiB", 1),
    Metric::new("relay_own", "a relay at rest, what is not shared with others (PSS), MiB", 1),
    Metric::new("relay_full", "a relay with its streams: resident memory, MiB", 1),
    Metric::new("relay_bytes", "memory of the relays per stream (PSS), bytes", 0),
    Metric::new("gateway_mib", "memory of the gateway (PSS), MiB", 1),
    Metric::new("slab_bytes", "kernel memory per stream, both ends (slab), bytes", 0),
    Metric::new("client_bytes", "memory of the clients per stream (PSS), bytes", 0),
    Metric::new("all_bytes", "all memory that the machine lost, per stream, bytes", 0),
    Metric::new("buffers_mib", "charged for bytes that wait in sockets, MiB", 1),
    Metric::new("held", "streams open at the end of the hold", 0),
    Metric::new("reads", "heartbeats that came, per stream", 1),
    Metric::new("longest_s", "longest silence of a stream, s", 1),
    Metric::new("silent", "silences of more than 2.5 heartbeats", 0).that_is_a_fault(),
    Metric::new("ended", "streams that ended", 0).that_is_a_fault(),
    Metric::new("hold_gateway", "hold: CPU of the gateway, % of a core", 2),
    Metric::new("hold_relays", "hold: CPU of all relays, % of a core", 1),
    Metric::new("hold_clients", "hold: CPU of all clients, % of a core", 1),
    Metric::new("upstream_streams", "streams at the gateway", 0),
    Metric::new("upstream_connections", "connections at the gateway, one of them ours", 0),
    Metric::new("relay_streams", "streams as the relays count them", 0),
];

const CHANGES: [Metric; 10] = [
    Metric::new("answer_ms", "change: request to answer, ms", 1),
    Metric::new("first_ms", "commit to first client, ms", 1),
    Metric::new("p50_ms", "commit to client, p50, ms", 0),
    Metric::new("p99_ms", "commit to client, p99, ms", 0),
    Metric::new("last_ms", "commit to last client, ms", 0),
    Metric::new("answer_last_ms", "answer to last client, ms", 0),
    Metric::new("missed", "clients that a change did not reach", 0).that_is_a_fault(),
    Metric::new("gateway_cpu_ms", "CPU of the gateway per change, ms", 1),
    Metric::new("relay_cpu_us", "CPU of the relays per delivery, µs", 2),
    Metric::new("client_cpu_us", "CPU of the clients per delivery, µs", 2),
];

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// None: the clients are the gateway's own.
    pub(crate) relays: usize,
    pub(crate) streams: usize,
    /// The streams of each relay are dealt to them in turn.
    pub(crate) environments: usize,
    pub(crate) hold: Duration,
    pub(crate) changes: usize,
    /// Pause before each change.
    pub(crate) pause: Duration,
    pub(crate) quiet: Duration,
    pub(crate) setup: Setup,
    pub(crate) nginx: PathBuf,
}

/// Runs the plan, prints the tables and returns the report.
pub(crate) fn run(plan: &Plan, kernel: &Kernel) -> anyhow::Result<Json> {
    plan.check(descriptor_limit()?)?;
    kernel.allow_streams(u64::try_from(plan.streams)?);
    let _stamping = Stamping::keep_on()?;
    let (load_before, quiet) = (load(), wait_until_quiet(plan.quiet)?);
    let mut fleet = Fleet::start(plan)?;
    let watch = Watch::start(&fleet.pids())?;
    let name = plan.name();
    let (mut crowd, mut changes) = (Column::new(&name), Column::new(&name));
    crowd.rounds.push(fill(plan, &mut fleet)?);
    let mut missed = 0;
    for number in 0..plan.changes {
        sleep(plan.pause);
        let told = fleet.change(number)?;
        missed += told.missed;
        eprintln!("change {} of {}: {} missed", number + 1, plan.changes, told.missed);
        changes.rounds.push(told.figures);
    }
    let counted = fleet.counted()?;
    let mut faults = faults(plan, &counted);
    crowd.rounds[0].extend(counted);
    let others = watch.others_share()?;
    let noise = format!(
        "Load of the machine before {load_before}, after {}; others, and the kernel for everybody, used {:.0} % of it \
         meanwhile.",
        load(),
        others * 100.0
    );
    print(plan, &crowd, &changes, &noise);
    print_noise(usize::from(!quiet || !watch.was_quiet()?));
    faults.extend(column_faults(&CROWD, &crowd));
    faults.extend(column_faults(&CHANGES, &changes));
    Ok(json!({
        "measurement": "relays",
        "machine": machine(&plan.nginx),
        "relays": plan.relays, "streams": plan.streams, "environments": plan.environments,
        "hold_seconds": plan.hold.as_secs(), "changes": plan.changes,
        "pause_ms": plan.pause.as_millis(), "missed": missed, "noise": noise,
        "settings": plan.setup.json(),
        "crowd": columns_json(&CROWD, &[crowd]), "pings": columns_json(&CHANGES, &[changes]),
        "faults": faults,
    }))
}

/// Opens the streams and holds them.
fn fill(plan: &Plan, fleet: &mut Fleet) -> anyhow::Result<Figures> {
    let rest = fleet.relay_resident()?;
    let before = fleet.memory()?;
    let opened = fleet.open()?;
    if let Some(why) = &opened.why {
        eprintln!("{} of {} streams opened: {why}", opened.open, plan.streams);
    }
    ensure!(opened.open > 0, "no stream opened");
    let after = fleet.memory()?;
    eprintln!("holding {} streams for {} s", opened.open, plan.hold.as_secs());
    let (held, mut figures) = fleet.hold(plan.hold)?;
    figures.extend(crowd_figures(plan, &opened, &held));
    figures.extend(memory_figures(plan, before, after, opened.open));
    figures.extend(rest.map(|bytes| ("relay_rest", bytes / MIB)));
    figures.extend(fleet.relay_resident()?.map(|bytes| ("relay_full", bytes / MIB)));
    Ok(figures)
}

fn crowd_figures(plan: &Plan, opened: &Opened, held: &Held) -> Figures {
    let seconds = milliseconds(opened.last - opened.began) / 1000.0;
    Figures::from([
        ("open", count(opened.open)),
        ("refused", real(opened.refused)),
        ("lost_early", real(opened.failed)),
        ("missing", count(plan.streams.saturating_sub(opened.open))),
        ("open_s", seconds),
        ("open_rate", count(opened.open) / seconds.max(1e-3)),
        ("held", count(held.open)),
        ("reads", real(held.reads) / count(opened.open)),
        ("longest_s", milliseconds(held.longest) / 1000.0),
        ("silent", real(held.silent)),
        ("ended", real(held.ended)),
    ])
}

fn memory_figures(plan: &Plan, before: Memory, after: Memory, streams: usize) -> Figures {
    let each = |before: u64, after: u64| real(after.saturating_sub(before)) / count(streams);
    Figures::from([
        ("relay_bytes", each(before.relays, after.relays)),
        ("slab_bytes", each(before.slab, after.slab)),
        // Their records are there before they connect.
        ("client_bytes", real(after.clients) / count(streams)),
        ("all_bytes", each(after.available, before.available)),
        ("relay_own", real(before.relays) / count(plan.relays.max(1)) / MIB),
        ("gateway_mib", real(after.gateway) / MIB),
        ("buffers_mib", real(after.buffers) / MIB),
    ])
}

/// The gateway has one stream of each relay and environment, no more and no less.
fn faults(plan: &Plan, counted: &Figures) -> Vec<String> {
    let (streams, wanted) = (counted["upstream_streams"], count(plan.relays * plan.environments));
    // Without relays the streams are the clients' own.
    let is_right = plan.relays == 0 || (streams - wanted).abs() < 0.5;
    if is_right {
        Vec::new()
    } else {
        vec![format!("{streams} streams at the gateway, not {wanted}")]
    }
}

impl Plan {
    /// Streams of a relay; the first ones take what cannot be dealt evenly.
    fn share(&self, relay: usize) -> usize {
        let doors = self.relays.max(1);
        self.streams / doors + usize::from(relay < self.streams % doors)
    }

    /// Makes sure that a relay, with so many descriptors, allows its share.
    fn check(&self, descriptors: usize) -> anyhow::Result<()> {
        let connections = descriptors.saturating_sub(RESERVED);
        let most = connections - connections / 10;
        ensure!(
            self.share(0) <= most,
            "a process here may open {descriptors} descriptors, so a relay allows {most} streams: {} streams need \
             {} relays",
            self.streams,
            self.streams.div_ceil(most.max(1))
        );
        Ok(())
    }

    fn name(&self) -> String {
        match self.relays {
            0 => "the gateway alone".to_owned(),
            1 => "1 relay".to_owned(),
            relays => format!("{relays} relays"),
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
fn print(plan: &Plan, crowd: &Column, changes: &Column, noise: &str) {
    println!("{} streams, held for {} s:\n", plan.streams, plan.hold.as_secs());
    println!("{}", columns_table(&CROWD, std::slice::from_ref(crowd)));
    println!("{} changes at the gateway, one after the other:\n", plan.changes);
    println!("{}", columns_table(&CHANGES, std::slice::from_ref(changes)));
    println!("{noise}");
    println!("The clients read along, every 50 ms; times are the kernel's. They share the cores.");
    println!(
        "Echoes are off (stream.echo_seconds=0), and streams live long (stream.life_seconds)."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(relays: usize, streams: usize) -> Plan {
        Plan {
            relays,
            streams,
            environments: 2,
            hold: Duration::ZERO,
            changes: 1,
            pause: Duration::ZERO,
            quiet: Duration::ZERO,
            setup: Setup::new(std::path::Path::new("x")),
            nginx: PathBuf::new(),
        }
    }

    #[test]
    fn streams_are_dealt_to_the_relays() {
        let plan = plan(3, 10);
        assert_eq!((0..3).map(|relay| plan.share(relay)).collect::<Vec<_>>(), [4, 3, 3]);
        assert_eq!(self::plan(0, 10).share(0), 10);
    }

    #[test]
    fn too_many_streams_for_the_descriptors_are_refused() {
        assert!(plan(6, 100_000).check(20_000).is_ok());
        let error = plan(55, 1_000_000).check(20_000).unwrap_err().to_string();
        assert!(error.ends_with("need 57 relays"), "{error}");
    }

    #[test]
    fn the_gateway_has_a_stream_of_each_relay_and_environment() {
        let counted = |streams: f64| Figures::from([("upstream_streams", streams)]);
        assert!(faults(&plan(3, 10), &counted(6.0)).is_empty());
        assert_eq!(faults(&plan(3, 10), &counted(7.0)).len(), 1);
        assert!(faults(&plan(0, 10), &counted(10.0)).is_empty());
    }

    #[test]
    fn memory_is_what_was_added() {
        let before = Memory {
            gateway: 0,
            relays: 100,
            clients: 50,
            slab: 1000,
            buffers: 0,
            available: 9000,
        };
        let after = Memory { relays: 300, slab: 3000, available: 5000, ..before };
        let figures = memory_figures(&plan(2, 10), before, after, 10);
        for (key, bytes) in [
            ("relay_bytes", 20.0),
            ("slab_bytes", 200.0),
            ("client_bytes", 5.0),
            ("all_bytes", 400.0),
        ] {
            assert!((figures[key] - bytes).abs() < 1e-9, "{key}: {}", figures[key]);
        }
    }
}
