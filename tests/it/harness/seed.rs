//! What is random in a test, so that a failure can be repeated.

use rand::rngs::StdRng;
use rand::{SeedableRng as _, random};

/// Names the seed of a run to repeat.
const VARIABLE: &str = "FLAGCAST_TEST_SEED";

/// A seed. It is printed when the test fails.
pub(crate) struct Seed(u64);

impl Seed {
    /// A new one, or that of the environment.
    pub(crate) fn draw() -> Self {
        let given = std::env::var(VARIABLE).ok();
        Self(given.map_or_else(random, |seed| seed.parse().unwrap()))
    }

    /// Numbers for one of those who act in the test: each has its own.
    pub(crate) fn numbers(&self, actor: u64) -> StdRng {
        StdRng::seed_from_u64(self.0.wrapping_add(actor))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- draws the same again: {VARIABLE}={}", self.0);
        }
    }
}
