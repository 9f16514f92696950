//! What can be measured.

mod bench;
pub(crate) mod cdn;
pub(crate) mod compare;
pub(crate) mod crowd;
pub(crate) mod engine;
pub(crate) mod evaluate;
pub(crate) mod fanout;
pub(crate) mod nodes;
pub(crate) mod notify;
mod rates;
pub(crate) mod reads;
pub(crate) mod refetch;
pub(crate) mod relays;
pub(crate) mod slow;
pub(crate) mod soak;
pub(crate) mod storm;
mod times;
pub(crate) mod webhooks;
mod worker;
