//! TLS on the public listener: reads the certificate and its key, and follows the files when they
//! are renewed.
//!
//! The content is compared, not the time of a file: certificates arrive as files written in place,
//! renamed ones, or links that are swapped (certbot, Kubernetes). A pair that cannot be used stops a
//! start, but never what runs: the pair in use stays until a good one comes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error as RustlsError, ServerConfig};

use crate::config::{ConfigError, Server};
use crate::metrics::TlsMetrics;
use crate::shutdown::Shutdown;

/// The protocol of a connection that carries HTTP/2, as TLS names it (ALPN).
pub(super) const HTTP2: &[u8] = b"h2";

const HTTP1: &[u8] = b"http/1.1";

/// How often the files are looked at. Two small reads; a replaced key should not wait long.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// TLS as it is in use. Clones share it.
#[derive(Clone, Debug)]
pub struct Tls {
    files: Files,
    metrics: TlsMetrics,
    /// Of the content that is in use.
    first: Fingerprint,
    current: Arc<ArcSwap<ServerConfig>>,
}

#[derive(Clone, Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// The content of both files.
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// What a look at the files found, without keeping the key.
type Fingerprint = [u8; 32];

impl Tls {
    /// Reads the files that the settings name; nothing when they name none.
    pub fn load(server: &Server, metrics: TlsMetrics) -> Result<Option<Self>, ConfigError> {
        if !server.has_tls() {
            return Ok(None);
        }
        let certificate = PathBuf::from(&server.tls_certificate);
        let files = Files { certificate, key: PathBuf::from(&server.tls_key) };
        let look = files.read();
        let first = fingerprint(&look);
        let config = files.configure(&look?)?;
        Ok(Some(Self { files, metrics, first, current: Arc::new(ArcSwap::from_pointee(config)) }))
    }

    /// What greets the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Takes every new pair into use, until the drain: then there are no new connections.
    pub(super) async fn follow(self, shutdown: Shutdown) {
        let (mut decided, mut seen) = (self.first, self.first);
        loop {
            tokio::select! {
                () = shutdown.drained() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let files = self.files.clone();
            let Ok(look) = tokio::task::spawn_blocking(move || files.read()).await else {
                continue;
            };
            let found = fingerprint(&look);
            // Two looks in a row must agree: a renewal replaces one file after the other.
            if found == seen && found != decided {
                decided = found;
                self.replace(look);
            }
            seen = found;
        }
    }

    fn replace(&self, look: Result<Pair, ConfigError>) {
        match look.and_then(|pair| self.files.configure(&pair)) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                self.metrics.loaded.increment(1);
                tracing::info!("new connections get the renewed TLS certificate");
            }
            Err(error) => {
                self.metrics.refused.increment(1);
                tracing::error!(%error, "the TLS certificate in use stays: its files cannot be used");
            }
        }
    }
}

impl Files {
    fn read(&self) -> Result<Pair, ConfigError> {
        let read = |setting: &str, path: &Path| {
            std::fs::read(path).map_err(|error| {
                let path = path.display();
                ConfigError::new(format!(
                    "{setting} must name a file that this process may read; {path}: {error}"
                ))
            })
        };
        Ok(Pair {
            certificate: read("server.tls_certificate", &self.certificate)?,
            key: read("server.tls_key", &self.key)?,
        })
    }

    fn configure(&self, pair: &Pair) -> Result<ServerConfig, ConfigError> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let no_chain = |error: String| {
            ConfigError::new(format!(
                "server.tls_certificate must be PEM, the certificate first and its chain behind it \
                 (certbot: fullchain.pem); {certificate}: {error}"
            ))
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pair.certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| no_chain(error.to_string()))?;
        if chain.is_empty() {
            return Err(no_chain("holds no certificate".to_owned()));
        }
        let private = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|error| {
            ConfigError::new(format!(
                "server.tls_key must be a private key in PEM without a passphrase (certbot: \
                 privkey.pem); {key}: {error}"
            ))
        })?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|error| match error {
                RustlsError::InconsistentKeys(_) => ConfigError::new(format!(
                    "server.tls_key must belong to server.tls_certificate; {key} is not the key of \
                     the first certificate in {certificate}"
                )),
                other => ConfigError::new(format!(
                    "server.tls_certificate and server.tls_key cannot be used; {certificate}, \
                     {key}: {other}"
                )),
            })?;
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        // Whoever comes back resumes without a signature, and we keep nothing for it.
        config.ticketer = ring::Ticketer::new().map_err(|error| {
            ConfigError::new(format!("TLS needs random numbers from the system: {error}"))
        })?;
        Ok(config)
    }
}

fn fingerprint(look: &Result<Pair, ConfigError>) -> Fingerprint {
    let mut hash = Sha256::new();
    match look {
        Ok(pair) => {
            hash.update(pair.certificate.len().to_le_bytes());
            hash.update(&pair.certificate);
            hash.update(&pair.key);
        }
        Err(error) => hash.update(error.to_string()),
    }
    hash.finalize().into()
}
