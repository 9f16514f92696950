//! A relay: serves what a gateway serves, from snapshots that it holds.
//!
//! ```text
//! upstream ── one stream per environment ──▶ link ──▶ held ──▶ flag sets ──▶ hub ──▶ clients
//!          ◀── pinned snapshot, one at a time ──┘        └──▶ disk
//! ```
//!
//! The [`Keeper`] decides which environments are held; a *link* follows one of them; what is held stands
//! behind the doors as the store does at a gateway ([`crate::origin`]). When the upstream is away, everything
//! goes on with what is held, and a restart begins with what is on the disk.

mod asking;
mod disk;
mod flagsmith;
mod gateway;
mod held;
mod keeper;
mod ledger;
mod link;
mod listening;
mod status;
mod upstream;
mod usage;
mod watch;

pub use held::Held;
pub use keeper::Keeper;
pub use ledger::RelayLedger;
pub use status::{LineReport, Report};
pub use upstream::Upstream;
pub use usage::{LAST_WAIT as USAGE_LAST_WAIT, Usage};
pub use watch::Watch;
