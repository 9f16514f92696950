//! From changes to the pings that told of them, when changes come faster than clients are told:
//! then a ping may tell of several changes at once.

use std::collections::HashMap;

use crate::client::Arrival;
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
    let told = pings.iter().filter_map(|ping| Some((sent.get(&ping.revision)?, ping.kernel)));
    told.map(|(sent, at)| milliseconds(at - sent)).collect()
}

/// From the request of each change until the last of the clients that are told knew of it, or of a
/// newer one, in milliseconds.
pub(super) fn lasts(changes: &[Change], pings: &[Arrival]) -> Vec<f64> {
    let first = changes.first().map_or(0, |change| change.revision);
    let mut known: HashMap<usize, u64> = HashMap::new();
    let mut lasts: HashMap<u64, i64> = HashMap::new();
    for ping in pings {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64, sent: i64) -> Change {
        Change { revision, sent, answered: sent }
    }

    fn ping(stream: usize, revision: u64, kernel: i64) -> Arrival {
        Arrival { stream, revision, kernel, user: kernel }
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
}
