//! What a workload does: look a name up, connect at once, talk. Owns the outcome of an attempt as the workload
//! sees it; why it came out so is the flow record's to tell.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::Namespace;
use crate::worker::is_timeout;

/// How long a connect may take: less than the second after which the kernel sends a lost SYN again, so that one
/// lost SYN is one failure.
pub const CONNECT: Duration = Duration::from_millis(900);
/// How long an answer may take; questions are never sent twice.
const ANSWER: Duration = Duration::from_secs(2);

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// True when the address is of this family.
    pub fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V4 { "IPv4" } else { "IPv6" })
    }
}

/// How an attempt came out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The server greeted, and with the address that was meant.
    Connected,
    /// Refused at once: a reset.
    Refused,
    /// Told at once that there is no way (ICMP).
    Unreachable,
    /// Nothing came back within [`CONNECT`].
    TimedOut,
    /// The name has no address of that family.
    Unresolved,
    /// Anything else, in words.
    Failed(String),
}

impl Outcome {
    /// True when data flowed.
    pub fn is_connected(&self) -> bool {
        *self == Self::Connected
    }
}

/// Asks the resolver at `resolver` from inside `namespace`, once.
///
/// # Errors
/// When no answer comes in time, it is not one, or it tells of an error.
pub fn resolve(namespace: &Namespace, resolver: IpAddr, name: &str, family: Family) -> Result<Vec<IpAddr>> {
    namespace.enter(|| resolve_here(resolver, name, family))
}

/// As [`resolve`], from the network namespace of the calling thread.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_here(resolver: IpAddr, name: &str, family: Family) -> Result<Vec<IpAddr>> {
    let socket = datagram_socket((resolver, 53).into())?;
    socket.set_read_timeout(Some(ANSWER))?;
    let question = question(name, family)?;
    socket.send(&question.to_vec()?)?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).with_context(|| format!("no answer for {name} from {resolver}"))?;
    let answer = Message::from_vec(&buffer[..length])?;
    if answer.metadata.id != question.metadata.id {
        bail!("an answer to another question");
    }
    if answer.metadata.response_code != ResponseCode::NoError {
        bail!("{name}: {}", answer.metadata.response_code);
    }
    Ok(answer.answers.iter().filter_map(|record| address(&record.data)).collect())
}

/// Connects from the network namespace of the calling thread, reads the greeting and compares it.
///
/// # Errors
/// As `connect(2)`; also when the greeting is late or tells of another server.
pub fn connect_here(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, CONNECT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut greeting = String::new();
    BufReader::with_capacity(64, &stream).read_line(&mut greeting)?;
    if greeting.trim_end() != server.to_string() {
        return Err(io::Error::other(format!("reached {} instead of {server}", greeting.trim_end())));
    }
    Ok(stream)
}

/// Looks a name up and connects at once, on the calling thread's namespace.
pub fn visit_here(resolver: IpAddr, name: &str, port: u16, family: Family) -> Outcome {
    match resolve_here(resolver, name, family) {
        Ok(addresses) => match addresses.first() {
            Some(address) => outcome(&connect_here(SocketAddr::new(*address, port))),
            None => Outcome::Unresolved,
        },
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

/// Sends one datagram from a fresh port of the calling thread's network namespace and waits for its echo.
///
/// # Errors
/// As `recv(2)`: a timeout when nothing comes back, another error when an ICMP error does.
pub fn ping_here(server: SocketAddr, data: &[u8], patience: Duration) -> io::Result<()> {
    let socket = datagram_socket(server)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(data)?;
    let mut back = vec![0; data.len() + 1];
    let length = socket.recv(&mut back)?;
    if back[..length] == *data { Ok(()) } else { Err(io::Error::other("something else came back")) }
}

/// A socket connected to `server`, in the calling thread's network namespace.
///
/// # Errors
/// As `socket(2)`, `bind(2)` and `connect(2)`.
pub fn datagram_socket(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0_u8; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    Ok(socket)
}

/// The question for the addresses of `name`.
///
/// # Errors
/// When it is no name.
pub fn question(name: &str, family: Family) -> Result<Message> {
    let kind = if family == Family::V4 { RecordType::A } else { RecordType::AAAA };
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(format!("{}.", name.trim_end_matches('.')))?, kind));
    Ok(question)
}

/// Sends `data` on a connection and reads as much back, at most `patience` without progress.
///
/// # Errors
/// When the connection ends or stalls, or something else comes back.
pub fn exchange(stream: &mut TcpStream, data: &[u8], patience: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut back = vec![0; data.len()];
    stream.write_all(data)?;
    io::Read::read_exact(stream, &mut back)?;
    if back == data { Ok(()) } else { Err(io::Error::other("something else came back")) }
}

/// What a connect's result means to the workload.
pub fn outcome<T>(result: &io::Result<T>) -> Outcome {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    match result {
        Ok(_) => Outcome::Connected,
        Err(error) if is_timeout(error) => Outcome::TimedOut,
        Err(error) => match error.kind() {
            ConnectionRefused => Outcome::Refused,
            HostUnreachable | NetworkUnreachable => Outcome::Unreachable,
            _ => Outcome::Failed(error.to_string()),
        },
    }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(v4) => Some(v4.0.into()),
        RData::AAAA(v6) => Some(v6.0.into()),
        _ => None,
    }
}
