//! What is between a client and us: recognises a cache by what it adds to a request.
//!
//! A cache that shares one answer among many clients needs other streams and other lives of answers
//! than a client that is alone. Getting it wrong is not dangerous for a client without a cache (its
//! streams are shorter), but for a cache it is: a stream that it must not keep costs one for each
//! client, one that ends early is replayed. `docs/adr/0008-two-contracts.md` has the reasons.

use http::{HeaderMap, HeaderName, Method, Version};

use crate::config::{self, ContractSetting};
use crate::stream::Contract;

/// Headers by which caches and proxies that may be one make themselves known to an origin: the
/// standard ones (RFC 8586, RFC 9110, W3C Edge Architecture) and those of Fastly and Varnish.
const MARKS: [HeaderName; 5] = [
    HeaderName::from_static("cdn-loop"),
    HeaderName::from_static("via"),
    HeaderName::from_static("fastly-ff"),
    HeaderName::from_static("x-varnish"),
    HeaderName::from_static("surrogate-capability"),
];

/// Seconds after which the echo comes at the earliest that heals what a cache has served too long: a
/// second of freshness, and one for each rounded age on the way.
const HEALING_ECHO_SECONDS: u64 = 2;

/// How requests are told apart that come through a cache.
#[derive(Clone, Copy, Debug)]
pub struct Hops {
    contract: ContractSetting,
    /// Who got an answer that was a second old reads once more.
    heals: bool,
}

impl Hops {
    /// As the settings want it.
    #[must_use]
    pub fn new(stream: &config::Stream) -> Self {
        let heals = stream.echo_seconds >= HEALING_ECHO_SECONDS;
        Self { contract: stream.contract, heals }
    }

    /// The contract of a stream. HTTP/1.0 marks an end by closing the connection, so that an early
    /// end looks like any other; and an answer to HEAD is no stream.
    pub(super) fn contract(
        self,
        method: &Method,
        version: Version,
        headers: &HeaderMap,
    ) -> Contract {
        let can_be_cut = version != Version::HTTP_10 && version != Version::HTTP_09;
        if self.has_cache(headers) && can_be_cut && method == Method::GET {
            Contract::Cached
        } else {
            Contract::Direct
        }
    }

    /// Whether a cache may share an answer for a second that a change can make old.
    pub(super) fn may_share(self, headers: &HeaderMap) -> bool {
        self.heals && self.has_cache(headers)
    }

    fn has_cache(self, headers: &HeaderMap) -> bool {
        match self.contract {
            ContractSetting::Auto => MARKS.iter().any(|mark| headers.contains_key(mark)),
            ContractSetting::Cached => true,
            ContractSetting::Direct => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(names: &[&'static str]) -> HeaderMap {
        let pair = |name| (HeaderName::from_static(name), HeaderValue::from_static("environment"));
        names.iter().copied().map(pair).collect()
    }

    fn hops(contract: ContractSetting) -> Hops {
        Hops { contract, heals: true }
    }

    #[test]
    fn every_mark_of_a_cache_counts() {
        let contract = |hops: Hops, names: &[&'static str]| {
            hops.contract(&Method::GET, Version::HTTP_11, &headers(names))
        };
        let auto = hops(ContractSetting::Auto);
        for mark in ["cdn-loop", "via", "fastly-ff", "x-varnish", "surrogate-capability"] {
            assert_eq!(contract(auto, &[mark]), Contract::Cached, "{mark}");
            assert_eq!(contract(hops(ContractSetting::Direct), &[mark]), Contract::Direct);
        }
        assert_eq!(contract(auto, &["accept", "x-forwarded-for"]), Contract::Direct);
        assert_eq!(contract(hops(ContractSetting::Cached), &[]), Contract::Cached);
    }

    #[test]
    fn what_cannot_be_cut_is_never_shared() {
        let cached = hops(ContractSetting::Cached);
        let contract =
            |method: &Method, version| cached.contract(method, version, &headers(&["via"]));
        assert_eq!(contract(&Method::GET, Version::HTTP_2), Contract::Cached);
        assert_eq!(contract(&Method::GET, Version::HTTP_10), Contract::Direct);
        assert_eq!(contract(&Method::HEAD, Version::HTTP_11), Contract::Direct);
    }

    #[test]
    fn reads_are_shared_only_through_a_cache_and_where_that_heals() {
        let auto = hops(ContractSetting::Auto);
        assert!(auto.may_share(&headers(&["via"])) && !auto.may_share(&headers(&[])));
        assert!(!Hops { heals: false, ..auto }.may_share(&headers(&["via"])));
    }
}
