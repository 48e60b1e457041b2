//! The readers against packets built by an independent library, and against each other.

use super::{ICMP, ICMPV6, Kind, Linear, Octets, Packet, SCTP, TCP, UDP, quick, read};
use crate::address::Address;
use crate::verdict::Reason;
use etherparse::{EtherType, IcmpEchoHeader, Icmpv4Type, Icmpv6Type, PacketBuilder, VlanId};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::{Just, Strategy};

#[derive(Debug)]
struct Bytes(Vec<u8>);

impl Octets for Bytes {
    fn length(&self) -> u32 {
        self.0.len() as u32
    }
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.0.get(at as usize..at as usize + N)?.try_into().ok()
    }
}

impl Linear for Bytes {
    fn length(&self) -> u32 {
        self.0.len() as u32
    }
    fn octet(&self, at: u32) -> Option<u8> {
        self.0.get(at as usize).copied()
    }
    fn half(&self, at: u32) -> Option<u16> {
        self.load(at).map(u16::from_ne_bytes)
    }
    fn word(&self, at: u32) -> Option<u32> {
        self.load(at).map(u32::from_ne_bytes)
    }
}

const A4: [u8; 4] = [10, 0, 0, 1];
const B4: [u8; 4] = [203, 0, 113, 7];
const A6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const B6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::new();
    write(&mut out);
    Bytes(out)
}

fn tcp_syn_v4() -> Bytes {
    written(|out| ethernet().ipv4(A4, B4, 64).tcp(40000, 443, 1, 64240).syn().write(out, b"").unwrap())
}

fn expect(packet: &Packet, protocol: u8, ports: (u16, u16), service: u16, kind: Kind) {
    assert_eq!((packet.protocol, packet.source_port, packet.destination_port), (protocol, ports.0, ports.1));
    assert_eq!((packet.service, packet.kind), (service, kind));
}

#[test]
fn both_readers_agree_on_the_common_layout() {
    let udp6 = written(|out| ethernet().ipv6(A6, B6, 64).udp(5353, 53).write(out, b"query").unwrap());
    for bytes in [tcp_syn_v4(), udp6] {
        let slow = read(&bytes).unwrap();
        assert_eq!(quick(&bytes), Some(slow));
        assert_eq!(slow.end as usize, bytes.0.len());
    }
}

#[test]
fn vlan_tags_are_followed() {
    let single = written(|out| {
        let vlan = ethernet().single_vlan(VlanId::try_new(7).unwrap());
        vlan.ipv4(A4, B4, 64).udp(1, 2).write(out, b"").unwrap();
    });
    let double = written(|out| {
        let vlan = ethernet().double_vlan(VlanId::try_new(7).unwrap(), VlanId::try_new(8).unwrap());
        vlan.ipv6(A6, B6, 64).udp(1, 2).write(out, b"").unwrap();
    });
    for bytes in [single, double] {
        expect(&read(&bytes).unwrap(), UDP, (1, 2), 2, Kind::Whole);
        assert_eq!(quick(&bytes), None);
    }
    let mut triple = vec![0; 12];
    triple.extend([0x81, 0, 0, 1].repeat(3));
    triple.extend([8, 0]);
    assert_eq!(read(&Bytes(triple)), Err(Reason::TooManyHeaders));
}

#[test]
fn echoes_name_the_side_that_asks() {
    let echo = IcmpEchoHeader { id: 77, seq: 1 };
    let ask4 =
        written(|o| ethernet().ipv4(A4, B4, 64).icmpv4(Icmpv4Type::EchoRequest(echo)).write(o, b"").unwrap());
    let answer6 =
        written(|o| ethernet().ipv6(A6, B6, 64).icmpv6(Icmpv6Type::EchoReply(echo)).write(o, b"").unwrap());
    expect(&read(&ask4).unwrap(), ICMP, (77, 0), 8 << 8, Kind::Whole);
    expect(&read(&answer6).unwrap(), ICMPV6, (0, 77), 129 << 8, Kind::Whole);
}

