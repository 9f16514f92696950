//! `soak`: hours of clients that come and go as they please, and then: is everything given back?
//!
//! Clients close, reset and half-close at random and come back at once, while a flag is flipped
//! every few hundred milliseconds. A first, short cycle of the same kind fills what a server fills
//! once: pools, caches, the allocator. Then the gateway must end with the descriptors it began with,
//! no more memory than it may keep, and no client may have missed the newest revision.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::bench::{PING_MAX, SETTLE};
use super::fanout::check_descriptors;
use crate::client::{Cut, Dice, Stamping, Streams, Tally};
use crate::machine::{descriptors, memory};
use crate::output::{Table, machine, real};
use crate::servers::{Change, Flips, Setup, Subject as _};

/// Churn before the first look.
const WARM_UP: Duration = Duration::from_secs(15);

/// How long a client stays, on average.
const STAY: Duration = Duration::from_secs(10);

/// Connections that may be on their way at a time.
const OPENING_MAX: usize = 200;

/// How long the gateway may take to notice that everybody left.
const RELEASE_MAX: Duration = Duration::from_mins(1);

/// Time between two lines of the table.
const SAMPLE: Duration = Duration::from_mins(1);

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) streams: usize,
    pub(crate) length: Duration,
    /// Pause before each flip.
    pub(crate) pause: Duration,
    /// How much more memory than at the start the gateway may keep at the end.
    pub(crate) grow_max_bytes: u64,
    pub(crate) setup: Setup,
    pub(crate) nginx: PathBuf,
}

/// One look at the gateway.
#[derive(Clone, Debug)]
struct Sample {
    when: String,
    open: usize,
    descriptors: usize,
    memory: u64,
    tally: Tally,
}

/// Runs the plan, prints the table and returns the report.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<Json> {
    check_descriptors(plan.streams)?;
    let _stamping = Stamping::keep_on()?;
    let mut flips = Flips::start(&plan.setup, 1)?;
    let pid = flips.gateway.pid();
    let unused = descriptors(pid)?;
    eprintln!("warm-up of {} s", WARM_UP.as_secs());
    let mut samples = Vec::new();
    let (mut missed, _) = cycle(plan, WARM_UP, &mut flips, &mut Vec::new())?;
    // The warm-up may have opened connections of the gateway's own: to its store, say.
    let start = settled(pid, unused, Instant::now() + RELEASE_MAX)?;
    samples.push(Sample { when: "start".to_owned(), ..start.clone() });
    let (missed_now, tally) = cycle(plan, plan.length, &mut flips, &mut samples)?;
    missed += missed_now;
    let end = settled(pid, start.descriptors, Instant::now() + RELEASE_MAX)?;
    samples.push(Sample { when: "end".to_owned(), tally, ..end.clone() });
    let faults = faults(plan, &start, &end, missed, tally);
    print(&samples);
    let ends = flips.gateway.meter().read()?.stream_ends();
    Ok(json!({
        "measurement": "soak",
        "machine": machine(&plan.nginx),
        "streams": plan.streams, "seconds": plan.length.as_secs(),
        "pause_ms": plan.pause.as_millis(), "grow_max_bytes": plan.grow_max_bytes,
        "samples": samples.iter().map(Sample::json).collect::<Vec<_>>(),
        "settings": plan.setup.json(), "stream_ends": ends, "faults": faults,
    }))
}

/// Everybody comes, churns for `length`, hears of a last change, and goes. Tells how many did not
/// hear of it.
fn cycle(
    plan: &Plan,
    length: Duration,
    flips: &mut Flips,
    samples: &mut Vec<Sample>,
) -> anyhow::Result<(usize, Tally)> {
    let pid = flips.gateway.pid();
    let mut streams = Streams::new(&flips.target(), plan.streams)?;
    streams.open_all()?;
    let (began, mut looked) = (Instant::now(), Instant::now());
    let mut churn = Churn { dice: Dice::new(0), due: Instant::now() };
    let changes: Vec<Change> = streams.read_while(
        || flips.change_while(plan.pause, |_| began.elapsed() < length),
        |streams| {
            churn.turn(streams, plan.streams)?;
            streams.connect(OPENING_MAX)?;
            if looked.elapsed() >= SAMPLE {
                looked = Instant::now();
                let when = format!("{} min", began.elapsed().as_secs() / 60);
                samples.push(Sample::take(when, pid, streams)?);
            }
            Ok(())
        },
    )?;
    eprintln!("{} flips in {} s", changes.len(), began.elapsed().as_secs());
    let last = flips.change(0)?;
    let deadline = Instant::now() + PING_MAX;
    while !streams.has_told(0, last.revision) && Instant::now() < deadline {
        streams.connect(OPENING_MAX)?;
        streams.turn(Some(Duration::from_millis(10)))?;
    }
    Ok((streams.behind(0, last.revision), streams.tally()))
}

