//! The bucket of an identity: where it falls in a split.
//!
//! Source: Flagsmith's engines. Every SDK must put the same identity into the same bucket, so the
//! digest (MD5, which need not be safe here) and even the width of the arithmetic are theirs.

use md5::{Digest as _, Md5};

/// Buckets are told apart by this many steps.
const STEPS: u32 = 9999;

/// The bucket of `key` in the split of `seed`, from 0 to 100.
///
/// Single precision, as the official engine has it: a bucket that lies on a boundary must fall to the
/// same side.
#[must_use]
pub fn bucket(seed: &str, key: &str) -> f64 {
    let mut digest = Md5::new();
    digest.update(seed.as_bytes());
    digest.update(b",");
    digest.update(key.as_bytes());
    let step =
        digest.finalize().iter().fold(0, |rest: u32, byte| (rest * 256 + u32::from(*byte)) % STEPS);
    #[expect(clippy::cast_precision_loss, reason = "9998 fits")]
    let share = step as f32 / 9998.0 * 100.0;
    f64::from(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out by hand from the digests: 3888, 2659, 9763 and 4927 of 9999 steps.
    #[test]
    fn buckets_are_those_of_every_sdk() {
        let near = |seed, key, wanted: f64| {
            let bucket = bucket(seed, key);
            assert!((bucket - wanted).abs() < 1e-4, "{seed},{key}: {bucket}");
        };
        near("1", "8", 38.887_777_555_511_11);
        near("1", "2", 26.595_319_063_812_76);
        near("10", "env_identity1", 97.649_529_905_981_2);
        near("78986", "32103813", 49.279_855_971_194_24);
    }
}
