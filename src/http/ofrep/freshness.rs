//! What a ping has told the client of, when it asks again because of one.
//!
//! The provider for the web sends back `etag` and `lastModified` of the ping. They are no conditions:
//! they say that there is something newer, so an answer must be at least as new. A process that does
//! not have it yet waits a moment, and then says so (503) rather than answer with something older.
//! Neither makes that provider ask again by itself: it reads again at the next ping, or when its
//! stream begins anew. But an older body it would take for the new one, and go back to it from
//! something newer that another process had told it; after an error it keeps what it has and tells
//! the app that it is stale, which is true.
//!
//! Only our tag can be waited for with certainty. A time without one is nobody's that we know of: it
//! makes us look whether the store has something newer, and is answered in any case.

use axum::extract::Query;
use http::Uri;

use crate::model::{ClientKey, Revision, Stamp};

/// How new an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// At least of this revision.
    Revision(Revision),
    /// At least of this second.
    Second(i64),
}

impl Wanted {
    /// The revision to wait for, if a state of `stamp` is too old.
    pub(super) fn missing(self, stamp: Stamp) -> Option<Revision> {
        match self {
            Self::Revision(revision) => (stamp.revision < revision).then_some(revision),
            Self::Second(second) => {
                let is_old = stamp.updated_at.seconds() < second;
                is_old.then(|| Revision(stamp.revision.0.saturating_add(1)))
            }
        }
    }
}

/// What the query says. Another server's values, or those of another environment, say nothing here.
pub(super) fn wanted(uri: &Uri, client_key: &ClientKey) -> Option<Wanted> {
    uri.query()?;
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    let find = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| &**value);
    match find("flagConfigEtag") {
        Some(tag) => revision(tag, client_key).map(Wanted::Revision),
        None => find("flagConfigLastModified").and_then(second).map(Wanted::Second),
    }
}

/// The revision in `"<client key>.<revision>"`, however it is quoted.
fn revision(tag: &str, client_key: &ClientKey) -> Option<Revision> {
    let tag = tag.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
    let rest = tag.strip_prefix(client_key.as_str())?.strip_prefix('.')?;
    let number = rest.split('.').next()?;
    number.parse().ok().map(Revision)
}

/// Seconds since the epoch, or an ISO 8601 time.
fn second(text: &str) -> Option<i64> {
    let instant = || text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second);
    text.trim().parse().ok().or_else(instant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UpdatedAt;

    fn of(query: &str) -> Option<Wanted> {
        let uri: Uri = format!("/ofrep/v1/evaluate/flags?{query}").parse().unwrap();
        wanted(&uri, &ClientKey::parse("aB3").unwrap())
    }

    #[test]
    fn only_our_own_words_count() {
        let revision = |number| Some(Wanted::Revision(Revision(number)));
        assert_eq!(of("flagConfigEtag=%22aB3.42%22&flagConfigLastModified=7"), revision(42));
        assert_eq!(of("flagConfigEtag=W/%22aB3.42%22"), revision(42));
        assert_eq!(of("flagConfigEtag=aB3.42"), revision(42));
        assert_eq!(of("flagConfigEtag=%22aB3.42.0123456789abcdef%22"), revision(42));
        for foreign in ["aB3", "aB3.", "aB3.x", "aB34.2", "other.42", "%22%22", "aB3.-1", ""] {
            assert_eq!(of(&format!("flagConfigEtag={foreign}")), None, "{foreign}");
        }
        assert_eq!(of("flagConfigEtag=other&flagConfigLastModified=7"), None);
        assert_eq!(of("flagConfigLastModified=7"), Some(Wanted::Second(7)));
        let iso = Some(Wanted::Second(1_771_622_898));
        assert_eq!(of("flagConfigLastModified=2026-02-20T21:28:18Z"), iso);
        assert_eq!(of("flagConfigLastModified=yesterday&other=%ff"), None);
    }

    #[test]
    fn what_is_missing_is_waited_for() {
        let updated_at = UpdatedAt::from_micros(100_500_000);
        let stamp = Stamp { revision: Revision(42), updated_at };
        let missing = |wanted: Wanted| wanted.missing(stamp).map(|revision| revision.0);
        assert_eq!(missing(Wanted::Revision(Revision(42))), None);
        assert_eq!(missing(Wanted::Revision(Revision(44))), Some(44));
        assert_eq!(missing(Wanted::Second(100)), None);
        assert_eq!(missing(Wanted::Second(101)), Some(43));
    }
}
