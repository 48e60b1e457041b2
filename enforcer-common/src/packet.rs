//! Reads a packet as far as a verdict needs: who speaks to whom, over what, and what kind of packet it is.
//!
//! Two readers with one result: [`quick`] takes the common layout (Ethernet, IP without options, whole TCP or
//! UDP) at constant offsets; [`read`] takes everything else. Whatever `quick` accepts, `read` reads
//! the same. Neither judges; what is wrong with a packet is returned as a [`Reason`].

use crate::address::Address;
use crate::verdict::Reason;

mod icmp;
mod ip;
mod quick;
mod transport;

pub use quick::{quick, quick_v4, quick_v6};

/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// SCTP.
pub const SCTP: u8 = 132;
/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;

/// Octets of an Ethernet header without tags.
pub const ETHERNET: u32 = 14;
/// VLAN tags that are followed (one, or two as in 802.1ad).
const MAX_TAGS: u32 = 2;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// The octets of a packet, from its Ethernet header on. Nothing is known of them until it is loaded.
pub trait Octets {
    /// Octets in the whole packet.
    fn length(&self) -> u32;
    /// `N` octets from offset `at`; `None` when the packet ends before.
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
}

/// Octets that lie in one piece and are cheap to look at in words, in memory order.
pub trait Linear {
    /// Octets in the whole packet.
    fn length(&self) -> u32;
    /// One octet.
    fn octet(&self, at: u32) -> Option<u8>;
    /// Two octets.
    fn half(&self, at: u32) -> Option<u16>;
    /// Four octets.
    fn word(&self, at: u32) -> Option<u32>;
}

/// What kind of packet it is, as far as the way it is handled differs.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A packet of a flow, whole.
    Whole = 1,
    /// The first fragment of one: it has the ports.
    FirstFragment = 2,
    /// A later fragment: it has none.
    LaterFragment = 3,
    /// An ICMP error. Addresses and ports are those of the flow it is about, turned so that the error
    /// travels like the flow's own packets in its direction.
    IcmpError = 4,
    /// Neighbour and multicast listener discovery, and ARP.
    LinkControl = 5,
    /// Router advertisement or redirect.
    RouterControl = 6,
}

/// A packet as read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Source of the flow's packet; for ARP the sender's protocol address.
    pub source: Address,
    /// Destination of the flow's packet; for ARP the target's protocol address.
    pub destination: Address,
    /// Source in the outermost IP header; differs from `source` in ICMP errors only.
    pub sender: Address,
    /// Identification field of a fragment, 0 otherwise.
    pub identification: u32,
    /// Source port, host order; an echo's identifier on the side that asks; 0 where there is none.
    pub source_port: u16,
    /// Destination port, host order; an echo's identifier on the side that is asked; 0 where there is none.
    pub destination_port: u16,
    /// What policy is asked about: the destination port, or ICMP `type << 8 | code`.
    pub service: u16,
    /// Offset of the IP header, octets.
    pub network: u16,
    /// Offset of the transport header, octets.
    pub transport: u16,
    /// Offset at which the IP packet ends (link padding may follow), octets.
    pub end: u32,
    /// Transport protocol; of an ICMP error, that of the flow it is about.
    pub protocol: u8,
    /// TCP flags, 0 for other protocols.
    pub tcp_flags: u8,
    /// Hop limit or TTL; of an ICMP error, that of the error.
    pub hops: u8,
    /// What kind of packet it is.
    pub kind: Kind,
}

impl Packet {
    /// A packet of which nothing but the offset of its network header is known.
    #[inline(always)]
    pub const fn at(network: u32) -> Self {
        Self {
            source: Address([0; 4]),
            destination: Address([0; 4]),
            sender: Address([0; 4]),
            identification: 0,
            source_port: 0,
            destination_port: 0,
            service: 0,
            network: network as u16,
            transport: 0,
            end: 0,
            protocol: 0,
            tcp_flags: 0,
            hops: 0,
            kind: Kind::Whole,
        }
    }
}

/// Reads any packet.
///
/// # Errors
///
/// The reason to drop it: [`Reason::Truncated`], [`Reason::BadIpHeader`], [`Reason::BadTransportHeader`],
/// [`Reason::UnknownEtherType`], [`Reason::TooManyHeaders`], [`Reason::RoutingHeader`],
/// [`Reason::TinyFragment`] or, for an error about something that has no flow, [`Reason::UnrelatedError`].
pub fn read<O: Octets>(octets: &O) -> Result<Packet, Reason> {
    let mut packet = Packet::at(ETHERNET);
    read_network(octets, &mut packet)?;
    read_transport(octets, &mut packet)?;
    read_inner(octets, &mut packet)?;
    Ok(packet)
}

/// The first part of [`read`]: everything up to the transport header.
///
/// # Errors
///
/// Those of [`read`] that the link and network headers give.
#[inline(always)]
pub fn read_network<O: Octets>(octets: &O, packet: &mut Packet) -> Result<(), Reason> {
    let mut at = ETHERNET - 2;
    let mut tags = 0;
    while tags <= MAX_TAGS {
        let ethertype = u16::from_be_bytes(octets.load(at).ok_or(Reason::Truncated)?);
        *packet = Packet::at(at + 2);
        match ethertype {
            ETHERTYPE_IPV4 => return ip::read_v4(octets, packet, at + 2),
            ETHERTYPE_IPV6 => return ip::read_v6(octets, packet, at + 2),
            ETHERTYPE_ARP => return read_arp(octets, packet, at + 2),
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => at += 4,
            _ => return Err(Reason::UnknownEtherType),
        }
        tags += 1;
    }
    Err(Reason::TooManyHeaders)
}

/// The second part of [`read`]: the transport header of a packet whose network header was read.
///
/// # Errors
///
/// Those of [`read`] that transport headers give.
#[inline(always)]
pub fn read_transport<O: Octets>(octets: &O, packet: &mut Packet) -> Result<(), Reason> {
    match packet.kind {
        Kind::Whole | Kind::FirstFragment => transport::read(octets, packet),
        _ => Ok(()),
    }
}

/// The third part of [`read`]: what an ICMP error is about.
///
/// # Errors
///
/// Those of [`read`] that the quoted headers give.
#[inline(always)]
pub fn read_inner<O: Octets>(octets: &O, packet: &mut Packet) -> Result<(), Reason> {
    match packet.kind {
        Kind::IcmpError => icmp::read_inner(octets, packet),
        _ => Ok(()),
    }
}

/// ARP for IPv4 over Ethernet (RFC 826).
#[inline(always)]
fn read_arp<O: Octets>(octets: &O, packet: &mut Packet, at: u32) -> Result<(), Reason> {
    let arp: [u8; 28] = octets.load(at).ok_or(Reason::Truncated)?;
    if arp[2..6] != [0x08, 0x00, 6, 4] {
        return Err(Reason::BadIpHeader);
    }
    packet.kind = Kind::LinkControl;
    packet.source = Address::v4([arp[14], arp[15], arp[16], arp[17]]);
    packet.destination = Address::v4([arp[24], arp[25], arp[26], arp[27]]);
    packet.sender = packet.source;
    packet.end = at + 28;
    Ok(())
}

#[cfg(test)]
#[path = "packet/tests.rs"]
mod tests;
