//! Feature flags from Flagcast in a server app.
//!
//! A [`Receiver`] keeps a local copy of an environment's flags. The app mounts [`Receiver::service`]
//! as the target of a Flagcast webhook; a delivery says which revision there is, the receiver reads
//! it, replaces its copy as a whole and answers what it holds. Looking a flag up is a look into
//! memory: no lock, no waiting, no network. When Flagcast is down, the app goes on with its copy, and
//! starts from the one on disk.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use flagcast_receiver::Receiver;
//!
//! let receiver = Receiver::builder("https://flags.example.com", "<client key>")
//!     .secret("whsec_…")
//!     .file("/var/lib/app/flags.json")
//!     .start()?;
//! let app: axum::Router = axum::Router::new()
//!     .nest_service("/flagcast", receiver.service());
//! if receiver.enabled("dark-mode") { /* … */ }
//! # Ok(())
//! # }
//! ```
//!
//! The parts: `options` checks what the app says; `service` answers deliveries with the help of
//! `verify` (signatures), `replay` and `delivery`; `follow` reads what it was told of, through `read`
//! and `fetch`, at the pace of `pace`; `held` is the copy, `flags` what is in it, and `store` its
//! home on disk.

mod delivery;
mod fetch;
mod flags;
mod follow;
mod held;
mod options;
mod pace;
mod read;
mod receiver;
mod replay;
mod service;
mod store;
mod verify;

pub use fetch::{BoxError, Fetch, Fetching};
pub use flags::{Flag, Flags};
pub use held::Changes;
pub use options::{Builder, OptionError};
pub use receiver::Receiver;
pub use service::{Answering, Service};
pub use store::{FileStore, Store};
