//! Everything beyond the node: a namespace that answers at every address of the documentation and benchmark
//! ranges, with TCP servers that greet with the address they were reached at and then echo. Owns its servers and
//! what they saw.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::worker::{TICK, Worker, is_timeout};
use crate::zone::Zone;
use crate::{Journal, Namespace};

/// Where names are served.
pub const NAME_SERVER: &str = "198.51.100.53:53";
/// Ranges every address of which answers.
const RANGES: &[&str] = &["203.0.113.0/24", "198.51.100.0/24", "198.18.0.0/15", "2001:db8::/32"];
/// Ports with a TCP server.
const PORTS: &[u16] = &[22, 80, 443, 5432, 8080, 8443];

/// One accepted connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Where the server was reached.
    pub server: SocketAddr,
    /// Who came.
    pub client: SocketAddr,
}

/// The internet.
#[derive(Debug)]
pub struct Internet {
    // Fields are dropped in this order: servers before the namespace they live in.
    _servers: Vec<Worker>,
    _zone: Zone,
    accepted: Arc<Journal<Accepted>>,
    /// Its network namespace.
    pub namespace: Namespace,
}

impl Internet {
    /// Makes it, servers running; the interface to the node is the caller's.
    ///
    /// # Errors
    /// When the namespace cannot be made, or a server not started.
    pub fn start(name: &str) -> Result<Self> {
        let namespace = Namespace::create(name)?;
        // Servers bind to addresses that are local by route only.
        namespace.sysctl("ipv6/ip_nonlocal_bind", "1")?;
        let routes: String = RANGES.iter().map(|range| format!("route add local {range} dev lo\n")).collect();
        namespace.ip(&routes)?;
        let zone = Zone::serve(&namespace, NAME_SERVER.parse()?)?;
        let accepted = Arc::default();
        let servers =
            PORTS.iter().map(|port| serve_tcp(&namespace, *port, &accepted)).collect::<Result<Vec<_>>>()?;
        Ok(Self { _servers: servers, _zone: zone, accepted, namespace })
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> &Journal<Accepted> {
        &self.accepted
    }

    /// Connections that `client` made to `server`.
    pub fn accepted_from(&self, client: IpAddr, server: SocketAddr) -> usize {
        self.accepted.read(|all| all.iter().filter(|a| a.client.ip() == client && a.server == server).count())
    }
}

/// Greets and echoes on `port` of every address of `namespace`, both families.
///
/// # Errors
/// When the port is taken.
pub(crate) fn serve_tcp(
    namespace: &Namespace,
    port: u16,
    accepted: &Arc<Journal<Accepted>>,
) -> Result<Worker> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = namespace
        .enter(|| TcpListener::bind(address))
        .with_context(|| format!("failed to listen on port {port} in {}", namespace.name()))?;
    set_socket_timeout(&listener, Timeout::Recv, Some(TICK))?;
    let accepted = Arc::clone(accepted);
    Ok(Worker::start(move |stop| {
        let (stream, client) = listener.accept()?;
        let server = canonical(stream.local_addr()?);
        accepted.push(Accepted { server, client: canonical(client) });
        let stop = Arc::clone(stop);
        std::thread::spawn(move || echo(stream, server, &stop));
        Ok(())
    }))
}

/// Echoes datagrams at one address until dropped.
#[derive(Debug)]
pub struct UdpEcho {
    received: Arc<AtomicU64>,
    _worker: Worker,
}

impl UdpEcho {
    /// Begins to echo.
    ///
    /// # Errors
    /// When the address cannot be had in `namespace`.
    pub fn serve(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let socket = namespace
            .enter(|| UdpSocket::bind(address))
            .with_context(|| format!("failed to echo at {address}"))?;
        socket.set_read_timeout(Some(TICK))?;
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        let mut buffer = vec![0; 1 << 16];
        let worker = Worker::start(move |_stop| {
            let (length, client) = socket.recv_from(&mut buffer)?;
            count.fetch_add(1, Ordering::Relaxed);
            socket.send_to(&buffer[..length], client).map(drop)
        });
        Ok(Self { received, _worker: worker })
    }

    /// Datagrams that arrived.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// One connection, until either side ends it.
fn echo(mut stream: TcpStream, server: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(TICK))?;
    stream.set_nodelay(true)?;
    stream.write_all(format!("{server}\n").as_bytes())?;
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => stream.write_all(&buffer[..length])?,
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// IPv4 as IPv4, also where one socket serves both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
