//! Settings: what an operator may choose, each key written once in `config/default.toml`.
//!
//! The default file is the list of keys: a key that is not in it is refused with the nearest one
//! that is. A text in an environment variable takes the type of the default it overrides.

mod relay;
mod rules;
mod store;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use ipnet::IpNet;
use serde::Deserialize;
use toml::{Table, Value};

use crate::model::Secret;

pub use relay::{Http2, Relay, RelayTraits, UpstreamKind};
pub use store::Store;

use store::without_password;

/// The commented default file.
pub const DEFAULT_FILE: &str = include_str!("../config/default.toml");

const VARIABLE_PREFIX: &str = "FLAGCAST_";

/// Settings whose value is never printed.
const SECRET_KEYS: [&str; 7] = [
    "auth.bootstrap_token",
    "auth.push_token",
    "cdn.fastly_token",
    "cdn.purge_header",
    "relay.flagsmith_keys",
    "relay.token",
    "secrets.key",
];

/// A setting that cannot be used: the message names the key, the rule and the next step.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// For a value that only shows at its use that it cannot be used.
    #[must_use]
    pub fn new(message: String) -> Self {
        Self(message)
    }
}

/// All settings, by concern.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Listeners and life of the process.
    pub server: Server,
    /// Where the flags live.
    pub store: Store,
    /// Tokens given from outside.
    pub auth: Auth,
    /// Event streams.
    pub stream: Stream,
    /// Caches in front.
    pub cdn: Cdn,
    /// Webhooks.
    pub webhook: Webhook,
    /// What protects stored secrets.
    pub secrets: Secrets,
    /// Evaluation counts.
    pub analytics: Analytics,
    /// Logs.
    pub log: Log,
    /// What a relay follows; only `flagcast relay` heeds it.
    pub relay: Relay,
    /// What is too much.
    pub limits: Limits,
}

/// Listeners and life of the process.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key once")]
pub struct Server {
    pub listen: String,
    pub ops_listen: String,
    pub public_url: String,
    pub tls_certificate: String,
    pub tls_key: String,
    pub grace_seconds: u64,
}

/// Tokens given from outside.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key once")]
pub struct Auth {
    pub bootstrap_token: Secret,
    pub push_token: Secret,
}

/// Event streams.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key once")]
pub struct Stream {
    pub contract: ContractSetting,
    pub echo_seconds: u64,
    pub heartbeat_seconds: u64,
    pub cached_heartbeat_seconds: u64,
    pub life_seconds: u64,
    pub cached_life_seconds: u64,
    pub short_life_seconds: u64,
    pub refusal_seconds: u64,
    pub stall_seconds: u64,
    pub fan_out: FanOut,
    pub shards: usize,
    pub pings_per_second_max: u32,
    pub refetches_per_second: u32,
}

/// Which contract streams are under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContractSetting {
    /// That of caches for requests that come through one, the direct one for others.
    Auto,
    /// That of caches for all.
    Cached,
    /// The direct one for all: no cache in front is to share a stream.
    Direct,
}

/// How the streams of plain HTTP/1.1 are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FanOut {
    /// By shards: one loop for each core over very many sockets.
    Shards,
    /// Each as the body of its answer, like those of TLS and HTTP/2.
    Bodies,
}

/// Caches in front.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key once")]
pub struct Cdn {
    pub purge: Purge,
    pub purge_timeout_ms: u64,
    pub purge_urls: Vec<String>,
    pub fastly_service: String,
    pub fastly_token: Secret,
    pub purge_method: String,
    pub purge_header: Secret,
    pub purge_body: String,
    pub canary: bool,
    pub canary_streams: usize,
}

/// How caches in front are purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purge {
    /// Not at all.
    None,
    /// By Fastly's API.
    Fastly,
    /// By `PURGE` requests to Varnish with our rules.
    Varnish,
    /// By requests of the operator's making.
    Http,
}

/// Webhooks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key once")]
pub struct Webhook {
    pub allowed_targets: Vec<IpNet>,
    pub concurrency: usize,
    pub connect_timeout_ms: u64,
    pub timeout_ms: u64,
    pub retention_days: u32,
}

/// What protects stored secrets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key once")]
pub struct Secrets {
    pub key: Secret,
}

/// Evaluation counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key once")]
pub struct Analytics {
    pub flush_seconds: u64,
}

