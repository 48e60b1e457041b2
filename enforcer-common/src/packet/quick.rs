//! The common layout at constant offsets: Ethernet, IP without options or extensions, whole TCP or UDP.

use super::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Kind, Linear, Packet, TCP, UDP};
use crate::address::Address;
use crate::flow::tcp;

const V4_TRANSPORT: u32 = ETHERNET + 20;
const V6_TRANSPORT: u32 = ETHERNET + 40;

/// Reads a packet of the common layout; `None` when it is of another, or has anything wrong: then
/// [`super::read`] says what.
///
/// A caller that goes on at once does so from [`quick_v4`] and [`quick_v6`]: apart, each keeps what it read in
/// registers.
#[inline(always)]
pub fn quick<L: Linear>(packet: &L) -> Option<Packet> {
    quick_v4(packet).or_else(|| quick_v6(packet))
}

/// [`quick`] for IPv4 alone.
#[inline(always)]
pub fn quick_v4<L: Linear>(octets: &L) -> Option<Packet> {
    if u16::from_be(octets.half(ETHERNET - 2)?) != ETHERTYPE_IPV4 {
        return None;
    }
    let fragment = u16::from_be(octets.half(ETHERNET + 6)?) & 0x3fff;
    let total = u16::from_be(octets.half(ETHERNET + 2)?) as u32;
    if octets.octet(ETHERNET)? != 0x45 || fragment != 0 || ETHERNET + total > octets.length() {
        return None;
    }
    let mut packet = Packet::at(ETHERNET);
    packet.protocol = octets.octet(ETHERNET + 9)?;
    packet.source = Address([0, 0, Address::v4([0; 4]).0[2], octets.word(ETHERNET + 12)?]);
    packet.destination = Address([0, 0, packet.source.0[2], octets.word(ETHERNET + 16)?]);
    packet.hops = octets.octet(ETHERNET + 8)?;
    packet.end = ETHERNET + total;
    quick_transport(octets, packet, V4_TRANSPORT)
}

/// [`quick`] for IPv6 alone.
#[inline(always)]
pub fn quick_v6<L: Linear>(octets: &L) -> Option<Packet> {
    if u16::from_be(octets.half(ETHERNET - 2)?) != ETHERTYPE_IPV6 {
        return None;
    }
    let payload = u16::from_be(octets.half(ETHERNET + 4)?) as u32;
    if octets.octet(ETHERNET)? >> 4 != 6 || V6_TRANSPORT + payload > octets.length() {
        return None;
    }
    let mut packet = Packet::at(ETHERNET);
    packet.protocol = octets.octet(ETHERNET + 6)?;
    packet.source = address_at(octets, ETHERNET + 8)?;
    packet.destination = address_at(octets, ETHERNET + 24)?;
    packet.hops = octets.octet(ETHERNET + 7)?;
    packet.end = V6_TRANSPORT + payload;
    quick_transport(octets, packet, V6_TRANSPORT)
}

#[inline(always)]
fn address_at<L: Linear>(octets: &L, at: u32) -> Option<Address> {
    Some(Address([octets.word(at)?, octets.word(at + 4)?, octets.word(at + 8)?, octets.word(at + 12)?]))
}

#[inline(always)]
fn quick_transport<L: Linear>(octets: &L, mut packet: Packet, at: u32) -> Option<Packet> {
    packet.kind = Kind::Whole;
    packet.sender = packet.source;
    packet.transport = at as u16;
    let least = match packet.protocol {
        TCP => {
            let header = (octets.octet(at + 12)? >> 4) as u32 * 4;
            packet.tcp_flags = octets.octet(at + 13)?;
            if header < 20 || tcp::is_impossible(packet.tcp_flags) {
                return None;
            }
            header
        }
        UDP => {
            if u16::from_be(octets.half(at + 4)?) < 8 {
                return None;
            }
            8
        }
        _ => return None,
    };
    if at + least > packet.end {
        return None;
    }
    packet.source_port = u16::from_be(octets.half(at)?);
    packet.destination_port = u16::from_be(octets.half(at + 2)?);
    packet.service = packet.destination_port;
    Some(packet)
}
