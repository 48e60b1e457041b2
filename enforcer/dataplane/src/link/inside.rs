//! A look into a workload's network namespace: by which number its sockets know it, and whether what they are told to
//! reach is what the host-side interface sees. Reads only, on a thread of its own that ends with the look.

use super::query::{addresses, interfaces};
use crate::sys;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// `NFT_MSG_GETCHAIN` of the subsystem `NFNL_SUBSYS_NFTABLES`.
const GET_CHAINS: u16 = 10 << 8 | 4;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ENDS: [u16; 2] = [2, 3];
/// `NFTA_CHAIN_TYPE`.
const CHAIN_TYPE: u16 = 7;
/// Octets of a netlink header, and of it with the header of netfilter behind.
const HEADERS: [usize; 2] = [16, 20];

/// The cookie of the network namespace at `path`, if each packet of its sockets to another host leaves by the interface
/// `name` to where the socket was told; otherwise, in words, why that is not certain.
///
/// # Errors
///
/// As above; also when this process may not enter the namespace (`CAP_SYS_ADMIN`).
pub fn sockets(path: &Path, name: &str) -> Result<u64, String> {
    let file =
        File::open(path).map_err(|error| format!("its network namespace cannot be opened: {error}"))?;
    let look = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| {
            format!("its network namespace cannot be entered, which takes CAP_SYS_ADMIN: {error}")
        })?;
        examine(name)
    };
    std::thread::scope(|scope| scope.spawn(look).join().expect("looking does not panic"))
}

fn examine(name: &str) -> Result<u64, String> {
    let unread = |what: &str, error: &dyn std::error::Error| format!("its {what} cannot be read: {error}");
    let interfaces = interfaces().map_err(|error| unread("interfaces", &error))?;
    let is_other = |name_of: &str, index: u32| name_of != name && index != LOOPBACK;
    if let Some(other) =
        interfaces.iter().find(|interface| interface.is_up && is_other(&interface.name, interface.index))
    {
        return Err(format!("it has another interface, {}", other.name));
    }
    let own = addresses(None).map_err(|error| unread("addresses", &error))?;
    if let Some((_, other)) = own.iter().find(|(index, at)| *index == LOOPBACK && !at.is_loopback()) {
        return Err(format!("it has the address {other} at its loopback interface"));
    }
    if translates().map_err(|error| unread("packet filter", &error))? {
        return Err("its packet filter translates addresses".to_owned());
    }
    sys::namespace_cookie().map_err(|error| unread("number", &error))
}

/// Index of the loopback interface, the first of every namespace.
const LOOPBACK: u32 = 1;

/// True when a table of the namespace this thread is in may change where a packet goes.
fn translates() -> io::Result<bool> {
    for list in ["ip_tables_names", "ip6_tables_names"] {
        match std::fs::read_to_string(Path::new("/proc/thread-self/net").join(list)) {
            Ok(tables) if tables.lines().any(|table| table == "nat") => return Ok(true),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    nat_chains()
}

/// True when nftables has a chain of the type `nat`. A kernel without nftables has none.
fn nat_chains() -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(), 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while let Some((message, behind)) = split(rest) {
            let kind = u16::from_ne_bytes([message[4], message[5]]);
            if ENDS.contains(&kind) {
                return ended(kind, message);
            }
            if attribute(message, CHAIN_TYPE).is_some_and(|kind| kind.starts_with(b"nat\0")) {
                return Ok(true);
            }
            rest = behind;
        }
    }
}

fn request() -> [u8; HEADERS[1]] {
    let mut request = [0; HEADERS[1]];
    request[..4].copy_from_slice(&(HEADERS[1] as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&GET_CHAINS.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    request
}

/// The end of an answer: no such chain, or why there is no answer.
fn ended(kind: u16, message: &[u8]) -> io::Result<bool> {
    let code = message.get(HEADERS[0]..HEADERS[1]).and_then(|code| code.try_into().ok());
    let code = code.map_or(0, i32::from_ne_bytes);
    match -code {
        // The subsystem is not there.
        libc::EINVAL | libc::EOPNOTSUPP => Ok(false),
        code if kind == ENDS[0] && code != 0 => Err(io::Error::from_raw_os_error(code)),
        _ => Ok(false),
    }
}

/// The first message of some, and what is behind it.
fn split(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
    let message = rest.get(..length).filter(|_| length >= HEADERS[0])?;
    Some((message, rest.get(length.next_multiple_of(4)..).unwrap_or(&[])))
}

/// The value of an attribute of a message of netfilter.
fn attribute(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = message.get(HEADERS[1]..)?;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff;
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{CHAIN_TYPE, attribute, split};

    #[test]
    fn attributes_are_found_and_what_is_cut_off_is_not() {
        let mut message = vec![36, 0, 0, 0, 3, 10, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
        message.extend([5, 0, 1, 0, b'x', 0, 0, 0, 8, 0, 7, 0, b'n', b'a', b't', 0]);
        assert_eq!(attribute(&message, CHAIN_TYPE), Some(&b"nat\0"[..]));
        assert_eq!(attribute(&message, 9), None);
        assert_eq!(attribute(&message[..33], CHAIN_TYPE), None);
        let twice = [message.clone(), message.clone()].concat();
        assert_eq!(split(&twice), Some((&message[..], &message[..])));
        assert_eq!(split(&message[..35]), None);
    }
}
