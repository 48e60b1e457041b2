//! Sending batches: what the other side said to one, and connections to it. Owns nothing that waits: a batch that was not
//! taken is the caller's again.

mod grpc;
mod headers;
mod http;
mod response;
mod syslog;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::batch::Batch;
use super::target::Authority;
pub use grpc::Grpc;
pub use headers::{Header, UnknownHeader};
pub use http::Http;
pub use syslog::Syslog;

/// How long one attempt may take, connecting included.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A batch was taken.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Taken {
    /// Records of it that were refused for good.
    pub rejected: u64,
    /// What was said about it; empty when nothing was.
    pub remark: String,
}

/// A batch was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It may be sent again.
    Retry {
        /// Why it was not taken.
        error: String,
        /// For how long the other side does not want to see it.
        after: Option<Duration>,
    },
    /// It would never be taken.
    Refused {
        /// Why.
        error: String,
    },
}

/// One of the ways to send.
#[derive(Debug)]
pub enum Sender {
    /// OTLP over gRPC.
    Grpc(Grpc),
    /// OTLP over HTTP.
    Http(Http),
    /// Syslog.
    Syslog(Syslog),
}

impl Sender {
    /// Sends a batch.
    ///
    /// # Errors
    /// When it was not taken; [`Failure`] says whether another attempt makes sense.
    pub async fn send(&mut self, batch: &Batch) -> Result<Taken, Failure> {
        let sent = tokio::time::timeout(TIMEOUT, async {
            match self {
                Self::Grpc(grpc) => grpc.send(batch).await,
                Self::Http(http) => http.send(batch).await,
                Self::Syslog(syslog) => syslog.send(batch).await,
            }
        });
        let result = sent.await.unwrap_or_else(|_| Err(Failure::retry("no answer in time")));
        if let Err(Failure::Retry { .. }) = result {
            self.disconnect();
        }
        result
    }

    /// Gives up the connection: the next attempt makes another one.
    fn disconnect(&mut self) {
        match self {
            Self::Grpc(grpc) => grpc.disconnect(),
            Self::Http(http) => http.disconnect(),
            Self::Syslog(syslog) => syslog.disconnect(),
        }
    }
}

impl Failure {
    fn retry(error: impl ToString) -> Self {
        Self::Retry { error: error.to_string(), after: None }
    }

    fn refused(error: impl ToString) -> Self {
        Self::Refused { error: error.to_string() }
    }
}

/// A connection, plain or with TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects, with TLS where there is a configuration for it.
async fn connect(authority: &Authority, tls: Option<Arc<ClientConfig>>) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect((authority.host.as_str(), authority.port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(authority.host.clone()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(tls).connect(name, stream).await?))
}
