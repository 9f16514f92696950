//! HTTP clients: what this process asks of others, and by which TLS.
//!
//! The library knows several implementations of cryptography and panics when none was chosen. Ours
//! is `ring`, as on the listeners; it is chosen here, so that nobody can forget it.

use tokio_rustls::rustls::crypto::ring;

/// What every client of ours is built from.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn client() -> reqwest::ClientBuilder {
    // It fails when the process has chosen before, which is as good.
    drop(ring::default_provider().install_default());
    reqwest::Client::builder()
}

/// The same for plain HTTP only: it trusts no certificate, and so reads none from the system.
pub fn plain_client() -> reqwest::ClientBuilder {
    client().tls_certs_only([])
}

/// What clients of these URLs are built from. Plain HTTP must work where the system has no
/// certificates at all.
pub fn client_for<'a>(urls: impl IntoIterator<Item = &'a str>) -> reqwest::ClientBuilder {
    if urls.into_iter().any(|url| url.starts_with("https:")) { client() } else { plain_client() }
}
