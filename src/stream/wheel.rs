//! One coarse clock for many deadlines: a wheel of short slots.
//!
//! A timer per stream costs more than the stream. Here a stream is a number in the slot of the tick
//! at which somebody should look at it; a deadline beyond the wheel is looked at once a turn.

use std::time::{Duration, Instant};

/// Length of a slot: as late as anything on the wheel may be.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// Slots: a turn is 25.6 s, longer than the usual heartbeat.
const SLOTS: u32 = 512;

/// A point in time, in ticks since the wheel was made.
pub(super) type Tick = u32;

/// A span in ticks, one more than its whole ones, for the one that has begun: deadlines are late,
/// never early.
pub(super) fn ticks(span: Duration) -> Tick {
    let whole = Tick::try_from(span.as_nanos() / TICK.as_nanos()).unwrap_or(Tick::MAX - 1);
    whole.saturating_add(1)
}

/// Deadlines of streams, which are known by their keys.
#[derive(Debug)]
pub(super) struct Wheel {
    began: Instant,
    now: Tick,
    slots: Vec<Vec<u32>>,
    waiting: usize,
}

impl Wheel {
    pub(super) fn new(began: Instant) -> Self {
        let slots = (0..SLOTS).map(|_| Vec::new()).collect();
        Self { began, now: 0, slots, waiting: 0 }
    }

    /// The tick that has come last.
    pub(super) fn now(&self) -> Tick {
        self.now
    }

    /// Enters `key`, to be looked at at `deadline` or before. Returns the tick at which that is.
    pub(super) fn insert(&mut self, key: u32, deadline: Tick) -> Tick {
        let at = deadline.clamp(self.now + 1, self.now + SLOTS - 1);
        self.slots[slot(at)].push(key);
        self.waiting += 1;
        at
    }

    /// Moves on to `now` and hands out what has come due, each key with its tick.
    pub(super) fn advance(&mut self, now: Instant, mut due: impl FnMut(u32, Tick)) {
        let since = now.saturating_duration_since(self.began);
        let reached = Tick::try_from(since.as_nanos() / TICK.as_nanos()).unwrap_or(Tick::MAX);
        while self.now < reached {
            if self.waiting == 0 {
                self.now = reached;
                return;
            }
            self.now += 1;
            // Taken, not drained: a slot that once held everybody would keep that memory.
            for key in std::mem::take(&mut self.slots[slot(self.now)]) {
                self.waiting -= 1;
                due(key, self.now);
            }
        }
    }

    /// How long until the next key comes due; nothing when none waits.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        if self.waiting == 0 {
            return None;
        }
        let next = (1..SLOTS).find(|ahead| !self.slots[slot(self.now + ahead)].is_empty())?;
        let at = self.began + TICK * (self.now + next);
        Some(at.saturating_duration_since(now))
    }
}

fn slot(tick: Tick) -> usize {
    (tick % SLOTS) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn due(wheel: &mut Wheel, at: Instant) -> Vec<(u32, Tick)> {
        let mut due = Vec::new();
        wheel.advance(at, |key, tick| due.push((key, tick)));
        due
    }

    #[test]
    fn a_deadline_is_late_by_less_than_two_ticks_and_never_early() {
        let span = Duration::from_secs(1);
        for millis in [0, 7, 49] {
            let began = Instant::now();
            let mut wheel = Wheel::new(began);
            let now = began + Duration::from_millis(millis);
            let deadline = wheel.now() + ticks(span);
            assert_eq!(wheel.insert(3, deadline), deadline);
            assert_eq!(due(&mut wheel, now + span), []);
            assert_eq!(due(&mut wheel, now + span + TICK + TICK), [(3, deadline)]);
            assert_eq!(wheel.rest(now), None);
        }
    }

    #[test]
    fn a_far_deadline_is_looked_at_within_a_turn() {
        let began = Instant::now();
        let mut wheel = Wheel::new(began);
        let deadline = wheel.now() + ticks(Duration::from_hours(1));
        let at = wheel.insert(1, deadline);
        assert!(at < deadline && at == SLOTS - 1);
        assert_eq!(due(&mut wheel, began + Duration::from_mins(1)), [(1, at)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_early_however_the_clock_jumps(
            steps in proptest::collection::vec((0_u64..40_000, 0_u64..30_000), 1..60),
        ) {
            let began = Instant::now();
            let mut wheel = Wheel::new(began);
            let (mut now, mut waiting) = (began, std::collections::BTreeMap::new());
            for (key, (jump, span)) in (0_u32..).zip(steps) {
                let deadline = wheel.now() + ticks(Duration::from_millis(span));
                waiting.insert(key, wheel.insert(key, deadline));
                now += Duration::from_millis(jump);
                if let Some(rest) = wheel.rest(now) {
                    prop_assert!(rest <= TICK * SLOTS);
                }
                wheel.advance(now, |key, tick| {
                    assert_eq!(waiting.remove(&key), Some(tick));
                    assert!(began + TICK * tick <= now, "early");
                });
                prop_assert!(waiting.values().all(|at| began + TICK * *at > now), "late");
            }
        }
    }
}
