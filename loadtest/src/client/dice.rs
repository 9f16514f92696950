//! Chance that is the same in every run.

/// Random enough to choose clients and moments by (xorshift64).
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice that roll as all others of this `seed` do.
    pub(crate) fn new(seed: u64) -> Self {
        // Zero would roll zeros for ever.
        Self((seed ^ 0x9E37_79B9_7F4A_7C15).max(1))
    }

    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 32).unwrap_or_default() % sides
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_reach_every_side() {
        let mut dice = Dice::new(1);
        let mut seen = [0; 4];
        for _ in 0..400 {
            seen[dice.roll(4)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
    }
}