/// Logs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key once")]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `Text` on a terminal, `Json` elsewhere.
    Auto,
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}

/// What is too much.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key once")]
pub struct Limits {
    pub connections: usize,
    pub accepts_per_second: u32,
    pub streams: usize,
    pub streams_per_environment: usize,
    pub streams_per_address: usize,
    pub streams_unknown: usize,
    pub header_bytes: usize,
    pub body_bytes: usize,
    pub header_seconds: u64,
    pub body_seconds: u64,
    pub requests_per_second: u32,
    pub evaluations_per_second: u32,
    pub projects: u32,
    pub environments_per_project: u32,
    pub features_per_project: u32,
    pub server_keys_per_environment: u32,
    pub webhooks_per_environment: u32,
    pub tokens: u32,
    pub push_environments: u32,
    pub reads_waiting: usize,
    pub value_bytes: usize,
    pub variants_per_feature: u32,
    pub segments_per_project: u32,
    pub conditions_per_segment: u32,
    pub condition_value_bytes: usize,
    pub segment_overrides_per_environment: u32,
    pub identity_overrides_per_environment: u32,
    pub identities_per_environment: u32,
    pub identifier_bytes: usize,
    pub traits_per_identity: u32,
    pub trait_bytes: usize,
    pub identities_per_request: usize,
    pub flagset_bytes: usize,
}

/// Settings together with where each came from, for `flagcast config`.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    rows: BTreeMap<String, Row>,
}

#[derive(Clone, Debug)]
struct Row {
    value: Value,
    source: String,
}

impl Loaded {
    /// Reads the default file, then `file` if there is one, then `variables`.
    pub fn load(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let defaults: Table = toml::from_str(DEFAULT_FILE).map_err(refuse)?;
        let mut rows = flatten(&defaults, "default");
        if let Some(path) = file {
            let shown = path.display();
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError(format!("cannot read {shown}: {error}")))?;
            let table: Table = toml::from_str(&text)
                .map_err(|error| ConfigError(format!("{shown} is not TOML: {error}")))?;
            for (key, row) in flatten(&table, &shown.to_string()) {
                overlay(&mut rows, &key, row)?;
            }
        }
        for (name, text) in variables {
            let Some(key) = key_of(&name) else { continue };
            let value = match rows.get(&key) {
                Some(row) => typed(&row.value, &text)
                    .map_err(|rule| ConfigError(format!("{name} {rule}, not {text:?}")))?,
                None => Value::String(text),
            };
            overlay(&mut rows, &key, Row { value, source: name })?;
        }
        let settings: Settings = unflatten(&rows).try_into().map_err(refuse)?;
        settings.check()?;
        Ok(Self { settings, rows })
    }
}

/// The effective settings, one line each, with secrets masked and the source behind.
impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, row) in &self.rows {
            let secret = SECRET_KEYS.contains(&key.as_str());
            let empty = row.value.as_str().is_some_and(str::is_empty)
                || row.value.as_array().is_some_and(Vec::is_empty);
            let shown = match &row.value {
                Value::String(url) if key == "store.url" => format!("{:?}", without_password(url)),
                _ if secret && !empty => "\"***\"".to_owned(),
                value => value.to_string(),
            };
            writeln!(f, "{:<48} # {}", format!("{key} = {shown}"), row.source)?;
        }
        Ok(())
    }
}

impl Server {
    /// Whether the public listener speaks TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        !self.tls_certificate.is_empty()
    }
}

fn refuse(error: impl fmt::Display) -> ConfigError {
    ConfigError(error.to_string().trim_end().to_owned())
}

/// `FLAGCAST_A__B` names `a.b`. Names without `__` are no settings: container platforms inject
/// `FLAGCAST_PORT` and the like for a service of this name.
fn key_of(variable: &str) -> Option<String> {
    let (section, key) = variable.strip_prefix(VARIABLE_PREFIX)?.split_once("__")?;
    Some(format!("{}.{}", section.to_lowercase(), key.to_lowercase()))
}

fn flatten(table: &Table, source: &str) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    for (section, value) in table {
        match value {
            Value::Table(keys) => rows.extend(keys.iter().map(|(key, value)| {
                let row = Row { value: value.clone(), source: source.to_owned() };
                (format!("{section}.{key}"), row)
            })),
            other => {
                let row = Row { value: other.clone(), source: source.to_owned() };
                rows.insert(section.clone(), row);
            }
        }
    }
    rows
}

