//! A peer: what one writes with axum in an afternoon. `Sse`, a broadcast channel, keep-alive
//! comments, every default.
//!
//! It is started as a process of its own (`flagcast-loadtest axum-sse`) and ends with its control
//! connection.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use axum::routing::get;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::broadcast::{Sender, channel};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt as _};

use super::bare_loop::data;
use super::control::DONE;

/// Changes that a client may be behind before it misses one.
const BEHIND_MAX: usize = 16;

/// As the other servers': a storm of connects must not wait for retransmitted handshakes.
const BACKLOG: u32 = 4096;

/// Runs until the control connection ends. Prints both addresses on a line first.
pub(crate) fn run() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve())
}

#[expect(clippy::print_stdout, reason = "the parent reads the addresses there")]
async fn serve() -> anyhow::Result<()> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = TcpSocket::new_v4()?;
    socket.bind(any)?;
    let streams = socket.listen(BACKLOG)?;
    let control = TcpListener::bind(any).await?;
    println!("{} {}", streams.local_addr()?, control.local_addr()?);
    let (changes, _) = channel(BEHIND_MAX);
    let router = Router::new().route("/stream", get(stream)).with_state(changes.clone());
    tokio::select! {
        served = async { axum::serve(streams, router).await } => Ok(served?),
        obeyed = obey(control, changes) => obeyed,
    }
}

async fn stream(
    State(changes): State<Sender<u64>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = BroadcastStream::new(changes.subscribe()).filter_map(|revision| {
        let event = Event::default().event("environment_updated").data(data(revision.ok()?));
        Some(Ok(event.retry(Duration::from_secs(15))))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn obey(control: TcpListener, changes: Sender<u64>) -> anyhow::Result<()> {
    let (mut control, _) = control.accept().await?;
    control.set_nodelay(true)?;
    let (read, mut write) = control.split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        // An error says that nobody listens, which is all right.
        drop(changes.send(line.parse()?));
        write.write_all(DONE.as_bytes()).await?;
    }
    Ok(())
}
