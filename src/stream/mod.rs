//! Who is listening: the newest state of every environment, and the streams that tell of it.
//!
//! All pings of an environment say the same: "the newest revision is N". So the [`Hub`] holds N and
//! wakes; it keeps no queue and no history. A slow client gets the newest value when it can take
//! it, a burst folds into one ping, and a late joiner begins with the present state.

mod body;
mod channel;
mod client;
mod frames;
mod hub;
mod opening;
mod pace;
mod seats;
mod shard;
mod shards;
mod sweep;
mod wheel;

pub use body::body;
pub use channel::Ping;
pub use client::ClientFamily;
pub use frames::{Frame, PingFacts, ping};
pub use hub::{Change, Hub, PingRecord, Subscription};
pub use opening::{Join, Opening};
pub use pace::Pace;
pub use seats::{Limits, Refusal};
pub use shards::{Adoption, Returned, Shards, Times};
