//! A subscriber that parses the event stream with a parser that is not ours.

use std::pin::Pin;

use eventsource_stream::{Event, Eventsource as _};
use futures_util::{Stream, StreamExt as _};
use serde_json::Value;
use tokio::time::timeout;

use super::SOON;

type Events = Pin<Box<dyn Stream<Item = Result<Event, String>> + Send>>;

/// One open stream.
pub(crate) struct Subscription {
    events: Events,
}

impl Subscription {
    /// Subscribes to an environment at the gateway or proxy that listens on `address`.
    pub(crate) async fn open(address: std::net::SocketAddr, client_key: &str) -> Self {
        let url = format!("http://{address}/sse/environments/{client_key}/stream");
        // Not the shared client: a stream has no time limit.
        let http = flagcast::outbound::plain_client().no_proxy().build().unwrap();
        let request = http.get(&url).header("accept", "text/event-stream");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{url}");
        let content_type = response.headers()["content-type"].to_str().unwrap();
        assert!(content_type.starts_with("text/event-stream"), "{content_type}");
        let events = response.bytes_stream().eventsource();
        Self { events: events.map(|event| event.map_err(|error| error.to_string())).boxed() }
    }

    /// The data of the next ping; `None` when the stream has ended.
    pub(crate) async fn next_ping(&mut self) -> Option<Value> {
        let next = timeout(SOON, self.events.next()).await;
        let event = next.expect("a ping or the end of the stream")?.ok()?;
        assert_eq!(event.event, "environment_updated");
        Some(serde_json::from_str(&event.data).unwrap())
    }

    /// Reads until a ping announces `revision` or a later one.
    pub(crate) async fn reaches(&mut self, revision: u64) -> Value {
        loop {
            let ping = self.next_ping().await.expect("the stream goes on");
            if ping["revision"].as_u64().unwrap() >= revision {
                return ping;
            }
        }
    }

    /// Reads to the end of the stream.
    pub(crate) async fn ended(&mut self) {
        while self.next_ping().await.is_some() {}
    }
}