#[test]
fn an_error_belongs_to_the_flow_in_its_inner_header() {
    let inner = tcp_syn_v4().0[14..].to_vec();
    let header = etherparse::icmpv4::DestUnreachableHeader::Port;
    let bytes = written(|out| {
        let step = ethernet().ipv4([192, 0, 2, 1], A4, 64).icmpv4(Icmpv4Type::DestinationUnreachable(header));
        step.write(out, &inner).unwrap();
    });
    let packet = read(&bytes).unwrap();
    expect(&packet, TCP, (443, 40000), 0, Kind::IcmpError);
    assert_eq!((packet.source, packet.destination), (Address::v4(B4), Address::v4(A4)));
    assert_eq!(packet.sender, Address::v4([192, 0, 2, 1]));
}

#[test]
fn fragments_are_told_apart() {
    let mut first = tcp_syn_v4().0;
    first[20] = 0x20;
    first[18..20].copy_from_slice(&[0xab, 0xcd]);
    let packet = read(&Bytes(first.clone())).unwrap();
    expect(&packet, TCP, (40000, 443), 443, Kind::FirstFragment);
    assert_eq!(packet.identification, 0xabcd);
    let mut later = first.clone();
    later[20..22].copy_from_slice(&[0, 3]);
    expect(&read(&Bytes(later.clone())).unwrap(), TCP, (0, 0), 0, Kind::LaterFragment);
    later[21] = 1;
    assert_eq!(read(&Bytes(later)), Err(Reason::TinyFragment));
    first[16..18].copy_from_slice(&[0, 28]);
    assert_eq!(read(&Bytes(first)), Err(Reason::TinyFragment));
}

/// An IPv6 packet whose extension chain is written by hand: `(type, body)` pairs, then UDP.
fn v6_with(extensions: &[(u8, &[u8])]) -> Bytes {
    let udp = [0x14, 0xe9, 0, 53, 0, 8, 0, 0];
    let mut chain = Vec::new();
    for (i, (_, body)) in extensions.iter().enumerate() {
        chain.push(extensions.get(i + 1).map_or(UDP, |next| next.0));
        chain.extend_from_slice(body);
    }
    let mut out = vec![0; 12];
    out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    out.extend(((chain.len() + udp.len()) as u16).to_be_bytes());
    out.extend([extensions.first().map_or(UDP, |first| first.0), 64]);
    out.extend(A6);
    out.extend(B6);
    out.extend(chain);
    out.extend(udp);
    Bytes(out)
}

#[test]
fn extension_headers_are_followed_and_the_withdrawn_refused() {
    let options: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
    let authentication: &[u8] = &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let chain = v6_with(&[(0, options), (60, options), (51, authentication), (43, &[0, 2, 0, 0, 0, 0, 0])]);
    expect(&read(&chain).unwrap(), UDP, (5353, 53), 53, Kind::Whole);
    assert_eq!(read(&v6_with(&[(43, &[0, 0, 0, 0, 0, 0, 0])])), Err(Reason::RoutingHeader));
    assert_eq!(read(&v6_with(&[(43, &[0, 4, 1, 0, 0, 0, 0])])), Err(Reason::RoutingHeader));
    assert_eq!(read(&v6_with(&[(60, options); 9])), Err(Reason::TooManyHeaders));
    let first = v6_with(&[(44, &[0, 0, 1, 0, 0, 0, 9])]);
    expect(&read(&first).unwrap(), UDP, (5353, 53), 53, Kind::FirstFragment);
    let later = read(&v6_with(&[(44, &[0, 0, 8, 0, 0, 0, 9])])).unwrap();
    assert_eq!((later.kind, later.identification), (Kind::LaterFragment, 9));
}

