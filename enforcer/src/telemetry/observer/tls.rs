//! TLS of the observer's port: the agent shows a certificate and wants one that its clients' authority has signed. Owns the
//! files and when they are read again: at a connection, when one of them has changed since. While the new ones cannot be
//! used, the ones before are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures_util::stream::{self, Stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// How long a client has to show its certificate.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that wait to be served.
const WAITING: usize = 16;

/// PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// The agent's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that signs clients' certificates.
    pub client_ca: PathBuf,
}

/// Accepts connections with the certificates that are in the files.
#[derive(Debug)]
pub struct Acceptor {
    files: Files,
    state: Vec<State>,
    config: Arc<ServerConfig>,
}

/// What tells that a file has changed.
type State = Option<(SystemTime, u64)>;

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn new(files: Files) -> anyhow::Result<Self> {
        let state = state(&files);
        let config = Arc::new(config(&files)?);
        Ok(Self { files, state, config })
    }

    /// The certificates as of now.
    fn current(&mut self) -> Arc<ServerConfig> {
        let state = state(&self.files);
        if state != self.state {
            self.state = state;
            match config(&self.files) {
                Ok(config) => {
                    tracing::info!("the observer API's certificates were read again");
                    self.config = Arc::new(config);
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(
                        error,
                        "the observer API's new certificates cannot be used; the ones before are"
                    );
                }
            }
        }
        Arc::clone(&self.config)
    }

    /// The connections of a listener whose clients have shown a certificate; nobody waits for another.
    pub(super) fn connections(
        mut self,
        listener: TcpListener,
    ) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
        let (ready, connections) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((connection, _)) => {
                        tokio::spawn(shake_hands(self.current(), connection, ready.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "failed to accept a connection of the observer API");
                        tokio::time::sleep(super::PAUSE).await;
                    }
                }
            }
        });
        stream::unfold(connections, |mut connections| async {
            connections.recv().await.map(|connection| (Ok(connection), connections))
        })
    }
}

async fn shake_hands(
    config: Arc<ServerConfig>,
    connection: TcpStream,
    ready: mpsc::Sender<TlsStream<TcpStream>>,
) {
    match timeout(PATIENCE, TlsAcceptor::from(config).accept(connection)).await {
        // Nobody takes it when the agent ends.
        Ok(Ok(connection)) => drop(ready.send(connection).await),
        Ok(Err(error)) => tracing::info!(%error, "a client of the observer API was refused"),
        Err(_) => tracing::info!("a client of the observer API showed no certificate in time"),
    }
}

fn config(files: &Files) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.client_ca)? {
        roots.add(certificate).with_context(|| format!("failed to use {}", files.client_ca.display()))?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let verifier = verifier.with_context(|| format!("failed to use {}", files.client_ca.display()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("failed to read a private key from {}", files.key.display()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("failed to set up TLS")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.certificate)?, key)
        .with_context(|| format!("failed to use {} with its key", files.certificate.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let certificates =
        read().with_context(|| format!("failed to read certificates from {}", path.display()))?;
    anyhow::ensure!(!certificates.is_empty(), "there is no certificate in {}", path.display());
    Ok(certificates)
}

fn state(files: &Files) -> Vec<State> {
    let of = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [&files.certificate, &files.key, &files.client_ca].map(of).to_vec()
}
