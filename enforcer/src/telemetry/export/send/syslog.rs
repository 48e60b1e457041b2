//! Messages to a syslog server: datagrams over UDP (RFC 5426) and unix sockets, a stream over TCP (RFC 6587) and TLS
//! (RFC 5425). Owns the connection. Nobody answers: what was written counts as taken.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UdpSocket, UnixDatagram, lookup_host};

use super::{Failure, Stream, Taken, connect};
use crate::telemetry::export::batch::{Batch, messages};
use crate::telemetry::export::target::{Authority, SyslogServer};
use crate::telemetry::export::tls::{Files, Stamp};
use enforcer_core::causes::chain;

/// A syslog server.
#[derive(Debug)]
pub struct Syslog {
    server: SyslogServer,
    tls: Files,
    /// The connection, and the files it was made with.
    connection: Option<(Stamp, Connection)>,
}

enum Connection {
    Udp(UdpSocket),
    Unix(UnixDatagram),
    Stream(Box<dyn Stream>),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp(_) => "Udp",
            Self::Unix(_) => "Unix",
            Self::Stream(_) => "Stream",
        })
    }
}

impl Syslog {
    /// Connects to nothing yet.
    pub fn new(server: SyslogServer, tls: Files) -> Self {
        Self { server, tls, connection: None }
    }

    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    pub(super) async fn send(&mut self, batch: &Batch) -> Result<Taken, Failure> {
        self.prepare().await.map_err(|error| Failure::retry(chain(&error)))?;
        let Some((_, connection)) = &mut self.connection else {
            return Err(Failure::retry("no connection"));
        };
        let sent = match connection {
            Connection::Stream(stream) => write(stream, &batch.payload).await.map(|()| Taken::default()),
            Connection::Udp(socket) => datagrams(batch, async |one| socket.send(one).await).await,
            Connection::Unix(socket) => datagrams(batch, async |one| socket.send(one).await).await,
        };
        sent.map_err(|error| Failure::retry(chain(&error)))
    }

    async fn prepare(&mut self) -> io::Result<()> {
        let stamp = self.tls.stamp();
        if let Some((known, connection)) = &mut self.connection
            && *known == stamp
            && !connection.is_over().await
        {
            return Ok(());
        }
        self.connection = None;
        let connection = match &self.server {
            SyslogServer::Udp(authority) => Connection::Udp(udp(authority).await?),
            SyslogServer::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Connection::Unix(socket)
            }
            SyslogServer::Tcp(authority) => Connection::Stream(connect(authority, None).await?),
            SyslogServer::Tls(authority) => {
                let tls = self.tls.load(None).map_err(io::Error::other)?;
                Connection::Stream(connect(authority, Some(tls)).await?)
            }
        };
        self.connection = Some((stamp, connection));
        Ok(())
    }
}

impl Connection {
    /// True when the other side has closed it: what is written then would be lost without a word.
    async fn is_over(&mut self) -> bool {
        let Self::Stream(stream) = self else { return false };
        let mut unasked = [0; 64];
        let read = tokio::time::timeout(Duration::ZERO, stream.read(&mut unasked)).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    }
}

async fn write(stream: &mut Box<dyn Stream>, payload: &[u8]) -> io::Result<()> {
    stream.write_all(payload).await?;
    stream.flush().await
}

/// Sends each message as a datagram. One that is too long for any datagram is rejected.
async fn datagrams(
    batch: &Batch,
    mut send: impl AsyncFnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<Taken> {
    let mut taken = Taken::default();
    for message in messages(&batch.payload) {
        match send(message).await {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                taken.rejected += 1;
                taken.remark = error.to_string();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

async fn udp(authority: &Authority) -> io::Result<UdpSocket> {
    let mut found = lookup_host((authority.host.as_str(), authority.port)).await?;
    let address = found.next().ok_or_else(|| io::Error::other(format!("{authority} has no address")))?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}
