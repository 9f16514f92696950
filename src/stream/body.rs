//! A stream as the body of an answer: a task of its own reads what one client is told.
//!
//! For HTTP/1.0, HTTP/2 and TLS, whose bytes the HTTP library has to frame. Everything else goes
//! through a shard, which costs a hundredth of the memory and says the same.

use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::Stream;

use super::channel::Changes;
use super::frames;
use super::hub::Subscription;
use super::manner::{Dialect, Manner};
use super::opening::{Join, Opening, Who};
use super::pace::{Pace, cut_of_drain, drain_retry, refused_retry, share_of_cut, share_of_drain};
use super::ping::heartbeat;
use crate::metrics::StreamEnd;
use crate::model::Revision;
use crate::shutdown::Shutdown;

/// Rest between the last event of a stream and its cut: the HTTP library drops what it has not
/// flushed when it is told of an error.
const FLUSH_PAUSE: Duration = Duration::from_millis(100);

/// The stream ends before its time, and must not look complete: a cache would keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is cut before its time")]
pub struct Cut;

/// Yields what one client reads. Each item is one event or comment, whole. A stranger, whose key no
/// environment has, is silent until it can join one that has it now. An error ends the stream
/// without a last chunk.
pub fn body(
    mut opening: Opening,
    shutdown: Shutdown,
) -> impl Stream<Item = Result<Bytes, Cut>> + Send + 'static {
    stream! {
        // Listened to before the first event is read: nothing falls between the two.
        let changes = opening.changes();
        let began = Instant::now();
        if let Some(first) = opening.first_event() {
            yield Ok(first);
        }
        let Opening { who, manner, pace, told } = opening;
        let (Who::Subscriber(subscription, join), Some(changes)) = (who, changes) else {
            drained_or_over(&shutdown, manner, pace).await;
            yield Ok(frames::goodbye(refused_retry()).event());
            return;
        };
        subscription.metrics().opened_in_bodies.increment(1);
        let mut life = Life {
            changes,
            arrivals: subscription.arrivals(),
            cuts: subscription.cuts(),
            subscription,
            join,
            manner,
            pace,
            end: began + pace.life,
            heartbeat: began + pace.heartbeat,
            told,
            draining: false,
            cut: false,
        };
        // A stranger's key may have become known on the way here.
        life.try_to_join();
        while let Some(bytes) = life.next(&shutdown).await {
            yield Ok(bytes);
        }
        // What came with the end is told before it, a moment earlier than by the next stream.
        if let Some(last) = life.last() {
            yield Ok(last);
        }
        if life.cut {
            sleep(FLUSH_PAUSE).await;
            yield Err(Cut);
        } else if life.draining && !life.manner.is_cached() {
            yield Ok(frames::goodbye(drain_retry()).event());
        }
    }
}

/// Waits for the end of a refused stream. One that a cache shares is short, and not ended earlier.
async fn drained_or_over(shutdown: &Shutdown, manner: Manner, pace: Pace) {
    let over = Instant::now() + pace.life;
    tokio::select! {
        () = sleep_until(over) => {}
        () = shutdown.drained(), if !manner.is_cached() => {
            sleep_until(over.min(Instant::now() + share_of_drain(pace.drain))).await;
        }
    }
}

