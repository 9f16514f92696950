//! The clients: many event streams in one thread, single requests, and `wrk` for full load.

mod http;
mod refetch;
mod scanner;
mod socket;
mod stream;
mod streams;
mod wrk;

pub(crate) use http::{Answer, Client, end_of_head, first_ping};
pub(crate) use refetch::Refetchers;
pub(crate) use socket::Stamping;
pub(crate) use stream::{Cut, Reading};
pub(crate) use streams::{Arrival, NAP, Streams, Tally, Target};
pub(crate) use wrk::Load;
