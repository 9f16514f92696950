//! A bound for requests that change the store: a network that is cut in the middle of one says nothing.
//!
//! The bounds of statements are the database's own, and a database that cannot be reached keeps none. So
//! whoever asks for a change is told at last that nobody knows whether it was made; the open transaction
//! goes with its connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::errors::Problem;
use super::request::BodyLimits;

/// What a request may take when it has waited for a connection and for those who change the same things.
const WORK: Duration = Duration::from_secs(5);

/// How the routes end that attempt a delivery while their caller waits.
const WAITS_FOR_AN_ENDPOINT: [&str; 2] = ["/test", "/redeliver"];

/// How long a request may take from the end of its body on.
#[derive(Clone, Copy, Debug)]
pub struct Patience(Duration);

impl Patience {
    /// `wait` is what the settings let a statement wait for.
    #[must_use]
    pub fn new(wait: Duration) -> Self {
        Self(wait + WORK)
    }
}

/// Answers for a handler that takes too long, and drops it.
pub(super) async fn bounded(
    State(Patience(limit)): State<Patience>,
    route: MatchedPath,
    limits: BodyLimits,
    request: Request,
    next: Next,
) -> Response {
    // They wait for somebody else's endpoint, and have bounds of their own.
    if WAITS_FOR_AN_ENDPOINT.iter().any(|end| route.as_str().ends_with(end)) {
        return next.run(request).await;
    }
    let changes = !request.method().is_safe();
    let read = Arc::new(Notify::new());
    let told = Arc::clone(&read);
    let request = request.map(|body| Body::new(Watched { body, _dropped: Tells(told) }));
    let too_long = async {
        // A client may take its time with the body.
        drop(timeout(limits.timeout, read.notified()).await);
        sleep(limit).await;
    };
    tokio::select! {
        response = next.run(request) => response,
        () = too_long => {
            tracing::error!(route = route.as_str(), "the store does not answer a request");
            let problem =
                if changes { Problem::outcome_unknown() } else { Problem::store_unavailable() };
            problem.into_response()
        }
    }
}

/// A body that tells when it is read or not wanted.
struct Watched {
    body: Body,
    _dropped: Tells,
}

struct Tells(Arc<Notify>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
