//! The agent's flags for the observer API. Owns what they are called; never what they do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::telemetry::observer::tls::Files;
use crate::telemetry::observer::{Options, Port};

/// Where the observer API is served.
#[derive(Args, Debug)]
pub struct ObserverArgs {
    /// Serve Hubble's observer API on this unix socket; `hubble.sock` beside the agent's when not given, `none` for nowhere.
    #[arg(long, value_name = "PATH")]
    pub observer_socket: Option<PathBuf>,
    /// Serve it over TLS here too, to clients with a certificate.
    #[arg(
        long,
        value_name = "IP:PORT",
        requires_all = ["observer_certificate", "observer_key", "observer_client_ca"]
    )]
    pub observer_address: Option<SocketAddr>,
    /// The certificate shown there, and those between it and its authority: PEM, read again when it changes.
    #[arg(long, value_name = "FILE", requires = "observer_address")]
    pub observer_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "observer_address")]
    pub observer_key: Option<PathBuf>,
    /// The authority that signs the certificates of clients, PEM.
    #[arg(long, value_name = "FILE", requires = "observer_address")]
    pub observer_client_ca: Option<PathBuf>,
}

impl ObserverArgs {
    /// What they mean beside the agent's own socket.
    pub(super) fn options(&self, socket: &Path) -> Options {
        let own = self.observer_socket.clone().unwrap_or_else(|| socket.with_file_name("hubble.sock"));
        let port = || {
            let files = Files {
                certificate: self.observer_certificate.clone()?,
                key: self.observer_key.clone()?,
                client_ca: self.observer_client_ca.clone()?,
            };
            Some(Port { address: self.observer_address?, files })
        };
        Options { socket: (own != Path::new("none")).then_some(own), port: port() }
    }
}
