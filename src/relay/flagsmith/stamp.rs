//! Which revision a document of Flagsmith is: Flagsmith counts none, it only has an instant.
//!
//! Several relays in front of one Flagsmith must say the same, so that a client may go from one to the other.
//! So a revision is the document's instant in microseconds, as Flagsmith writes and announces it. What SDKs
//! compare is the same instant in ticks, as all of ours are.

use crate::model::{Revision, Stamp, UpdatedAt};

/// The history in which instants of Flagsmith count.
pub(super) const EPOCH: &str = "flagsmith";

/// The revision of an instant.
pub(super) fn revision_at(instant: UpdatedAt) -> Revision {
    Revision(u64::try_from(instant.micros()).unwrap_or(0))
}

/// The stamp of a document with this instant. `held` is what is served so far, and whether the document
/// says the same; a change never goes back, even if Flagsmith's instant does or stands still.
pub(super) fn stamp(instant: Option<UpdatedAt>, held: Option<(Stamp, bool)>, now: i64) -> Stamp {
    let exact = |instant| Stamp {
        revision: revision_at(instant),
        updated_at: UpdatedAt::next(None, instant.micros()),
    };
    let told = instant.map(exact);
    let new = || told.unwrap_or_else(|| exact(UpdatedAt::from_micros(now)));
    match held {
        None => new(),
        Some((held, true)) => {
            let told = told.unwrap_or(held);
            Stamp {
                revision: told.revision.max(held.revision),
                updated_at: told.updated_at.max(held.updated_at),
            }
        }
        Some((held, false)) => {
            let next = held.next(0);
            let new = new();
            Stamp {
                revision: new.revision.max(next.revision),
                updated_at: new.updated_at.max(next.updated_at),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn at(micros: i64) -> UpdatedAt {
        UpdatedAt::from_micros(1_763_790_000 * SECOND + micros)
    }

    #[test]
    fn relays_that_read_the_same_document_say_the_same() {
        let one = stamp(Some(at(123_456)), None, 0);
        assert_eq!(one.updated_at.to_string(), "1763790000.109375");
        assert_eq!(one.revision, Revision(1_763_790_000_123_456));
        let earlier = stamp(Some(at(-5 * SECOND)), None, 0);
        for says_the_same in [true, false] {
            let other = stamp(Some(at(123_456)), Some((earlier, says_the_same)), 0);
            assert_eq!(other, one, "wherever it comes from");
        }
    }

    #[test]
    fn two_changes_within_a_tick_are_two() {
        let one = stamp(Some(at(123_456)), None, 0);
        let two = stamp(Some(at(123_457)), Some((one, false)), 0);
        assert_eq!(two.revision, revision_at(at(123_457)));
        assert!(two.updated_at > one.updated_at, "SDKs compare nothing else");
    }

    #[test]
    fn a_change_is_newer_whatever_flagsmith_says_of_its_time() {
        let held = stamp(Some(at(0)), None, 0);
        for instant in [Some(at(0)), Some(at(-SECOND)), None] {
            let next = stamp(instant, Some((held, false)), 5);
            assert_eq!(next, held.next(0), "{instant:?}");
            assert_eq!(stamp(instant, Some((held, true)), 5), held, "{instant:?}");
        }
        let now = held.updated_at.micros() + 3 * SECOND;
        assert_eq!(stamp(None, Some((held, false)), now).updated_at.micros(), now);
    }
}
