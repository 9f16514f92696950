//! The doors: each translates HTTP to the parts below it, and nothing else.
//!
//! [`serve`] drives connections; [`Front`] takes their requests; `router` is the table of all routes; `errors` is the only place
//! that turns a failure into a status. One file or folder per door: `sdk` (our reads), `flagsmith`
//! (Flagsmith's reads), `flipper` (Flipper's), `ofrep` (`OpenFeature`'s), `client` (the browser client), `sse` (streams), `relays` (what relays ask), `admin` (management), `dashboard` (the page), `ops`
//! (operators).

pub mod admin;
mod backlog;
mod client;
mod connection;
mod cors;
mod dashboard;
mod errors;
mod flagsmith;
mod flipper;
mod front;
mod given;
mod handover;
mod hops;
mod http2;
mod listener;
mod ofrep;
mod ops;
mod patience;
mod relays;
mod request;
mod router;
mod sdk;
mod shared;
mod sse;
mod tls;

pub use admin::{Admin, openapi};
pub use flagsmith::{Evaluations, Flagsmith};
pub use flipper::Flipper;
pub use front::Front;
pub use hops::Hops;
pub use listener::{Connections, Streams, bind, serve};
pub use ofrep::Ofrep;
pub use ops::{Health, Ops, StoreHealth};
pub use patience::Patience;
pub use relays::{Gate, Relays};
pub use request::BodyLimits;
pub use router::{Doors, operators_front, public_front};
pub use sdk::Sdk;
pub use sse::Sse;
pub use tls::Tls;
