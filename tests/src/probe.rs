//! Many connections at once, over all network namespaces, from one thread: who gets through, who is refused, who hears
//! nothing. Owns clients and servers of such a round; what should have come out is not known here.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use enforcer_core::protocol::Protocol;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::client::{self, Outcome};
use crate::worker::{TICK, Worker};
use crate::{Namespace, worker};

/// How often an unanswered datagram is sent again.
const AGAIN: Duration = Duration::from_millis(400);
/// Longest greeting.
const GREETING: usize = 64;

/// A connection that is to be tried.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// From where.
    pub namespace: &'a Namespace,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// From which port; 0 for any.
    pub port: u16,
    /// To whom.
    pub server: SocketAddr,
    /// How long nothing may be heard.
    pub patience: Duration,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// From which address and port it was tried.
    pub client: SocketAddr,
    /// How it came out.
    pub outcome: Outcome,
    /// After which time.
    pub took: Duration,
}

/// Tries all at once and returns, in their order, what became of them. A connection has succeeded when the greeting of
/// the server that was meant has come back.
///
/// # Errors
/// When a socket cannot be had.
pub fn probe(attempts: &[Attempt<'_>]) -> Result<Vec<Seen>> {
    let mut tries = Vec::new();
    for attempt in attempts {
        tries.push(Try::begin(attempt).with_context(|| format!("failed to try {attempt:?}"))?);
    }
    while tries.iter().any(|attempt| attempt.seen.is_none()) {
        let until = tries.iter().filter(|attempt| attempt.seen.is_none()).map(Try::next).min();
        let waiting: Vec<usize> = (0..tries.len()).filter(|index| tries[*index].seen.is_none()).collect();
        let mut events: Vec<PollFd<'_>> = waiting
            .iter()
            .map(|index| PollFd::from_borrowed_fd(tries[*index].fd(), tries[*index].wanted()))
            .collect();
        wait(&mut events, until.map_or(TICK, |until| until.saturating_duration_since(Instant::now())))?;
        let ready: Vec<bool> = events.iter().map(|event| !event.revents().is_empty()).collect();
        for (index, is_ready) in waiting.into_iter().zip(ready) {
            tries[index].step(is_ready);
        }
    }
    Ok(tries.into_iter().map(|attempt| attempt.seen.expect("it is over")).collect())
}

/// Greets whoever connects, or sends a datagram, with the address that was meant; until dropped.
#[derive(Debug)]
pub struct Greeters {
    _worker: Worker,
}

impl Greeters {
    /// Serves these, each in a namespace that has the address.
    ///
    /// # Errors
    /// When one cannot be had.
    pub fn serve(servers: &[(&Namespace, Protocol, SocketAddr)]) -> Result<Self> {
        let listen = |(namespace, protocol, address): &(&Namespace, Protocol, SocketAddr)| {
            Greeter::listen(namespace, *protocol, *address)
                .with_context(|| format!("failed to serve {protocol} {address} in {}", namespace.name()))
        };
        let greeters = servers.iter().map(listen).collect::<Result<Vec<_>>>()?;
        let worker = Worker::start(move |_stop| {
            let mut events: Vec<PollFd<'_>> = greeters
                .iter()
                .map(|greeter| PollFd::from_borrowed_fd(greeter.fd(), PollFlags::IN))
                .collect();
            wait(&mut events, TICK)?;
            let ready = events.iter().map(|event| !event.revents().is_empty());
            // Who has gone by now needs no greeting.
            ready.zip(&greeters).filter(|(is_ready, _)| *is_ready).for_each(|(_, greeter)| greeter.greet());
            Ok(())
        });
        Ok(Self { _worker: worker })
    }
}

#[derive(Debug)]
enum Greeter {
    Tcp(TcpListener, String),
    Udp(UdpSocket, String),
}

impl Greeter {
    fn listen(namespace: &Namespace, protocol: Protocol, address: SocketAddr) -> io::Result<Self> {
        let greeting = format!("{address}\n");
        if protocol == Protocol::TCP {
            let listener = namespace.enter(|| TcpListener::bind(address))?;
            listener.set_nonblocking(true)?;
            return Ok(Self::Tcp(listener, greeting));
        }
        let socket = namespace.enter(|| UdpSocket::bind(address))?;
        socket.set_nonblocking(true)?;
        Ok(Self::Udp(socket, greeting))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener, _) => listener.as_fd(),
            Self::Udp(socket, _) => socket.as_fd(),
        }
    }

    /// Greets everyone who is there.
    fn greet(&self) {
        match self {
            Self::Tcp(listener, greeting) => {
                while let Ok((mut stream, _)) = listener.accept() {
                    let _ = stream.write_all(greeting.as_bytes());
                }
            }
            Self::Udp(socket, greeting) => {
                while let Ok((_, client)) = socket.recv_from(&mut [0; GREETING]) {
                    let _ = socket.send_to(greeting.as_bytes(), client);
                }
            }
        }
    }
}

