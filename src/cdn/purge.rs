//! Makes caches forget the flags of an environment that a change makes old.
//!
//! Only answers without a revision can be old: the pinned URL of a new revision is new to every cache.
//! A purge comes behind the new flag set and before the ping, and once more before the echo: a cache
//! that filled itself from another which was purged later is put right by the second. It is bounded:
//! a cache that does not answer delays a ping by `cdn.purge_timeout_ms` and no more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::{Cdn, ConfigError, Purge};
use crate::flagset::surrogate_key;
use crate::metrics::{PurgeMetrics, PurgeOutcome};
use crate::model::{ClientKey, Secret};
use crate::outbound;

/// Purges at a time. More wait for a turn, within their bound.
const PURGES_MAX: usize = 64;

/// Where Fastly's API is, unless `cdn.purge_urls` names another place.
const FASTLY_API: &str = "https://api.fastly.com";

/// The method by which HTTP caches are purged, by custom.
const PURGE_METHOD: &str = "PURGE";

/// The header by which our Varnish rules find what to forget besides the URL.
const SURROGATE_KEY_HEADER: &str = "surrogate-key";

/// Purges what the settings say. Clones share it.
#[derive(Clone, Debug)]
pub struct Purger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    plan: Plan,
    bound: Duration,
    turns: Semaphore,
    metrics: PurgeMetrics,
}

/// Whom to tell, and how.
#[derive(Debug)]
enum Plan {
    /// Fastly's API, which reaches all its places within some 150 ms.
    Fastly { base: String, service: String, token: Secret },
    /// Each Varnish, in this order.
    Varnish { bases: Vec<String> },
    /// Requests of the operator's making, in this order.
    Http { method: Method, urls: Vec<String>, header: Option<(String, Secret)>, body: String },
}

/// Why a purge failed.
#[derive(Debug, thiserror::Error)]
enum PurgeError {
    #[error("no answer: {0}")]
    Request(#[source] reqwest::Error),
    #[error("answered {0}")]
    Refused(u16),
}

impl Purger {
    /// Prepares what the settings want; nothing when there is nothing to purge.
    pub fn new(cdn: &Cdn, metrics: PurgeMetrics) -> Result<Option<Self>, ConfigError> {
        let urls: Vec<_> =
            cdn.purge_urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        let plan = match cdn.purge {
            Purge::None => return Ok(None),
            Purge::Fastly => Plan::Fastly {
                base: urls.into_iter().next().unwrap_or_else(|| FASTLY_API.to_owned()),
                service: cdn.fastly_service.clone(),
                token: cdn.fastly_token.clone(),
            },
            Purge::Varnish => Plan::Varnish { bases: urls },
            Purge::Http => Plan::Http {
                method: method(&cdn.purge_method)?,
                urls: cdn.purge_urls.clone(),
                header: header(&cdn.purge_header)?,
                body: cdn.purge_body.clone(),
            },
        };
        let bound = Duration::from_millis(cdn.purge_timeout_ms);
        // The caches are named by address; a proxy of the machine is none of them.
        let client = outbound::client_for(plan.urls()).no_proxy().timeout(bound).build().map_err(
            |error| {
                ConfigError::new(format!("cdn.purge cannot use TLS ({error}): give http:// URLs"))
            },
        )?;
        let turns = Semaphore::new(PURGES_MAX);
        Ok(Some(Self { inner: Arc::new(Inner { client, plan, bound, turns, metrics }) }))
    }

    /// Makes the caches forget the flags of an environment. Returns when they have, or when its time
    /// is over: a failure is logged and counted, and holds nothing up.
    pub async fn purge(&self, client_key: &ClientKey) {
        let Inner { bound, metrics, .. } = &*self.inner;
        let began = Instant::now();
        let outcome = match timeout(*bound, self.inner.forget(client_key)).await {
            Ok(Ok(())) => PurgeOutcome::Done,
            Ok(Err(PurgeError::Request(error))) if error.is_timeout() => PurgeOutcome::Timeout,
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, %client_key, "a cache was not purged");
                PurgeOutcome::Failed
            }
            Err(_) => PurgeOutcome::Timeout,
        };
        if outcome == PurgeOutcome::Timeout {
            tracing::warn!(%client_key, "a cache was not purged within `cdn.purge_timeout_ms`");
        }
        metrics.record(outcome, began.elapsed());
    }
}

impl Plan {
    /// Whom it asks.
    fn urls(&self) -> Vec<&str> {
        match self {
            Self::Fastly { base, .. } => vec![base],
            Self::Varnish { bases: urls } | Self::Http { urls, .. } => {
                urls.iter().map(String::as_str).collect()
            }
        }
    }
}

impl Inner {
    /// Sends every request, also behind one that failed: each cache counts. The first failure is told.
    async fn forget(&self, client_key: &ClientKey) -> Result<(), PurgeError> {
        let _turn = self.turns.acquire().await;
        let mut first = Ok(());
        for request in self.requests(client_key) {
            let sent = match request.send().await {
                Ok(answer) if answer.status().is_success() => Ok(()),
                Ok(answer) => Err(PurgeError::Refused(answer.status().as_u16())),
                // A URL can hold what only the cache should know.
                Err(error) => Err(PurgeError::Request(error.without_url())),
            };
            first = first.and(sent);
        }
        first
    }

