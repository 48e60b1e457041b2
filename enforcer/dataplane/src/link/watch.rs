//! Tells when interfaces or addresses of this network namespace change. Owns the subscription; what a change means
//! for policy is the caller's.

use super::LinkError;
use super::query::{Interface, interface};
use super::socket::messages;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Multicast groups of rtnetlink: links, IPv4 and IPv6 addresses.
const GROUPS: [u32; 3] = [1, 5, 9];

/// What changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// An interface appeared or changed.
    Link(Interface),
    /// The interface of this index is gone.
    LinkGone(u32),
    /// An address of the interface of this index came or went.
    Address(u32),
    /// Changes were lost because they were not read fast enough: list everything again.
    Lost,
}

/// A subscription to changes.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
}

impl Watch {
    /// Subscribes; what happens from now on is told.
    pub fn open() -> Result<Self, LinkError> {
        let subscribe = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            GROUPS.into_iter().try_for_each(|group| socket.add_membership(group))?;
            socket.set_non_blocking(true)?;
            io::Result::Ok(Self { socket })
        };
        subscribe().map_err(|source| LinkError::Netlink { attempt: "watch interfaces", source })
    }

    /// The changes since the last call; none when nothing changed. Never blocks.
    pub fn drain(&mut self) -> Result<Vec<Change>, LinkError> {
        let mut changes = Vec::new();
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => changes.extend(messages(&datagram).filter_map(|message| {
                    // A message that cannot be read is a change that was lost.
                    message.map_or(Some(Change::Lost), |message| change(message.payload))
                })),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changes.push(Change::Lost),
                Err(source) => return Err(LinkError::Netlink { attempt: "watch interfaces", source }),
            }
        }
    }
}

impl AsFd for Watch {
    /// Readable when there are changes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket owns the descriptor and outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

fn change(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    let NetlinkPayload::InnerMessage(message) = payload else { return None };
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(Change::Link(interface(&link))),
        RouteNetlinkMessage::DelLink(link) => Some(Change::LinkGone(link.header.index)),
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            Some(Change::Address(address.header.index))
        }
        _ => None,
    }
}
