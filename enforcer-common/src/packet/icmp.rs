//! ICMP of both families: echoes are flows, errors belong to the flow in their inner header, neighbour discovery
//! belongs to the link.

use super::{ICMP, ICMPV6, Kind, Octets, Packet, SCTP, TCP, UDP, ip, transport};
use crate::address::Address;
use crate::verdict::Reason;

const HEADER: u32 = 8;

/// ICMPv4 (RFC 792).
#[inline(always)]
pub(super) fn read_v4<O: Octets>(octets: &O, packet: &mut Packet, at: u32) -> Result<(), Reason> {
    let header = load_header(octets, packet, at)?;
    match header[0] {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        3 | 4 | 5 | 11 | 12 => mark(packet, Kind::IcmpError),
        8 => ask(packet, &header),
        0 => answer(packet, &header),
        _ => Ok(()),
    }
}

/// ICMPv6 (RFC 4443), neighbour discovery (RFC 4861), listener discovery (RFC 2710, RFC 3810).
#[inline(always)]
pub(super) fn read_v6<O: Octets>(octets: &O, packet: &mut Packet, at: u32) -> Result<(), Reason> {
    let header = load_header(octets, packet, at)?;
    match header[0] {
        0..=127 => mark(packet, Kind::IcmpError),
        128 => ask(packet, &header),
        129 => answer(packet, &header),
        133..=137 if packet.hops != 255 || header[1] != 0 => Err(Reason::BadTransportHeader),
        134 | 137 => mark(packet, Kind::RouterControl),
        133 | 135 | 136 => mark(packet, Kind::LinkControl),
        130..=132 | 143 if packet.source.is_v6_link_local() || packet.source.is_unspecified() => {
            mark(packet, Kind::LinkControl)
        }
        _ => Ok(()),
    }
}

#[inline(always)]
fn load_header<O: Octets>(octets: &O, packet: &mut Packet, at: u32) -> Result<[u8; 8], Reason> {
    if at + HEADER > packet.end {
        return Err(transport::too_short(packet));
    }
    let header: [u8; 8] = octets.load(at).ok_or(Reason::Truncated)?;
    packet.service = u16::from_be_bytes([header[0], header[1]]);
    Ok(header)
}

#[inline(always)]
fn ask(packet: &mut Packet, header: &[u8; 8]) -> Result<(), Reason> {
    packet.source_port = u16::from_be_bytes([header[4], header[5]]);
    Ok(())
}

#[inline(always)]
fn answer(packet: &mut Packet, header: &[u8; 8]) -> Result<(), Reason> {
    packet.destination_port = u16::from_be_bytes([header[4], header[5]]);
    Ok(())
}

#[inline(always)]
fn mark(packet: &mut Packet, kind: Kind) -> Result<(), Reason> {
    packet.kind = kind;
    Ok(())
}

/// The packet that an ICMP error quotes.
#[inline(always)]
pub(super) fn read_inner<O: Octets>(octets: &O, packet: &mut Packet) -> Result<(), Reason> {
    let at = packet.transport as u32 + HEADER;
    if packet.source.is_v4() { inner_v4(octets, packet, at) } else { inner_v6(octets, packet, at) }
}

/// The packet an ICMPv4 error is about.
#[inline(always)]
fn inner_v4<O: Octets>(octets: &O, packet: &mut Packet, at: u32) -> Result<(), Reason> {
    let header: [u8; 20] = octets.load(at).ok_or(Reason::Truncated)?;
    let length = (header[0] & 15) as u32 * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return Err(Reason::BadIpHeader);
    }
    if u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
        return Err(Reason::UnrelatedError);
    }
    packet.protocol = header[9];
    packet.source = Address::v4([header[16], header[17], header[18], header[19]]);
    packet.destination = Address::v4([header[12], header[13], header[14], header[15]]);
    inner_ports(octets, packet, at + length)
}

/// The packet an ICMPv6 error is about.
#[inline(always)]
fn inner_v6<O: Octets>(octets: &O, packet: &mut Packet, at: u32) -> Result<(), Reason> {
    let header: [u8; 8] = octets.load(at).ok_or(Reason::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Reason::BadIpHeader);
    }
    let (protocol, transport) = ip::follow_extensions(octets, packet, header[6], at + 40)?;
    if matches!(packet.kind, Kind::LaterFragment) {
        return Err(Reason::UnrelatedError);
    }
    packet.protocol = protocol;
    packet.source = Address::v6(octets.load(at + 24).ok_or(Reason::Truncated)?);
    packet.destination = Address::v6(octets.load(at + 8).ok_or(Reason::Truncated)?);
    inner_ports(octets, packet, transport)
}

/// Ports of the inner packet, turned round like its addresses.
#[inline(always)]
fn inner_ports<O: Octets>(octets: &O, packet: &mut Packet, at: u32) -> Result<(), Reason> {
    packet.kind = Kind::IcmpError;
    packet.identification = 0;
    packet.service = 0;
    match packet.protocol {
        TCP | UDP | SCTP => {
            let ports: [u8; 4] = octets.load(at).ok_or(Reason::Truncated)?;
            packet.source_port = u16::from_be_bytes([ports[2], ports[3]]);
            packet.destination_port = u16::from_be_bytes([ports[0], ports[1]]);
        }
        ICMP | ICMPV6 => {
            let header: [u8; 8] = octets.load(at).ok_or(Reason::Truncated)?;
            let identifier = u16::from_be_bytes([header[4], header[5]]);
            match header[0] {
                8 | 128 => packet.destination_port = identifier,
                0 | 129 => packet.source_port = identifier,
                _ => return Err(Reason::UnrelatedError),
            }
        }
        _ => {}
    }
    Ok(())
}
