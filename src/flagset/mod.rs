//! What is served: one immutable flag set per environment and revision.
//!
//! A flag set holds every body that clients share, rendered once and compressed once, and the evaluator
//! with the pieces that answers for single people are made of. Reads hand out shared bytes. The [`Directory`] knows which key opens which environment; [`FlagSets`] holds
//! the newest flag set of each, within a bound of memory.

mod body;
mod cache;
mod directory;
mod document;
mod flagsmith;
mod flipper;
mod ofrep;
mod personal;
#[cfg(test)]
pub(crate) mod sample;
mod set;

pub use body::{Body, Encoding};
pub use cache::{Bounds, FlagSets};
pub use directory::{Directory, Known, Stranger, Word};
pub use flipper::Flipper;
pub use personal::{Asker, Personal, Told};
pub use set::{FlagSet, Singled, View, surrogate_key};
