//! What the kernel tells of processes: memory, CPU time, descriptors, and whether the machine is
//! quiet enough to measure.

use std::fs;
use std::io::ErrorKind;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::output::real;

/// Share of all cores that others may use while we measure.
const QUIET_SHARE_MAX: f64 = 0.10;

/// How often a measurement is made again because others used the machine meanwhile.
pub(crate) const ATTEMPTS: usize = 4;

/// The unit in which the kernel charges what sockets hold, in bytes.
const PAGE: u64 = 4096;

/// How long the machine is looked at before it counts as quiet.
const QUIET_SAMPLE: Duration = Duration::from_millis(500);

/// Nanoseconds since the epoch: the clock of the kernel's arrival times and of `committed_at`.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Memory that the processes hold, shared pages divided among their holders, in bytes.
pub(crate) fn memory(pids: &[u32]) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        bytes += kib(&text, "Pss:").with_context(|| format!("{path} has no Pss line"))?;
    }
    Ok(bytes)
}

/// Memory of a process that is resident, and its largest since [`forget_peak`], in bytes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<(u64, u64)> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = |name| kib(&text, name).with_context(|| format!("{path} has no {name}"));
    Ok((line("VmRSS:")?, line("VmHWM:")?))
}

/// Lets the largest memory of a process begin anew.
pub(crate) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
}

/// CPU time that the processes have used, in nanoseconds.
pub(crate) fn cpu_time(pids: &[u32]) -> anyhow::Result<u64> {
    let mut nanoseconds = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/task");
        // A thread may end while we look, and so may a process: a database starts and ends its own.
        let tasks = match fs::read_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            tasks => tasks.with_context(|| format!("cannot read {path}"))?,
        };
        for task in tasks.flatten() {
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let ran = stat.split_ascii_whitespace().next();
            nanoseconds += ran.and_then(|ran| ran.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(nanoseconds)
}

/// The process and everything that it and its children started.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    std::iter::once(pid).chain(descendants(pid)).collect()
}

/// Everything that a process and its children started.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().filter_map(Result::ok);
    // A child belongs to the thread that started it.
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children = children.collect::<Vec<_>>().concat();
    let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
    children.flat_map(family).collect()
}

/// Descriptors that a process has open.
pub(crate) fn descriptors(pid: u32) -> anyhow::Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).with_context(|| format!("cannot read {path}"))?.count())
}

/// The kernel's own objects, in bytes: sockets at both ends, and everything else it keeps.
pub(crate) fn slab() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    kib(&text, "Slab:").context("/proc/meminfo has no Slab line")
}

/// Memory that could still be given out, in bytes.
pub(crate) fn available() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    kib(&text, "MemAvailable:").context("/proc/meminfo has no MemAvailable line")
}

/// TCP sockets of the machine, and what is charged for bytes that they hold, in bytes.
pub(crate) fn sockets() -> anyhow::Result<(u64, u64)> {
    let path = "/proc/net/sockstat";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let (sockets, pages) = tcp_sockets(&text).with_context(|| format!("{path} has no TCP line"))?;
    Ok((sockets, pages * PAGE))
}

/// How many want a core: over one, five and fifteen minutes.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Descriptors that this process, and so its children, may open.
pub(crate) fn descriptor_limit() -> anyhow::Result<usize> {
    let limits =
        fs::read_to_string("/proc/self/limits").context("cannot read /proc/self/limits")?;
    open_files(&limits).context("/proc/self/limits has no \"Max open files\"")
}

/// Number of cores, as the servers count them.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Waits until the rest of the machine rests. Tells whether it did within `limit`.
pub(crate) fn wait_until_quiet(limit: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let before = Ticks::now()?;
        sleep(QUIET_SAMPLE);
        let share = Ticks::now()?.busy_share_since(before);
        if share <= QUIET_SHARE_MAX {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            eprintln!("the machine is {:.0} % busy; measuring all the same", share * 100.0);
            return Ok(false);
        }
    }
}

/// Watches how much of the machine others use while something is measured.
#[derive(Debug)]
pub(crate) struct Watch {
    before: Ticks,
    /// Ticks of the servers, this program and the children it waited for.
    ours: u64,
    pids: Vec<u32>,
}

impl Watch {
    /// Begins to watch; `pids` are the servers that are measured.
    pub(crate) fn start(pids: &[u32]) -> anyhow::Result<Self> {
        Ok(Self { before: Ticks::now()?, ours: our_ticks(pids)?, pids: pids.to_vec() })
    }

