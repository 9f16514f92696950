//! A stream as the body of an answer: a task of its own reads what one client is told.
//!
//! For HTTP/1.0, HTTP/2 and TLS, whose bytes the HTTP library has to frame. Everything else goes
//! through a shard, which costs a hundredth of the memory and says the same.

use async_stream::stream;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;

use super::channel::Changes;
use super::frames;
use super::hub::Subscription;
use super::opening::{Join, Opening, Who};
use super::pace::{Pace, drain_retry, refused_retry, share_of_drain};
use crate::metrics::StreamEnd;
use crate::model::Revision;
use crate::shutdown::Shutdown;

/// Yields what one client reads. Each item is one event or comment, whole. A stranger, whose key no
/// environment has, is silent until it can join one that has it now.
pub fn body(
    mut opening: Opening,
    shutdown: Shutdown,
) -> impl Stream<Item = Bytes> + Send + 'static {
    stream! {
        // Listened to before the first event is read: nothing falls between the two.
        let changes = opening.changes();
        let began = Instant::now();
        if let Some(first) = opening.first_event() {
            yield first;
        }
        let Opening { who, pace, told } = opening;
        let (Who::Subscriber(subscription, join), Some(changes)) = (who, changes) else {
            drained_or_over(&shutdown, pace).await;
            yield frames::goodbye(refused_retry()).event();
            return;
        };
        subscription.metrics().opened_in_bodies.increment(1);
        let mut life = Life {
            changes,
            arrivals: subscription.arrivals(),
            subscription,
            join,
            pace,
            end: began + pace.life,
            heartbeat: began + pace.heartbeat,
            told,
            draining: false,
        };
        // A stranger's key may have become known on the way here.
        life.try_to_join();
        while let Some(bytes) = life.next(&shutdown).await {
            yield bytes;
        }
        // What came with the end is told before it, a moment earlier than by the next stream.
        if let Some(last) = life.last() {
            yield last;
        }
        if life.draining {
            yield frames::goodbye(drain_retry()).event();
        }
    }
}

/// Waits for the end of a refused stream.
async fn drained_or_over(shutdown: &Shutdown, pace: Pace) {
    let over = Instant::now() + pace.life;
    tokio::select! {
        () = sleep_until(over) => {}
        () = shutdown.drained() => {
            sleep_until(over.min(Instant::now() + share_of_drain(pace.drain))).await;
        }
    }
}

/// A stream between its first event and its end.
struct Life {
    subscription: Subscription,
    changes: Changes,
    arrivals: Option<watch::Receiver<u64>>,
    join: Option<Join>,
    pace: Pace,
    end: Instant,
    heartbeat: Instant,
    told: Option<Revision>,
    draining: bool,
}

impl Life {
    /// The next event or comment; nothing when the stream should end.
    async fn next(&mut self, shutdown: &Shutdown) -> Option<Bytes> {
        loop {
            tokio::select! {
                // Ends first: an environment that changes all the time must not outlive them.
                biased;
                () = shutdown.drained(), if !self.draining => {
                    self.draining = true;
                    self.end = self.end.min(Instant::now() + share_of_drain(self.pace.drain));
                }
                () = sleep_until(self.end) => {
                    let end = if self.draining { StreamEnd::Drain } else { StreamEnd::Life };
                    self.subscription.ends(end);
                    return None;
                }
                () = self.changes.changed(), if self.arrivals.is_none() => {
                    let newest = self.changes.newest();
                    if newest.gone {
                        self.subscription.ends(StreamEnd::Gone);
                        return None;
                    }
                    // An echo makes clients read again, and who cannot connect to a gateway that
                    // drains fails: JavaScript's SDK is then deaf for good. Its next stream begins
                    // with the state anyway.
                    if let Some(ping) = newest.ping
                        && !(self.draining && self.told >= Some(ping.stamp.revision))
                    {
                        self.hear(ping.stamp.revision);
                        return Some(ping.frame.event());
                    }
                }
                () = arrival(&mut self.arrivals) => self.try_to_join(),
                () = sleep_until(self.heartbeat) => {
                    self.heartbeat = Instant::now() + self.pace.heartbeat;
                    return Some(Bytes::from_static(frames::HEARTBEAT));
                }
            }
        }
    }

