//! From changes to the pings that told of them, when changes come faster than clients are told:
//! then a ping may tell of several changes at once. Pings that greet say what was missed, and are
//! not counted.

use std::collections::HashMap;

use crate::client::{Arrival, Gap, Seen};
use crate::output::milliseconds;
use crate::servers::Change;

/// From `start` to each instant, in milliseconds.
pub(super) fn spans(start: i64, instants: &[i64]) -> Vec<f64> {
    instants.iter().map(|at| milliseconds(at - start)).collect()
}

/// From the request of the change that each ping tells of to the client's socket, in milliseconds.
pub(super) fn latencies(changes: &[Change], pings: &[Arrival]) -> Vec<f64> {
    let sent: HashMap<u64, i64> =
        changes.iter().map(|change| (change.revision, change.sent)).collect();
    let pings = pings.iter().filter(|ping| !ping.greets);
    let told = pings.filter_map(|ping| Some((sent.get(&ping.revision)?, ping.kernel)));
    told.map(|(sent, at)| milliseconds(at - sent)).collect()
}

/// From the request of each change until the last of the clients that are told knew of it, or of a
/// newer one, in milliseconds.
pub(super) fn lasts(changes: &[Change], pings: &[Arrival]) -> Vec<f64> {
    let first = changes.first().map_or(0, |change| change.revision);
    let mut known: HashMap<usize, u64> = HashMap::new();
    let mut lasts: HashMap<u64, i64> = HashMap::new();
    for ping in pings.iter().filter(|ping| !ping.greets) {
        let known = known.entry(ping.stream).or_insert(first.saturating_sub(1));
        for revision in *known + 1..=ping.revision {
            let last = lasts.entry(revision).or_insert(ping.kernel);
            *last = ping.kernel.max(*last);
        }
        *known = ping.revision.max(*known);
    }
    let told = changes.iter().filter_map(|change| Some((lasts.get(&change.revision)?, change)));
    told.map(|(last, change)| milliseconds(last - change.sent)).collect()
}

/// When clients knew of changes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Known {
    /// From each commit until each client knew, in milliseconds.
    pub(super) times: Vec<f64>,
    /// From each commit until the last client knew.
    pub(super) lasts: Vec<f64>,
    /// Changes that a client never knew of, nor of a newer one; summed over the clients.
    pub(super) missed: usize,
}

/// From commits, each a revision and its instant, to what `clients` saw. A client that saw a newer
/// revision knows of the older ones. Both are in the order of time.
pub(super) fn known(commits: &[(u64, i64)], clients: usize, seen: &[Seen]) -> Known {
    let mut knows = vec![0; clients];
    let mut times = Vec::with_capacity(seen.len());
    let mut lasts = vec![0.0_f64; commits.len()];
    for Seen { client, revision, at, .. } in seen {
        let next = &mut knows[*client];
        while let Some((_, committed)) = commits.get(*next).filter(|(new, _)| new <= revision) {
            let time = milliseconds(at - committed);
            lasts[*next] = lasts[*next].max(time);
            times.push(time);
            *next += 1;
        }
    }
    let missed = knows.iter().map(|known| commits.len() - known).sum();
    Known { times, lasts, missed }
}

/// A client whose stream ends so soon after a commit, in nanoseconds, may not have been told of it.
const TELLING: i64 = 1_000_000_000;

/// The commits of which everybody was told by an open stream: no client was without one.
pub(super) fn undisturbed(commits: &[(u64, i64)], gaps: &[Gap]) -> Vec<(u64, i64)> {
    let met = |at: i64| gaps.iter().any(|gap| gap.from <= at + TELLING && at <= gap.to);
    commits.iter().filter(|(_, at)| !met(*at)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64, sent: i64) -> Change {
        Change { revision, sent, answered: sent }
    }

    fn ping(stream: usize, revision: u64, kernel: i64) -> Arrival {
        Arrival { stream, revision, kernel, user: kernel, greets: false }
    }

    #[test]
    fn a_skipped_revision_is_known_with_the_next() {
        let changes = [change(5, 0), change(6, 1_000_000)];
        let pings = [ping(0, 5, 2_000_000), ping(0, 6, 3_000_000), ping(1, 6, 5_000_000)];
        assert_eq!(latencies(&changes, &pings), [2.0, 2.0, 4.0]);
        assert_eq!(lasts(&changes, &pings), [5.0, 4.0], "client 1 learns of 5 with 6");
    }

    #[test]
    fn changes_that_nobody_was_told_of_have_no_time() {
        assert!(lasts(&[change(5, 0)], &[]).is_empty());
        assert!(latencies(&[change(5, 0)], &[ping(0, 4, 1)]).is_empty());
    }
    #[test]
    fn a_client_that_sees_a_newer_revision_knows_of_the_older_one() {
        let seen = |client, revision, at| Seen { client, revision, at };
        let commits = [(5, 0), (6, 1_000_000)];
        let all = [seen(1, 4, 1), seen(0, 5, 2_000_000), seen(1, 7, 4_000_000)];
        let known = known(&commits, 3, &all);
        assert_eq!((known.times, known.lasts), (vec![2.0, 4.0, 3.0], vec![4.0, 3.0]));
        assert_eq!(known.missed, 3, "client 0 misses 6, client 2 both");
    }

    #[test]
    fn a_change_that_falls_between_two_streams_is_disturbed() {
        let second = 1_000_000_000;
        let gap = Gap { from: 5 * second, to: 6 * second };
        let commits = [(1, 3 * second), (2, 4 * second), (3, 6 * second), (4, 7 * second)];
        assert_eq!(undisturbed(&commits, &[gap]), [commits[0], commits[3]]);
    }
}
