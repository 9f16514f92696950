//! Takes a stream's socket out of the HTTP library once its head is out.
//!
//! A stream's answer is given a body that yields the first event and then rests. When the library
//! has found it resting and flushed all it had, head and first event are out and nothing of the
//! answer is left in its buffers: the socket can go to a fan-out shard, together with what the client
//! has sent behind its request. If the client does not even take the head, the connection stays
//! here until it does or the kernel gives up (`stream.stall_seconds`).

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use http_body::Frame;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::stream::Opening;

/// No stream was answered on this connection.
const IDLE: u8 = 0;
/// A stream was answered; its bytes may still be in buffers.
const ANSWERED: u8 = 1;
/// The library knows that there is no more for now.
const RESTING: u8 = 2;
/// Everything is out.
const OUT: u8 = 3;

/// How far the stream of a connection is. The connection's own task is the only one that asks.
#[derive(Debug, Default)]
pub(super) struct Handover {
    stage: AtomicU8,
    stream: Mutex<Option<Taken>>,
}

/// A stream that is ready to leave.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) opening: Opening,
    /// Whether the connection ends with the stream.
    pub(super) close: bool,
}

impl Handover {
    /// The body of a stream that will leave. `close` tells whether the connection ends with it.
    pub(super) fn begin(self: &Arc<Self>, mut opening: Opening, close: bool) -> Body {
        let first = opening.first_event();
        let taken = Taken { opening, close };
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken);
        self.stage.store(ANSWERED, Ordering::Relaxed);
        Body::new(Resting { first, handover: Arc::clone(self) })
    }

    /// The stream, once everything is out.
    pub(super) fn take(&self) -> Option<Taken> {
        if self.stage.load(Ordering::Relaxed) != OUT {
            return None;
        }
        self.stage.store(IDLE, Ordering::Relaxed);
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn advance(&self, from: u8, to: u8) {
        if self.stage.load(Ordering::Relaxed) == from {
            self.stage.store(to, Ordering::Relaxed);
        }
    }
}

/// Yields the first event, then rests for ever.
struct Resting {
    first: Option<Bytes>,
    handover: Arc<Handover>,
}

impl http_body::Body for Resting {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.handover.advance(ANSWERED, RESTING);
        // Nobody is woken: the connection's task sees that it rests right after this.
        Poll::Pending
    }
}

/// The socket of a connection. It sees when everything is flushed, and begins with what an earlier
/// owner has read already.
#[derive(Debug)]
pub(super) struct Socket {
    io: TokioIo<TcpStream>,
    unread: Bytes,
    handover: Arc<Handover>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, unread: Bytes, handover: Arc<Handover>) -> Self {
        Self { io: TokioIo::new(stream), unread, handover }
    }

    /// The socket, and what was not read from `unread`.
    pub(super) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.io.into_inner(), self.unread)
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.has_remaining() {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    /// The library comes here when it has written all it had.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.handover.advance(RESTING, OUT);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}
