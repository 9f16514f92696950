//! The address of a stream, as somebody types it.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

use super::UsageError;

/// The URL of a stream, in either dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamUrl(Url);

impl StreamUrl {
    /// As a client is given it.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for StreamUrl {
    type Err = UsageError;

    fn from_str(text: &str) -> Result<Self, UsageError> {
        let refuse = |rule: &str| Err(UsageError(format!("`{text}` {rule}")));
        let Ok(url) = text.parse::<Url>() else {
            return refuse(
                "must be a URL such as https://flags.example.com/sse/environments/<client \
                    key>/stream",
            );
        };
        if !["http", "https"].contains(&url.scheme()) {
            return refuse("must begin with http:// or https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            // Not shown again: it holds a password.
            return Err(UsageError(
                "the URL must hold no user and no password; give them with --header \
                 'Authorization: …'"
                    .to_owned(),
            ));
        }
        if !is_stream(url.path()) {
            return refuse(
                "must name a stream: its path ends with /sse/environments/<client key>/stream or \
                 /ofrep/v1/streams/<client key>; the client key is in the greeting and in the \
                 management API",
            );
        }
        Ok(Self(url))
    }
}

/// Whether `path` ends like that of a stream; a proxy may have put something before.
fn is_stream(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [.., "sse", "environments", key, "stream"] | [.., "ofrep", "v1", "streams", key] => {
            !key.is_empty()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_dialects_are_streams_wherever_a_proxy_puts_them() {
        for text in [
            "http://localhost:8080/sse/environments/abc/stream",
            "https://flags.example.com/sse/environments/abc/stream",
            "https://example.com/realtime/sse/environments/abc/stream?x=1",
            "https://flags.example.com/ofrep/v1/streams/abc",
        ] {
            assert_eq!(text.parse::<StreamUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_refusal_names_the_rule() {
        for (text, rule) in [
            ("flags.example.com", "must be a URL such as"),
            ("ftp://example.com/sse/environments/abc/stream", "http:// or https://"),
            ("https://example.com/", "must name a stream"),
            ("https://example.com/sse/environments//stream", "must name a stream"),
            ("https://example.com/sdk/v1/environments/abc/flags", "must name a stream"),
        ] {
            let refusal = text.parse::<StreamUrl>().unwrap_err().to_string();
            assert!(refusal.contains(rule) && refusal.contains(text), "{refusal}");
        }
        let secret = "https://ops:hush@example.com/sse/environments/abc/stream";
        let refusal = secret.parse::<StreamUrl>().unwrap_err().to_string();
        assert!(refusal.contains("--header") && !refusal.contains("hush"), "{refusal}");
    }
}
