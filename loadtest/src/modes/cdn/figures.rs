//! What `cdn` reports.

use super::Plan;
use crate::client::Followed;
use crate::modes::times::{Known, known as known_of, undisturbed};
use crate::output::{
    Column, Figures, Metric, Table, cell, columns_table, median, milliseconds, print_noise,
    quantile, real,
};

/// The columns of the table that has all numbers of clients: keys of metrics.
const SUMMARY: [(&str, &str, usize); 8] = [
    ("connections", "connections to the gateway", 0),
    ("streams", "streams at it", 0),
    ("requests", "reads at it, per change", 2),
    ("p50_ms", "commit to new flags, p50, ms", 0),
    ("p99_ms", "p99, ms", 0),
    ("max_ms", "longest, ms", 0),
    ("open_p99_ms", "p99 without ends, ms", 0),
    ("crash_all_ms", "after `kill -9`, until all have them, ms", 0),
];

/// The rows of a table.
pub(super) const METRICS: [Metric; 33] = [
    Metric::new("connections", "connections to the gateway, most at a time", 0).with_ratio(),
    Metric::new("streams", "streams at the gateway, most at a time", 0).with_ratio(),
    Metric::new("connects", "connections made to the gateway meanwhile", 0),
    Metric::new("streams_opened", "streams opened at the gateway meanwhile", 0),
    Metric::new("requests", "reads at the gateway, per change", 2).with_ratio(),
    Metric::new("reads", "reads by clients, per change", 0),
    Metric::new("ping_p50_ms", "commit to ping at the client, p50, ms", 1).with_ratio(),
    Metric::new("ping_p99_ms", "commit to ping at the client, p99, ms", 1).with_ratio(),
    Metric::new("p50_ms", "commit to new flags at the client, p50, ms", 1).with_ratio(),
    Metric::new("p99_ms", "commit to new flags at the client, p99, ms", 1).with_ratio(),
    Metric::new("max_ms", "commit to new flags at the client, longest, ms", 1).with_ratio(),
    Metric::new("open_p99_ms", "… of changes that met no end of streams, p99, ms", 1).with_ratio(),
    Metric::new("open_max_ms", "… of changes that met no end of streams, longest, ms", 1)
        .with_ratio(),
    Metric::new("all_ms", "commit until all have them, median change, ms", 1).with_ratio(),
    Metric::new("gateway_cpu_ms", "CPU of the gateway per change, ms", 2).with_ratio(),
    Metric::new("cache_cpu_us", "CPU of Varnish per change and client, µs", 1),
    Metric::new("gateway_mib", "memory of the gateway (PSS), MiB", 1).with_ratio(),
    Metric::new("cache_mib", "memory of Varnish (PSS), MiB", 0),
    Metric::new("cache_kb", "memory of Varnish per client, kB", 0),
    Metric::new("threads", "threads of Varnish", 0),
    Metric::new("queued", "requests that waited for a thread of Varnish", 0),
    Metric::new("failed", "requests for flags or streams that had to be made again", 0),
    Metric::new("ended", "streams of clients that ended meanwhile", 0),
    Metric::new("gap_p50_ms", "a client without a stream then, p50, ms", 0),
    Metric::new("gap_max_ms", "a client without a stream then, longest, ms", 0),
    Metric::new("down_ms", "gateway killed: until it listened again, ms", 0),
    Metric::new("crash_all_ms", "gateway killed: until all had the newest flags, ms", 0)
        .with_ratio(),
    Metric::new("crash_streams", "gateway killed: streams opened at it until then", 0),
    Metric::new("crash_reads", "gateway killed: reads at it until then", 0),
    Metric::new("dropped", "connections that Varnish dropped for want of a thread", 0)
        .that_is_a_fault(),
    Metric::new("immediate", "streams that ended within a second", 0).that_is_a_fault(),
    Metric::new("stale", "flags older than asked for", 0).that_is_a_fault(),
    Metric::new("missed", "changes missed, of all clients", 0).that_is_a_fault(),
];

/// When clients knew, and how long they were without a stream.
pub(super) fn time_figures(
    commits: &[(u64, i64)],
    clients: usize,
    followed: &Followed,
    known: &Known,
) -> Figures {
    let pings = known_of(commits, clients, &followed.pings).times;
    let undisturbed = undisturbed(commits, &followed.gaps);
    let open = known_of(&undisturbed, clients, &followed.bodies).times;
    let Followed { reads, tally, .. } = followed;
    let failed = reads.turned_away + reads.broken + tally.refused + tally.turned_away;
    let mut figures = Figures::from([
        ("failed", real(failed)),
        ("ping_p50_ms", quantile(&pings, 50)),
        ("ping_p99_ms", quantile(&pings, 99)),
        ("p50_ms", quantile(&known.times, 50)),
        ("p99_ms", quantile(&known.times, 99)),
        ("max_ms", quantile(&known.times, 100)),
        ("open_p99_ms", quantile(&open, 99)),
        ("open_max_ms", quantile(&open, 100)),
        ("all_ms", median(&known.lasts)),
        ("ended", real(tally.ended + tally.reset)),
    ]);
    if !followed.gaps.is_empty() {
        let gaps = followed.gaps.iter().map(|gap| milliseconds(gap.to - gap.from));
        let gaps: Vec<f64> = gaps.collect();
        figures.insert("gap_p50_ms", quantile(&gaps, 50));
        figures.insert("gap_max_ms", quantile(&gaps, 100));
    }
    figures
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
pub(super) fn print(plan: &Plan, clients: usize, columns: &[Column], noisy: usize) {
    println!("{clients} clients:");
    print!("{}", columns_table(&METRICS, columns));
    println!(
        "{} changes, one each {} ms. A client has one stream and one kept connection for its reads; it comes \
         back 0.5 to 1.5 s after its stream ended. The kernel stamps pings; flags count when they are read.",
        plan.changes,
        plan.pause.as_millis()
    );
    println!("Echoes are off (stream.echo_seconds=0).");
    print_noise(noisy);
}

/// One line for each number of clients and way.
#[expect(clippy::print_stdout, reason = "this is the answer")]
pub(super) fn summarize(steps: &[(usize, Vec<Column>)]) {
    let names = SUMMARY.map(|(_, words, _)| words);
    let mut table = Table::new(&[&["clients, way"], &names[..]].concat());
    for (clients, columns) in steps {
        for column in columns {
            let cells = SUMMARY.map(|(key, _, decimals)| cell(&column.values(key), decimals));
            table.row([vec![format!("{clients}, {}", column.name)], cells.to_vec()].concat());
        }
    }
    print!("{table}");
}
