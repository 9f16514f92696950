//! Reads flag sets: makes the request, and says what an answer means.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, ETAG, IF_NONE_MATCH, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};

use crate::fetch::Fetch;
use crate::flags::Flags;

const AGENT: &str = concat!("flagcast-receiver-rust/", env!("CARGO_PKG_VERSION"));

/// The instant of the state that an answer is about; a 304 has it, too.
const UPDATED_AT: HeaderName = HeaderName::from_static("x-flagsmith-document-updated-at");

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Question {
    /// A state of at least this revision. Caches may answer.
    AtLeast(u64),
    /// The newest state, unless it is the one with this tag. Caches ask the gateway first.
    Newest(Option<HeaderValue>),
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A flag set, and its tag.
    Flags(Flags, Option<HeaderValue>),
    /// The one with the tag is the newest; and the instant that it has for the gateway.
    Same(Option<f64>),
    /// Nothing, for this reason, and not before this much time.
    Nothing(String, Duration),
}

/// Reads the flags of one environment.
#[derive(Clone)]
pub(crate) struct Reader {
    client: Arc<dyn Fetch>,
    url: String,
    client_key: String,
    timeout: Duration,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Reader {
    /// `base` is where the gateway is, without a slash at its end.
    pub(crate) fn new(
        client: Arc<dyn Fetch>,
        base: &str,
        client_key: &str,
        timeout: Duration,
    ) -> Self {
        let url = format!("{base}/sdk/v1/environments/{client_key}/flags");
        Self { client, url, client_key: client_key.to_owned(), timeout }
    }

    /// Asks once.
    pub(crate) async fn read(&self, question: &Question) -> Answer {
        let request = match self.request(question) {
            Ok(request) => request,
            Err(error) => return Answer::Nothing(error.to_string(), Duration::ZERO),
        };
        match tokio::time::timeout(self.timeout, self.client.fetch(request)).await {
            Ok(Ok(response)) => self.answer(response),
            Ok(Err(error)) => Answer::Nothing(error.to_string(), Duration::ZERO),
            Err(_) => {
                let why = format!("no answer within {} s", self.timeout.as_secs_f32());
                Answer::Nothing(why, Duration::ZERO)
            }
        }
    }

    fn request(&self, question: &Question) -> http::Result<Request<()>> {
        let request = Request::get(match question {
            Question::AtLeast(revision) => format!("{}?rev={revision}", self.url),
            Question::Newest(_) => self.url.clone(),
        });
        let request = request.header(USER_AGENT, AGENT).header(ACCEPT, "application/json");
        match question {
            Question::AtLeast(_) => request,
            Question::Newest(None) => request.header(CACHE_CONTROL, "no-cache"),
            Question::Newest(Some(tag)) => request.header(IF_NONE_MATCH, tag),
        }
        .body(())
    }

    fn answer(&self, response: Response<Bytes>) -> Answer {
        let (parts, body) = response.into_parts();
        let nothing = |why: String| Answer::Nothing(why, asked_for(&parts.headers));
        match parts.status {
            StatusCode::OK => match Flags::parse(&body, &self.client_key) {
                Ok(flags) => Answer::Flags(flags, parts.headers.get(ETAG).cloned()),
                Err(why) => nothing(why),
            },
            StatusCode::NOT_MODIFIED => {
                let text = parts.headers.get(UPDATED_AT).and_then(|value| value.to_str().ok());
                Answer::Same(text.and_then(|text| text.parse().ok()))
            }
            StatusCode::NOT_FOUND => {
                nothing("404: not there yet, or no environment has this client key".to_owned())
            }
            status => nothing(format!("status {}", status.as_u16())),
        }
    }
}

/// How long to leave the other side alone: a 404 is kept by caches for its `max-age`, a busy gateway
/// says `Retry-After`.
fn asked_for(headers: &HeaderMap) -> Duration {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let retry_after = text(RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
    let max_age = text(CACHE_CONTROL)
        .and_then(|control| {
            control.split(',').find_map(|part| part.trim().strip_prefix("max-age="))
        })
        .and_then(|seconds| seconds.parse().ok());
    let seconds: Option<u32> = retry_after.max(max_age);
    Duration::from_secs(seconds.unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_side_may_ask_for_time() {
        for (pairs, seconds) in [
            (vec![], 0),
            (vec![("cache-control", "public, max-age=1")], 1),
            (vec![("cache-control", "no-store")], 0),
            (vec![("retry-after", "7")], 7),
            (vec![("retry-after", "Sat, 28 Nov 2026 08:00:00 GMT")], 0),
            (vec![("retry-after", "2"), ("cache-control", "max-age=5")], 5),
            (vec![("cache-control", "max-age=-1")], 0),
        ] {
            let headers =
                pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            assert_eq!(asked_for(&headers.collect()), Duration::from_secs(seconds), "{pairs:?}");
        }
    }
}
