//! Who is listening: the newest state of every environment, and the streams that tell of it.
//!
//! All pings of an environment say the same: "the newest revision is N". So the [`Hub`] holds N and
//! wakes; it keeps no queue and no history. A slow client gets the newest value when it can take
//! it, a burst folds into one ping, and a late joiner begins with the present state.

mod body;
mod client;
mod frames;
mod hub;
mod seats;

pub use body::{Pace, body};
pub use client::ClientFamily;
pub use frames::{PingFacts, goodbye, ping};
pub use hub::{Hub, PingRecord, Subscription};
pub use seats::{Limits, Refusal};
