//! How many streams may be open: in all, for one environment, from one address, of unknown keys.

use std::net::IpAddr;
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

impl Seats {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            total: AtomicUsize::new(0),
            unknown: AtomicUsize::new(0),
            by_address: DashMap::new(),
        }
    }

    /// Takes a place for a stream of an environment, or of an unknown key when there is none.
    /// Returns the address if it was counted, for [`Self::free`].
    pub(super) fn take(
        &self,
        address: IpAddr,
        environment: Option<&AtomicUsize>,
    ) -> Result<Option<Box<IpAddr>>, Refusal> {
        let limits = self.limits;
        let refused = |count: usize, limit: usize| limit != 0 && count > limit;
        let total = self.total.fetch_add(1, Ordering::Relaxed) + 1;
        let count = environment.unwrap_or(&self.unknown).fetch_add(1, Ordering::Relaxed) + 1;
        // Addresses are only counted for their limit: of most there is one stream, and an entry
        // costs as much as the stream itself.
        let counted = (limits.per_address != 0).then(|| Box::new(address));
        let from_address = if counted.is_some() {
            let mut count = self.by_address.entry(address).or_default();
            *count += 1;
            *count
        } else {
            0
        };
        let (own_limit, own_name) = match environment {
            Some(_) => (limits.per_environment, "streams_per_environment"),
            None => (limits.unknown, "streams_unknown"),
        };
        let refusal = if refused(total, limits.total) {
            "streams"
        } else if refused(from_address, limits.per_address) {
            "streams_per_address"
        } else if refused(count, own_limit) {
            own_name
        } else {
            return Ok(counted);
        };
        self.free(counted.as_deref(), environment);
        Err(Refusal(refusal))
    }

    /// Frees a place. `address` is what taking it returned.
    pub(super) fn free(&self, address: Option<&IpAddr>, environment: Option<&AtomicUsize>) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        environment.unwrap_or(&self.unknown).fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = address
            && let dashmap::Entry::Occupied(mut count) = self.by_address.entry(*address)
        {
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
    fn each_limit_refuses_by_its_name_and_a_freed_seat_is_free() {
        let limits = Limits { total: 4, per_environment: 2, per_address: 3, unknown: 1 };
        let seats = Seats::new(limits);
        let (one, other) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let take = |address, environment| {
            seats.take(address, environment).map(drop).map_err(|refusal| refusal.0)
        };
        assert_eq!(take(HERE, Some(&one)), Ok(()));
        assert_eq!(take(HERE, Some(&one)), Ok(()));
        assert_eq!(take(HERE, Some(&one)), Err("streams_per_environment"));
        assert_eq!(take(HERE, None), Ok(()));
        assert_eq!(take(THERE, None), Err("streams_unknown"));
        assert_eq!(take(HERE, Some(&other)), Err("streams_per_address"));
        assert_eq!(take(THERE, Some(&other)), Ok(()));
        assert_eq!(take(THERE, Some(&other)), Err("streams"));
        seats.free(Some(&HERE), Some(&one));
        assert_eq!(take(THERE, Some(&one)), Ok(()));
        for (address, environment) in
            [(HERE, Some(&one)), (HERE, None), (THERE, Some(&other)), (THERE, Some(&one))]
        {
            seats.free(Some(&address), environment);
        }
        let open = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        assert_eq!((open(&one), open(&other), open(&seats.total)), (0, 0, 0));
        assert!(seats.by_address.is_empty() && open(&seats.unknown) == 0);
    }
}
