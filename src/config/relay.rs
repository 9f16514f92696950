//! What a relay follows, and how.

use serde::Deserialize;

use crate::model::Secret;

/// What a relay follows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key once")]
pub struct Relay {
    pub upstream: String,
    pub upstream_kind: UpstreamKind,
    pub token: Secret,
    pub http2: Http2,
    pub environments: Vec<String>,
    pub environments_max: usize,
    pub directory: String,
    pub poll_seconds: u64,
    pub idle_seconds: u64,
    pub unknown_seconds: u64,
    pub forget_seconds: u64,
    pub ready_stale_seconds: u64,
    pub traits: RelayTraits,
    pub flagsmith_keys: Vec<Secret>,
    pub flagsmith_realtime: String,
}

/// What a relay is in front of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamKind {
    /// A gateway of ours, or another relay.
    Flagcast,
    /// A Flagsmith API.
    Flagsmith,
}

/// Which HTTP a relay speaks to its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Http2 {
    /// What TLS agrees on; without TLS, HTTP/1.1.
    Auto,
    /// HTTP/2, without TLS too.
    Always,
}

/// What becomes of traits that clients tell a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayTraits {
    /// They are kept upstream.
    Upstream,
    /// They count for the request that tells them and are not kept.
    Refuse,
}

impl Relay {
    /// Keys of the environments that are named: client keys, or server keys of Flagsmith.
    #[must_use]
    pub fn named(&self) -> Vec<Secret> {
        match self.upstream_kind {
            UpstreamKind::Flagcast => self.environments.iter().map(Secret::new).collect(),
            UpstreamKind::Flagsmith => self.flagsmith_keys.clone(),
        }
    }
}
