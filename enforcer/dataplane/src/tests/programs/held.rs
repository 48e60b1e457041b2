//! Answers that the programs cannot read: with somebody who reads them, they teach what a short one would have taught
//! and reach the workload whole; without, they pass and teach nothing.

use super::dns::{NAMED, PORT, assert_learned, lab, names, resolver, workload_asks};
use super::messages::{Given, answer, octets, question, record};
use super::shapes::{Unusual, frame, udp};
use super::state::near;
use super::streams::Connection;
use super::{Lab, OK, SHOT};
use crate::tests::run;
use crate::{Event, HeldTotals, Holding, link};
use enforcer_common::abi::Counter;
use enforcer_common::event::DnsOutcome;
use hickory_proto::rr::RecordType;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Addresses of an answer that takes over 4,095 octets.
const MANY: u32 = 300;
/// Octets of a fragment's payload.
const PIECE: usize = 1_400;

fn given(count: u32) -> Vec<Given> {
    let first = u32::from(Ipv4Addr::new(203, 0, 113, 0));
    (0..count).map(|i| (IpAddr::from(Ipv4Addr::from(first + i)), 60)).collect()
}

/// The answer with this identifier that holds the first `count` addresses.
fn long(id: u16, count: u32) -> Vec<u8> {
    let records = given(count).iter().map(|(address, ttl)| record(NAMED, *ttl, *address)).collect();
    octets(&answer(&question(id, NAMED, RecordType::A), records))
}

/// A datagram in fragments.
fn fragments(v4: bool, message: &[u8]) -> Vec<Vec<u8>> {
    let datagram = udp(53, PORT, message);
    let pieces = datagram.octets.chunks(PIECE).count();
    let piece = |(i, octets): (usize, &[u8])| {
        let mut segment = datagram.clone();
        segment.octets = octets.to_vec();
        let offset = (i * PIECE / 8) as u16;
        let unusual = Unusual { fragment: Some((offset, i + 1 < pieces, 77)), ..Unusual::default() };
        frame(resolver(v4), near(v4), &unusual, &segment)
    };
    datagram.octets.chunks(PIECE).enumerate().map(piece).collect()
}

/// Somebody who reads what is held.
fn hold(lab: &Lab) -> (Holding, Receiver<Event<'static>>) {
    // Nothing but what is sent on may come to the workload.
    run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    run("ip link set a-peer up");
    let (tell, told) = channel();
    (lab.dataplane.hold(tell).expect("a device can be made"), told)
}

/// The next answer that was held: its outcome and how many addresses it taught.
fn next(told: &Receiver<Event<'static>>) -> (u32, u32, usize) {
    match told.recv_timeout(Duration::from_secs(10)) {
        Ok(Event::Dns { header, message }) => (header.outcome, header.learned, message.len()),
        other => panic!("{other:?}"),
    }
}

fn moved(lab: &mut Lab) -> BTreeMap<u32, u64> {
    lab.told();
    lab.counters_moved()
}

/// Waits until the workload's side of the interface has received so many packets.
fn received(lab: &Lab, count: u64) {
    let name = link::by_index(lab.interface).expect("it is there").expect("it is there").name;
    let statistic = || -> u64 {
        let all = std::fs::read_to_string("/proc/thread-self/net/dev").expect("statistics");
        let line = all.lines().find(|line| line.contains(&format!("{name}-peer:"))).expect("it is there");
        line.split_whitespace().nth(2).expect("packets").parse().expect("a number")
    };
    let until = Instant::now() + Duration::from_secs(10);
    while statistic() < count {
        assert!(Instant::now() < until, "{} packets of {count} came", statistic());
        std::thread::yield_now();
    }
    assert_eq!(statistic(), count);
}

#[test]
fn a_fragmented_answer_teaches_and_arrives() {
    for v4 in [true, false] {
        let mut lab = lab();
        let (holding, told) = hold(&lab);
        workload_asks_from(&mut lab, v4, 7);
        let message = long(7, MANY);
        let pieces = fragments(v4, &message);
        moved(&mut lab);
        for piece in &pieces {
            assert_eq!(lab.code(false, piece), SHOT);
        }
        assert_eq!(next(&told), (DnsOutcome::Learned as u32, MANY, message.len()));
        assert_learned(&lab, &given(MANY), names().automaton.class_of(NAMED));
        received(&lab, pieces.len() as u64);
        assert_eq!(moved(&mut lab), BTreeMap::from([(Counter::DnsHeld as u32, pieces.len() as u64)]));
        assert_eq!(
            holding.totals(),
            HeldTotals { answers: BTreeMap::from([(DnsOutcome::Learned, 1)]), ..HeldTotals::default() }
        );
    }
}

/// The workload asks over this family.
fn workload_asks_from(lab: &mut Lab, v4: bool, id: u16) {
    let asked = udp(PORT, 53, &octets(&question(id, NAMED, RecordType::A)));
    assert_eq!(lab.code(true, &super::shapes::plain(near(v4), resolver(v4), &asked)), OK);
}

