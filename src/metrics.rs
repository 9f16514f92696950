//! Every metric once: the handles by which it is measured. What each is called and tells is in `tables`.
//!
//! Parts get a handle to what they measure; nothing else in the program names a metric. Labels have
//! few values: no client, address or environment is one.

mod cdn;
mod relay;
mod tables;
mod webhook;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

pub use cdn::{CanaryEnd, CanaryMetrics, PurgeMetrics, PurgeOutcome};
pub use relay::RelayMetrics;
pub use webhook::WebhookMetrics;

use tables::{
    ARRIVAL_BOUNDS, COUNTERS, EVALUATION_BOUNDS, FAN_OUT_BOUNDS, GAUGES, HISTOGRAMS, PING_BOUNDS,
    REQUEST_BOUNDS, TURN_BOUNDS,
};

const METADATA: Metadata<'static> = Metadata::new("flagcast", Level::INFO, None);

/// The metrics of a process.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

/// Counts what is under way in a gauge, however it ends.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// Counts one more, until it is dropped.
    #[must_use]
    pub fn new(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// What the requests of a listener measure.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    metrics: Metrics,
    /// By route, then by method and status: a lookup makes no text.
    histograms: Arc<DashMap<String, Vec<AnsweredBy>>>,
}

/// The histogram of answers with one method and status.
type AnsweredBy = ((&'static str, u16), Histogram);

/// What the hub and its streams measure.
#[derive(Clone, Debug)]
pub struct StreamMetrics {
    metrics: Metrics,
    /// Streams that are open, by dialect.
    pub open: [OpenStreams; 2],
    /// Streams that began in a fan-out shard.
    pub opened_in_shards: Counter,
    /// Streams that began as the body of an answer.
    pub opened_in_bodies: Counter,
    /// Changes told to subscribers, one for each change of an environment.
    pub pings: Counter,
    /// Second pings.
    pub echoes: Counter,
    /// Ping frames handed to connections.
    pub frames: Counter,
    /// Revisions that a stream was not told of because a newer one came first.
    pub folded: Counter,
    /// Streams whose client has not taken a whole frame yet.
    pub unfinished: Gauge,
    /// From the commit of a change to its ping.
    pub change_to_ping: Histogram,
    /// From the commit of a change until it was written to the last socket of every shard.
    pub fan_out: Histogram,
    /// Work of a shard between two looks at its sockets.
    pub turn: Histogram,
    /// Fan-out shards that had to start anew.
    pub shard_restarts: Counter,
    ends: [Counter; StreamEnd::ALL.len()],
}

/// Open streams of one dialect.
#[derive(Clone, Debug)]
pub struct OpenStreams {
    /// Of environments: under the direct contract, and under that of caches.
    pub known: [Gauge; 2],
    /// Of keys that no environment has.
    pub unknown: Gauge,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The client closed or reset its connection.
    Client,
    /// Its planned life was over.
    Life,
    /// The gateway is going down.
    Drain,
    /// Its environment was deleted.
    Gone,
    /// The client took nothing for too long.
    Stalled,
    /// The network did not deliver for too long: the client vanished.
    Timeout,
    /// A stranger's key became known: it goes on as the stream of an environment.
    Joined,
    /// The system gave the gateway no room to keep it.
    Failed,
    /// The grace period ended before the planned life of a stream that a cache shares, or the store is lost
    /// and other nodes may know more.
    Cut,
}

impl StreamEnd {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Client,
        Self::Life,
        Self::Drain,
        Self::Gone,
        Self::Stalled,
        Self::Timeout,
        Self::Joined,
        Self::Failed,
        Self::Cut,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Life => "life",
            Self::Drain => "drain",
            Self::Gone => "gone",
            Self::Stalled => "stalled",
            Self::Timeout => "timeout",
            Self::Joined => "joined",
            Self::Failed => "failed",
            Self::Cut => "cut",
        }
    }
}

