//! Packets of every layout: headers by an independent library or by hand, put together piece by piece. Knows nothing
//! of what becomes of them.

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, TcpHeader, UdpHeader};
use std::net::IpAddr;

/// Link address of the workload.
pub(super) const NEAR: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Link address of everybody else.
pub(super) const FAR: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A transport header with its protocol number, and what follows it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) protocol: u8,
    pub(super) octets: Vec<u8>,
}

/// A TCP header with these flags (as in its fourteenth octet) and `payload` octets.
pub(super) fn tcp(source: u16, destination: u16, flags: u8, payload: usize) -> Segment {
    let mut header = TcpHeader::new(source, destination, 1000, 64240);
    header.acknowledgment_number = 2000;
    let mut octets = header.to_bytes().to_vec();
    octets[13] = flags;
    octets.resize(octets.len() + payload, 0x55);
    Segment { protocol: 6, octets }
}

/// A UDP datagram.
pub(super) fn udp(source: u16, destination: u16, payload: &[u8]) -> Segment {
    let length = 8 + payload.len() as u16;
    let header = UdpHeader { source_port: source, destination_port: destination, length, checksum: 0 };
    Segment { protocol: 17, octets: [&header.to_bytes()[..], payload].concat() }
}

/// An SCTP common header with four octets of a chunk.
pub(super) fn sctp(source: u16, destination: u16) -> Segment {
    let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    Segment { protocol: 132, octets: [&ports[..], &[0; 12]].concat() }
}

/// An ICMP message of the family of `v4`.
pub(super) fn icmp(v4: bool, kind: u8, code: u8, identifier: u16, payload: &[u8]) -> Segment {
    let id = identifier.to_be_bytes();
    let header = [kind, code, 0, 0, id[0], id[1], 0, 1];
    Segment { protocol: if v4 { 1 } else { 58 }, octets: [&header[..], payload].concat() }
}

/// What of an IP packet is unusual.
#[derive(Clone, Default, Debug)]
pub(super) struct Unusual {
    /// VLAN tags.
    pub(super) tags: usize,
    /// Words of IPv4 options.
    pub(super) option_words: usize,
    /// IPv6 extension headers, by type, in order.
    pub(super) extensions: Vec<u8>,
    /// Offset in units of eight octets, whether more follow, identification.
    pub(super) fragment: Option<(u16, bool, u16)>,
    /// Hop limit or TTL where it is not 64.
    pub(super) hops: Option<u8>,
}

/// An IP packet in its Ethernet frame.
pub(super) fn frame(source: IpAddr, destination: IpAddr, unusual: &Unusual, segment: &Segment) -> Vec<u8> {
    let (ethertype, packet) = ip(source, destination, unusual, segment);
    let tags = [0x81_u8, 0, 0, 7].repeat(unusual.tags);
    [&FAR[..], &NEAR, &tags, &ethertype, &packet].concat()
}

/// A packet of the common layout.
pub(super) fn plain(source: IpAddr, destination: IpAddr, segment: &Segment) -> Vec<u8> {
    frame(source, destination, &Unusual::default(), segment)
}

/// An IP packet without a frame, and its EtherType.
pub(super) fn ip(
    source: IpAddr,
    destination: IpAddr,
    unusual: &Unusual,
    segment: &Segment,
) -> ([u8; 2], Vec<u8>) {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ([0x08, 0x00], v4(source.octets(), destination.octets(), unusual, segment))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ([0x86, 0xdd], v6(source.octets(), destination.octets(), unusual, segment))
        }
        _ => panic!("{source} and {destination} are of two families"),
    }
}

fn v4(source: [u8; 4], destination: [u8; 4], unusual: &Unusual, segment: &Segment) -> Vec<u8> {
    let length = segment.octets.len() as u16;
    let hops = unusual.hops.unwrap_or(64);
    let mut header = Ipv4Header::new(length, hops, IpNumber(segment.protocol), source, destination)
        .expect("it is short enough");
    let options = vec![1; 4 * unusual.option_words];
    header.options = Ipv4Options::try_from(&options[..]).expect("at most ten words");
    header.total_len += options.len() as u16;
    if let Some((offset, more, identification)) = unusual.fragment {
        header.dont_fragment = false;
        header.fragment_offset = IpFragOffset::try_new(offset).expect("thirteen bits");
        header.more_fragments = more;
        header.identification = identification;
    }
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], &segment.octets].concat()
}

fn v6(source: [u8; 16], destination: [u8; 16], unusual: &Unusual, segment: &Segment) -> Vec<u8> {
    let mut types = unusual.extensions.clone();
    if unusual.fragment.is_some() {
        types.push(44);
    }
    types.push(segment.protocol);
    let extensions: Vec<u8> =
        types.windows(2).flat_map(|pair| extension(pair[0], pair[1], unusual.fragment)).collect();
    let header = Ipv6Header {
        payload_length: (extensions.len() + segment.octets.len()) as u16,
        next_header: IpNumber(types[0]),
        hop_limit: unusual.hops.unwrap_or(64),
        source,
        destination,
        ..Ipv6Header::default()
    };
    [&header.to_bytes()[..], &extensions, &segment.octets].concat()
}

fn extension(kind: u8, next: u8, fragment: Option<(u16, bool, u16)>) -> Vec<u8> {
    match kind {
        44 => {
            let (offset, more, identification) = fragment.unwrap_or_default();
            let field = (offset << 3 | u16::from(more)).to_be_bytes();
            let id = identification.to_be_bytes();
            vec![next, 0, field[0], field[1], 0, 0, id[0], id[1]]
        }
        51 => [&[next, 2][..], &[0; 14]].concat(),
        // Type 2 with no segments left: the only kind of routing header that is let through.
        43 => vec![next, 0, 2, 0, 0, 0, 0, 0],
        _ => vec![next, 0, 1, 4, 0, 0, 0, 0],
    }
}

/// An ICMP error of `sender` about a packet, which `error` quotes.
pub(super) fn error(sender: IpAddr, towards: IpAddr, about: &[u8], kind: u8, code: u8) -> Vec<u8> {
    plain(sender, towards, &icmp(sender.is_ipv4(), kind, code, 0, about))
}

/// An ARP request for `target` that claims to come from `sender`.
pub(super) fn arp(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &NEAR, &[8, 6], &head, &NEAR, &sender, &[0; 6], &target].concat()
}
