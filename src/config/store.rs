//! Where the flags live, and how much of its URL may be shown.

use serde::Deserialize;

use crate::model::Secret;

/// How URLs of PostgreSQL begin.
const POSTGRES_SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// Where the flags live.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents each key once")]
pub struct Store {
    /// A secret, because of the password in it.
    pub url: Secret,
    pub connections: u32,
    pub busy_timeout_ms: u64,
    pub poll_ms: u64,
    pub check_timeout_ms: u64,
    pub lost_after_seconds: u64,
}

impl Store {
    /// Whether it is PostgreSQL.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        POSTGRES_SCHEMES.iter().any(|scheme| self.url.expose().starts_with(scheme))
    }

    /// The URL as it may be shown.
    #[must_use]
    pub fn shown_url(&self) -> String {
        without_password(self.url.expose())
    }
}

/// A URL of the store without its password.
pub(super) fn without_password(url: &str) -> String {
    if !POSTGRES_SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        return url.to_owned();
    }
    let Ok(mut parsed) = url::Url::parse(url) else {
        return "postgres://***".to_owned();
    };
    if parsed.password().is_some() && parsed.set_password(Some("***")).is_err() {
        return "postgres://***".to_owned();
    }
    if parsed.query_pairs().any(|(name, _)| name == "password") {
        parsed.set_query(Some("***"));
    }
    parsed.into()
}