/// What the flag sets measure.
#[derive(Clone, Debug)]
pub struct FlagSetMetrics {
    /// Flag sets rendered.
    pub builds: Counter,
    /// Reads that were answered without the store's word that nothing is newer.
    pub unconfirmed: Counter,
    /// Flag sets dropped because memory was short.
    pub evictions: Counter,
    /// Memory that rendered flag sets hold.
    pub bytes: Gauge,
    /// Reads that wait for a revision that is not here yet.
    pub waiting: Gauge,
    /// Reads that could not wait for their revision because too many did.
    pub waits_refused: Counter,
}

/// What the change feed measures.
#[derive(Clone, Debug)]
pub struct FeedMetrics {
    /// Age of the oldest change that is not told yet.
    pub lag: Gauge,
    /// Reads of the feed that failed.
    pub errors: Counter,
    /// For how long the store has not answered.
    pub silence: Gauge,
    /// Connections to hear of other nodes' changes that failed.
    pub listener_errors: Counter,
}

/// What the evaluation counter measures.
#[derive(Clone, Debug)]
pub struct AnalyticsMetrics {
    /// Evaluations that SDKs reported.
    pub evaluations: Counter,
    /// Evaluations that could not be kept.
    pub dropped: Counter,
}

/// What evaluating flags for single people measures.
#[derive(Clone, Debug)]
pub struct EvaluationMetrics {
    metrics: Metrics,
    /// In Flagsmith's dialect.
    pub flagsmith: Evaluated,
    /// In OFREP's.
    pub ofrep: Evaluated,
    /// Evaluations without what is kept of an identity: the store did not answer.
    pub without_store: Counter,
}

/// Evaluations of a dialect.
#[derive(Clone, Debug)]
pub struct Evaluated(Histogram);

/// What TLS measures.
#[derive(Clone, Debug)]
pub struct TlsMetrics {
    /// New certificates taken into use.
    pub loaded: Counter,
    /// New certificates that cannot be used.
    pub refused: Counter,
}

