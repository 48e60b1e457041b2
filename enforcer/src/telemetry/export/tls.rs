//! TLS towards the other side: which certificates are trusted and which one is shown. Owns the files they come from and
//! sees when these change; connections are the senders'.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Where keys and certificates are, in PEM.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Files {
    /// Certificates that are trusted; those of the system when there is none.
    pub authorities: Option<PathBuf>,
    /// The certificate that is shown and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no certificate or key.
    #[error("failed to read {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: rustls::pki_types::pem::Error,
    },
    /// A file holds nothing that could be trusted.
    #[error("{} holds no certificate", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// What the files hold cannot be used.
    #[error("failed to use the certificates: {0}")]
    Unusable(#[from] rustls::Error),
}

/// When files were written last; another one means that they changed.
pub type Stamp = Vec<Option<(SystemTime, u64)>>;

impl Files {
    /// When they were written.
    pub fn stamp(&self) -> Stamp {
        let identity = self.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.authorities.iter().chain(identity).map(|path| stamp(path)).collect()
    }

    /// The configuration they make, for a protocol by its ALPN name.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn load(&self, alpn: Option<&[u8]>) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(self.roots()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| TlsError::File { path: key.clone(), error })?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate)?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                for error in &found.errors {
                    tracing::warn!(%error, "failed to read one of the system's certificates");
                }
                roots.add_parsable_certificates(found.certs);
            }
        }
        Ok(roots)
    }
}

/// When a file was written last, and its size; `None` when it is not there.
pub fn stamp(path: &std::path::Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error| TlsError::File { path: path.clone(), error };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let all = found.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if all.is_empty() {
        return Err(TlsError::Empty { path: path.clone() });
    }
    Ok(all)
}
