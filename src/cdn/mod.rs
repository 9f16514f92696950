//! What caches in front of us hold: purges what a change makes old, and looks from outside how long a
//! flip takes to arrive.
//!
//! Nothing here is needed for freshness. Pings name a URL that no cache has seen before, and streams
//! are never purged. A purge is for those who read without a revision.

mod canary;
mod purge;

pub use canary::{Canary, Flip, Flips};
pub use purge::Purger;
