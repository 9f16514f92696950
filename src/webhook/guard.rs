//! Keeps webhooks from the inside: every connection goes to an address that was checked.
//!
//! Whoever may make an endpoint chooses a name, and whoever owns the name chooses its address anew at each
//! look-up. So the check is in the resolver of the HTTP client: it hands out only addresses that may be
//! reached, and the client connects to those. An address in the URL itself never comes to a resolver; it
//! is checked with the URL, before every attempt.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::model::may_reach;

/// Resolves names to addresses that webhooks may reach.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) allowed: Arc<[IpNet]>,
}

/// Every address of a name is of the inside.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} has no address on the open internet; an operator can allow it in `webhook.allowed_targets`"
)]
pub(super) struct Inside(String);

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            // The client puts the port of the URL in.
            let found: Vec<_> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let found = reachable(found, &allowed);
            if found.is_empty() {
                return Err(Inside(host).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn reachable(found: Vec<SocketAddr>, allowed: &[IpNet]) -> Vec<SocketAddr> {
    found.into_iter().filter(|address| may_reach(address.ip(), allowed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_addresses_of_a_name_only_those_outside_are_tried() {
        let found = ["127.0.0.1:0", "[::1]:0", "10.0.0.1:0", "9.9.9.9:0"];
        let found: Vec<SocketAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(reachable(found.clone(), &[]), [found[3]]);
        let allowed = ["10.0.0.0/8".parse().unwrap()];
        assert_eq!(reachable(found.clone(), &allowed), [found[2], found[3]]);
    }

    #[tokio::test]
    async fn a_name_of_the_inside_is_refused_with_the_setting_that_allows_it() {
        let guard = Guard { allowed: Arc::new([]) };
        let error = guard.resolve("localhost".parse().unwrap()).await.err().unwrap();
        assert!(error.to_string().contains("webhook.allowed_targets"), "{error}");
        let guard = Guard { allowed: Arc::new(["127.0.0.0/8".parse().unwrap()]) };
        let mut found = guard.resolve("localhost".parse().unwrap()).await.unwrap();
        assert!(found.all(|address| address.ip().is_loopback()));
    }
}
