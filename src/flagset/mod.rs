//! What is served: one immutable flag set per environment and revision.
//!
//! A flag set holds every body that clients share, rendered once and compressed once. Reads hand
//! out shared bytes. The [`Directory`] knows which key opens which environment; [`FlagSets`] holds
//! the newest flag set of each, within a bound of memory.

mod body;
mod cache;
mod directory;
mod flagsmith;
mod set;

pub use body::{Body, Encoding};
pub use cache::{Bounds, FlagSets};
pub use directory::{Directory, Known};
pub use set::{FlagSet, Singled, surrogate_key};
