//! Who is told: sends what endpoints are owed, signed, until they confirm it.
//!
//! What is owed, and to whom it belongs for the moment, is in the store; so a process that dies loses
//! nothing. This folder decides when, makes the request, and says what its answer means.

mod answer;
mod attempt;
mod flagsmith;
mod guard;
mod payload;
mod schedule;
mod signature;
mod watch;
mod worker;

pub use watch::watch;
pub use worker::{Worker, WorkerHandle};