/// What the listener measures.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    /// Open connections.
    pub connections: Gauge,
    /// Accepted connections.
    pub accepts: Counter,
    /// Connections that ended with an error: bad requests, timeouts, resets.
    pub errors: Counter,
    /// Connections that could not be accepted: descriptors ran out.
    pub refusals: Counter,
    /// Connections that wait in the kernel to be accepted.
    pub queue: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Makes the recorder and describes every metric.
    #[must_use]
    pub fn new() -> Self {
        let bounds = |builder: PrometheusBuilder, name: &str, bounds: &[f64]| {
            let matcher = Matcher::Full(name.to_owned());
            builder.set_buckets_for_metric(matcher, bounds).unwrap_or_default()
        };
        let builder = PrometheusBuilder::new();
        let builder = bounds(builder, "flagcast_http_request_duration_seconds", &REQUEST_BOUNDS);
        let builder = bounds(builder, "flagcast_change_to_ping_seconds", &PING_BOUNDS);
        let builder = bounds(builder, "flagcast_fan_out_seconds", &FAN_OUT_BOUNDS);
        let builder = bounds(builder, "flagcast_shard_turn_seconds", &TURN_BOUNDS);
        let builder = bounds(builder, "flagcast_purge_duration_seconds", &PING_BOUNDS);
        let builder = bounds(builder, "flagcast_evaluation_seconds", &EVALUATION_BOUNDS);
        let builder = bounds(builder, "flagcast_canary_arrival_seconds", &ARRIVAL_BOUNDS);
        let builder = bounds(builder, "flagcast_webhook_attempt_seconds", &ARRIVAL_BOUNDS);
        let delivered = "flagcast_webhook_change_to_delivered_seconds";
        let builder = bounds(builder, delivered, &ARRIVAL_BOUNDS);
        let builder = bounds(builder, "flagcast_canary_refetch_seconds", &ARRIVAL_BOUNDS);
        let builder = bounds(builder, "flagcast_relay_lag_seconds", &ARRIVAL_BOUNDS);
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let metrics = Self { inner: Arc::new(Inner { recorder, handle }) };
        metrics.describe();
        let labels = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        metrics.gauge("flagcast_build_info", &labels).set(1.0);
        metrics
    }

    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn render(&self) -> String {
        self.inner.handle.render()
    }

    /// Folds recorded samples into buckets. Without it they pile up until the next scrape.
    pub fn upkeep(&self) {
        self.inner.handle.run_upkeep();
    }

    /// Handles for the requests of a listener.
    #[must_use]
    pub fn requests(&self) -> RequestMetrics {
        RequestMetrics { metrics: self.clone(), histograms: Arc::default() }
    }

    /// Counts a management request without a valid token.
    pub fn login_refused(&self) {
        self.counter("flagcast_logins_refused_total", &[]).increment(1);
    }

    /// Counts that a limit of the settings took effect.
    pub fn limit_hit(&self, limit: &'static str) {
        self.counter("flagcast_limit_hits_total", &[("limit", limit.to_owned())]).increment(1);
    }

    /// Says how many files and connections the process may open.
    pub fn open_files_limit(&self, files: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a limit that large is none")]
        self.gauge("flagcast_open_files_limit", &[]).set(files as f64);
    }

    /// Handles for the hub and its streams.
    #[must_use]
    pub fn stream(&self) -> StreamMetrics {
        let open = ["flagsmith", "ofrep"].map(|dialect| {
            let gauge = |contract: &str| {
                let labels = [("dialect", dialect.to_owned()), ("contract", contract.to_owned())];
                self.gauge("flagcast_streams_open", &labels)
            };
            OpenStreams { known: ["direct", "cached"].map(gauge), unknown: gauge("unknown") }
        });
        let opened = |path: &str| {
            self.counter("flagcast_streams_opened_total", &[("path", path.to_owned())])
        };
        let ends = StreamEnd::ALL.map(|end| {
            let reason = [("reason", end.as_str().to_owned())];
            self.counter("flagcast_stream_ends_total", &reason)
        });
        StreamMetrics {
            metrics: self.clone(),
            open,
            opened_in_shards: opened("shard"),
            opened_in_bodies: opened("body"),
            ends,
            folded: self.counter("flagcast_pings_folded_total", &[]),
            unfinished: self.gauge("flagcast_frames_unfinished", &[]),
            fan_out: self.histogram("flagcast_fan_out_seconds", &[]),
            turn: self.histogram("flagcast_shard_turn_seconds", &[]),
            shard_restarts: self.counter("flagcast_shard_restarts_total", &[]),
            pings: self.counter("flagcast_pings_total", &[]),
            echoes: self.counter("flagcast_echoes_total", &[]),
            frames: self.counter("flagcast_ping_frames_total", &[]),
            change_to_ping: self.histogram("flagcast_change_to_ping_seconds", &[]),
        }
    }

    /// Handles for the flag sets.
    #[must_use]
    pub fn flagset(&self) -> FlagSetMetrics {
        FlagSetMetrics {
            builds: self.counter("flagcast_flagset_builds_total", &[]),
            unconfirmed: self.counter("flagcast_reads_unconfirmed_total", &[]),
            evictions: self.counter("flagcast_flagset_evictions_total", &[]),
            bytes: self.gauge("flagcast_flagset_bytes", &[]),
            waiting: self.gauge("flagcast_reads_waiting", &[]),
            waits_refused: self
                .counter("flagcast_limit_hits_total", &[("limit", "reads_waiting".to_owned())]),
        }
    }

    /// Handles for the change feed.
    #[must_use]
    pub fn feed(&self) -> FeedMetrics {
        FeedMetrics {
            lag: self.gauge("flagcast_change_feed_lag_seconds", &[]),
            errors: self.counter("flagcast_change_feed_errors_total", &[]),
            silence: self.gauge("flagcast_store_silent_seconds", &[]),
            listener_errors: self.counter("flagcast_change_listener_errors_total", &[]),
        }
    }

    /// Handles for the evaluation counter.
    #[must_use]
    pub fn analytics(&self) -> AnalyticsMetrics {
        AnalyticsMetrics {
            evaluations: self.counter("flagcast_evaluations_total", &[]),
            dropped: self.counter("flagcast_evaluations_dropped_total", &[]),
        }
    }

    /// Handles for evaluating flags.
    #[must_use]
    pub fn evaluation(&self) -> EvaluationMetrics {
        let evaluated = |dialect: &str| {
            let dialect = [("dialect", dialect.to_owned())];
            Evaluated(self.histogram("flagcast_evaluation_seconds", &dialect))
        };
        EvaluationMetrics {
            metrics: self.clone(),
            flagsmith: evaluated("flagsmith"),
            ofrep: evaluated("ofrep"),
            without_store: self.counter("flagcast_evaluations_without_store_total", &[]),
        }
    }

    /// Handles for TLS.
    #[must_use]
    pub fn tls(&self) -> TlsMetrics {
        let reloads = |outcome: &str| {
            self.counter("flagcast_tls_reloads_total", &[("outcome", outcome.to_owned())])
        };
        TlsMetrics { loaded: reloads("loaded"), refused: reloads("refused") }
    }

    /// Handles for one of the listeners.
    #[must_use]
    pub fn listener(&self, name: &'static str) -> ListenerMetrics {
        let labels = [("listener", name.to_owned())];
        ListenerMetrics {
            connections: self.gauge("flagcast_connections_open", &labels),
            accepts: self.counter("flagcast_connections_total", &labels),
            errors: self.counter("flagcast_connection_errors_total", &labels),
            refusals: self.counter("flagcast_accept_failures_total", &labels),
            queue: self.gauge("flagcast_accept_queue", &labels),
        }
    }

    fn describe(&self) {
        let recorder = &self.inner.recorder;
        let name = |name: &'static str| KeyName::from_const_str(name);
        for (metric, unit, text) in COUNTERS {
            recorder.describe_counter(name(metric), unit, text.into());
        }
        for (metric, unit, text) in GAUGES {
            recorder.describe_gauge(name(metric), unit, text.into());
        }
        for (metric, unit, text) in HISTOGRAMS {
            recorder.describe_histogram(name(metric), unit, text.into());
        }
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, String)]) -> Counter {
        self.inner.recorder.register_counter(&key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, String)]) -> Gauge {
        self.inner.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, labels: &[(&'static str, String)]) -> Histogram {
        self.inner.recorder.register_histogram(&key(name, labels), &METADATA)
    }
}

impl RequestMetrics {
    /// Records a request that was answered.
    pub fn record(&self, route: &str, method: &'static str, status: u16, duration: Duration) {
        let key = (method, status);
        if let Some(answers) = self.histograms.get(route)
            && let Some((_, histogram)) = answers.iter().find(|(known, _)| *known == key)
        {
            histogram.record(duration);
            return;
        }
        let labels = [
            ("route", route.to_owned()),
            ("method", method.to_owned()),
            ("status", status.to_string()),
        ];
        let name = "flagcast_http_request_duration_seconds";
        let histogram = self.metrics.histogram(name, &labels);
        histogram.record(duration);
        self.histograms.entry(route.to_owned()).or_default().push((key, histogram));
    }
}

impl EvaluationMetrics {
    /// Counts that a limit of the settings took effect.
    pub fn limit_hit(&self, limit: &'static str) {
        self.metrics.limit_hit(limit);
    }
}

impl Evaluated {
    /// Evaluates, and records how long it took.
    pub fn time<T>(&self, evaluate: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let evaluated = evaluate();
        self.0.record(began.elapsed());
        evaluated
    }
}

impl StreamMetrics {
    /// Counts the end of a stream.
    pub fn ended(&self, end: StreamEnd) {
        self.ends[end as usize].increment(1);
    }

    /// Counts a stream that a limit refused.
    pub fn refused(&self, limit: &'static str) {
        self.metrics.limit_hit(limit);
    }
}

fn key(name: &'static str, labels: &[(&'static str, String)]) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|(name, value)| Label::new(*name, value.clone())).collect();
    Key::from_parts(name, labels)
}
