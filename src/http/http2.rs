//! Drives one HTTP/2 connection: as many requests at a time as its client likes, within limits.
//!
//! The library frames everything here, so a stream stays a body, with a task of its own. The end of
//! one is no more than that: the requests beside it go on.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::Request;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::{Executor, Read, Write};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::sync::watch;
use tokio::time::timeout;

use super::connection::Gate;
use crate::shutdown::Shutdown;

/// Requests at a time on a connection, as nginx allows: a browser's tabs need a few. Each costs some
/// kilobytes, and `limits.connections` counts only connections.
const REQUESTS_MAX: u32 = 128;

/// Bytes of request bodies that a connection may send before they are read: the least that the
/// standard knows. Our bodies are small.
const UNREAD_BYTES: u32 = 65_535;

/// Bytes of an answer that are queued for a client that does not take them: a few pings. What is
/// queued grows old, and the newest state is all that a late client needs.
const UNSENT_BYTES: usize = 4096;

/// Time for a client to agree that a connection is over.
const FAREWELL: Duration = Duration::from_secs(1);

impl Gate {
    /// Answers the requests of a connection until it ends or has none for too long.
    pub(super) async fn http2<T>(self: &Arc<Self>, io: T, peer: SocketAddr) -> hyper::Result<()>
    where
        T: Read + Write + Unpin,
    {
        let limits = &self.connections;
        let (open, mut requests) = watch::channel(0);
        let service = service_fn(move |request: Request<Incoming>| {
            let (gate, open) = (Arc::clone(self), Open::new(&open));
            async move {
                let answer = gate.front.answer(request, peer, None).await;
                Ok::<_, Infallible>(answer.map(|body| Answer { body, _open: open }))
            }
        });
        let tasks = Tasks { shutdown: self.shutdown.clone(), limit: limits.answer_timeout };
        let header_bytes = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
        let connection = http2::Builder::new(tasks)
            .timer(TokioTimer::new())
            .max_concurrent_streams(REQUESTS_MAX)
            .max_header_list_size(header_bytes)
            .initial_stream_window_size(UNREAD_BYTES)
            .initial_connection_window_size(UNREAD_BYTES)
            .max_send_buf_size(UNSENT_BYTES)
            .keep_alive_interval(limits.stall_timeout)
            .keep_alive_timeout(limits.stall_timeout)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        let mut closing = false;
        loop {
            let rest = if closing { FAREWELL } else { limits.header_timeout };
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = idle(&mut requests, rest) => {
                    if closing {
                        return Ok(());
                    }
                }
                () = self.shutdown.drained(), if !closing => {}
            }
            // No new requests; those under way are finished, a stream by its own end.
            connection.as_mut().graceful_shutdown();
            closing = true;
        }
    }
}

/// Completes when no request was under way for `rest`.
async fn idle(requests: &mut watch::Receiver<usize>, rest: Duration) {
    loop {
        // An error means that the connection is gone, and with it who asks.
        drop(requests.wait_for(|open| *open == 0).await);
        let next = requests.wait_for(|open| *open > 0);
        if timeout(rest, next).await.is_err() {
            return;
        }
    }
}

/// A request that is under way.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(requests: &watch::Sender<usize>) -> Self {
        requests.send_modify(|open| *open += 1);
        Self(requests.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// The body of an answer. The request is under way as long as it lives.
struct Answer {
    body: Body,
    _open: Open,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs the requests of a connection. A client that is alive but takes nothing of an answer stops
/// it for ever, its planned end included, so each has a longest time.
#[derive(Clone)]
struct Tasks {
    shutdown: Shutdown,
    limit: Duration,
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let limited = timeout(self.limit, task);
        self.shutdown.spawn(async move { drop(limited.await) });
    }
}