/// Waits until the gateway has `wanted` descriptors, or no longer changes their number.
fn settled(pid: u32, wanted: usize, deadline: Instant) -> anyhow::Result<Sample> {
    while descriptors(pid)? > wanted && Instant::now() < deadline {
        sleep(SETTLE);
    }
    sleep(SETTLE);
    Ok(Sample {
        when: String::new(),
        open: 0,
        descriptors: descriptors(pid)?,
        memory: memory(&[pid])?,
        tally: Tally::default(),
    })
}

fn faults(plan: &Plan, start: &Sample, end: &Sample, missed: usize, tally: Tally) -> Vec<String> {
    let mut faults = Vec::new();
    if end.descriptors != start.descriptors {
        let (before, after) = (start.descriptors, end.descriptors);
        faults.push(format!("{before} descriptors at the start, {after} at the end"));
    }
    let grown = end.memory.saturating_sub(start.memory);
    if grown > plan.grow_max_bytes {
        let max = mib(plan.grow_max_bytes);
        faults.push(format!("memory grew by {:.1} MiB, more than {max:.1}", mib(grown)));
    }
    if missed > 0 {
        faults.push(format!("{missed} clients missed the newest revision"));
    }
    if tally.repeated + tally.went_back > 0 {
        let Tally { repeated, went_back, .. } = tally;
        faults.push(format!("{repeated} revisions repeated, {went_back} older after newer"));
    }
    faults
}

/// Lets clients leave at random moments, each after [`STAY`] on average.
struct Churn {
    dice: Dice,
    due: Instant,
}

impl Churn {
    fn turn(&mut self, streams: &mut Streams, count: usize) -> anyhow::Result<()> {
        let between = STAY / u32::try_from(count)?;
        while self.due <= Instant::now() {
            self.due += between;
            let how = match self.dice.roll(4) {
                0 => Cut::Reset,
                1 => Cut::Half,
                _ => Cut::Close,
            };
            streams.cut(self.dice.roll(count), how)?;
        }
        Ok(())
    }
}

impl Sample {
    fn take(when: String, pid: u32, streams: &Streams) -> anyhow::Result<Self> {
        let (descriptors, memory) = (descriptors(pid)?, memory(&[pid])?);
        eprintln!("{when}: {descriptors} descriptors, {:.1} MiB", mib(memory));
        Ok(Self { when, open: streams.open(), descriptors, memory, tally: streams.tally() })
    }

    fn row(&self) -> Vec<String> {
        let Tally { opened, pings, repeated, went_back, .. } = self.tally;
        vec![
            self.when.clone(),
            self.open.to_string(),
            self.descriptors.to_string(),
            format!("{:.1}", mib(self.memory)),
            opened.to_string(),
            pings.to_string(),
            (repeated + went_back).to_string(),
        ]
    }

    fn json(&self) -> Json {
        json!({
            "when": self.when, "open": self.open, "descriptors": self.descriptors,
            "memory_bytes": self.memory, "opened": self.tally.opened, "pings": self.tally.pings,
            "refused": self.tally.refused, "reset": self.tally.reset, "ended": self.tally.ended,
            "repeated": self.tally.repeated, "went_back": self.tally.went_back,
        })
    }
}

fn mib(bytes: u64) -> f64 {
    real(bytes) / 1024.0 / 1024.0
}

#[expect(clippy::print_stdout, reason = "this is the answer")]
fn print(samples: &[Sample]) {
    let mut table = Table::new(&[
        "when",
        "streams open",
        "descriptors",
        "PSS, MiB",
        "streams opened so far",
        "pings so far",
        "repeated or older",
    ]);
    for sample in samples {
        table.row(sample.row());
    }
    print!("{table}");
    println!("Start and end: after a cycle, all clients gone.");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(descriptors: usize, memory: u64) -> Sample {
        let (when, tally) = (String::new(), Tally::default());
        Sample { when, open: 0, descriptors, memory, tally }
    }

    #[test]
    fn what_is_not_given_back_is_a_fault() {
        let plan = Plan {
            streams: 1,
            length: STAY,
            pause: STAY,
            grow_max_bytes: 100,
            setup: Setup::new(std::path::Path::new("x")),
            nginx: PathBuf::new(),
        };
        let none = Tally::default();
        assert!(faults(&plan, &sample(9, 1000), &sample(9, 1100), 0, none).is_empty());
        assert_eq!(faults(&plan, &sample(9, 1000), &sample(10, 1101), 0, none).len(), 2);
        let repeated = Tally { repeated: 1, ..none };
        assert_eq!(faults(&plan, &sample(9, 0), &sample(9, 0), 1, repeated).len(), 2);
    }
}
