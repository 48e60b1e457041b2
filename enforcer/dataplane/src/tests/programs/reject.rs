//! Answers to rejected packets, octet by octet as far as they matter, and their way out.

use super::shapes::{FAR, NEAR, Segment, Unusual, frame, icmp, plain, tcp, udp};
use super::state::{far, near, row, ruled};
use super::{Lab, OK, REDIRECT, SHOT};
use enforcer_common::policy::{Action, Mode};
use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice};
use std::net::IpAddr;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;
const RST_ACK: u8 = 0x14;

/// Rejects TCP and UDP port 9 in both directions, and echoes.
fn lab() -> Lab {
    let echo = |v4: bool| row(if v4 { 1 } else { 58 }, if v4 { 8 << 8 } else { 128 << 8 }, Action::Reject);
    let rows = [row(6, 9, Action::Reject), row(17, 9, Action::Reject), echo(true), echo(false)];
    Lab::with(&ruled(Mode::Enforce, &rows, &rows))
}

/// Source and destination of a packet whose IP header is in order.
fn ends(sliced: &SlicedPacket<'_>) -> (IpAddr, IpAddr) {
    match sliced.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(v4) => {
            let header = v4.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            assert_eq!((header.ttl(), header.dont_fragment()), (64, true));
            (header.source_addr().into(), header.destination_addr().into())
        }
        NetSlice::Ipv6(v6) => {
            assert_eq!(v6.header().hop_limit(), 64);
            (v6.header().source_addr().into(), v6.header().destination_addr().into())
        }
        NetSlice::Arp(_) => panic!("ARP is not rejected"),
    }
}

/// A TCP segment whose checksum is right.
fn checked<'a>(sliced: &'a SlicedPacket<'_>) -> &'a TcpSlice<'a> {
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("{sliced:?}") };
    let sum = match sliced.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(v4) => tcp.calc_checksum_ipv4(v4.header().source(), v4.header().destination()),
        NetSlice::Ipv6(v6) => tcp.calc_checksum_ipv6(v6.header().source(), v6.header().destination()),
        NetSlice::Arp(_) => panic!("ARP has no ports"),
    };
    assert_eq!(tcp.checksum(), sum.expect("it is short"));
    tcp
}

/// Who sends a packet in this direction, and who gets it.
fn sides(v4: bool, from_workload: bool) -> (IpAddr, IpAddr) {
    if from_workload { (near(v4), far(v4)) } else { (far(v4), near(v4)) }
}

/// Rejects a packet and returns its answer, which the other program lets pass and does not answer.
fn answer(lab: &mut Lab, v4: bool, from_workload: bool, segment: &Segment) -> Vec<u8> {
    let (source, destination) = sides(v4, from_workload);
    let refused = plain(source, destination, segment);
    // The second time the refusal is known already; its answer is the same.
    let (code, octets) = lab.run(from_workload, &refused);
    assert_eq!(code, REDIRECT);
    assert_eq!(lab.run(from_workload, &refused), (REDIRECT, octets.clone()));
    assert_eq!((&octets[..6], &octets[6..12]), (&NEAR[..], &FAR[..]), "link addresses are swapped");
    assert_eq!(octets[12..14], refused[12..14]);
    assert_eq!(lab.code(!from_workload, &octets), OK, "it reaches the one who was refused");
    octets
}

#[test]
fn tcp_is_answered_by_a_reset() {
    let mut lab = lab();
    // Flags and payload of the refused; flags, sequence and acknowledgement of the answer.
    let cases = [
        (SYN, 0, RST_ACK, 0, 1001),
        (SYN, 7, RST_ACK, 0, 1008),
        (ACK, 5, RST, 2000, 0),
        (FIN_ACK, 0, RST, 2000, 0),
    ];
    for (v4, from_workload) in [(true, true), (true, false), (false, true), (false, false)] {
        for (flags, payload, answered, sequence, acknowledged) in cases {
            let octets = answer(&mut lab, v4, from_workload, &tcp(40_000, 9, flags, payload));
            assert_eq!(octets.len(), if v4 { 54 } else { 74 });
            let sliced = SlicedPacket::from_ethernet(&octets).expect("it is whole");
            let (source, destination) = sides(v4, from_workload);
            assert_eq!(ends(&sliced), (destination, source));
            let tcp = checked(&sliced);
            assert_eq!((tcp.source_port(), tcp.destination_port()), (9, 40_000));
            assert_eq!(octets[octets.len() - 7], answered);
            assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (sequence, acknowledged));
            assert_eq!((tcp.window_size(), tcp.payload().len()), (0, 0));
        }
    }
}

