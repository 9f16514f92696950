//! Listens to the upstream's stream of one environment, and comes back whenever it ends.
//!
//! In OFREP's dialect the heartbeats tell the state, so a stream that says nothing for three of them is dead,
//! and one that speaks confirms what is held. It only tells what it hears; the link decides.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::upstream::{Failure, Upstream};
use crate::metrics::Counted;
use crate::model::{ClientKey, Revision};
use crate::probe::{Item, Scanner, Told};

/// Silence after which a stream counts as dead, until it says how often its heartbeat comes.
const PATIENCE: Duration = Duration::from_secs(45);

/// Heartbeats that may be missing.
const HEARTBEATS_MISSING_MAX: f64 = 2.5;

/// Shortest patience: a busy machine is no dead one.
const PATIENCE_MIN: Duration = Duration::from_secs(2);

/// A stream that lasted less is a failure: the next one must not come at once.
const LASTING: Duration = Duration::from_secs(1);

/// Shortest and longest rest between two streams.
const REST: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(15)];

/// What was heard last.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// Counts streams that began: behind each, everything may be different.
    pub(super) streams: u64,
    /// The newest revision, if one was told on this stream.
    pub(super) revision: Option<Revision>,
    /// When it was told for the first time.
    pub(super) at: Option<Instant>,
    /// Why there is no stream now.
    pub(super) failure: Option<Failure>,
}

/// Listens for ever.
pub(super) async fn listen(
    upstream: Upstream,
    client_key: ClientKey,
    told: watch::Sender<Heard>,
    open: metrics::Gauge,
) {
    let mut failures = 0_u32;
    loop {
        let began = Instant::now();
        let failure = hear(&upstream, &client_key, &told, &open).await;
        let lasted = began.elapsed() >= LASTING && failure.is_none();
        failures = if lasted { 0 } else { failures.saturating_add(1) };
        match failure {
            Some(failure) if upstream.lives_by_streams() => told.send_modify(|heard| {
                heard.revision = None;
                heard.failure = Some(failure);
            }),
            // It is asked all the same: changes come later, and nothing is in doubt.
            Some(error) if failures == 1 => {
                tracing::warn!(%client_key, %error, "cannot listen; changes are asked for");
            }
            _ => {}
        }
        let rest = (REST[0] * 2_u32.pow(failures.min(8))).min(REST[1]);
        sleep(rest.mul_f64(rand::random_range(0.5..1.5))).await;
    }
}

/// Listens to one stream. Answers with what went wrong, if its end was not planned.
async fn hear(
    upstream: &Upstream,
    client_key: &ClientKey,
    told: &watch::Sender<Heard>,
    open: &metrics::Gauge,
) -> Option<Failure> {
    let mut stream = match upstream.stream(client_key).await {
        Ok(stream) => stream,
        Err(failure) => return Some(failure),
    };
    let _open = Counted::new(open);
    let (mut scanner, mut patience) = (Scanner::default(), PATIENCE);
    let mut is_first = true;
    loop {
        let chunk = match timeout(patience, stream.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return None,
            Ok(Err(failure)) => return Some(failure),
            Err(_) => {
                upstream.distrust(&stream);
                let silent = patience.as_secs_f64();
                return Some(Failure::Away(format!("its stream was silent for {silent:.1} s")));
            }
        };
        for item in scanner.push(&chunk) {
            let Item::Event(event) = item else { continue };
            let word = Told::read(&event);
            if let Some(seconds) = word.heartbeat_seconds {
                let longest = Duration::from_secs_f64(seconds * HEARTBEATS_MISSING_MAX);
                patience = longest.max(PATIENCE_MIN);
            }
            let Some(revision) = upstream.revision_told(&word) else { continue };
            // A stream of Flagsmith is short, and may begin without a word.
            let is_beginning = is_first && upstream.lives_by_streams();
            told.send_modify(|heard| {
                heard.streams += u64::from(is_beginning);
                if is_first || heard.revision != Some(revision) {
                    heard.at = Some(Instant::now());
                }
                heard.revision = Some(revision);
                heard.failure = None;
            });
            is_first = false;
        }
    }
}
