//! The transport headers: ports, TCP flags, lengths that must agree. Never looks at what they carry.

use super::{ICMP, ICMPV6, Kind, Octets, Packet, SCTP, TCP, UDP, icmp};
use crate::flow::tcp;
use crate::verdict::Reason;

/// Least octets of a TCP, UDP and SCTP header.
const TCP_HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;
const SCTP_HEADER: u32 = 12;

/// Reads the transport header of a packet that has one.
#[inline(always)]
pub(super) fn read<O: Octets>(octets: &O, packet: &mut Packet) -> Result<(), Reason> {
    let at = packet.transport as u32;
    match packet.protocol {
        TCP => read_tcp(octets, packet, at),
        UDP => read_ports(octets, packet, at, UDP_HEADER),
        SCTP => read_ports(octets, packet, at, SCTP_HEADER),
        ICMP if packet.source.is_v4() => icmp::read_v4(octets, packet, at),
        ICMPV6 if !packet.source.is_v4() => icmp::read_v6(octets, packet, at),
        _ => Ok(()),
    }
}

#[inline(always)]
fn read_tcp<O: Octets>(octets: &O, packet: &mut Packet, at: u32) -> Result<(), Reason> {
    read_ports(octets, packet, at, TCP_HEADER)?;
    let [offset, flags]: [u8; 2] = octets.load(at + 12).ok_or(Reason::Truncated)?;
    let header = (offset >> 4) as u32 * 4;
    packet.tcp_flags = flags;
    if header < TCP_HEADER || tcp::is_impossible(flags) {
        return Err(Reason::BadTransportHeader);
    }
    if at + header > packet.end {
        return Err(too_short(packet));
    }
    Ok(())
}

/// Ports of a protocol that begins with both, after making sure that its header is there.
#[inline(always)]
fn read_ports<O: Octets>(octets: &O, packet: &mut Packet, at: u32, header: u32) -> Result<(), Reason> {
    if at + header > packet.end {
        return Err(too_short(packet));
    }
    let octets: [u8; 8] = octets.load(at).ok_or(Reason::Truncated)?;
    packet.source_port = u16::from_be_bytes([octets[0], octets[1]]);
    packet.destination_port = u16::from_be_bytes([octets[2], octets[3]]);
    packet.service = packet.destination_port;
    let udp_length = u16::from_be_bytes([octets[4], octets[5]]) as u32;
    // 0 is the length of a GSO super-packet.
    if packet.protocol == UDP && udp_length != 0 && udp_length < UDP_HEADER {
        return Err(Reason::BadTransportHeader);
    }
    Ok(())
}

/// A header cut short by fragmenting is an attack (RFC 1858), otherwise the packet is broken.
#[inline(always)]
pub(super) const fn too_short(packet: &Packet) -> Reason {
    if matches!(packet.kind, Kind::FirstFragment) { Reason::TinyFragment } else { Reason::Truncated }
}
