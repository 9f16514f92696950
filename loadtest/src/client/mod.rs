//! The clients: many event streams in one thread, with or without the reads that follow a ping,
//! single requests, receivers of webhooks, and `wrk` for full load.

mod dice;
mod fetcher;
mod followers;
mod http;
mod receivers;
mod refetch;
mod returns;
mod scanner;
mod silence;
mod socket;
mod stream;
mod streams;
mod tally;
mod wrk;

pub(crate) use dice::Dice;
pub(crate) use followers::{Followed, Followers, Progress, Seen, attend};
pub(crate) use http::{Answer, Client, end_of_head, first_ping};
pub(crate) use receivers::{Manner, Received, Receivers};
pub(crate) use refetch::{Reads, Refetchers};
pub(crate) use returns::Gap;
pub(crate) use socket::Stamping;
pub(crate) use stream::{Cut, Reading};
pub(crate) use streams::{Arrival, NAP, Streams, Target};
pub(crate) use tally::Tally;
pub(crate) use wrk::{Load, Rate};
