//! DNS over TCP through the programs: however a conversation is cut into segments, the same is learned; what a
//! segment seems to begin with is nothing unless a message begins there.

use super::dns::{NAMED, PORT, assert_learned, lab, names, resolver};
use super::messages::{Given, answer, octets, question, record};
use super::plans::address;
use super::shapes::{Segment, plain, tcp};
use super::state::near;
use super::{Lab, OK, SHOT, runner};
use enforcer_common::abi::{Counter, MAX_DNS_MESSAGE};
use enforcer_common::event::DnsOutcome;
use enforcer_common::flow::tcp::{ACK, SYN};
use enforcer_common::verdict::Reason;
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use proptest::sample::Index;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// First sequence number of the workload and of the resolver: the second wraps.
const FIRST: [u32; 2] = [1_000, u32::MAX - 20];

/// One connection, seen at the interface.
pub(super) struct Connection<'a> {
    pub(super) lab: &'a mut Lab,
    pub(super) v4: bool,
}

impl<'a> Connection<'a> {
    /// Both sides have said SYN.
    pub(super) fn open(lab: &'a mut Lab, v4: bool) -> Self {
        let mut connection = Self { lab, v4 };
        assert_eq!(connection.packet(true, SYN, FIRST[0].wrapping_sub(1), &[]), OK);
        assert_eq!(connection.packet(false, SYN | ACK, FIRST[1].wrapping_sub(1), &[]), OK);
        connection
    }

    fn packet(&mut self, from_workload: bool, flags: u8, sequence: u32, payload: &[u8]) -> i32 {
        let (source, destination) = if from_workload { (PORT, 53) } else { (53, PORT) };
        let mut segment: Segment = tcp(source, destination, flags, 0);
        segment.octets[4..8].copy_from_slice(&sequence.to_be_bytes());
        segment.octets.extend(payload);
        let (near, far) = (near(self.v4), resolver(self.v4));
        let (from, to) = if from_workload { (near, far) } else { (far, near) };
        self.lab.code(from_workload, &plain(from, to, &segment))
    }

    /// Octets at a place of a direction's stream.
    pub(super) fn send(&mut self, from_workload: bool, at: usize, payload: &[u8]) -> i32 {
        let first = FIRST[usize::from(!from_workload)];
        self.packet(from_workload, ACK, first.wrapping_add(at as u32), payload)
    }

    /// A whole stream, cut at these places.
    fn send_cut(&mut self, from_workload: bool, stream: &[u8], cuts: &BTreeSet<usize>) {
        let mut start = 0;
        for end in cuts.iter().copied().chain([stream.len()]) {
            assert_eq!(self.send(from_workload, start, &stream[start..end]), OK);
            start = end;
        }
    }

    fn counted(&mut self, outcome: DnsOutcome) -> u64 {
        self.lab.told();
        self.lab.answers.clear();
        self.lab.counters_moved().get(&(Counter::DnsAnswers as u32 + outcome as u32)).copied().unwrap_or(0)
    }
}

/// A message with its length in front (RFC 1035, section 4.2.2).
fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

fn given(id: u16) -> Given {
    (address(&format!("203.0.113.{id}")), 60)
}

/// Questions 1 to `count` and the answers to them, in a row each.
fn conversation(count: u16) -> (Vec<u8>, Vec<u8>) {
    let asked = |id| question(id, NAMED, RecordType::A);
    let reply = |id| octets(&answer(&asked(id), vec![record(NAMED, 60, given(id).0)]));
    let questions: Vec<u8> = (1..=count).flat_map(|id| framed(&octets(&asked(id)))).collect();
    (questions, (1..=count).flat_map(|id| framed(&reply(id))).collect())
}

fn cuts(stream: &[u8], at: &[Index]) -> BTreeSet<usize> {
    at.iter().map(|index| 1 + index.index(stream.len() - 1)).collect()
}

