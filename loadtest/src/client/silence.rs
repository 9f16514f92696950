//! How long streams say nothing. A stream that is held has a heartbeat, so a long silence means that it is
//! dead although nobody closed it.

/// What was heard since somebody began to listen for silences. Times are nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Silence {
    /// Longer ones are counted.
    patience: i64,
    pub(crate) longest: i64,
    /// Silences that lasted too long.
    pub(crate) too_long: u64,
    /// How often a client read something.
    pub(crate) reads: u64,
}

impl Silence {
    /// Begins to listen; a silence may last so long.
    pub(super) fn new(patience: i64) -> Self {
        Self { patience, ..Self::default() }
    }

    /// Something was read, so long after what was read before.
    pub(super) fn broken(&mut self, lasted: i64) {
        self.reads += 1;
        self.lasted(lasted);
    }

    /// A silence lasted until now, whether it is over or not.
    pub(super) fn lasted(&mut self, lasted: i64) {
        self.longest = self.longest.max(lasted);
        self.too_long += u64::from(lasted > self.patience);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_kept_and_those_beyond_patience_are_counted() {
        let mut silence = Silence::new(10);
        for lasted in [3, 10, 11] {
            silence.broken(lasted);
        }
        silence.lasted(25);
        assert_eq!((silence.longest, silence.too_long, silence.reads), (25, 2, 3));
    }
}
