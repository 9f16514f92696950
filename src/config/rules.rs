//! What settings must keep to that a type cannot express. Each refusal names the key, the rule and what
//! to do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{
    Auth, Cdn, ConfigError, FanOut, Limits, Purge, Relay, Secrets, Server, Settings, Store, Stream,
    UpstreamKind, Webhook,
};
use crate::model::{ClientKey, SERVER_KEY_PREFIX, Secret};

/// More shards than any machine has cores.
const SHARDS_MAX: usize = 1024;

/// Shortest life of a stream that a cache shares: of less it could share hardly anything.
const CACHED_LIFE_SECONDS_MIN: u64 = 10;

/// Half of the shortest time after which a cache gives up a silent origin (Fastly's default).
const CACHED_HEARTBEAT_SECONDS_MAX: u64 = 5;

/// More would measure the canary.
const CANARY_STREAMS_MAX: usize = 100;

/// Longest attempt of a webhook: it holds a place as long.
const WEBHOOK_TIMEOUT_MS_MAX: u64 = 60_000;

/// More attempts at a time than a process has connections for.
const WEBHOOK_CONCURRENCY_MAX: usize = 10_000;

/// More than a PostgreSQL has for all.
const STORE_CONNECTIONS_MAX: u32 = 1000;

/// A key of AES-256.
const SECRETS_KEY_BYTES: usize = 32;

/// Shortest token that automation may choose: shorter ones can be guessed.
const TOKEN_LENGTH_MIN: usize = 24;

impl Settings {
    /// Rules that a type cannot express.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.server.check()?;
        self.auth.check()?;
        self.stream.check(&self.server)?;
        self.cdn.check()?;
        self.webhook.check()?;
        self.secrets.check()?;
        self.limits.check()?;
        self.store.check()?;
        self.relay.check()?;
        rule(self.analytics.flush_seconds > 0, "analytics.flush_seconds must be at least 1")
    }
}

impl Store {
    fn check(&self) -> Result<(), ConfigError> {
        rule(
            self.url.expose().starts_with("sqlite:") || self.is_postgres(),
            "store.url must begin with sqlite:// or postgres://, for example \
             sqlite:///var/lib/flagcast/flagcast.db or postgres://flagcast:password@db.example.com/flagcast",
        )?;
        rule(
            (2..=STORE_CONNECTIONS_MAX).contains(&self.connections),
            "store.connections must be 2 to 1000: half of them write, the others read",
        )?;
        rule(
            self.poll_ms > 0 && self.check_timeout_ms > 0,
            "store.poll_ms and store.check_timeout_ms must be at least 1",
        )
    }
}

impl Relay {
    fn check(&self) -> Result<(), ConfigError> {
        rule(
            self.upstream.is_empty() || is_http(&self.upstream),
            "relay.upstream must begin with http:// or https://, for example https://flags.example.com",
        )?;
        rule(is_graphic(&self.token), "relay.token may hold only printable ASCII without spaces")?;
        if let Some(bad) = self.environments.iter().find(|key| ClientKey::parse(key).is_err()) {
            return Err(ConfigError::new(format!(
                "relay.environments must hold client keys, not {bad:?}; the page of an environment shows its key"
            )));
        }
        rule(
            self.environments.len() <= self.environments_max,
            "relay.environments_max must be at least the number of relay.environments",
        )?;
        let is_server_key =
            |key: &Secret| key.expose().starts_with(SERVER_KEY_PREFIX) && is_graphic(key);
        rule(
            self.flagsmith_keys.iter().all(is_server_key),
            "relay.flagsmith_keys must hold server keys, which begin with `ser.`: Flagsmith shows them under \
             SDK Keys as Server-side Environment Keys",
        )?;
        rule(
            self.flagsmith_realtime.is_empty() || is_http(&self.flagsmith_realtime),
            "relay.flagsmith_realtime must begin with http:// or https://",
        )?;
        let is_flagsmith = self.upstream_kind == UpstreamKind::Flagsmith;
        rule(
            !is_flagsmith || self.environments.is_empty(),
            "relay.environments is for gateways; Flagsmith's environments are named by their server keys in \
             relay.flagsmith_keys",
        )?;
        rule(
            is_flagsmith || (self.flagsmith_keys.is_empty() && self.flagsmith_realtime.is_empty()),
            "relay.flagsmith_keys and flagsmith_realtime need relay.upstream_kind = \"flagsmith\"",
        )?;
        rule(!self.directory.is_empty(), "relay.directory must name a folder")?;
        rule(
            self.poll_seconds > 0 && self.idle_seconds > 0 && self.unknown_seconds > 0,
            "relay.poll_seconds, idle_seconds and unknown_seconds must be at least 1",
        )
    }

    /// What `flagcast relay` needs beside it.
    pub fn check_upstream(&self) -> Result<(), ConfigError> {
        rule(
            !self.upstream.is_empty(),
            "relay.upstream must name the gateway (or the Flagsmith) to follow: --upstream \
             https://flags.example.com",
        )?;
        rule(
            !self.token.is_empty() || self.upstream_kind == UpstreamKind::Flagsmith,
            "relay.token must be a token of the gateway with the role `relay`: make one there with \
             `flagcast token create --name relay --role relay` and give it as FLAGCAST_RELAY__TOKEN",
        )
    }
}

