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
mod manner;
mod opening;
mod pace;
mod ping;
mod seats;
mod shard;
mod shards;
mod sweep;
mod wheel;

pub use body::{Cut, body};
pub use client::ClientFamily;
pub use hub::{Change, Hub, PingRecord, Subscriber, Subscription};
pub use manner::{Contract, Dialect, Manner};
pub use opening::{Join, Opening};
pub use pace::Pace;
pub use ping::{Ping, PingFacts, PingStyle};
pub use seats::{Limits, Refusal};
pub use shards::{Adoption, Returned, Shards, Times};
