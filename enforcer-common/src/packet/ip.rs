//! The IP headers of both families, up to the transport header. Never looks into the payload.

use super::{Kind, Octets, Packet};
use crate::address::Address;
use crate::verdict::Reason;

/// Extension headers that are followed; hosts send one or two.
const MAX_EXTENSIONS: u32 = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// IPv4 (RFC 791), options skipped.
#[inline(always)]
pub(super) fn read_v4<O: Octets>(octets: &O, packet: &mut Packet, at: u32) -> Result<(), Reason> {
    let header: [u8; 20] = octets.load(at).ok_or(Reason::Truncated)?;
    let header_length = (header[0] & 15) as u32 * 4;
    let total = u16::from_be_bytes([header[2], header[3]]) as u32;
    if header[0] >> 4 != 4 || header_length < 20 {
        return Err(Reason::BadIpHeader);
    }
    packet.end = end_of(octets, at, total, total, header_length)?;
    packet.protocol = header[9];
    packet.source = Address::v4([header[12], header[13], header[14], header[15]]);
    packet.destination = Address::v4([header[16], header[17], header[18], header[19]]);
    packet.sender = packet.source;
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if fragment & 0x3fff != 0 {
        packet.identification = u16::from_be_bytes([header[4], header[5]]) as u32;
        note_fragment(packet, fragment & 0x1fff, fragment & 0x2000 != 0)?;
    }
    packet.hops = header[8];
    packet.transport = (at + header_length) as u16;
    Ok(())
}

/// IPv6 (RFC 8200), extension headers followed.
#[inline(always)]
pub(super) fn read_v6<O: Octets>(octets: &O, packet: &mut Packet, at: u32) -> Result<(), Reason> {
    let header: [u8; 8] = octets.load(at).ok_or(Reason::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Reason::BadIpHeader);
    }
    let payload = u16::from_be_bytes([header[4], header[5]]) as u32;
    packet.end = end_of(octets, at, payload, 40 + payload, 40)?;
    packet.source = Address::v6(octets.load(at + 8).ok_or(Reason::Truncated)?);
    packet.destination = Address::v6(octets.load(at + 24).ok_or(Reason::Truncated)?);
    packet.sender = packet.source;
    let (protocol, transport) = follow_extensions(octets, packet, header[6], at + 40)?;
    packet.protocol = protocol;
    packet.hops = header[7];
    packet.transport = transport as u16;
    Ok(())
}

/// Where the IP packet ends. A length field of 0 is that of a GSO super-packet beyond 64 KiB and
/// means all there is.
#[inline(always)]
fn end_of<O: Octets>(octets: &O, at: u32, field: u32, total: u32, least: u32) -> Result<u32, Reason> {
    let all = octets.length();
    if field == 0 {
        return if at + least <= all { Ok(all) } else { Err(Reason::Truncated) };
    }
    if total < least {
        return Err(Reason::BadIpHeader);
    }
    if at + total > all { Err(Reason::Truncated) } else { Ok(at + total) }
}

/// Follows extension headers to the transport header: its protocol and offset.
#[inline(always)]
pub(super) fn follow_extensions<O: Octets>(
    octets: &O,
    packet: &mut Packet,
    first: u8,
    start: u32,
) -> Result<(u8, u32), Reason> {
    let mut next = first;
    let mut at = start;
    let mut followed = 0;
    while followed < MAX_EXTENSIONS {
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
            || matches!(packet.kind, Kind::LaterFragment)
        {
            return Ok((next, at));
        }
        let header: [u8; 8] = octets.load(at).ok_or(Reason::Truncated)?;
        at += match next {
            FRAGMENT => {
                let field = u16::from_be_bytes([header[2], header[3]]);
                if field & 0xfff9 != 0 {
                    packet.identification = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                    packet.protocol = header[0];
                    note_fragment(packet, field >> 3, field & 1 != 0)?;
                }
                8
            }
            AUTHENTICATION => (header[1] as u32 + 2) * 4,
            // Type 0 is withdrawn (RFC 5095); any other with segments left goes on to another address than the one read.
            ROUTING if header[2] == 0 || header[3] != 0 => return Err(Reason::RoutingHeader),
            _ => (header[1] as u32 + 1) * 8,
        };
        next = header[0];
        followed += 1;
    }
    Err(Reason::TooManyHeaders)
}

/// Marks a fragment; `offset` in units of eight octets.
#[inline(always)]
fn note_fragment(packet: &mut Packet, offset: u16, more: bool) -> Result<(), Reason> {
    if offset == 0 {
        if more {
            packet.kind = Kind::FirstFragment;
        }
        return Ok(());
    }
    // At eight octets it would overwrite the flags of a TCP header (RFC 3128).
    if offset == 1 && packet.protocol == super::TCP {
        return Err(Reason::TinyFragment);
    }
    packet.kind = Kind::LaterFragment;
    Ok(())
}