impl Server {
    fn check(&self) -> Result<(), ConfigError> {
        let (certificate, key) = (&self.tls_certificate, &self.tls_key);
        rule(
            certificate.is_empty() || !key.is_empty(),
            "server.tls_certificate needs server.tls_key beside it: name the file of its private key",
        )?;
        rule(
            key.is_empty() || !certificate.is_empty(),
            "server.tls_key needs server.tls_certificate beside it: name the file of its certificate",
        )?;
        let url = &self.public_url;
        rule(
            url.is_empty() || is_http(url),
            "server.public_url must begin with http:// or https://, for example https://flags.example.com",
        )
    }
}

impl Auth {
    fn check(&self) -> Result<(), ConfigError> {
        let token = &self.bootstrap_token;
        rule(
            token.is_empty() || token.expose().len() >= TOKEN_LENGTH_MIN,
            "auth.bootstrap_token must have at least 24 characters: take one from `openssl rand -hex 24`",
        )?;
        rule(
            is_graphic(token) && is_graphic(&self.push_token),
            "auth.bootstrap_token and auth.push_token may hold only printable ASCII without spaces",
        )
    }
}

impl Stream {
    fn check(&self, server: &Server) -> Result<(), ConfigError> {
        rule(
            self.heartbeat_seconds > 0
                && self.life_seconds > 0
                && self.short_life_seconds > 0
                && self.stall_seconds > 0,
            "stream.heartbeat_seconds, life_seconds, short_life_seconds and stall_seconds must be at least 1",
        )?;
        rule(
            self.cached_life_seconds >= CACHED_LIFE_SECONDS_MIN,
            "stream.cached_life_seconds must be at least 10: a cache must have time to gather clients",
        )?;
        rule(
            (1..=CACHED_HEARTBEAT_SECONDS_MAX).contains(&self.cached_heartbeat_seconds),
            "stream.cached_heartbeat_seconds must be 1 to 5: Fastly takes a stream for complete after \
             10 silent seconds and would hand it out as a recording",
        )?;
        rule(
            self.shards <= SHARDS_MAX,
            "stream.shards must be at most 1024: more than one for each core gains nothing",
        )?;
        rule(
            self.pings_per_second_max == 0 || (self.fan_out == FanOut::Shards && !server.has_tls()),
            "stream.pings_per_second_max needs stream.fan_out = \"shards\" and no TLS: bodies know no pace",
        )
    }
}

impl Cdn {
    fn check(&self) -> Result<(), ConfigError> {
        rule(
            self.purge_timeout_ms > 0,
            "cdn.purge_timeout_ms must be at least 1: it is how long a ping may wait for its purge",
        )?;
        rule(
            (1..=CANARY_STREAMS_MAX).contains(&self.canary_streams),
            "cdn.canary_streams must be 1 to 100; to have none set cdn.canary = false",
        )?;
        rule(
            self.purge_urls.iter().all(|url| is_http(url)),
            "cdn.purge_urls must begin with http:// or https://, for example http://varnish:6081",
        )?;
        rule(
            self.purge != Purge::Fastly
                || !(self.fastly_service.is_empty() || self.fastly_token.is_empty()),
            "cdn.purge = \"fastly\" needs cdn.fastly_service and cdn.fastly_token: the id of the \
             service, and a token with the scope purge_select",
        )?;
        rule(
            is_graphic(&self.fastly_token),
            "cdn.fastly_token may hold only printable ASCII without spaces",
        )?;
        rule(
            !matches!(self.purge, Purge::Varnish | Purge::Http) || !self.purge_urls.is_empty(),
            "cdn.purge = \"varnish\" and \"http\" need cdn.purge_urls: whom to ask",
        )
    }
}

impl Webhook {
    fn check(&self) -> Result<(), ConfigError> {
        rule(
            self.connect_timeout_ms > 0 && self.timeout_ms >= self.connect_timeout_ms,
            "webhook.timeout_ms must be at least webhook.connect_timeout_ms, and that at least 1: the one \
             holds the other",
        )?;
        rule(
            self.timeout_ms <= WEBHOOK_TIMEOUT_MS_MAX,
            "webhook.timeout_ms must be at most 60000: an endpoint should answer first and work later",
        )?;
        rule(
            (4..=WEBHOOK_CONCURRENCY_MAX).contains(&self.concurrency),
            "webhook.concurrency must be 4 to 10000: a quarter of it is for endpoints that fail",
        )?;
        rule(self.retention_days > 0, "webhook.retention_days must be at least 1")
    }
}

impl Secrets {
    fn check(&self) -> Result<(), ConfigError> {
        let bytes = BASE64.decode(self.key.expose());
        rule(
            self.key.is_empty() || bytes.is_ok_and(|bytes| bytes.len() == SECRETS_KEY_BYTES),
            "secrets.key must be 32 bytes in base64: take one from `openssl rand -base64 32`",
        )
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        rule(
            self.header_bytes >= 8192,
            "limits.header_bytes must be at least 8192: browsers send that much",
        )?;
        rule(
            self.requests_per_second > 0
                && self.header_seconds > 0
                && self.body_seconds > 0
                && self.connections > 0,
            "limits.requests_per_second, header_seconds, body_seconds and connections must be at least 1",
        )?;
        rule(
            (1..=self.header_bytes / 4).contains(&self.identifier_bytes),
            "limits.identifier_bytes must be at least 1 and at most a quarter of limits.header_bytes: \
             in a URL a byte may take three",
        )
    }
}

fn rule(holds: bool, text: &str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError(text.to_owned())) }
}

fn is_graphic(secret: &Secret) -> bool {
    secret.expose().bytes().all(|b| b.is_ascii_graphic())
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}
