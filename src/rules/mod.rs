//! What people may write, whichever way they bring it: the management API, an SDK, a file.
//!
//! Each rule says what is wrong, which rule it is and what to write instead; where it was written is told
//! by whoever read it. What rules of segments may say is `evaluation::check`.

mod identity;
mod text;
mod value;
mod webhook;

pub use identity::{TRAIT_KEY_MAX, check_identifier, check_trait, check_traits};
pub use text::{
    DESCRIPTION_MAX, NAME_MAX, TAG_MAX, TAGS_MAX, broken_key, check_description, check_name,
    check_tags, key_of, segment_key,
};
pub use value::{check_sum, check_type, check_value, check_variant_key};
pub use webhook::{EVENT_MAX, EVENTS_MAX, HEADER_BYTES_MAX, HEADERS_MAX, events, headers, secret};

/// A rule that does not hold, in one sentence for people. It names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(String);

impl Broken {
    pub(super) fn new(detail: String) -> Self {
        Self(detail)
    }
}
