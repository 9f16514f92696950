//! Every metric by name, with its unit, what it tells an operator, and the bounds of its buckets.

use metrics::Unit;

/// Bounds of request durations, in seconds: those that OpenTelemetry recommends for HTTP.
pub(super) const REQUEST_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Bounds of the time to evaluate the flags of one person: microseconds, or something is wrong.
pub(super) const EVALUATION_BOUNDS: [f64; 9] =
    [0.000_001, 0.000_002_5, 0.000_005, 0.000_01, 0.000_025, 0.000_1, 0.001, 0.01, 0.1];

/// Bounds of the time from commit to ping: the promise is a moment, so the fine part is small.
pub(super) const PING_BOUNDS: [f64; 12] =
    [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Bounds of the time from commit to the last socket: some 10 µs for each of up to a million.
pub(super) const FAN_OUT_BOUNDS: [f64; 12] =
    [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Bounds of the time from commit to a client behind everything: from a moment to a reconnect.
pub(super) const ARRIVAL_BOUNDS: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Bounds of a shard's turn: one slice of pings and one of timers should take a few milliseconds.
pub(super) const TURN_BOUNDS: [f64; 9] =
    [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 1.0];

pub(super) const COUNTERS: [(&str, Option<Unit>, &str); 31] = [
    ("flagcast_pings_total", None, "Changes told to the subscribers of an environment."),
    ("flagcast_echoes_total", None, "Second pings of a change."),
    ("flagcast_ping_frames_total", None, "Ping frames handed to connections."),
    ("flagcast_pings_folded_total", None, "Revisions that a newer one overtook, per stream."),
    ("flagcast_streams_opened_total", None, "Streams that began, by path."),
    ("flagcast_stream_ends_total", None, "Streams that ended, by reason."),
    ("flagcast_shard_restarts_total", None, "Fan-out shards that failed and started anew."),
    ("flagcast_accept_failures_total", None, "Accepts that failed: descriptors ran out."),
    ("flagcast_limit_hits_total", None, "Requests that a limit of the settings refused."),
    ("flagcast_flagset_builds_total", None, "Flag sets rendered."),
    ("flagcast_flagset_evictions_total", None, "Flag sets dropped to save memory."),
    ("flagcast_change_feed_errors_total", None, "Reads of the change feed that failed."),
    (
        "flagcast_change_listener_errors_total",
        None,
        "Connections that should hear of other nodes' changes and failed.",
    ),
    (
        "flagcast_reads_unconfirmed_total",
        None,
        "Reads answered with the last known flags: PostgreSQL did not say whether they are the newest.",
    ),
    ("flagcast_canary_missed_total", None, "Changes that did not reach our own public URL."),
    ("flagcast_canary_stale_total", None, "Reads there that were older than asked for."),
    ("flagcast_canary_read_failures_total", None, "Reads there that failed."),
    ("flagcast_canary_stream_ends_total", None, "Streams of the canary that ended, by how."),
    ("flagcast_evaluations_total", None, "Flag evaluations that SDKs reported."),
    ("flagcast_evaluations_dropped_total", None, "Reported evaluations that were not kept."),
    (
        "flagcast_evaluations_without_store_total",
        None,
        "Evaluations without the traits that are kept: the store did not answer in time.",
    ),
    ("flagcast_connections_total", None, "Connections accepted."),
    ("flagcast_connection_errors_total", None, "Connections that ended with an error."),
    ("flagcast_tls_reloads_total", None, "Changes of the TLS files, by what became of them."),
    ("flagcast_webhook_attempts_total", None, "Requests to webhooks, by outcome."),
    ("flagcast_logins_refused_total", None, "Requests with a missing or wrong token."),
    ("flagcast_relay_fetches_total", None, "Questions of a relay for snapshots, by outcome."),
    ("flagcast_relay_late_answers_total", None, "Snapshots older than what a relay holds."),
    ("flagcast_relay_histories_total", None, "Times that a relay's upstream went back in history."),
    ("flagcast_relay_disk_errors_total", None, "Snapshots that a relay could not write."),
    ("flagcast_relay_usage_batches_total", None, "Usage counts handed on by a relay, by outcome."),
];

pub(super) const GAUGES: [(&str, Option<Unit>, &str); 18] = [
    ("flagcast_streams_open", None, "Event streams open now."),
    ("flagcast_frames_unfinished", None, "Streams whose client has not taken a whole frame yet."),
    ("flagcast_connections_open", None, "Connections open now."),
    ("flagcast_accept_queue", None, "Connections that wait in the kernel to be accepted."),
    ("flagcast_open_files_limit", None, "Files and connections that the process may open."),
    ("flagcast_flagset_bytes", Some(Unit::Bytes), "Memory held by rendered flag sets."),
    ("flagcast_canary_streams_open", None, "Streams that the canary has open."),
    ("flagcast_reads_waiting", None, "Reads that wait for a revision that is not here yet."),
    ("flagcast_change_feed_lag_seconds", Some(Unit::Seconds), "Age of the oldest untold change."),
    (
        "flagcast_store_silent_seconds",
        Some(Unit::Seconds),
        "How long the store has not answered; 0 while it does.",
    ),
    ("flagcast_webhook_endpoints", None, "Webhook endpoints, by status."),
    (
        "flagcast_webhook_endpoints_behind",
        None,
        "Endpoints that have not applied the newest revision.",
    ),
    ("flagcast_webhook_deliveries_pending", None, "Deliveries that wait for their endpoint."),
    ("flagcast_build_info", None, "Always 1; the labels tell the version."),
    (
        "flagcast_relay_environments",
        None,
        "Environments that a relay holds, by state of their link.",
    ),
    ("flagcast_relay_upstream_streams", None, "Streams that a relay has open to its upstream."),
    (
        "flagcast_relay_stale_seconds",
        Some(Unit::Seconds),
        "Longest time that flags of a relay have not been confirmed by its upstream.",
    ),
    ("flagcast_relay_unknown_keys", None, "Keys that a relay remembers as unknown."),
];

pub(super) const HISTOGRAMS: [(&str, Option<Unit>, &str); 11] = [
    ("flagcast_change_to_ping_seconds", Some(Unit::Seconds), "From commit to ping."),
    (
        "flagcast_fan_out_seconds",
        Some(Unit::Seconds),
        "From commit until the ping is written to the last socket of every shard.",
    ),
    (
        "flagcast_canary_arrival_seconds",
        Some(Unit::Seconds),
        "From commit to the ping at our own public URL, through whatever is in front.",
    ),
    ("flagcast_canary_refetch_seconds", Some(Unit::Seconds), "From commit to the new flags there."),
    (
        "flagcast_purge_duration_seconds",
        Some(Unit::Seconds),
        "Purges of caches before a ping or its echo, by outcome.",
    ),
    (
        "flagcast_evaluation_seconds",
        Some(Unit::Seconds),
        "Evaluating the flags of one person, by dialect.",
    ),
    (
        "flagcast_webhook_attempt_seconds",
        Some(Unit::Seconds),
        "From the start of a request to a webhook to the end of its answer.",
    ),
    (
        "flagcast_webhook_change_to_delivered_seconds",
        Some(Unit::Seconds),
        "From a change to its confirmation by an endpoint.",
    ),
    ("flagcast_shard_turn_seconds", Some(Unit::Seconds), "Work of a shard between two polls."),
    (
        "flagcast_http_request_duration_seconds",
        Some(Unit::Seconds),
        "From a request's head to its answer's head; a stream counts until its head.",
    ),
    (
        "flagcast_relay_lag_seconds",
        Some(Unit::Seconds),
        "From the upstream's word of a change to the relay's own.",
    ),
];