fn unflatten(rows: &BTreeMap<String, Row>) -> Table {
    let mut table = Table::new();
    for (path, row) in rows {
        let (section, key) = path.split_once('.').unwrap_or((path, ""));
        let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(keys) = entry {
            keys.insert(key.to_owned(), row.value.clone());
        }
    }
    table
}

fn overlay(rows: &mut BTreeMap<String, Row>, key: &str, row: Row) -> Result<(), ConfigError> {
    let source = &row.source;
    match rows.get_mut(key) {
        Some(known) if known.value.same_type(&row.value) => {
            *known = row;
            Ok(())
        }
        Some(known) => Err(ConfigError(format!(
            "`{key}` in {source} must be {}, like its default {}",
            article(&known.value),
            known.value
        ))),
        None => {
            let nearest = rows
                .keys()
                .max_by(|a, b| similarity(a, key).total_cmp(&similarity(b, key)))
                .map_or("", String::as_str);
            Err(ConfigError(format!(
                "unknown setting `{key}` in {source}; did you mean `{nearest}`? \
                 `flagcast config --default` lists them all"
            )))
        }
    }
}

fn similarity(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(a, b) + strsim::normalized_levenshtein(a, b)
}

fn article(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "a whole number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list",
        _ => "a text",
    }
}

fn typed(like: &Value, text: &str) -> Result<Value, &'static str> {
    match like {
        Value::Integer(_) => {
            text.trim().parse().map(Value::Integer).map_err(|_| "must be a whole number")
        }
        Value::Boolean(_) => {
            text.trim().parse().map(Value::Boolean).map_err(|_| "must be true or false")
        }
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn default_settings() -> Settings {
        load(&[]).unwrap().settings
    }

    fn load(variables: &[(&str, &str)]) -> Result<Loaded, String> {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Loaded::load(None, variables).map_err(|error| error.to_string())
    }

    #[test]
    fn the_default_file_is_complete() {
        let loaded = load(&[]).unwrap();
        assert_eq!(loaded.settings.server.listen, "127.0.0.1:8080");
        assert_eq!(loaded.settings.stream.echo_seconds, 2);
    }

    #[test]
    fn a_variable_overrides_and_names_itself_as_the_source() {
        let loaded = load(&[("FLAGCAST_STREAM__ECHO_SECONDS", "0")]).unwrap();
        assert_eq!(loaded.settings.stream.echo_seconds, 0);
        assert!(loaded.to_string().contains("# FLAGCAST_STREAM__ECHO_SECONDS"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        let error = load(&[("FLAGCAST_SERVER__LISTENN", "x")]).unwrap_err();
        assert!(error.contains("`server.listenn`") && error.contains("`server.listen`"), "{error}");
    }

    #[test]
    fn names_that_platforms_inject_are_no_settings() {
        assert!(load(&[("FLAGCAST_PORT", "tcp://10.0.0.1:80")]).is_ok());
    }

    #[test]
    fn wrong_types_and_rules_are_refused_by_name() {
        let error = load(&[("FLAGCAST_LIMITS__STREAMS", "many")]).unwrap_err();
        assert!(error.contains("FLAGCAST_LIMITS__STREAMS must be a whole number"), "{error}");
        let error = load(&[("FLAGCAST_AUTH__BOOTSTRAP_TOKEN", "short")]).unwrap_err();
        assert!(error.contains("auth.bootstrap_token") && !error.contains("\"short\""), "{error}");
        let error = load(&[("FLAGCAST_LOG__LEVEL", "loud")]).unwrap_err();
        assert!(error.contains("loud") && error.contains("info"), "{error}");
        let error = load(&[
            ("FLAGCAST_STREAM__PINGS_PER_SECOND_MAX", "9"),
            ("FLAGCAST_STREAM__FAN_OUT", "bodies"),
        ])
        .unwrap_err();
        assert!(error.contains("needs stream.fan_out"), "{error}");
        let error = load(&[("FLAGCAST_LIMITS__IDENTIFIER_BYTES", "4097")]).unwrap_err();
        assert!(error.contains("a quarter of limits.header_bytes"), "{error}");
        let error = load(&[("FLAGCAST_STORE__URL", "mysql://x")]).unwrap_err();
        assert!(error.contains("store.url must begin with sqlite://"), "{error}");
    }

    #[test]
    fn a_list_comes_from_a_file_or_by_commas() {
        let loaded = load(&[
            ("FLAGCAST_CDN__PURGE", "varnish"),
            ("FLAGCAST_CDN__PURGE_URLS", "http://shield:6081, http://edge:6081,"),
        ]);
        let cdn = loaded.unwrap().settings.cdn;
        assert_eq!(cdn.purge_urls, ["http://shield:6081", "http://edge:6081"]);
    }

    #[test]
    fn a_purge_that_could_reach_nobody_is_refused() {
        for (purge, named) in [
            ("fastly", "cdn.fastly_service"),
            ("varnish", "cdn.purge_urls"),
            ("http", "cdn.purge_urls"),
            ("akamai", "akamai"),
        ] {
            let error = load(&[("FLAGCAST_CDN__PURGE", purge)]).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        let error = load(&[("FLAGCAST_CDN__PURGE_URLS", "varnish:6081")]).unwrap_err();
        assert!(error.contains("cdn.purge_urls must begin with"), "{error}");
    }

    #[test]
    fn a_cached_stream_cannot_be_set_up_so_that_caches_replay_it() {
        for (name, value) in [
            ("FLAGCAST_STREAM__CACHED_LIFE_SECONDS", "9"),
            ("FLAGCAST_STREAM__CACHED_HEARTBEAT_SECONDS", "6"),
            ("FLAGCAST_STREAM__CACHED_HEARTBEAT_SECONDS", "0"),
        ] {
            let error = load(&[(name, value)]).unwrap_err();
            assert!(error.contains("must be"), "{error}");
        }
    }

    #[test]
    fn the_password_of_the_store_is_masked() {
        for (url, shown) in [
            ("postgres://ann:s3cret@db/flags", "postgres://ann:***@db/flags"),
            ("postgresql://db/flags?user=ann&password=s3cret", "postgresql://db/flags?***"),
            ("postgres://ann:s3 cret@[db", "postgres://***"),
            (
                "postgres://ann@db:5433/flags?sslmode=require",
                "postgres://ann@db:5433/flags?sslmode=require",
            ),
            ("sqlite:///var/lib/flagcast/flagcast.db", "sqlite:///var/lib/flagcast/flagcast.db"),
        ] {
            assert_eq!(without_password(url), shown);
            let variable = [("FLAGCAST_STORE__URL".to_owned(), url.to_owned())];
            let loaded = Loaded::load(None, variable.into_iter()).unwrap();
            assert!(loaded.to_string().contains(&format!("store.url = {shown:?}")), "{loaded}");
            assert!(!format!("{:?}", loaded.settings).contains("s3"));
        }
    }

    #[test]
    fn secret_lists_are_masked() {
        let kind = ("FLAGCAST_RELAY__UPSTREAM_KIND", "flagsmith");
        let loaded =
            load(&[kind, ("FLAGCAST_RELAY__FLAGSMITH_KEYS", "ser.hush,ser.hash")]).unwrap();
        assert!(!loaded.to_string().contains("ser."), "{loaded}");
        assert!(!format!("{:?}", loaded.settings).contains("ser.h"));
        assert!(load(&[]).unwrap().to_string().contains("relay.flagsmith_keys = []"));
        let error = load(&[kind, ("FLAGCAST_RELAY__FLAGSMITH_KEYS", "sre.hush")]).unwrap_err();
        assert!(error.contains("relay.flagsmith_keys") && !error.contains("hush"), "{error}");
        let error = load(&[("FLAGCAST_RELAY__FLAGSMITH_KEYS", "ser.hush")]).unwrap_err();
        assert!(error.contains("relay.upstream_kind") && !error.contains("hush"), "{error}");
        let error = load(&[kind, ("FLAGCAST_RELAY__ENVIRONMENTS", "abc")]).unwrap_err();
        assert!(error.contains("relay.flagsmith_keys"), "{error}");
    }

    #[test]
    fn secrets_are_masked() {
        let token = "0123456789abcdefghijklmnop";
        let loaded = load(&[("FLAGCAST_AUTH__BOOTSTRAP_TOKEN", token)]).unwrap();
        assert!(!loaded.to_string().contains(token));
        assert!(!format!("{:?}", loaded.settings).contains(token));
    }
}