    /// A change that was not told yet.
    fn last(&mut self) -> Option<Bytes> {
        let ping = self.subscription.channel().newest().ping?;
        (self.told < Some(ping.stamp.revision)).then(|| {
            self.hear(ping.stamp.revision);
            ping.frame.event()
        })
    }

    fn hear(&mut self, revision: Revision) {
        let metrics = self.subscription.metrics();
        metrics.frames.increment(1);
        metrics.folded.increment(revision.skipped_since(self.told));
        self.told = Some(revision);
        self.heartbeat = Instant::now() + self.pace.heartbeat;
    }

    fn try_to_join(&mut self) {
        if let Some(joined) = self.join.as_ref().and_then(|join| join()) {
            self.changes = joined.changes();
            self.changes.forget();
            self.arrivals = None;
            self.subscription.ends(StreamEnd::Joined);
            self.subscription = joined;
        }
    }
}

/// Completes when an environment became known; never for who is no stranger.
async fn arrival(arrivals: &mut Option<watch::Receiver<u64>>) {
    if let Some(arrivals) = arrivals
        && arrivals.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::stream::client::ClientFamily;
    use crate::stream::hub::Hub;
    use crate::stream::hub::tests::{STAGING, hub, publish, subscribe};

    const PACE: Pace = Pace {
        heartbeat: Duration::from_secs(15),
        life: Duration::from_secs(100),
        drain: Duration::from_secs(10),
    };

    /// A stream with just the life of `pace`.
    fn opening(hub: &Hub, pace: Pace) -> Opening {
        let who = Who::Subscriber(subscribe(hub).unwrap(), None);
        Opening { who, pace, told: None }
    }

    fn stranger(hub: &Hub, join: Join) -> Opening {
        let here = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let subscription = hub.subscribe_unknown(ClientFamily::Other, here).unwrap();
        Opening { who: Who::Subscriber(subscription, Some(join)), pace: PACE, told: None }
    }

    async fn next<S: Stream<Item = Bytes>>(body: &mut Pin<&mut S>) -> Option<String> {
        body.next().await.map(|frame| String::from_utf8(frame.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn it_begins_with_the_present_state_and_ends_when_its_life_is_over() {
        let hub = hub();
        publish(&hub, STAGING, 5);
        let mut body = pin!(body(opening(&hub, PACE), Shutdown::default()));
        assert_eq!(next(&mut body).await.unwrap(), "ping 5");
        let began = Instant::now();
        let mut heartbeats = 0;
        while let Some(frame) = next(&mut body).await {
            assert_eq!(frame, ":\n\n");
            heartbeats += 1;
        }
        assert_eq!(heartbeats, 6, "every 15 s within 100 s");
        assert_eq!(began.elapsed(), PACE.life);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_becomes_one_ping_and_puts_the_heartbeat_off() {
        let hub = hub();
        publish(&hub, STAGING, 1);
        let mut body = pin!(body(opening(&hub, PACE), Shutdown::default()));
        assert_eq!(next(&mut body).await.unwrap(), "ping 1");
        tokio::time::advance(Duration::from_secs(10)).await;
        for revision in 2..=64 {
            publish(&hub, STAGING, revision);
        }
        assert_eq!(next(&mut body).await.unwrap(), "ping 64");
        let before = Instant::now();
        assert_eq!(next(&mut body).await.unwrap(), ":\n\n");
        assert_eq!(before.elapsed(), PACE.heartbeat);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_state_of_a_new_environment_follows_the_greeting() {
        let hub = hub();
        let mut body = pin!(body(opening(&hub, PACE), Shutdown::default()));
        assert_eq!(next(&mut body).await.unwrap(), ": ok\n\n");
        publish(&hub, STAGING, 1);
        assert_eq!(next(&mut body).await.unwrap(), "ping 1");
    }

    #[tokio::test(start_paused = true)]
    async fn constant_change_does_not_outlive_the_end_and_is_told_to_the_last() {
        let hub = hub();
        let mut body = pin!(body(opening(&hub, PACE), Shutdown::default()));
        let mut last = next(&mut body).await.unwrap();
        for revision in 1.. {
            publish(&hub, STAGING, revision);
            tokio::time::advance(Duration::from_secs(1)).await;
            let Some(frame) = next(&mut body).await else { break };
            assert!(revision <= 101, "{frame}");
            last = frame;
        }
        assert_eq!(last, "ping 100", "the one that came with the end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_says_when_to_come_back_and_ends_in_time() {
        let hub = hub();
        publish(&hub, STAGING, 1);
        let shutdown = Shutdown::default();
        let mut body = pin!(body(opening(&hub, PACE), shutdown.clone()));
        assert_eq!(next(&mut body).await.unwrap(), "ping 1");
        let began = Instant::now();
        shutdown.drain();
        let goodbye = next(&mut body).await.unwrap();
        assert!(goodbye.starts_with("retry: ") && goodbye.ends_with("\n\n"), "{goodbye}");
        assert_eq!(next(&mut body).await, None);
        assert!(began.elapsed() <= PACE.drain);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_tells_changes_but_no_echoes() {
        let hub = hub();
        publish(&hub, STAGING, 1);
        let shutdown = Shutdown::default();
        // So long that its random part is not over at once.
        let pace = Pace { drain: Duration::from_hours(10), ..PACE };
        let mut body = pin!(body(opening(&hub, pace), shutdown.clone()));
        assert_eq!(next(&mut body).await.unwrap(), "ping 1");
        hub.echo(STAGING);
        assert_eq!(next(&mut body).await.unwrap(), "ping 1", "the echo of a calm day");
        shutdown.drain();
        // Let the stream see the drain before it sees the echo: nothing else is due now.
        assert_eq!(futures_util::FutureExt::now_or_never(next(&mut body)), None);
        hub.echo(STAGING);
        assert_eq!(futures_util::FutureExt::now_or_never(next(&mut body)), None);
        publish(&hub, STAGING, 2);
        assert_eq!(next(&mut body).await.unwrap(), "ping 2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deleted_environment_ends_its_streams() {
        let hub = hub();
        publish(&hub, STAGING, 1);
        let mut body = pin!(body(opening(&hub, PACE), Shutdown::default()));
        assert_eq!(next(&mut body).await.unwrap(), "ping 1");
        hub.remove(STAGING);
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_joins_when_its_key_becomes_known() {
        let hub = hub();
        let known = Arc::new(AtomicBool::new(false));
        let (joining, is_known) = (hub.clone(), Arc::clone(&known));
        let join =
            move || is_known.load(Ordering::Relaxed).then(|| subscribe(&joining).ok()).flatten();
        let mut body = pin!(body(stranger(&hub, Box::new(join)), Shutdown::default()));
        assert_eq!(next(&mut body).await.unwrap(), ": ok\n\n");
        hub.welcome();
        assert_eq!(next(&mut body).await.unwrap(), ":\n\n", "somebody else's key");
        known.store(true, Ordering::Relaxed);
        publish(&hub, STAGING, 1);
        hub.welcome();
        assert_eq!(next(&mut body).await.unwrap(), "ping 1");
        publish(&hub, STAGING, 2);
        assert_eq!(next(&mut body).await.unwrap(), "ping 2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_an_unknown_key_lives_its_whole_life() {
        let mut body = pin!(body(stranger(&hub(), Box::new(|| None)), Shutdown::default()));
        let began = Instant::now();
        assert_eq!(next(&mut body).await.unwrap(), ": ok\n\n");
        while next(&mut body).await.is_some() {}
        assert_eq!(began.elapsed(), PACE.life);
    }
}