/// A stream between its first event and its end.
struct Life {
    subscription: Subscription,
    changes: Changes,
    arrivals: Option<watch::Receiver<u64>>,
    cuts: watch::Receiver<u64>,
    join: Option<Join>,
    manner: Manner,
    pace: Pace,
    end: Instant,
    heartbeat: Instant,
    told: Option<Revision>,
    draining: bool,
    /// The end comes before its time and must be seen to.
    cut: bool,
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
                    self.hurry();
                }
                Ok(()) = self.cuts.changed(), if self.manner.is_cached() => {
                    let end = Instant::now() + share_of_cut();
                    self.cut |= end < self.end;
                    self.end = self.end.min(end);
                }
                () = sleep_until(self.end) => {
                    self.subscription.ends(match (self.cut, self.draining) {
                        (true, _) => StreamEnd::Cut,
                        (false, true) if !self.manner.is_cached() => StreamEnd::Drain,
                        _ => StreamEnd::Life,
                    });
                    return None;
                }
                () = self.changes.changed(), if self.arrivals.is_none() => {
                    let newest = self.changes.newest();
                    if newest.gone {
                        self.subscription.ends(StreamEnd::Gone);
                        self.cut = self.manner.is_cached();
                        return None;
                    }
                    if let Some(ping) = newest.ping
                        && (self.told < Some(ping.stamp.revision) || self.wants_echo())
                    {
                        self.hear(ping.stamp.revision);
                        return Some(ping.frame(self.manner).event());
                    }
                }
                () = arrival(&mut self.arrivals) => self.try_to_join(),
                () = sleep_until(self.heartbeat) => {
                    self.heartbeat = Instant::now() + self.pace.heartbeat;
                    let newest = || self.subscription.channel().newest().ping;
                    return Some(heartbeat(self.manner, newest).event());
                }
            }
        }
    }

    /// Whether to tell once more what was told. OFREP's clients queue what comes while they read.
    /// And an echo makes clients read again, and who cannot connect to a gateway that drains fails:
    /// JavaScript's SDK is then deaf for good. Its next stream begins with the state anyway.
    fn wants_echo(&self) -> bool {
        self.manner.dialect == Dialect::Flagsmith && !self.draining
    }

    /// A change that was not told yet.
    fn last(&mut self) -> Option<Bytes> {
        let ping = self.subscription.channel().newest().ping?;
        (self.told < Some(ping.stamp.revision)).then(|| {
            self.hear(ping.stamp.revision);
            ping.frame(self.manner).event()
        })
    }

    /// Ends within the drain. What a cache shares goes on to its planned end, which is clean, as far
    /// as the grace period reaches.
    fn hurry(&mut self) {
        let (now, drain) = (Instant::now(), self.pace.drain);
        if self.manner.is_cached() {
            let cut = now + cut_of_drain(drain);
            self.cut = cut < self.end;
            self.end = self.end.min(cut);
        } else {
            self.end = self.end.min(now + share_of_drain(drain));
        }
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
    use crate::stream::hub::tests::{CACHED, DIRECT, STAGING, SUBSCRIBER, hub, publish, subscribe};
    use crate::stream::hub::{Hub, Subscriber};

    const PACE: Pace = Pace {
        heartbeat: Duration::from_secs(15),
        life: Duration::from_secs(100),
        drain: Duration::from_secs(10),
    };

    /// A stream with just the life of `pace`.
    fn opening(hub: &Hub, pace: Pace) -> Opening {
        let who = Who::Subscriber(subscribe(hub).unwrap(), None);
        Opening { who, manner: DIRECT, pace, told: None }
    }

    /// The same for a stream that a cache shares.
    fn cached(hub: &Hub, pace: Pace) -> Opening {
        let subscription = hub.subscribe(STAGING, Subscriber { manner: CACHED, ..SUBSCRIBER });
        let who = Who::Subscriber(subscription.unwrap(), None);
        Opening { who, manner: CACHED, pace, told: None }
    }

    fn stranger(hub: &Hub, join: Join) -> Opening {
        let subscription = hub.subscribe_unknown(SUBSCRIBER).unwrap();
        let who = Who::Subscriber(subscription, Some(join));
        Opening { who, manner: DIRECT, pace: PACE, told: None }
    }

    /// The next frame; `cut` when the stream breaks off, nothing at its clean end.
    async fn next<S: Stream<Item = Result<Bytes, Cut>>>(body: &mut Pin<&mut S>) -> Option<String> {
        body.next().await.map(|frame| match frame {
            Ok(frame) => String::from_utf8(frame.to_vec()).unwrap(),
            Err(Cut) => "cut".to_owned(),
        })
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
    async fn a_cached_stream_ends_as_planned_during_a_drain_that_reaches_so_far() {
        let hub = hub();
        publish(&hub, STAGING, 1);
        let shutdown = Shutdown::default();
        let pace = Pace { life: Duration::from_secs(9), ..PACE };
        let mut body = pin!(body(cached(&hub, pace), shutdown.clone()));
        assert_eq!(next(&mut body).await.unwrap(), "ping 1");
        let began = Instant::now();
        shutdown.drain();
        publish(&hub, STAGING, 2);
        assert_eq!(next(&mut body).await.unwrap(), "ping 2");
        assert_eq!(next(&mut body).await, None, "clean, and without a word of going");
        assert_eq!(began.elapsed(), pace.life);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cached_stream_is_cut_behind_its_last_event_when_a_drain_ends_before_it() {
        let hub = hub();
        publish(&hub, STAGING, 1);
        let shutdown = Shutdown::default();
        let mut body = pin!(body(cached(&hub, PACE), shutdown.clone()));
        assert_eq!(next(&mut body).await.unwrap(), "ping 1");
        let began = Instant::now();
        shutdown.drain();
        assert_eq!(next(&mut body).await.unwrap(), "cut");
        assert_eq!(next(&mut body).await, None);
        assert!(began.elapsed() >= PACE.drain && began.elapsed() < PACE.drain * 4 / 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cached_stream_of_a_deleted_environment_is_cut() {
        let hub = hub();
        publish(&hub, STAGING, 1);
        let mut body = pin!(body(cached(&hub, PACE), Shutdown::default()));
        assert_eq!(next(&mut body).await.unwrap(), "ping 1");
        publish(&hub, STAGING, 2);
        hub.remove(STAGING);
        assert_eq!(next(&mut body).await.unwrap(), "ping 2", "told before the end");
        let told = Instant::now();
        assert_eq!(next(&mut body).await.unwrap(), "cut");
        assert!(told.elapsed() >= FLUSH_PAUSE, "the library needs time to flush");
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
