//! Why the container runtime is not reached. Owns what is said to whoever must act.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::nri::session::SessionError;

/// Why a connection was not made, or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There is no connection.
    #[error("failed to reach the container runtime at {}: {remedy}", socket.display())]
    Unreachable {
        socket: PathBuf,
        remedy: &'static str,
        #[source]
        source: io::Error,
    },
    /// It broke.
    #[error("the connection to the container runtime broke")]
    Broken(#[source] io::Error),
    /// The runtime closed it before it asked about any pod.
    #[error("the container runtime closed the connection {0}; its log says why")]
    Closed(&'static str),
    /// The runtime says nothing.
    #[error("the container runtime has not answered the registration within {} s; its log may say why", 
        super::conversation::REGISTRATION.as_secs())]
    Silent,
    /// The runtime says what cannot be understood, or refuses.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl Failure {
    /// What an attempt to connect ended with.
    pub(super) fn unreachable(socket: &Path, source: io::Error) -> Self {
        let remedy = match source.kind() {
            ErrorKind::NotFound => {
                "it does not run, or offers no NRI there; containerd does from version 2.0 on unless `disable` or \
                 `disable_connections` is set under plugins.'io.containerd.nri.v1.nri', and with `disable = false` before, \
                 CRI-O with `enable_nri`; without it, leave --nri-socket (the chart's nri.enabled) off"
            }
            ErrorKind::ConnectionRefused => "nobody listens there; it is tried again until it runs",
            ErrorKind::PermissionDenied => "this user may not use it; the agent must be root",
            _ => "it is tried again",
        };
        Self::Unreachable { socket: socket.to_owned(), remedy, source }
    }
}
