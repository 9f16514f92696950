//! Targets of webhooks: which URLs may be asked, and which addresses are nobody's business.
//!
//! Whoever may make an endpoint must not reach the gateway's own network through it. So a URL is checked
//! when it is written, and every address again before a connection is made to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

/// Longest URL of a target.
pub const TARGET_URL_MAX: usize = 2000;

/// Ranges of IPv4 that are not the open internet: IANA's special-purpose registry.
const INTERNAL_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Link-local: also where clouds keep their metadata.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (Ipv4Addr::BROADCAST, 32),
];

/// What IPv6 gives to the open internet; everything else is special.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Special parts of it: protocol assignments (Teredo among them), documentation, and benchmarks.
const INTERNAL_V6: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Why a URL is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a URL.
    #[error("must be a URL such as https://app.example.com/flagcast: {0}")]
    NotAUrl(url::ParseError),
    /// Longer than [`TARGET_URL_MAX`].
    #[error("must have at most {TARGET_URL_MAX} characters")]
    TooLong,
    /// Neither `http` nor `https`.
    #[error("must begin with https:// or http://")]
    NotHttp,
    /// A name or password in front of the host.
    #[error("must not hold a name or password; use `headers` for credentials")]
    Credentials,
    /// Something behind `#`, which no request carries.
    #[error("must not have a fragment (`#…`): no request carries it")]
    Fragment,
    /// An address of the inside.
    #[error(
        "{0} is not an address of the open internet; an operator can allow it in \
         `webhook.allowed_targets`"
    )]
    Internal(IpAddr),
}

/// The URL as the HTTP client reads it, if requests may go there as far as it shows.
pub fn parse_target(text: &str, allowed: &[IpNet]) -> Result<Url, TargetError> {
    if text.len() > TARGET_URL_MAX {
        return Err(TargetError::TooLong);
    }
    let url = Url::parse(text).map_err(TargetError::NotAUrl)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(TargetError::NotHttp);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(TargetError::Credentials);
    }
    if url.fragment().is_some() {
        return Err(TargetError::Fragment);
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) => None,
        None => return Err(TargetError::NotHttp),
    };
    match literal {
        Some(address) if !may_reach(address, allowed) => Err(TargetError::Internal(address)),
        _ => Ok(url),
    }
}

/// Whether a webhook may connect to an address.
#[must_use]
pub fn may_reach(address: IpAddr, allowed: &[IpNet]) -> bool {
    let address = address.to_canonical();
    allowed.iter().any(|range| range.contains(&address)) || !is_internal(address)
}

fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            INTERNAL_V4.iter().any(|(net, length)| holds(bits4(*net), bits4(address), *length, 32))
        }
        IpAddr::V6(address) => {
            if let Some(inner) = embedded(address) {
                return is_internal(IpAddr::V4(inner));
            }
            let within =
                |(net, length): (Ipv6Addr, u8)| holds(net.into(), address.into(), length, 128);
            !within(GLOBAL_V6) || INTERNAL_V6.into_iter().any(within)
        }
    }
}

/// The IPv4 address that a translator would reach: NAT64 (RFC 6052) and 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

fn bits4(address: Ipv4Addr) -> u128 {
    u128::from(u32::from(address))
}

fn holds(net: u128, address: u128, length: u8, width: u8) -> bool {
    let shift = u32::from(width - length);
    net >> shift == address >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Url, TargetError> {
        parse_target(text, &[])
    }

    #[test]
    fn addresses_of_the_inside_are_refused_in_every_spelling() {
        for inside in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://0.0.0.0/",
            "http://10.1.2.3/",
            "http://172.31.255.255/",
            "http://192.168.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://100.100.100.200/",
            "http://224.0.0.1/",
            "http://[::]/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://[fd00:ec2::254]/",
            "http://[fe80::1]/",
            "http://[ff02::1]/",
            "http://[2001::1]/",
            "http://[2001:db8::1]/",
        ] {
            assert!(matches!(parse(inside), Err(TargetError::Internal(_))), "{inside}");
        }
        for outside in [
            "http://8.8.8.8/",
            "https://172.32.0.1/",
            "https://100.128.0.1/",
            "https://[2606:4700::1111]/",
            "https://[64:ff9b::808:808]/",
            "https://app.example.com/hooks?x=1",
        ] {
            assert!(parse(outside).is_ok(), "{outside}");
        }
    }

    #[test]
    fn an_operator_can_allow_a_range() {
        let allowed = ["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        assert!(parse_target("http://127.0.0.1:3000/", &allowed).is_ok());
        assert!(parse_target("http://[::ffff:127.0.0.1]/", &allowed).is_ok());
        assert!(parse_target("http://[fd00::1]/", &allowed).is_ok());
        assert!(parse_target("http://[::1]/", &allowed).is_err());
        assert!(parse_target("http://10.0.0.1/", &allowed).is_err());
    }

    #[test]
    fn what_is_no_target_is_refused_with_its_rule() {
        assert!(matches!(parse("app.example.com"), Err(TargetError::NotAUrl(_))));
        assert_eq!(parse("ftp://x.example"), Err(TargetError::NotHttp));
        assert_eq!(parse("https://u@x.example"), Err(TargetError::Credentials));
        assert_eq!(parse("https://:p@x.example"), Err(TargetError::Credentials));
        assert_eq!(parse("https://x.example/#a"), Err(TargetError::Fragment));
        let long = format!("https://x.example/{}", "a".repeat(TARGET_URL_MAX));
        assert_eq!(parse(&long), Err(TargetError::TooLong));
    }
}
