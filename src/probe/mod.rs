//! What a client sees: a subscriber that goes through whatever is in between, and `flagcast
//! listen`, which says what it saw.
//!
//! It reads streams as clients do, by the wire alone, and shares no code with those who write them:
//! what it finds right is right. [`Subscriber`] opens and reads one stream, [`listen`] keeps two of
//! them open and takes a [`record`], and `figures` and `findings` judge the record without any I/O.

mod address;
mod events;
mod figures;
mod findings;
mod listen;
mod record;
mod report;
mod subscribe;
mod told;

pub use address::StreamUrl;
pub use events::{Event, Item, Scanner};
pub use listen::{Listen, listen};
pub use report::Form;
pub use subscribe::{End, Events, Head, Next, Options, Refused, RefusedKind, Subscriber, What};
pub use told::{Kind, Told};

/// What was asked for cannot be done: the message names the value, the rule and the next step.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    /// For what only the command line can see.
    #[must_use]
    pub fn new(message: String) -> Self {
        Self(message)
    }
}
