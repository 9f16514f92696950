//! What the app says, checked when the receiver starts.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Uri;

use crate::fetch::{Fetch, Own};
use crate::read::Reader;
use crate::receiver::Receiver;
use crate::store::{FileStore, Home, Store};
use crate::verify::Secrets;

/// Why a receiver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// The address of the gateway is none.
    #[error(
        "`url` is {given:?}; it must be the gateway's address like https://flags.example.com, without \
         a query: take the one under which you see its page"
    )]
    Url {
        /// What the app said.
        given: String,
    },
    /// The client key is none.
    #[error(
        "`client_key` is {given:?}; it must be of letters, digits, `-` and `_`: take the environment's \
         from its page or from `GET /admin/v1/projects/…/environments/…`"
    )]
    ClientKey {
        /// What the app said.
        given: String,
    },
    /// There is no secret.
    #[error(
        "`secret` is missing; it is shown once when the endpoint is created with \
         `POST /admin/v1/projects/…/environments/…/webhooks`, and after that only by rotating it"
    )]
    NoSecret,
    /// A secret is none.
    #[error(
        "`secret` number {number} cannot be used: {rule}; copy it again from where it was shown, \
         `whsec_…`"
    )]
    Secret {
        /// Which one, counted from 1.
        number: usize,
        /// What it breaks; not the secret.
        rule: String,
    },
    /// A span of time is too short.
    #[error("`{option}` is {given:?}; it must be at least {least:?}: leave it out for the default")]
    Span {
        /// Which option.
        option: &'static str,
        /// What the app said.
        given: Duration,
        /// The rule.
        least: Duration,
    },
    /// There is no runtime whose tasks could keep the copy up to date.
    #[error("`start` must be called within a tokio runtime: call it in an async function")]
    NoRuntime,
    /// The system has no certificates, and the address is HTTPS.
    #[error(
        "no certificates to trust: {0}; install the system's (Debian: `ca-certificates`), or name a \
         file in SSL_CERT_FILE"
    )]
    Certificates(io::Error),
}

/// The time of day.
pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Options of a [`Receiver`]; [`Receiver::builder`] begins one.
pub struct Builder {
    url: String,
    client_key: String,
    secrets: Vec<String>,
    store: Option<Arc<dyn Store>>,
    client: Option<Arc<dyn Fetch>>,
    poll: Duration,
    read_timeout: Duration,
    answer_within: Duration,
    clock: Clock,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("url", &self.url)
            .field("client_key", &self.client_key)
            .finish_non_exhaustive()
    }
}

/// What a receiver works with.
pub(crate) struct Checked {
    pub(crate) client_key: String,
    pub(crate) secrets: Secrets,
    pub(crate) home: Option<Home>,
    pub(crate) reader: Reader,
    pub(crate) poll: Duration,
    pub(crate) answer_within: Duration,
    pub(crate) clock: Clock,
}

impl Builder {
    pub(crate) fn new(url: String, client_key: String) -> Self {
        Self {
            url,
            client_key,
            secrets: Vec::new(),
            store: None,
            client: None,
            poll: Duration::from_mins(5),
            read_timeout: Duration::from_secs(3),
            answer_within: Duration::from_secs(8),
            clock: Arc::new(SystemTime::now),
        }
    }

    /// The endpoint's secret, `whsec_…`. During a rotation say both: each call adds one.
    #[must_use]
    pub fn secret(mut self, secret: impl Into<String>) -> Self {
        self.secrets.push(secret.into());
        self
    }

    /// Several secrets at once.
    #[must_use]
    pub fn secrets<S: Into<String>>(mut self, secrets: impl IntoIterator<Item = S>) -> Self {
        self.secrets.extend(secrets.into_iter().map(Into::into));
        self
    }

    /// Keeps the copy in a file, so that the app starts with it when Flagcast is down.
    #[must_use]
    pub fn file(self, path: impl Into<PathBuf>) -> Self {
        self.store(FileStore::new(path))
    }

    /// Keeps the copy in a store of the app.
    #[must_use]
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Between looks at what no webhook has told, moved by up to a fifth; 5 minutes if nothing is
    /// said, never if zero.
    #[must_use]
    pub fn poll(mut self, every: Duration) -> Self {
        self.poll = every;
        self
    }

    /// How long a read of the flags may take; 3 s if nothing is said.
    #[must_use]
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// How long a delivery may wait for the flags that it tells of; 8 s if nothing is said. The
    /// gateway hangs up after 15.
    #[must_use]
    pub fn answer_within(mut self, time: Duration) -> Self {
        self.answer_within = time;
        self
    }

    /// Reads through a client of the app.
    #[must_use]
    pub fn client(mut self, client: impl Fetch) -> Self {
        self.client = Some(Arc::new(client));
        self
    }

    /// Where the time of day comes from, for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Loads the stored copy and begins to follow the gateway. It waits for the store only.
    ///
    /// # Errors
    ///
    /// When an option cannot work; see [`OptionError`]. A gateway that is down is no error.
    pub fn start(self) -> Result<Receiver, OptionError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| OptionError::NoRuntime)?;
        Ok(Receiver::start(self.check()?, &runtime))
    }

    fn check(self) -> Result<Checked, OptionError> {
        let base = base(&self.url).ok_or(OptionError::Url { given: self.url })?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if self.client_key.is_empty() || !self.client_key.bytes().all(fits) {
            return Err(OptionError::ClientKey { given: self.client_key });
        }
        if self.secrets.is_empty() {
            return Err(OptionError::NoSecret);
        }
        let secrets = Secrets::parse(&self.secrets)
            .map_err(|(place, rule)| OptionError::Secret { number: place + 1, rule })?;
        let second = Duration::from_secs(1);
        for (option, given, is_off) in [
            ("poll", self.poll, self.poll.is_zero()),
            ("read_timeout", self.read_timeout, false),
            ("answer_within", self.answer_within, false),
        ] {
            if given < second && !is_off {
                return Err(OptionError::Span { option, given, least: second });
            }
        }
        let client = match self.client {
            Some(client) => client,
            None if base.starts_with("https") => {
                Arc::new(Own::tls().map_err(OptionError::Certificates)?)
            }
            None => Arc::new(Own::plain()),
        };
        Ok(Checked {
            reader: Reader::new(client, &base, &self.client_key, self.read_timeout),
            home: self.store.map(|store| Home::new(store, &self.client_key)),
            client_key: self.client_key,
            secrets,
            poll: self.poll,
            answer_within: self.answer_within,
            clock: self.clock,
        })
    }
}

/// The address without a slash at its end, if it is one.
fn base(url: &str) -> Option<String> {
    let url = url.trim();
    let uri: Uri = url.parse().ok()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    let is_bare = uri.query().is_none() && !url.contains('#');
    let is_good = is_http && has_host && !has_user && is_bare;
    is_good.then(|| {
        let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority());
        let authority = authority.map_or("", http::uri::Authority::as_str);
        format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_loses_its_last_slash() {
        let base = |url: &str| base(url).unwrap();
        assert_eq!(base("https://flags.example.com"), "https://flags.example.com");
        assert_eq!(base(" HTTP://h:8080/ "), "http://h:8080");
        assert_eq!(base("http://[::1]:80/flagcast//"), "http://[::1]:80/flagcast");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in [
            "",
            "flags.example.com",
            "/flags",
            "ftp://h",
            "https://",
            "http://u:p@h",
            "http://h?x=1",
            "http://h#x",
            "http://h h",
            "file:///etc",
        ] {
            assert_eq!(base(url), None, "{url}");
        }
    }
}
