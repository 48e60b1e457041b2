//! Queries of a workload that may ask for listed names only: what is listed goes on, the rest is answered with REFUSED in
//! the resolver's name or, over TCP, reset; what cannot be read does not pass.

use super::dns::{NAMED, PORT, names, resolver};
use super::messages::{answer, octets, question, record};
use super::plans::address;
use super::shapes::{plain, udp};
use super::state::{near, row, ruled};
use super::streams::Connection;
use super::{Lab, OK, REDIRECT, SHOT};
use enforcer_common::abi::Counter;
use enforcer_common::event::DnsOutcome;
use enforcer_common::policy::{Action, LIST_PROTOCOL, LISTED, Mode};
use enforcer_common::verdict::Reason;
use enforcer_core::fqdn::automaton::Names;
use enforcer_core::plan::{Plan, Row};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::RecordType;
use std::net::IpAddr;

/// DNS is allowed over both transports, for the names of one class.
fn listed(mode: Mode) -> Plan {
    let Names { automaton, patterns } = names();
    let class = automaton.class_of(NAMED);
    let limited = |protocol| {
        let allowed = row(protocol, 53, Action::Allow);
        Row { rule: enforcer_common::policy::Rule { queries: 1, ..allowed.rule }, ..allowed }
    };
    let entry = row(LIST_PROTOCOL, 1, Action::Allow);
    let entry =
        Row { peer: class, rule: enforcer_common::policy::Rule { action: LISTED, ..entry.rule }, ..entry };
    Plan { names: automaton, patterns, ..ruled(mode, &[limited(6), limited(17), entry], &[]) }
}

pub(super) fn lab(mode: Mode) -> Lab {
    let mut lab = Lab::with(&listed(mode));
    lab.dataplane.set_resolvers(&[resolver(true), resolver(false)]).expect("they fit");
    lab
}

fn asks(lab: &mut Lab, v4: bool, message: &[u8]) -> (i32, Vec<u8>) {
    lab.run(true, &plain(near(v4), resolver(v4), &udp(PORT, 53, message)))
}

/// The message in a datagram from the resolver to the workload whose checksums are right.
fn refusal(v4: bool, packet: &[u8]) -> Message {
    let sliced = SlicedPacket::from_ethernet(packet).expect("a packet");
    let Some(TransportSlice::Udp(udp)) = &sliced.transport else { panic!("{sliced:?}") };
    assert_eq!((udp.source_port(), udp.destination_port()), (53, PORT));
    let header = udp.to_header();
    let (from, to, sum): (IpAddr, IpAddr, _) = match sliced.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header();
            assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
            let sum = header.calc_checksum_ipv4_raw(ip.source(), ip.destination(), udp.payload());
            (ip.source_addr().into(), ip.destination_addr().into(), sum)
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header();
            let sum = header.calc_checksum_ipv6_raw(ip.source(), ip.destination(), udp.payload());
            (ip.source_addr().into(), ip.destination_addr().into(), sum)
        }
        NetSlice::Arp(_) => panic!("no datagram"),
    };
    assert_eq!((from, to), (resolver(v4), near(v4)));
    assert_eq!(udp.checksum(), sum.expect("it is short"));
    Message::from_vec(udp.payload()).expect("a message")
}

fn long_name() -> String {
    [&"x".repeat(63), &"y".repeat(63), &"z".repeat(63), &"w".repeat(61)]
        .map(|label| format!("{label}."))
        .concat()
}

#[test]
fn a_listed_name_is_asked_for_and_another_is_refused_at_once() {
    let mut lab = lab(Mode::Enforce);
    for v4 in [true, false] {
        for (asked, is_listed) in [
            (NAMED, true),
            ("EXACT.example.", true),
            ("a.wild.example.", false),
            ("x.", false),
            (&long_name(), false),
        ] {
            let query = question(7, asked, RecordType::AAAA);
            let (code, packet) = asks(&mut lab, v4, &octets(&query));
            assert_eq!(code, if is_listed { OK } else { REDIRECT }, "{asked}");
            if is_listed {
                continue;
            }
            let reply = refusal(v4, &packet);
            assert_eq!(reply.metadata.message_type, MessageType::Response);
            assert_eq!((reply.metadata.id, reply.metadata.response_code), (7, ResponseCode::Refused));
            assert_eq!(reply.queries, query.queries);
            assert!(reply.answers.is_empty() && reply.additionals.is_empty());
            // On its way to the workload it is known for what it is.
            lab.told();
            lab.answers.clear();
            lab.counters_moved();
            assert_eq!(lab.code(false, &packet), OK);
            lab.told();
            assert_eq!(lab.answers.pop().map(|told| told.outcome), Some(DnsOutcome::Refused as u32));
            let index = Counter::DnsAnswers as u32 + DnsOutcome::Refused as u32;
            assert_eq!(lab.counters_moved(), [(index, 1)].into());
        }
    }
}

#[test]
fn an_answer_to_a_listed_name_is_learned_as_ever() {
    let mut lab = lab(Mode::Enforce);
    let query = question(7, NAMED, RecordType::A);
    assert_eq!(asks(&mut lab, true, &octets(&query)).0, OK);
    let reply = octets(&answer(&query, vec![record(NAMED, 60, address("203.0.113.1"))]));
    assert_eq!(lab.code(false, &plain(resolver(true), near(true), &udp(53, PORT, &reply))), OK);
    super::dns::assert_learned(&lab, &[(address("203.0.113.1"), 60)], names().automaton.class_of(NAMED));
}

#[test]
fn what_cannot_be_read_does_not_pass() {
    let mut lab = lab(Mode::Enforce);
    let mut two = question(7, NAMED, RecordType::A);
    two.add_query(question(7, "x.", RecordType::A).queries[0].clone());
    let response = answer(&question(7, NAMED, RecordType::A), Vec::new());
    for message in [&octets(&two)[..], &octets(&response), b"tunnel", &[0; 40]] {
        lab.counters_moved();
        assert_eq!(asks(&mut lab, true, message).0, SHOT);
        assert_eq!(lab.counters_moved(), [(Reason::DnsUnreadQuery as u32, 1)].into());
    }
}

#[test]
fn a_namespace_that_observes_limits_nothing() {
    let mut lab = lab(Mode::Observe);
    assert_eq!(asks(&mut lab, true, &octets(&question(7, "x.", RecordType::A))).0, OK);
}

#[test]
fn over_tcp_the_connection_goes_with_the_query() {
    let mut lab = lab(Mode::Enforce);
    let framed = |message: &[u8]| [&(message.len() as u16).to_be_bytes()[..], message].concat();
    let good = framed(&octets(&question(7, NAMED, RecordType::A)));
    let bad = framed(&octets(&question(8, "x.", RecordType::A)));
    let mut connection = Connection::open(&mut lab, true);
    assert_eq!(connection.send(true, 0, &good), OK);
    // In two pieces: the second completes it.
    assert_eq!(connection.send(true, good.len(), &bad[..9]), OK);
    assert_eq!(connection.send(true, good.len() + 9, &bad[9..]), REDIRECT);
    lab.told();
    assert_eq!(lab.answers.pop().map(|told| told.outcome), Some(DnsOutcome::Refused as u32));
    // A connection that is not followed might ask for anything.
    lab.forget();
    super::clear(&lab.dataplane.maps.streams);
    let mut unseen = Connection { lab: &mut lab, v4: true };
    assert_eq!(unseen.send(true, 0, &good), SHOT);
}
