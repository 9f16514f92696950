//! Tells families of clients apart by their `User-Agent`, so that an operator sees who listens.

/// A family of clients. Few, so that they can be counted in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ClientFamily {
    Browser,
    Node,
    Python,
    Go,
    Ruby,
    Android,
    Ios,
    Flutter,
    Curl,
    Other,
}

/// What each family's `User-Agent` begins with, lower-cased. The first match wins.
const PREFIXES: [(&str, ClientFamily); 17] = [
    ("mozilla/", ClientFamily::Browser),
    ("node", ClientFamily::Node),
    ("undici", ClientFamily::Node),
    ("axios", ClientFamily::Node),
    ("python", ClientFamily::Python),
    ("flagsmith-python", ClientFamily::Python),
    ("aiohttp", ClientFamily::Python),
    ("go-http-client", ClientFamily::Go),
    ("flagsmith-go", ClientFamily::Go),
    ("faraday", ClientFamily::Ruby),
    ("ruby", ClientFamily::Ruby),
    ("flagsmith-ruby", ClientFamily::Ruby),
    ("flagsmith-kotlin", ClientFamily::Android),
    ("okhttp", ClientFamily::Android),
    ("flagsmith-swift", ClientFamily::Ios),
    ("dart", ClientFamily::Flutter),
    ("curl/", ClientFamily::Curl),
];

impl ClientFamily {
    /// Every family, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Browser,
        Self::Node,
        Self::Python,
        Self::Go,
        Self::Ruby,
        Self::Android,
        Self::Ios,
        Self::Flutter,
        Self::Curl,
        Self::Other,
    ];

    /// The family that sends this `User-Agent`.
    #[must_use]
    pub fn of(user_agent: &str) -> Self {
        let folded = user_agent.to_ascii_lowercase();
        PREFIXES
            .iter()
            .find(|(prefix, _)| folded.starts_with(prefix))
            .map_or(Self::Other, |(_, family)| *family)
    }

    /// Its name in the management API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Node => "node",
            Self::Python => "python",
            Self::Go => "go",
            Self::Ruby => "ruby",
            Self::Android => "android",
            Self::Ios => "ios",
            Self::Flutter => "flutter",
            Self::Curl => "curl",
            Self::Other => "other",
        }
    }

    /// Its place in an array of all families.
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_clients_are_told_apart() {
        assert_eq!(ClientFamily::of("Mozilla/5.0 (X11; Linux)"), ClientFamily::Browser);
        assert_eq!(ClientFamily::of("python-requests/2.32"), ClientFamily::Python);
        assert_eq!(ClientFamily::of("Go-http-client/1.1"), ClientFamily::Go);
        assert_eq!(ClientFamily::of("flagsmith-kotlin-android-sdk/1.9.0"), ClientFamily::Android);
        assert_eq!(ClientFamily::of(""), ClientFamily::Other);
        for (place, family) in ClientFamily::ALL.into_iter().enumerate() {
            assert_eq!(family.index(), place);
        }
    }
}