#[test]
fn what_was_not_asked_teaches_nothing_and_arrives() {
    let mut lab = lab();
    let (_holding, told) = hold(&lab);
    workload_asks(&mut lab, &octets(&question(7, NAMED, RecordType::A)));
    let forged = long(8, MANY);
    let pieces = fragments(true, &forged);
    pieces.iter().for_each(|piece| assert_eq!(lab.code(false, piece), SHOT));
    assert_eq!(next(&told), (DnsOutcome::Unsolicited as u32, 0, forged.len()));
    received(&lab, pieces.len() as u64);
    // The true one, and the same once more: each question has one answer.
    for outcome in [DnsOutcome::Learned, DnsOutcome::Unsolicited] {
        fragments(true, &long(7, MANY)).iter().for_each(|piece| assert_eq!(lab.code(false, piece), SHOT));
        assert_eq!(next(&told).0, outcome as u32);
    }
    assert_learned(&lab, &given(MANY), names().automaton.class_of(NAMED));
}

#[test]
fn a_long_message_in_segments_teaches_and_so_do_its_neighbours() {
    let mut lab = lab();
    let (holding, told) = hold(&lab);
    let framed = |message: &[u8]| [&(message.len() as u16).to_be_bytes()[..], message].concat();
    let asked = |id| framed(&octets(&question(id, NAMED, RecordType::A)));
    let mut connection = Connection::open(&mut lab, true);
    assert_eq!(connection.send(true, 0, &[asked(1), asked(2), asked(3), asked(4)].concat()), OK);
    let long_ones = [long(2, MANY), long(3, MANY + 20)];
    let stream =
        [framed(&long(1, 2)), framed(&long_ones[0]), framed(&long_ones[1]), framed(&long(4, 1))].concat();
    let mut at = 0;
    let mut codes = Vec::new();
    for piece in stream.chunks(PIECE) {
        codes.push(connection.send(false, at, piece));
        at += piece.len();
    }
    assert_eq!(next(&told), (DnsOutcome::Learned as u32, MANY, long_ones[0].len()));
    assert_eq!(next(&told), (DnsOutcome::Learned as u32, MANY + 20, long_ones[1].len()));
    assert!(codes.iter().all(|code| *code == SHOT), "each has a piece of a long one: {codes:?}");
    let moved = moved(&mut lab);
    assert_eq!(moved.get(&(Counter::DnsAnswers as u32 + DnsOutcome::Learned as u32)), Some(&2));
    assert_eq!(moved.get(&(Counter::DnsHeld as u32)), Some(&(codes.len() as u64)));
    assert_learned(&lab, &given(MANY + 20), names().automaton.class_of(NAMED));
    // Repeated, each goes the same way, so that none overtakes what the agent has, and teaches nothing twice.
    let mut connection = Connection { lab: &mut lab, v4: true };
    for (number, piece) in stream.chunks(PIECE).enumerate() {
        assert_eq!(connection.send(false, number * PIECE, piece), SHOT);
    }
    received(&lab, 2 * codes.len() as u64);
    assert_eq!(told.try_iter().count(), 0);
    assert_eq!(holding.totals().given_up, 0);
}

#[test]
fn with_nobody_there_it_passes_and_teaches_nothing() {
    let mut lab = lab();
    workload_asks(&mut lab, &octets(&question(7, NAMED, RecordType::A)));
    let pieces = fragments(true, &long(7, MANY));
    let counted = |held: u64, unheld: u64, long: u64| {
        let all = [
            (Counter::DnsHeld as u32, held),
            (Counter::DnsUnheld as u32, unheld),
            (Counter::DnsAnswers as u32 + DnsOutcome::TooLong as u32, long),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>()
    };
    let count = pieces.len() as u64;
    let give = |lab: &mut Lab, code| {
        moved(lab);
        pieces.iter().for_each(|piece| assert_eq!(lab.code(false, piece), code));
        moved(lab)
    };
    // Never there, gone again, and a lease that ran out while the device is still there.
    assert_eq!(give(&mut lab, OK), counted(0, count, 1));
    let (holding, told) = hold(&lab);
    drop(holding);
    assert_eq!(give(&mut lab, OK), counted(0, count, 1));
    assert_eq!(told.try_iter().count(), 0);
    let holder = &lab.dataplane.maps.holder;
    let gone = enforcer_common::abi::Holder { interface: u32::MAX >> 1, padding: 0, until: u64::MAX };
    holder.set(&0, &gone).expect("it can be written");
    assert_eq!(give(&mut lab, OK), counted(0, count, 1));
    let expired = enforcer_common::abi::Holder { interface: lab.interface, padding: 0, until: 1 };
    lab.dataplane.maps.holder.set(&0, &expired).expect("it can be written");
    assert_eq!(give(&mut lab, OK), counted(0, count, 1));
    assert!(lab.dataplane.learned().expect("maps can be read").is_empty());
}
