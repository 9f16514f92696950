//! How many connections may be open, and each connection's place among them.
//!
//! A place travels with its connection: from the listener to a fan-out shard and back.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::metrics::ListenerMetrics;

/// The places of a listener. A clone is a handle to the same places.
#[derive(Clone, Debug)]
pub struct Places {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    free: Semaphore,
    metrics: ListenerMetrics,
}

/// One open connection. Dropping it frees the place. As small as a pointer, for there are many.
#[derive(Debug)]
pub struct Place {
    inner: Arc<Inner>,
}

impl Places {
    /// Makes `max` places.
    #[must_use]
    pub fn new(max: usize, metrics: ListenerMetrics) -> Self {
        let free = Semaphore::new(max.min(Semaphore::MAX_PERMITS));
        Self { inner: Arc::new(Inner { free, metrics }) }
    }

    /// Waits for a free place. What waits for it stays in the kernel's backlog meanwhile.
    pub async fn free(&self) -> Free<'_> {
        Free { places: self, permit: self.inner.free.acquire().await.ok() }
    }
}

/// A place that nobody has yet.
#[derive(Debug)]
pub struct Free<'a> {
    places: &'a Places,
    /// Nothing if the semaphore were closed, which it never is.
    permit: Option<SemaphorePermit<'a>>,
}

impl Free<'_> {
    /// Gives it to a connection.
    #[must_use]
    pub fn take(self) -> Place {
        if let Some(permit) = self.permit {
            permit.forget();
        }
        let inner = Arc::clone(&self.places.inner);
        inner.metrics.connections.increment(1.0);
        Place { inner }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.free.add_permits(1);
        self.inner.metrics.connections.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_dropped_place_is_free_again() {
        let places = Places::new(1, Metrics::new().listener("public"));
        drop(places.free().now_or_never().unwrap());
        let first = places.free().now_or_never().unwrap().take();
        assert!(places.free().now_or_never().is_none());
        drop(first);
        assert!(places.free().now_or_never().is_some());
        assert_eq!(size_of::<Place>(), size_of::<usize>());
    }
}
