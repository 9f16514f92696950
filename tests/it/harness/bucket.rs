//! Where an identity falls in what is shared out, worked out anew: by Flagsmith's documents, not by our
//! code.

use md5::{Digest as _, Md5};

/// The number of `key` in the split of `seed`: one of 9999. As a percentage it is a 9998th of that;
/// engines other than Rust's hash those again who get 100.
pub(crate) fn step(seed: &str, key: &str) -> u32 {
    let digest = Md5::digest(format!("{seed},{key}"));
    let number = u128::from_be_bytes(digest.into());
    u32::try_from(number % 9999).unwrap()
}
