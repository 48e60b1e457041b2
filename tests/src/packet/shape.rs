//! One UDP datagram in the shapes a network may give it: plain, tagged, with IPv4 options or IPv6 extension
//! headers, in fragments. Owns the octets; sends nothing.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpHeaders, Ipv4Extensions, Ipv4Header, Ipv4Options,
    Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, SingleVlanHeader,
    UdpHeader, VlanId, ip_number,
};

/// VLAN that tagged frames carry.
pub const VLAN: u16 = 7;
/// Octets of the first fragment's payload: the UDP header and more, a multiple of eight.
const FIRST_FRAGMENT: usize = 16;
/// IPv6 padding option of four octets of data: PadN (RFC 8200, section 4.2).
const PAD: [u8; 6] = [1, 4, 0, 0, 0, 0];

/// What a datagram is wrapped in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Shape {
    /// Nothing more than it needs.
    Plain,
    /// An 802.1Q tag.
    Tagged,
    /// IPv4 options (three NOPs, end), or IPv6 hop-by-hop options.
    Options,
    /// IPv6 destination options; IPv4 as [`Self::Options`].
    Destination,
    /// Two fragments, in order.
    Fragments,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Tagged, Self::Options, Self::Destination, Self::Fragments];
}

/// A datagram on its way.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Hardware addresses, source then destination.
    pub hardware: [[u8; 6]; 2],
    /// Where it claims to come from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// Its frames in a shape: one, or two for fragments.
    ///
    /// # Panics
    /// When source and destination are of different families: a mistake in the story.
    pub fn frames(&self, shape: Shape) -> Vec<Vec<u8>> {
        let octets = self.octets();
        if shape != Shape::Fragments {
            return vec![self.frame(shape, None, &octets)];
        }
        let (first, rest) = octets.split_at(FIRST_FRAGMENT.min(octets.len()));
        vec![
            self.frame(shape, Some((0, true)), first),
            self.frame(shape, Some((FIRST_FRAGMENT as u16 / 8, false)), rest),
        ]
    }

    /// The frame of an ICMP error (destination unreachable) about this datagram: sent by its destination to its source,
    /// from the hardware address the datagram goes to.
    ///
    /// # Panics
    /// As [`Self::frames`].
    pub fn unreachable(&self) -> Vec<u8> {
        const HEADER: usize = 14;
        let about = &self.frame(Shape::Plain, None, &self.octets())[HEADER..];
        let [to, from] = self.hardware;
        let link = PacketBuilder::ethernet2(from, to);
        let mut frame = Vec::new();
        let written = match (self.destination.ip(), self.source.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                link.ipv4(a.octets(), b.octets(), 64).icmpv4_raw(3, 1, [0; 4]).write(&mut frame, about)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                link.ipv6(a.octets(), b.octets(), 64).icmpv6_raw(1, 0, [0; 4]).write(&mut frame, about)
            }
            _ => panic!("one datagram, two families"),
        };
        written.expect("a vector takes everything");
        frame
    }

    /// Header and payload.
    fn octets(&self) -> Vec<u8> {
        let (from, to) = (self.source.port(), self.destination.port());
        let header = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                UdpHeader::with_ipv4_checksum(from, to, &self.ipv4(a.octets(), b.octets()), self.payload)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                UdpHeader::with_ipv6_checksum(from, to, &ipv6(a.octets(), b.octets()), self.payload)
            }
            _ => panic!("one datagram, two families"),
        };
        let mut octets = header.expect("the payload is short").to_bytes().to_vec();
        octets.extend_from_slice(self.payload);
        octets
    }

    /// One frame; `fragment` is the offset in units of eight octets, and whether more follow.
    fn frame(&self, shape: Shape, fragment: Option<(u16, bool)>, part: &[u8]) -> Vec<u8> {
        let mut ip = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                self.headers_v4(shape, fragment, self.ipv4(a.octets(), b.octets()))
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => self.headers_v6(shape, fragment, ipv6(a.octets(), b.octets())),
            _ => panic!("one datagram, two families"),
        };
        ip.set_next_headers(ip_number::UDP);
        ip.set_payload_len(part.len()).expect("the payload is short");
        let ether_type = if self.source.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let [source, destination] = self.hardware;
        let outer = if shape == Shape::Tagged { EtherType::VLAN_TAGGED_FRAME } else { ether_type };
        let mut frame = Ethernet2Header { source, destination, ether_type: outer }.to_bytes().to_vec();
        if shape == Shape::Tagged {
            let vlan_id = VlanId::try_new(VLAN).expect("a VLAN number");
            frame.extend(SingleVlanHeader { vlan_id, ether_type, ..Default::default() }.to_bytes());
        }
        ip.write(&mut frame).expect("a vector takes everything");
        frame.extend_from_slice(part);
        frame
    }

    fn headers_v4(&self, shape: Shape, fragment: Option<(u16, bool)>, mut header: Ipv4Header) -> IpHeaders {
        if matches!(shape, Shape::Options | Shape::Destination) {
            header.options = Ipv4Options::from([1, 1, 1, 0]);
        }
        if let Some((offset, more)) = fragment {
            header.identification = self.identification();
            header.dont_fragment = false;
            header.more_fragments = more;
            header.fragment_offset = IpFragOffset::try_new(offset).expect("a small offset");
        }
        IpHeaders::Ipv4(header, Ipv4Extensions::default())
    }

    fn headers_v6(&self, shape: Shape, fragment: Option<(u16, bool)>, header: Ipv6Header) -> IpHeaders {
        let options = || Ipv6RawExtHeader::new_raw(ip_number::UDP, &PAD).ok();
        let extensions = Ipv6Extensions {
            hop_by_hop_options: options().filter(|_| shape == Shape::Options),
            destination_options: options().filter(|_| shape == Shape::Destination),
            fragment: fragment.map(|(offset, more_fragments)| Ipv6FragmentHeader {
                next_header: ip_number::UDP,
                fragment_offset: IpFragOffset::try_new(offset).expect("a small offset"),
                more_fragments,
                identification: self.identification().into(),
            }),
            ..Ipv6Extensions::default()
        };
        IpHeaders::Ipv6(header, extensions)
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4]) -> Ipv4Header {
        Ipv4Header::new(0, 64, ip_number::UDP, source, destination).expect("no payload is short enough")
    }

    /// The same for all fragments of one datagram, another for another destination.
    fn identification(&self) -> u16 {
        self.source.port() ^ self.destination.port().rotate_left(5)
    }
}

fn ipv6(source: [u8; 16], destination: [u8; 16]) -> Ipv6Header {
    Ipv6Header { hop_limit: 64, next_header: ip_number::UDP, source, destination, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketHeaders;

    #[test]
    fn every_shape_reads_as_the_datagram_it_was_made_from() {
        for [source, destination] in
            [["10.0.0.3:5000", "203.0.113.1:53"], ["[fd00::3]:5000", "[2001:db8::1]:53"]]
        {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let datagram = Datagram {
                hardware: [[2; 6], [4; 6]],
                source,
                destination,
                payload: b"a mark of some length",
            };
            for shape in Shape::ALL {
                let frames = datagram.frames(shape);
                assert_eq!(frames.len(), if shape == Shape::Fragments { 2 } else { 1 });
                let read = PacketHeaders::from_ethernet_slice(&frames[0]).unwrap();
                assert_eq!(read.link_exts.is_empty(), shape != Shape::Tagged, "{shape:?}");
                if shape != Shape::Fragments {
                    assert_eq!(read.transport.unwrap().udp().unwrap().destination_port, 53, "{shape:?}");
                }
            }
        }
    }
}