#[test]
fn any_cut_of_a_conversation_teaches_the_same() {
    let class = names().automaton.class_of(NAMED);
    let lab = RefCell::new(lab());
    let places = || proptest::collection::vec(any::<Index>(), 0..12);
    let case = (1_u16..5, places(), places(), any::<bool>());
    let run = |(count, out, back, v4): (u16, Vec<Index>, Vec<Index>, bool)| {
        let lab = &mut *lab.borrow_mut();
        lab.forget();
        lab.counters_moved();
        let (questions, answers) = conversation(count);
        let mut connection = Connection::open(lab, v4);
        connection.send_cut(true, &questions, &cuts(&questions, &out));
        connection.send_cut(false, &answers, &cuts(&answers, &back));
        prop_assert_eq!(connection.counted(DnsOutcome::Learned), u64::from(count));
        assert_learned(lab, &(1..=count).map(given).collect::<Vec<_>>(), class);
        Ok(())
    };
    runner(200).run(&case, run).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn an_address_is_learned_with_the_octet_that_completes_its_answer() {
    let mut lab = lab();
    let (questions, answers) = conversation(1);
    let mut connection = Connection::open(&mut lab, true);
    connection.send_cut(true, &questions, &BTreeSet::new());
    for at in 0..answers.len() {
        assert!(connection.lab.dataplane.learned().expect("maps can be read").is_empty());
        assert_eq!(connection.send(false, at, &answers[at..=at]), OK);
    }
    assert_learned(&lab, &[given(1)], names().automaton.class_of(NAMED));
}

#[test]
fn what_is_ahead_waits_and_what_is_repeated_is_read_once() {
    let mut lab = lab();
    let (questions, answers) = conversation(2);
    let half = answers.len() / 2;
    let mut connection = Connection::open(&mut lab, true);
    connection.send_cut(true, &questions, &BTreeSet::new());
    connection.lab.counters_moved();
    assert_eq!(connection.send(false, half, &answers[half..]), SHOT);
    assert_eq!(connection.lab.counters_moved().get(&(Reason::DnsOutOfOrder as u32)), Some(&1));
    assert_eq!(connection.send(false, 0, &answers[..half]), OK);
    // Repeated with more behind it: only the rest is new.
    assert_eq!(connection.send(false, 0, &answers), OK);
    assert_eq!(connection.send(false, half, &answers[half..]), OK);
    assert_eq!(connection.counted(DnsOutcome::Learned), 2);
    assert_learned(&lab, &[given(1), given(2)], names().automaton.class_of(NAMED));
}

#[test]
fn a_segment_that_looks_like_a_message_is_none_inside_another() {
    let mut lab = lab();
    let (questions, answers) = conversation(1);
    let mut connection = Connection::open(&mut lab, true);
    connection.send_cut(true, &questions, &BTreeSet::new());
    // A long message whose middle is the answer that would open something, at the start of a segment.
    let long = framed(&[&vec![0; 200][..], &answers, &[0; 50]].concat());
    connection.counted(DnsOutcome::Learned);
    connection.send_cut(false, &long, &BTreeSet::from([202, 202 + answers.len()]));
    assert_eq!(connection.counted(DnsOutcome::Learned), 0);
    assert!(lab.dataplane.learned().expect("maps can be read").is_empty());
}

#[test]
fn long_messages_pass_unread_and_the_next_is_read() {
    let mut lab = lab();
    let (questions, answers) = conversation(1);
    let mut connection = Connection::open(&mut lab, true);
    connection.send_cut(true, &questions, &BTreeSet::new());
    let stream = [framed(&vec![0; MAX_DNS_MESSAGE]), framed(&[]), answers].concat();
    connection.send_cut(false, &stream, &BTreeSet::from([1_400, 2_800, 4_000]));
    let moved = connection.lab.counters_moved();
    for outcome in [DnsOutcome::TooLong, DnsOutcome::Learned] {
        assert_eq!(moved.get(&(Counter::DnsAnswers as u32 + outcome as u32)), Some(&1), "{outcome:?}");
    }
    assert_learned(&lab, &[given(1)], names().automaton.class_of(NAMED));
}

#[test]
fn a_connection_that_began_unseen_teaches_nothing() {
    let mut lab = lab();
    let (questions, answers) = conversation(1);
    let mut connection = Connection { lab: &mut lab, v4: true };
    assert_eq!(connection.send(true, 0, &questions), OK);
    assert_eq!(connection.send(false, 0, &answers), OK);
    assert_eq!(connection.lab.counters_moved().get(&(Counter::StreamLost as u32)), Some(&2));
    // Nor one that brings octets with its SYN, for they may or may not count.
    assert_eq!(connection.packet(true, SYN, FIRST[0].wrapping_sub(1), &questions), OK);
    assert_eq!(connection.packet(false, SYN | ACK, FIRST[1].wrapping_sub(1), &[]), OK);
    assert_eq!(connection.send(true, 0, &questions), OK);
    assert_eq!(connection.send(false, 0, &answers), OK);
    assert_eq!(connection.counted(DnsOutcome::Learned), 0);
    assert!(lab.dataplane.learned().expect("maps can be read").is_empty());
}