#[test]
fn neighbour_discovery_must_come_from_the_link() {
    let mut bytes = v6_with(&[]).0;
    bytes[20] = ICMPV6;
    bytes[54..62].copy_from_slice(&[135, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(read(&Bytes(bytes.clone())), Err(Reason::BadTransportHeader));
    bytes[21] = 255;
    assert_eq!(read(&Bytes(bytes.clone())).unwrap().kind, Kind::LinkControl);
    bytes[54] = 134;
    assert_eq!(read(&Bytes(bytes)).unwrap().kind, Kind::RouterControl);
}

#[test]
fn broken_headers_have_their_reason() {
    let broken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = tcp_syn_v4().0;
        change(&mut bytes);
        read(&Bytes(bytes)).unwrap_err()
    };
    assert_eq!(broken(&|b| b.truncate(20)), Reason::Truncated);
    assert_eq!(broken(&|b| b.truncate(50)), Reason::Truncated);
    assert_eq!(broken(&|b| b[14] = 0x55), Reason::BadIpHeader);
    assert_eq!(broken(&|b| b[14] = 0x44), Reason::BadIpHeader);
    assert_eq!(broken(&|b| b[17] = 10), Reason::BadIpHeader);
    assert_eq!(broken(&|b| b[46] = 0x40), Reason::BadTransportHeader);
    assert_eq!(broken(&|b| b[47] = 0x03), Reason::BadTransportHeader);
    assert_eq!(broken(&|b| b[12] = 0x12), Reason::UnknownEtherType);
}

fn flow_packet() -> impl Strategy<Value = Bytes> {
    let payload = proptest::collection::vec(any::<u8>(), 0..64);
    let protocol = prop_oneof![Just(TCP), Just(UDP), Just(SCTP)];
    (any::<bool>(), protocol, any::<u16>(), any::<u16>(), payload).prop_map(
        |(v4, protocol, a, b, payload)| {
            written(|out| {
                let network = if v4 { ethernet().ipv4(A4, B4, 64) } else { ethernet().ipv6(A6, B6, 64) };
                match protocol {
                    TCP => network.tcp(a, b, 1, 2).ack(3).write(out, &payload).unwrap(),
                    UDP => network.udp(a, b).write(out, &payload).unwrap(),
                    _ => {
                        let mut sctp = [a.to_be_bytes(), b.to_be_bytes()].concat();
                        sctp.extend([0; 8]);
                        sctp.extend(payload);
                        network.write(out, etherparse::IpNumber(SCTP), &sctp).unwrap();
                    }
                }
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever the quick reader accepts, of packets with some octets overwritten, the full one reads alike.
    #[test]
    fn quick_never_differs_from_read(
        mut bytes in flow_packet(),
        changes in proptest::collection::vec((0_usize..80, any::<u8>()), 0..4),
        cut in 0_usize..12,
    ) {
        for (at, octet) in changes {
            if let Some(place) = bytes.0.get_mut(at) {
                *place = octet;
            }
        }
        bytes.0.truncate(bytes.0.len().saturating_sub(cut.saturating_sub(6)));
        if let Some(packet) = quick(&bytes) {
            prop_assert_eq!(read(&bytes), Ok(packet));
        }
    }

    /// No octets make a reader panic or read beyond the packet.
    #[test]
    fn any_octets_are_survived(octets in proptest::collection::vec(any::<u8>(), 0..120), v4 in any::<bool>()) {
        let mut octets = octets;
        if octets.len() > 14 {
            octets[12..15].copy_from_slice(if v4 { &[8, 0, 0x45] } else { &[0x86, 0xdd, 0x60] });
        }
        let bytes = Bytes(octets);
        if let Ok(packet) = read(&bytes) {
            prop_assert_eq!(packet.end as usize <= bytes.0.len(), true);
        }
    }

    /// An independent library reads the same ports and protocol.
    #[test]
    fn etherparse_agrees(bytes in flow_packet()) {
        let packet = read(&bytes).unwrap();
        let sliced = etherparse::SlicedPacket::from_ethernet(&bytes.0).unwrap();
        let ports = match sliced.transport {
            Some(etherparse::TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
            Some(etherparse::TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
            _ => (packet.source_port, packet.destination_port),
        };
        prop_assert_eq!((packet.source_port, packet.destination_port), ports);
        prop_assert_eq!(sliced.link.is_some(), true);
        prop_assert_eq!(EtherType::IPV4.0 == u16::from_be_bytes([bytes.0[12], bytes.0[13]]), packet.source.is_v4());
    }
}
