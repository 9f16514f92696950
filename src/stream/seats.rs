//! How many streams may be open: in all, for one environment, from one address, of unknown keys.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

/// The bounds; 0 means none.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub total: usize,
    /// Of one environment.
    pub per_environment: usize,
    /// From one address.
    pub per_address: usize,
    /// Of keys that no environment has.
    pub unknown: usize,
}

/// The setting that refuses a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub &'static str);

/// Counts the open streams of a process.
#[derive(Debug)]
pub(super) struct Seats {
    limits: Limits,
    total: AtomicUsize,
    unknown: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
}

/// One open stream's place in every count. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
    unknown: bool,
    environment: Option<Arc<AtomicUsize>>,
}

impl Seats {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            total: AtomicUsize::new(0),
            unknown: AtomicUsize::new(0),
            by_address: DashMap::new(),
        })
    }

    /// Takes a place for a stream of an environment, or of an unknown key when there is none.
    pub(super) fn take(
        self: &Arc<Self>,
        address: IpAddr,
        environment: Option<Arc<AtomicUsize>>,
    ) -> Result<Seat, Refusal> {
        let limits = self.limits;
        // From here on the seat gives back what was taken, whatever is refused after it.
        let mut seat = Seat { seats: Arc::clone(self), address, unknown: false, environment: None };
        self.total.fetch_add(1, Ordering::Relaxed);
        *self.by_address.entry(address).or_default() += 1;
        let within = |count: usize, limit: usize| limit == 0 || count <= limit;
        if !within(self.total.load(Ordering::Relaxed), limits.total) {
            return Err(Refusal("streams"));
        }
        let from_address = self.by_address.get(&address).map_or(0, |count| *count);
        if !within(from_address, limits.per_address) {
            return Err(Refusal("streams_per_address"));
        }
        let Some(environment) = environment else {
            seat.unknown = true;
            let count = self.unknown.fetch_add(1, Ordering::Relaxed) + 1;
            let refusal = Refusal("streams_unknown");
            return if within(count, limits.unknown) { Ok(seat) } else { Err(refusal) };
        };
        let count = environment.fetch_add(1, Ordering::Relaxed) + 1;
        seat.environment = Some(environment);
        if !within(count, limits.per_environment) {
            return Err(Refusal("streams_per_environment"));
        }
        Ok(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.total.fetch_sub(1, Ordering::Relaxed);
        if self.unknown {
            self.seats.unknown.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(environment) = &self.environment {
            environment.fetch_sub(1, Ordering::Relaxed);
        }
        if let dashmap::Entry::Occupied(mut count) = self.seats.by_address.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

    #[test]
    fn each_limit_refuses_by_its_name_and_a_dropped_seat_is_free() {
        let limits = Limits { total: 4, per_environment: 2, per_address: 3, unknown: 1 };
        let seats = Seats::new(limits);
        let environment = Arc::new(AtomicUsize::new(0));
        let take = |address, environment| seats.take(address, environment).map_err(|r| r.0);
        let first = take(HERE, Some(Arc::clone(&environment))).unwrap();
        let second = take(HERE, Some(Arc::clone(&environment))).unwrap();
        let third = take(HERE, Some(Arc::clone(&environment)));
        assert_eq!(third.unwrap_err(), "streams_per_environment");
        let unknown = take(HERE, None).unwrap();
        assert_eq!(take(THERE, None).unwrap_err(), "streams_unknown");
        assert_eq!(take(HERE, Some(Arc::default())).unwrap_err(), "streams_per_address");
        let fourth = take(THERE, Some(Arc::default())).unwrap();
        assert_eq!(take(THERE, Some(Arc::default())).unwrap_err(), "streams");
        drop(first);
        assert!(take(THERE, Some(environment)).is_ok());
        drop((second, unknown, fourth));
        assert!(seats.by_address.is_empty() && seats.total.load(Ordering::Relaxed) == 0);
    }
}