    fn requests(&self, client_key: &ClientKey) -> Vec<RequestBuilder> {
        let surrogate_key = surrogate_key(client_key);
        match &self.plan {
            Plan::Fastly { base, service, token } => {
                // A hard purge: a soft one would go on to serve what is old.
                let url = format!("{base}/service/{service}/purge/{surrogate_key}");
                vec![self.client.post(url).header("fastly-key", token.expose())]
            }
            Plan::Varnish { bases } => bases
                .iter()
                .map(|base| {
                    let url = format!("{base}/sdk/v1/environments/{client_key}/flags");
                    let method = Method::from_bytes(PURGE_METHOD.as_bytes()).unwrap_or_default();
                    let request = self.client.request(method, url);
                    request.header(SURROGATE_KEY_HEADER, &surrogate_key)
                })
                .collect(),
            Plan::Http { method, urls, header, body } => urls
                .iter()
                .map(|url| {
                    let url = fill(url, client_key, &surrogate_key);
                    let mut request = self.client.request(method.clone(), url);
                    if let Some((name, value)) = header {
                        request = request.header(name, value.expose());
                    }
                    if body.is_empty() {
                        return request;
                    }
                    let request = request.header("content-type", "application/json");
                    request.body(fill(body, client_key, &surrogate_key))
                })
                .collect(),
        }
    }
}

/// Puts an environment into a template.
fn fill(template: &str, client_key: &ClientKey, surrogate_key: &str) -> String {
    template.replace("{client_key}", client_key.as_str()).replace("{surrogate_key}", surrogate_key)
}

fn method(name: &str) -> Result<Method, ConfigError> {
    Method::from_bytes(name.as_bytes()).map_err(|_| {
        ConfigError::new(format!("cdn.purge_method must be a method such as POST, not {name:?}"))
    })
}

/// Splits `Name: value`. The value may be a secret and is in no message.
fn header(line: &Secret) -> Result<Option<(String, Secret)>, ConfigError> {
    if line.is_empty() {
        return Ok(None);
    }
    let split = line.expose().split_once(':').map(|(name, value)| (name.trim(), value.trim()));
    split
        .filter(|(name, value)| {
            http::HeaderName::try_from(*name).is_ok() && http::HeaderValue::try_from(*value).is_ok()
        })
        .map(|(name, value)| Some((name.to_owned(), Secret::new(value.to_owned()))))
        .ok_or_else(|| {
            let rule = "must be one header, for example `Authorization: Bearer …`";
            ConfigError::new(format!("cdn.purge_header {rule}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn requests(cdn: &Cdn) -> Vec<reqwest::Request> {
        let purger = Purger::new(cdn, Metrics::new().purge()).unwrap().unwrap();
        let client_key = ClientKey::parse("aB3").unwrap();
        let requests = purger.inner.requests(&client_key);
        requests.into_iter().map(|request| request.build().unwrap()).collect()
    }

    fn cdn(purge: Purge, urls: &[&str]) -> Cdn {
        let purge_urls = urls.iter().map(|url| (*url).to_owned()).collect();
        Cdn { purge, purge_urls, ..crate::config::tests::default_settings().cdn }
    }

    #[test]
    fn fastly_is_asked_by_surrogate_key() {
        let settings = Cdn {
            fastly_service: "SU1Z0isxPaozGVKXdv0eY".to_owned(),
            fastly_token: Secret::new("secret".to_owned()),
            ..cdn(Purge::Fastly, &[])
        };
        let requests = requests(&settings);
        assert_eq!(requests.len(), 1);
        let request = &requests[0];
        let url = "https://api.fastly.com/service/SU1Z0isxPaozGVKXdv0eY/purge/flags-aB3";
        assert_eq!((request.method(), request.url().as_str()), (&Method::POST, url));
        assert_eq!(request.headers()["fastly-key"], "secret");
        assert!(!request.headers().contains_key("fastly-soft-purge"));
    }

    #[test]
    fn each_varnish_is_asked_in_order() {
        let requests = requests(&cdn(Purge::Varnish, &["http://shield:6081/", "http://edge:6081"]));
        let asked: Vec<_> = requests.iter().map(|request| request.url().as_str()).collect();
        let path = "/sdk/v1/environments/aB3/flags";
        assert_eq!(asked, [format!("http://shield:6081{path}"), format!("http://edge:6081{path}")]);
        assert!(requests.iter().all(|request| request.method() == "PURGE"));
        assert_eq!(requests[1].headers()["surrogate-key"], "flags-aB3");
    }

    #[test]
    fn a_request_of_the_operators_making_is_filled_in() {
        let settings = Cdn {
            purge_header: Secret::new("Authorization: Bearer t:1".to_owned()),
            purge_body: r#"{"tags":["{surrogate_key}"]}"#.to_owned(),
            ..cdn(Purge::Http, &["https://cdn.example/purge?key={client_key}"])
        };
        let requests = requests(&settings);
        let request = &requests[0];
        assert_eq!(request.url().as_str(), "https://cdn.example/purge?key=aB3");
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.headers()["authorization"], "Bearer t:1");
        let body = request.body().unwrap().as_bytes().unwrap();
        assert_eq!(body, br#"{"tags":["flags-aB3"]}"#);
    }

    #[test]
    fn what_cannot_be_sent_is_refused_by_its_name() {
        for line in ["no-colon", "bad name: x", "x: a\nb"] {
            let error = header(&Secret::new(line.to_owned())).unwrap_err();
            assert!(error.to_string().starts_with("cdn.purge_header must be"), "{error}");
        }
        let error = method("no method").unwrap_err();
        assert!(error.to_string().starts_with("cdn.purge_method must be"), "{error}");
    }
}
