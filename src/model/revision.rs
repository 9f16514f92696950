//! The revision clock of an environment: a counter and an instant that move together.
//!
//! Clients of two kinds follow it. Ours compare the counter. Flagsmith's SDKs compare the instant,
//! some as a float, some as ISO text with microseconds, so it must mean the same in both forms:
//! instants that we issue are multiples of 1/64 s, which a float holds exactly and six decimals
//! print exactly.

use std::fmt;

use serde::{Serialize, Serializer};

/// One step of an issued instant: 1/64 s.
pub const TICK_MICROS: i64 = 1_000_000 / 64;

/// The counter: +1 for each committed change transaction of an environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// Revisions between `told` and this one, which nobody who knew `told` needs to hear any more.
    #[must_use]
    pub fn skipped_since(self, told: Option<Self>) -> u64 {
        told.map_or(0, |told| self.0.saturating_sub(told.0).saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The instant of a revision, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpdatedAt(i64);

impl UpdatedAt {
    /// The instant for a change that is committed at `now_micros` after `previous`: the tick that
    /// `now` falls into, or the next free one when time stood still or went back.
    #[must_use]
    pub fn next(previous: Option<Self>, now_micros: i64) -> Self {
        let now = now_micros.div_euclid(TICK_MICROS);
        let free = previous.map_or(i64::MIN, |p| p.0.div_euclid(TICK_MICROS) + 1);
        Self(now.max(free) * TICK_MICROS)
    }

    /// An instant that was issued before, here or by another system, to the microsecond.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Reads ISO 8601 with an offset, or without one, which then means UTC. Nothing before 1970.
    #[must_use]
    pub fn parse_iso(text: &str) -> Option<Self> {
        let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
            let civil: jiff::civil::DateTime = text.parse().ok()?;
            civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
        })?;
        let micros = timestamp.as_microsecond();
        (micros >= 0).then_some(Self(micros))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// ISO 8601 with microseconds and offset, as the environment document carries it.
    #[must_use]
    pub fn iso(self) -> String {
        jiff::Timestamp::from_microsecond(self.0)
            .map(|time| time.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string())
            .unwrap_or_default()
    }
}

/// Seconds since the epoch with a fraction that is always printed: Flutter's SDK ignores a number
/// without one.
impl fmt::Display for UpdatedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        let fraction = format!("{micros:06}");
        let shown = fraction.trim_end_matches('0');
        write!(f, "{seconds}.{}", if shown.is_empty() { "0" } else { shown })
    }
}

impl Serialize for UpdatedAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A float prints its shortest form, which for an issued instant has the same digits as
        // `Display`, and always a fraction.
        #[expect(clippy::cast_precision_loss, reason = "52 bits last until the year 2112")]
        serializer.serialize_f64(self.0 as f64 / 1_000_000.0)
    }
}

/// Revision and instant of one state of an environment: they are only ever issued as a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stamp {
    /// The counter.
    pub revision: Revision,
    /// The instant.
    pub updated_at: UpdatedAt,
}

impl Stamp {
    /// The pair that follows `self` for a change committed at `now_micros`.
    #[must_use]
    pub fn next(self, now_micros: i64) -> Self {
        Self {
            revision: Revision(self.revision.0 + 1),
            updated_at: UpdatedAt::next(Some(self.updated_at), now_micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fraction_is_always_printed() {
        assert_eq!(UpdatedAt::from_micros(1_763_790_000_000_000).to_string(), "1763790000.0");
        assert_eq!(UpdatedAt::from_micros(1_763_790_000_015_625).to_string(), "1763790000.015625");
        assert_eq!(
            serde_json::to_string(&UpdatedAt::from_micros(1_763_790_000_000_000)).unwrap(),
            "1763790000.0"
        );
    }

    #[test]
    fn iso_carries_an_offset_and_six_decimals() {
        let at = UpdatedAt::from_micros(1_763_790_000_015_625);
        assert_eq!(at.iso(), "2025-11-22T05:40:00.015625+00:00");
    }

    #[test]
    fn instants_come_with_and_without_an_offset() {
        let micros = |text: &str| UpdatedAt::parse_iso(text).map(UpdatedAt::micros);
        let expected = Some(1_787_313_600_123_456);
        assert_eq!(micros("2026-08-21T12:00:00.123456+00:00"), expected);
        assert_eq!(micros("2026-08-21T12:00:00.123456Z"), expected);
        assert_eq!(micros("2026-08-21T14:00:00.123456+02:00"), expected);
        assert_eq!(micros("2026-08-21T12:00:00.123456"), expected);
        assert_eq!(micros("2026-08-21 12:00:00.123456"), expected);
        assert_eq!(micros("1969-12-31T23:59:59Z"), None);
        assert_eq!(micros("yesterday"), None);
    }

    proptest! {
        /// Whatever the wall clock does, instants rise, the counter counts, and an instant is
        /// never ahead of a clock that runs by more than the changes it had to squeeze in.
        #[test]
        fn the_clock_rises(start in 0_i64..4_000_000_000_000_000, steps in prop::collection::vec(-5_000_000_i64..5_000_000, 1..200)) {
            let mut now = start;
            let mut stamp = Stamp { revision: Revision(1), updated_at: UpdatedAt::next(None, now) };
            for step in steps {
                now = (now + step).max(0);
                let next = stamp.next(now);
                prop_assert_eq!(next.revision.0, stamp.revision.0 + 1);
                prop_assert!(next.updated_at > stamp.updated_at);
                let earliest = stamp.updated_at.micros() + TICK_MICROS;
                prop_assert!(next.updated_at.micros() <= now.max(earliest));
                stamp = next;
            }
        }

        /// Printed, parsed as a float and turned into microseconds, an issued instant is itself;
        /// and its JSON form has the same digits.
        #[test]
        fn an_issued_instant_survives_a_float(now in 0_i64..4_000_000_000_000_000) {
            let at = UpdatedAt::next(None, now);
            let printed = at.to_string();
            let float: f64 = printed.parse().unwrap();
            #[expect(clippy::cast_possible_truncation, reason = "in range by construction")]
            let micros = (float * 1_000_000.0).round() as i64;
            prop_assert_eq!(micros, at.micros());
            prop_assert!((float * 64.0).fract() == 0.0);
            prop_assert_eq!(serde_json::to_string(&at).unwrap(), printed);
        }

        /// The same for instants of other systems, which have any microsecond.
        #[test]
        fn a_foreign_instant_survives_a_float(micros in 0_i64..4_000_000_000_000_000) {
            let printed = UpdatedAt::from_micros(micros).to_string();
            let float: f64 = printed.parse().unwrap();
            #[expect(clippy::cast_possible_truncation, reason = "in range by construction")]
            let back = (float * 1_000_000.0).round() as i64;
            prop_assert_eq!(back, micros);
        }
    }
}
