//! The way to the API server: the pod's own account, or a kubeconfig. Owns what is said when there is none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

pub use kube::Client;

/// How long one connection attempt may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection may be silent: the server says once a minute, in every watch of a kind that changes, where it is. What
/// is silent for longer may lead nowhere, and is made anew.
pub(crate) const SILENCE: Duration = Duration::from_secs(100);

/// No way to an API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A kubeconfig that cannot be used.
    #[error("failed to use the kubeconfig {}; name another with --kubeconfig", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// Neither a service account nor a kubeconfig.
    #[error(
        "failed to find the API server: this is no pod with a service account, and there is no kubeconfig; \
         run it as the DaemonSet, or give --kubeconfig"
    )]
    Nowhere(#[source] kube::config::InferConfigError),
    /// A client that cannot be made.
    #[error("failed to make a client of the API server")]
    Client(#[source] kube::Error),
}

/// A client of the API server that `kubeconfig` names, else of the one this pod belongs to. Nothing is asked yet.
///
/// # Errors
/// When there is no API server to ask, or its certificates or credentials cannot be read.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let failed = |source| ConnectError::Kubeconfig { path: path.to_owned(), source };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::infer().await.map_err(ConnectError::Nowhere)?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    // What counts is the time since the last request, not since the answer before it.
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(ConnectError::Client)
}