#[test]
fn everything_else_is_answered_by_an_icmp_error() {
    let mut lab = lab();
    for (v4, from_workload) in [(true, true), (true, false), (false, true), (false, false)] {
        let echo = icmp(v4, if v4 { 8 } else { 128 }, 0, 77, &[1; 300]);
        for segment in [udp(1000, 9, &[3; 500]), udp(1000, 9, b""), udp(1000, 9, b"odd"), echo] {
            let octets = answer(&mut lab, v4, from_workload, &segment);
            let sliced = SlicedPacket::from_ethernet(&octets).expect("it is whole");
            let (source, destination) = sides(v4, from_workload);
            assert_eq!(ends(&sliced), (destination, source));
            let refused = plain(source, destination, &segment);
            let header = if v4 { 20 } else { 40 };
            let quoted = &refused[14..14 + header + 8];
            match (&sliced.transport, &sliced.net) {
                (Some(TransportSlice::Icmpv4(icmp)), _) => {
                    assert_eq!((icmp.type_u8(), icmp.code_u8(), icmp.payload()), (3, 13, quoted));
                    let sum = icmp.icmp_type().calc_checksum(icmp.payload());
                    assert_eq!(icmp.checksum(), sum);
                }
                (Some(TransportSlice::Icmpv6(icmp)), Some(NetSlice::Ipv6(v6))) => {
                    assert_eq!((icmp.type_u8(), icmp.code_u8(), icmp.payload()), (1, 1, quoted));
                    assert!(icmp.is_checksum_valid(v6.header().source(), v6.header().destination()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn some_packets_are_dropped_without_an_answer() {
    let mut lab = lab();
    let out = |unusual: &Unusual, segment: &Segment| frame(near(true), far(true), unusual, segment);
    let usual = Unusual::default();
    let options = Unusual { option_words: 1, ..Unusual::default() };
    assert_eq!(lab.code(true, &out(&usual, &tcp(1, 9, RST, 0))), SHOT);
    assert_eq!(lab.code(true, &out(&usual, &tcp(1, 9, RST, 0))), SHOT);
    assert_eq!(lab.code(true, &out(&options, &tcp(2, 9, SYN, 0))), SHOT);
    let mut to_group = out(&usual, &udp(3, 9, b"who is there"));
    to_group[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 0xfb]);
    assert_eq!(lab.code(true, &to_group), SHOT);
    let extended = Unusual { extensions: vec![60], ..Unusual::default() };
    assert_eq!(lab.code(true, &frame(near(false), far(false), &extended, &udp(4, 9, b""))), SHOT);
    assert_eq!(lab.refusals().len(), 4);
    // In a VLAN they are answered as anywhere.
    let tagged = Unusual { tags: 1, ..Unusual::default() };
    let (code, octets) = lab.run(true, &out(&tagged, &tcp(5, 9, SYN, 0)));
    assert_eq!(code, REDIRECT);
    let sliced = SlicedPacket::from_ethernet(&octets).expect("it is whole");
    assert_eq!((ends(&sliced), sliced.link_exts.len()), ((far(true), near(true)), 1));
    assert_eq!(checked(&sliced).acknowledgment_number(), 1001);
}

#[test]
fn an_answer_that_nobody_asked_for_does_not_pass() {
    let mut lab = lab();
    let reset = plain(far(true), near(true), &tcp(9, 40_000, RST_ACK, 0));
    assert_eq!(lab.code(false, &reset), SHOT);
    lab.forget_flows();
    let (_, octets) = lab.run(true, &plain(near(true), far(true), &tcp(40_000, 9, SYN, 0)));
    assert_eq!(lab.code(false, &octets), OK);
    // Only what tells of a refusal passes, not what it was about.
    assert_eq!(lab.code(false, &plain(far(true), near(true), &tcp(9, 40_000, ACK, 0))), SHOT);
    // And not out of the workload's own mouth.
    assert_eq!(lab.code(true, &plain(near(true), far(true), &tcp(40_000, 9, RST_ACK, 0))), SHOT);
}