/// An attempt under way.
struct Try {
    socket: Socket,
    client: SocketAddr,
    greeting: String,
    heard: Vec<u8>,
    begun: Instant,
    deadline: Instant,
    again: Instant,
    seen: Option<Seen>,
}

enum Socket {
    Tcp { stream: TcpStream, is_open: bool },
    Udp(UdpSocket),
}

impl Try {
    fn begin(attempt: &Attempt<'_>) -> io::Result<Self> {
        let server = attempt.server;
        let socket = attempt.namespace.enter(|| match attempt.protocol {
            Protocol::TCP => connect(attempt.port, server),
            _ => datagrams(attempt.port, server),
        })?;
        let client = match &socket {
            Socket::Tcp { stream, .. } => stream.local_addr()?,
            Socket::Udp(udp) => {
                udp.set_nonblocking(true)?;
                udp.send(b"cell")?;
                udp.local_addr()?
            }
        };
        let now = Instant::now();
        Ok(Self {
            socket,
            client,
            greeting: format!("{server}\n"),
            heard: Vec::new(),
            begun: now,
            deadline: now + attempt.patience,
            again: now + AGAIN,
            seen: None,
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp { stream, .. } => stream.as_fd(),
            Socket::Udp(socket) => socket.as_fd(),
        }
    }

    fn wanted(&self) -> PollFlags {
        if matches!(self.socket, Socket::Tcp { is_open: false, .. }) { PollFlags::OUT } else { PollFlags::IN }
    }

    /// When something is to be done although nothing came.
    fn next(&self) -> Instant {
        if matches!(self.socket, Socket::Udp(_)) { self.again.min(self.deadline) } else { self.deadline }
    }

    /// Takes what came; gives up when it is time.
    fn step(&mut self, is_ready: bool) {
        let now = Instant::now();
        let mut outcome = None;
        if is_ready {
            outcome = self.listen().unwrap_or_else(|error| Some(client::outcome::<()>(&Err(error))));
        }
        if outcome.is_none() && now >= self.deadline {
            outcome = Some(Outcome::TimedOut);
        }
        if let Some(outcome) = outcome {
            self.seen = Some(Seen { client: self.client, outcome, took: now - self.begun });
        } else if let Socket::Udp(socket) = &self.socket
            && now >= self.again
        {
            // What fails here is an ICMP error, which the next look finds as well.
            let _ = socket.send(b"cell");
            self.again = now + AGAIN;
        }
    }

    /// Reads what is there: the outcome once it is known.
    fn listen(&mut self) -> io::Result<Option<Outcome>> {
        let mut buffer = [0; GREETING];
        let length = match &mut self.socket {
            Socket::Tcp { stream, is_open } if !*is_open => {
                *is_open = stream.take_error()?.map_or(Ok(true), Err)?;
                return Ok(None);
            }
            Socket::Tcp { stream, .. } => stream.read(&mut buffer),
            Socket::Udp(socket) => socket.recv(&mut buffer),
        };
        let length = match length {
            Err(error) if worker::is_timeout(&error) => return Ok(None),
            length => length?,
        };
        self.heard.extend_from_slice(&buffer[..length]);
        let is_over = length == 0 || self.heard.ends_with(b"\n");
        Ok(is_over.then(|| self.compare()))
    }

    fn compare(&self) -> Outcome {
        if self.heard == self.greeting.as_bytes() {
            return Outcome::Connected;
        }
        Outcome::Failed(format!("{:?} instead of {:?}", String::from_utf8_lossy(&self.heard), self.greeting))
    }
}

/// Begins to connect and returns at once.
fn connect(port: u16, server: SocketAddr) -> io::Result<Socket> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &any(port, server))?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Socket::Tcp { stream: TcpStream::from(socket), is_open: false })
}

fn datagrams(port: u16, server: SocketAddr) -> io::Result<Socket> {
    let socket = UdpSocket::bind(any(port, server))?;
    socket.connect(server)?;
    Ok(Socket::Udp(socket))
}

/// Every own address of the server's family.
fn any(port: u16, server: SocketAddr) -> SocketAddr {
    let address: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0_u8; 16].into() };
    SocketAddr::new(address, port)
}

/// Waits for one of these, at most so long; an interruption counts as nothing.
fn wait(events: &mut [PollFd<'_>], longest: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(longest).map_err(io::Error::other)?;
    match poll(events, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