    /// Whether the others used little enough since the start.
    pub(crate) fn was_quiet(&self) -> anyhow::Result<bool> {
        let share = self.others_share()?;
        if share > QUIET_SHARE_MAX {
            eprintln!("others used {:.0} % of the machine meanwhile", share * 100.0);
        }
        Ok(share <= QUIET_SHARE_MAX)
    }

    /// The share of all cores that the others used since the start.
    pub(crate) fn others_share(&self) -> anyhow::Result<f64> {
        let ours = our_ticks(&self.pids)?.saturating_sub(self.ours);
        Ok(Ticks::now()?.others_share_since(self.before, ours))
    }
}

fn our_ticks(pids: &[u32]) -> anyhow::Result<u64> {
    let read = |path: String| {
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    // Children count for their parent once it has waited for them.
    let own =
        run_ticks(&read("/proc/self/stat".to_owned())?, 4).context("cannot read own ticks")?;
    pids.iter().try_fold(own, |sum, pid| {
        let ticks = run_ticks(&read(format!("/proc/{pid}/stat"))?, 2);
        Ok(sum + ticks.context("cannot read a server's ticks")?)
    })
}

/// The sum of utime, stime, cutime, cstime: the first `fields` of them.
fn run_ticks(stat: &str, fields: usize) -> Option<u64> {
    // The name in parentheses may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let ticks = rest.split_ascii_whitespace().skip(11).take(fields);
    ticks.map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// The kernel's count of ticks, all cores together.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Ticks {
    fn now() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Self::parse(&text).context("/proc/stat does not begin with the cpu line")
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks = line.split_ascii_whitespace().map(str::parse::<u64>);
        // user nice system idle iowait irq softirq steal; the guest columns are in user and nice.
        let ticks: Vec<u64> = ticks.take(8).collect::<Result<_, _>>().ok()?;
        Some(Self { idle: ticks.get(3)? + ticks.get(4)?, all: ticks.iter().sum() })
    }

    fn busy_share_since(self, before: Self) -> f64 {
        self.others_share_since(before, 0)
    }

    fn others_share_since(self, before: Self, ours: u64) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        let idle = self.idle.saturating_sub(before.idle);
        let others = all.saturating_sub(idle).saturating_sub(ours);
        real(others) / real(all)
    }
}

/// The bytes of a line `name  123 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Sockets and pages of a line `TCP: inuse 45 orphan 0 tw 1276 alloc 45 mem 8`.
fn tcp_sockets(sockstat: &str) -> Option<(u64, u64)> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP: "))?;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1)?.parse().ok()
    };
    Some((value("inuse")?, value("mem")?))
}

fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        soft => soft.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let rollup =
            "55 - 7f ---p 00 00:00 0 [rollup]\nRss:   1756 kB\nPss:    295 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(kib(rollup, "Pss:"), Some(295 * 1024));
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files   1024   20000   files\n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files("Max open files  unlimited unlimited files"), Some(usize::MAX));
    }

    #[test]
    fn sockets_are_counted_by_name() {
        let text = "sockets: used 291\nTCP: inuse 45 orphan 0 tw 1276 alloc 46 mem 8\nUDP: inuse 0 mem 3\n";
        assert_eq!(tcp_sockets(text), Some((45, 8)));
        assert!(tcp_sockets("UDP: inuse 1 mem 1\n").is_none());
        assert!(sockets().is_ok() && available().unwrap() > 0 && !load().is_empty());
    }

    #[test]
    fn busy_is_what_is_not_idle() {
        let before = Ticks::parse("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1").unwrap();
        let after = Ticks::parse("cpu  110 0 110 870 10 0 0 0 0 0\n").unwrap();
        assert!((after.busy_share_since(before) - 0.2).abs() < 1e-9);
        assert!((after.others_share_since(before, 15) - 0.05).abs() < 1e-9);
        assert!(Ticks::parse("intr 5").is_none());
    }

    #[test]
    fn ticks_are_counted_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 5 6 70 80 20 0 1 0";
        assert_eq!((run_ticks(stat, 2), run_ticks(stat, 4)), (Some(11), Some(161)));
        assert!(our_ticks(&[std::process::id()]).is_ok());
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let me = [std::process::id()];
        assert!(memory(&me).unwrap() > 0 && cpu_time(&me).unwrap() > 0);
        let (resident, peak) = resident(me[0]).unwrap();
        assert!(0 < resident && resident <= peak);
        assert_eq!(family(me[0])[0], me[0]);
        assert!(descriptors(me[0]).unwrap() > 2 && slab().unwrap() > 0);
    }
}
