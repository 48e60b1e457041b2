//! Hubble's observer API, served so that its clients work with this agent (`docs/reference/observer.md`): on a unix socket
//! for this node, and on a port for clients that show a certificate. Owns the thread it runs on and its listeners; never
//! holds the agent's loop up: it reads the shared records, and clients that are too slow miss some.

pub mod answer;
pub mod convert;
pub mod filter;
pub mod flows;
pub mod mask;
pub mod service;
pub mod tls;
pub mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::stream::{self, Stream};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;

use super::records::Records;
use crate::socket::{self, SocketFile};
use convert::Origin;
use service::Service;
use tls::{Acceptor, Files};
use wire::observer::observer_server::ObserverServer;
use wire::peer::peer_server::PeerServer;

/// The name under which clients ask whether the service is healthy.
pub const HEALTH_NAME: &str = "hubble.server.Observer";
/// Calls at once over one connection.
const CALLS: u32 = 64;
/// How often a silent client is asked whether it is still there.
const ALIVE: Duration = Duration::from_secs(30);
/// Pause after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Where it is served.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Options {
    /// A unix socket for this node.
    pub socket: Option<PathBuf>,
    /// A port for clients with a certificate.
    pub port: Option<Port>,
}

impl Options {
    /// Where it is served, as clients are told.
    pub fn served(&self) -> Vec<String> {
        let socket = self.socket.iter().map(|path| format!("unix://{}", path.display()));
        socket.chain(self.port.iter().map(|port| format!("tls://{}", port.address))).collect()
    }
}

/// A port and what secures it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Where it is.
    pub address: SocketAddr,
    /// The files of its certificates.
    pub files: Files,
}

/// Listeners that are taken and not served yet.
#[derive(Debug)]
pub struct Observer {
    socket: Option<(UnixListener, PathBuf)>,
    port: Option<(TcpListener, Acceptor)>,
    file: Option<SocketFile>,
}

impl Observer {
    /// Takes the listeners; `None` when nothing is to be served.
    ///
    /// # Errors
    /// When one cannot be had, or the certificates cannot be used.
    pub fn bind(options: &Options) -> anyhow::Result<Option<Self>> {
        let (mut socket, mut file, mut port) = (None, None, None);
        if let Some(path) = &options.socket {
            let bound = socket::bind(path);
            let (listener, held) =
                bound.with_context(|| format!("failed to serve the observer API at {}", path.display()))?;
            (socket, file) = (Some((listener, path.clone())), Some(held));
        }
        if let Some(Port { address, files }) = &options.port {
            let acceptor = Acceptor::new(files.clone())?;
            let listener = TcpListener::bind(address)
                .with_context(|| format!("failed to serve the observer API at {address}"))?;
            listener.set_nonblocking(true).context("failed to set up a listener")?;
            port = Some((listener, acceptor));
        }
        Ok((socket.is_some() || port.is_some()).then_some(Self { socket, port, file }))
    }

    /// Serves on a thread of its own until the agent ends; the socket's file stays as long as what is returned.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(mut self, node: Arc<str>, records: &Records) -> anyhow::Result<Option<SocketFile>> {
        let (file, records, started) = (self.file.take(), records.clone(), Timestamp::now());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("failed to start the observer API")?;
        let origin = Origin { node, began: u64::try_from(started.as_nanosecond()).unwrap_or(0) };
        let service = Service {
            records,
            origin,
            started,
            address: String::new(),
            has_tls: false,
            streams: service::streams(),
        };
        let run = move || {
            if let Err(error) = runtime.block_on(self.serve(service)) {
                tracing::error!(error = format!("{error:#}"), "the observer API is served no longer");
            }
        };
        let thread = std::thread::Builder::new().name("observer".to_owned()).spawn(run);
        thread.context("failed to start the observer API")?;
        Ok(file)
    }

    async fn serve(self, service: Service) -> anyhow::Result<()> {
        let on_socket = async {
            let Some((listener, path)) = self.socket else { return Ok(()) };
            let address = format!("unix://{}", path.display());
            let listener = tokio::net::UnixListener::from_std(listener)?;
            serve(connections(listener), Service { address, ..service.clone() }).await
        };
        let on_port = async {
            let Some((listener, acceptor)) = self.port else { return Ok(()) };
            let address = listener.local_addr()?.to_string();
            let listener = tokio::net::TcpListener::from_std(listener)?;
            serve(acceptor.connections(listener), Service { address, has_tls: true, ..service.clone() }).await
        };
        tokio::try_join!(on_socket, on_port).map(|_| ())
    }
}

/// Serves connections until there are no more.
async fn serve<C>(connections: impl Stream<Item = io::Result<C>>, service: Service) -> anyhow::Result<()>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(HEALTH_NAME, ServingStatus::Serving).await;
    let server = Server::builder()
        .max_concurrent_streams(CALLS)
        .http2_keepalive_interval(Some(ALIVE))
        .add_service(health_service)
        .add_service(ObserverServer::new(service.clone()))
        .add_service(PeerServer::new(service));
    server.serve_with_incoming(connections).await.context("failed to serve")
}

/// The connections of a socket.
fn connections(listener: tokio::net::UnixListener) -> impl Stream<Item = io::Result<tokio::net::UnixStream>> {
    stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => return Some((Ok(connection), listener)),
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection of the observer API");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}
