//! What one client reads: the present state, each change, heartbeats, and an end.

use std::time::Duration;

use async_stream::stream;
use bytes::Bytes;
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;

use super::frames;
use super::hub::Subscription;
use crate::shutdown::Shutdown;

/// When a drain ends a stream, its client comes back within this time, in milliseconds: later than
/// a restart takes, and not all at once.
const DRAIN_RETRY_MS: std::ops::Range<u64> = 1_000..5_000;

/// The times of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Silence after which a heartbeat is due.
    pub heartbeat: Duration,
    /// Planned life; then the stream ends and the client comes back.
    pub life: Duration,
    /// Time over which a drain ends streams.
    pub drain: Duration,
}

impl Pace {
    /// The same pace with a life that differs by up to a fifth, so that streams which began
    /// together do not end together.
    #[must_use]
    pub fn spread(self) -> Self {
        let factor = rand::rng().random_range(0.8..1.2);
        Self { life: self.life.mul_f64(factor), ..self }
    }
}

/// Yields what one client reads. Each item is one event or comment, whole. A stranger, whose key no
/// environment has, is silent until `join` finds that one has it now.
pub fn body(
    subscription: Subscription,
    pace: Pace,
    shutdown: Shutdown,
    join: impl Fn() -> Option<Subscription> + Send + 'static,
) -> impl Stream<Item = Bytes> + Send + 'static {
    stream! {
        let mut subscription = subscription;
        let mut end = Instant::now() + pace.life;
        let mut heartbeat = Instant::now() + pace.heartbeat;
        let mut draining = false;
        let mut told = None;
        // The value at the time of joining counts as unseen: a change between the client's last
        // read and this stream wakes nobody, so every stream begins with the present state.
        subscription.newest.mark_changed();
        let frames_sent = subscription.metrics.frames.clone();
        if subscription.newest.borrow().ping.is_none() {
            yield Bytes::from_static(frames::HELLO);
        }
        let reason = loop {
            tokio::select! {
                // Ends first: an environment that changes all the time must not outlive them.
                biased;
                () = shutdown.drained(), if !draining => {
                    draining = true;
                    end = end.min(Instant::now() + pace.drain.mul_f64(share()));
                }
                () = sleep_until(end) => break if draining { "drain" } else { "life" },
                change = subscription.newest.changed(), if subscription.arrivals.is_none() => {
                    let newest = subscription.newest.borrow_and_update().clone();
                    if change.is_err() || newest.gone {
                        break "gone";
                    }
                    let Some((stamp, frame)) = newest.ping else { continue };
                    // An echo makes clients read again, and who cannot connect to a gateway that
                    // drains fails: JavaScript's SDK is then deaf for good. Its next stream
                    // begins with the state anyway.
                    let is_echo = told.replace(stamp.revision) == Some(stamp.revision);
                    if is_echo && draining {
                        continue;
                    }
                    frames_sent.increment(1);
                    heartbeat = Instant::now() + pace.heartbeat;
                    yield frame;
                }
                () = arrival(&mut subscription.arrivals) => {
                    if let Some(joined) = join() {
                        subscription = joined;
                        subscription.newest.mark_changed();
                    }
                }
                () = sleep_until(heartbeat) => {
                    heartbeat = Instant::now() + pace.heartbeat;
                    yield Bytes::from_static(frames::HEARTBEAT);
                }
            }
        };
        // A change that came with the end is told before it, a moment earlier than by the next
        // stream.
        let last = subscription.newest.borrow().ping.clone();
        if let Some((_, frame)) = last.filter(|(stamp, _)| told < Some(stamp.revision)) {
            yield frame;
        }
        if draining {
            yield frames::goodbye(drain_retry());
        }
        subscription.end_reason = reason;
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

/// A random part of a whole.
fn share() -> f64 {
    rand::rng().random_range(0.0..1.0)
}

fn drain_retry() -> u64 {
    rand::rng().random_range(DRAIN_RETRY_MS)
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::stream::hub::tests::{STAGING, hub, publish, subscribe};

    const PACE: Pace = Pace {
        heartbeat: Duration::from_secs(15),
        life: Duration::from_secs(100),
        drain: Duration::from_secs(10),
    };

    async fn next<S: Stream<Item = Bytes>>(body: &mut Pin<&mut S>) -> Option<String> {
        body.next().await.map(|frame| String::from_utf8(frame.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn it_begins_with_the_present_state_and_ends_when_its_life_is_over() {
        let hub = hub();
        publish(&hub, STAGING, 5);
        let mut body = pin!(body(subscribe(&hub).unwrap(), PACE, Shutdown::default(), || None));
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
        let mut body = pin!(body(subscribe(&hub).unwrap(), PACE, Shutdown::default(), || None));
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
        let mut body = pin!(body(subscribe(&hub).unwrap(), PACE, Shutdown::default(), || None));
        assert_eq!(next(&mut body).await.unwrap(), ": ok\n\n");
        publish(&hub, STAGING, 1);
        assert_eq!(next(&mut body).await.unwrap(), "ping 1");
    }

    #[tokio::test(start_paused = true)]
    async fn constant_change_does_not_outlive_the_end_and_is_told_to_the_last() {
        let hub = hub();
        let mut body = pin!(body(subscribe(&hub).unwrap(), PACE, Shutdown::default(), || None));
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
        let mut body = pin!(body(subscribe(&hub).unwrap(), PACE, shutdown.clone(), || None));
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
        let mut body = pin!(body(subscribe(&hub).unwrap(), pace, shutdown.clone(), || None));
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
        let mut body = pin!(body(subscribe(&hub).unwrap(), PACE, Shutdown::default(), || None));
        assert_eq!(next(&mut body).await.unwrap(), "ping 1");
        hub.remove(STAGING);
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_joins_when_its_key_becomes_known() {
        let here = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let hub = hub();
        let stranger = hub.subscribe_unknown(here).unwrap();
        let known = Arc::new(AtomicBool::new(false));
        let (joining, is_known) = (hub.clone(), Arc::clone(&known));
        let join =
            move || is_known.load(Ordering::Relaxed).then(|| subscribe(&joining).ok()).flatten();
        let mut body = pin!(body(stranger, PACE, Shutdown::default(), join));
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
        let here = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let subscription = hub().subscribe_unknown(here).unwrap();
        let mut body = pin!(body(subscription, PACE, Shutdown::default(), || None));
        let began = Instant::now();
        assert_eq!(next(&mut body).await.unwrap(), ": ok\n\n");
        while next(&mut body).await.is_some() {}
        assert_eq!(began.elapsed(), PACE.life);
    }
}
