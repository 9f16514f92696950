//! An origin that may do what the gateway never does: it shows what a broken contract costs behind a
//! cache, and that the tests see it.
//!
//! It tells one environment's revisions on a stream and answers reads, in Flagsmith's dialect.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the origin does. The default is the cached contract.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conduct {
    /// How long a stream lives before its clean end.
    pub(crate) life: Duration,
    /// Further lines of a stream's head.
    pub(crate) stream_head: &'static str,
    /// Status line of streams.
    pub(crate) stream_status: &'static str,
    /// By how many revisions reads are behind.
    pub(crate) lag: u64,
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            life: Duration::from_secs(6),
            stream_head: "Cache-Control: public, max-age=0, s-maxage=3\r\n",
            stream_status: "200 OK",
            lag: 0,
        }
    }
}

/// A running origin. Dropping it cuts everything.
pub(crate) struct FakeOrigin {
    address: SocketAddr,
    revision: watch::Sender<u64>,
    conduct: Arc<Mutex<Conduct>>,
    accepting: JoinHandle<()>,
}

impl FakeOrigin {
    /// Starts an origin at revision 1.
    pub(crate) async fn start(conduct: Conduct) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let revision = watch::Sender::new(1);
        let told = revision.subscribe();
        let conduct = Arc::new(Mutex::new(conduct));
        let present = Arc::clone(&conduct);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (conduct, told) = (Arc::clone(&present), told.clone());
                tokio::spawn(async move { drop(serve(client, &conduct, told).await) });
            }
        });
        Self { address, revision, conduct, accepting }
    }

    /// Changes what it does from the next request on.
    pub(crate) fn behave(&self, conduct: Conduct) {
        *self.conduct.lock().unwrap() = conduct;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a change; tells its revision.
    pub(crate) fn change(&self) -> u64 {
        self.revision.send_modify(|revision| *revision += 1);
        *self.revision.borrow()
    }
}

impl Drop for FakeOrigin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    client: TcpStream,
    conduct: &Mutex<Conduct>,
    mut told: watch::Receiver<u64>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = BufReader::new(client);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if client.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let conduct = *conduct.lock().unwrap();
        if head.contains("/stream ") || head.contains("/streams/") {
            stream(&mut client, conduct, &mut told).await?;
        } else {
            let revision = told.borrow().saturating_sub(conduct.lag);
            let body = format!("{{\"revision\":{revision}}}");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                 Cache-Control: public, max-age=31536000, immutable\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            client.write_all(answer.as_bytes()).await?;
        }
    }
}

/// Tells every revision until the stream's life is over, then ends it cleanly.
async fn stream(
    client: &mut BufReader<TcpStream>,
    conduct: Conduct,
    told: &mut watch::Receiver<u64>,
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: text/event-stream\r\n{}Transfer-Encoding: chunked\r\n\r\n",
        conduct.stream_status, conduct.stream_head
    );
    client.write_all(head.as_bytes()).await?;
    let end = tokio::time::sleep(conduct.life);
    tokio::pin!(end);
    loop {
        let revision = *told.borrow_and_update();
        let event = format!("event: environment_updated\ndata: {{\"revision\": {revision}}}\n\n");
        client.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
        tokio::select! {
            () = &mut end => return client.write_all(b"0\r\n\r\n").await,
            changed = told.changed() => {
                if changed.is_err() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
        }
    }
}
