//! Questions and answers through the programs: what is learned, for how long, and what teaches nothing.

use super::messages::{self, Given, alias, answer, octets, question, record};
use super::plans::address;
use super::shapes::{plain, udp};
use super::state::{near, ruled};
use super::{Lab, OK, clear};
use crate::tests::{run, workload};
use crate::{Program, TestPacket, Unanswered, monotonic_ns};
use enforcer_common::abi::{ANSWER_SECONDS, COUNTERS, Counter};
use enforcer_common::event::DnsOutcome;
use enforcer_common::policy::Mode;
use enforcer_common::question::NEAR;
use enforcer_core::fqdn::automaton::{self, Names};
use enforcer_core::plan::Plan;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, Record, RecordType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const NANOSECONDS: u64 = 1_000_000_000;
/// Least lifetime, and what is added to every one, seconds.
const LEAST: u32 = 5;
const GRACE: u32 = 30;
/// Longest lifetime taken from an answer, seconds.
pub(super) const MOST: u32 = 7 * 86_400;
/// The port it asks from.
pub(super) const PORT: u16 = 40_000;
/// A name that has a class.
pub(super) const NAMED: &str = "exact.example.";
const PATTERNS: [&str; 4] = ["exact.example", "*.wild.example", "api-*.glob.example", "*.deep.wild.example"];

pub(super) fn resolver(v4: bool) -> IpAddr {
    address(if v4 { "10.0.0.53" } else { "2001:db8::53" })
}

pub(super) fn names() -> Names {
    compiled(&PATTERNS)
}

fn compiled(patterns: &[&str]) -> Names {
    let patterns: BTreeSet<_> = patterns.iter().map(|text| text.parse().expect("a pattern")).collect();
    automaton::compile(&patterns, 1 << 14).expect("they fit")
}

/// Everything passes; these names have classes.
fn with_names(Names { automaton, patterns }: Names) -> Plan {
    Plan { names: automaton, patterns, ..ruled(Mode::Policy, &[], &[]) }
}

pub(super) fn lab() -> Lab {
    let mut lab = Lab::with(&with_names(names()));
    lab.dataplane.set_resolvers(&[resolver(true), resolver(false)]).expect("they fit");
    lab
}

/// The workload asks.
pub(super) fn workload_asks(lab: &mut Lab, message: &[u8]) {
    assert_eq!(lab.code(true, &plain(near(true), resolver(true), &udp(PORT, 53, message))), OK);
}

/// A resolver answers to a port of the workload: what became of it, `None` when it was not read.
fn tell_port(lab: &mut Lab, port: u16, message: &[u8]) -> Option<DnsOutcome> {
    lab.counters_moved();
    assert_eq!(lab.code(false, &plain(resolver(true), near(true), &udp(53, port, message))), OK);
    lab.told();
    let mut moved = lab.counters_moved();
    let entered = moved.remove(&(Counter::LearnEntered as u32)).unwrap_or(0);
    let outcomes = DnsOutcome::ALL.iter();
    let counted: Vec<_> = outcomes
        .filter(|outcome| moved.contains_key(&(Counter::DnsAnswers as u32 + **outcome as u32)))
        .collect();
    assert!(counted.len() <= 1 && moved.values().all(|by| *by == 1), "{moved:?}");
    assert!(moved.keys().all(|index| (Counter::DnsAnswers as u32..COUNTERS).contains(index)), "{moved:?}");
    let told = lab.answers.pop();
    if let Some(told) = told {
        assert!(entered <= told.learned.into(), "{entered} new addresses of {}", told.learned);
        assert_eq!(counted, [&DnsOutcome::ALL[told.outcome as usize]]);
        assert_eq!(IpAddr::from(told.resolver), resolver(true));
        assert_eq!((told.local_port, told.length as usize), (port, message.len()));
    }
    counted.first().copied().copied()
}

/// A resolver answers.
pub(super) fn tell(lab: &mut Lab, message: &[u8]) -> Option<DnsOutcome> {
    tell_port(lab, PORT, message)
}

/// Every learned address with its classes and their expiry.
fn learned(lab: &Lab) -> BTreeMap<IpAddr, Vec<(u32, u32)>> {
    let learned = lab.dataplane.learned().expect("maps can be read");
    assert!(learned.iter().all(|one| one.endpoint == lab.endpoint().id));
    learned.into_iter().map(|one| (one.address, one.classes)).collect()
}

/// What should be learned of these addresses now, for one class.
fn expected(given: &[Given], class: u32) -> BTreeMap<IpAddr, (u32, u32)> {
    let now = (monotonic_ns() / NANOSECONDS) as u32;
    let mut all = BTreeMap::new();
    for (address, ttl) in given {
        let expiry = now + (*ttl).clamp(LEAST, MOST) + GRACE;
        let entry = all.entry(*address).or_insert((class, expiry));
        entry.1 = entry.1.max(expiry);
    }
    all
}

/// The learned addresses are exactly these; a second may begin meanwhile.
pub(super) fn assert_learned(lab: &Lab, given: &[Given], class: u32) {
    let (learned, expected) = (learned(lab), expected(given, class));
    assert_eq!(learned.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (address, (class, expiry)) in expected {
        let [(held, until)] = learned[&address][..] else { panic!("{address}: {:?}", learned[&address]) };
        assert_eq!(held, class);
        assert!((expiry - 2..=expiry).contains(&until), "{address}: {until} is not {expiry}");
    }
}

/// Asks, and gets `message`: what became of it.
pub(super) fn exchange(lab: &mut Lab, asked: &Message, message: &[u8]) -> Option<DnsOutcome> {
    workload_asks(lab, &octets(asked));
    tell(lab, message)
}

#[test]
fn names_are_matched_as_patterns_say() {
    let mut lab = lab();
    let classes = names().automaton;
    for (asked, is_matched) in [
        ("exact.example.", true),
        ("eXaCt.eXAMPLE.", true),
        ("sub.exact.example.", false),
        ("exact.example.com.", false),
        ("wild.example.", false),
        ("a.wild.example.", true),
        ("A.B.Wild.Example.", true),
        ("x.deep.wild.example.", true),
        ("xwild.example.", false),
        ("api-1.glob.example.", true),
        ("api-.glob.example.", true),
        ("api-1.x.glob.example.", false),
        ("api.glob.example.", false),
        ("example.", false),
    ] {
        let asked_for = question(7, asked, RecordType::A);
        let given = (address("203.0.113.1"), 60);
        let reply = octets(&answer(&asked_for, vec![record(asked, given.1, given.0)]));
        let outcome = exchange(&mut lab, &asked_for, &reply);
        assert_eq!(outcome == Some(DnsOutcome::Learned), is_matched, "{asked}");
        let class = classes.class_of(&asked.to_ascii_lowercase());
        assert_eq!(class != 0, is_matched, "{asked}");
        assert_learned(&lab, if is_matched { std::slice::from_ref(&given) } else { &[] }, class);
        lab.forget();
    }
}

#[test]
fn chains_and_both_families_are_learned_with_their_lifetimes() {
    let mut lab = lab();
    let asked = question(9, "exact.example.", RecordType::AAAA);
    let class = names().automaton.class_of("exact.example");
    let given = [
        (address("203.0.113.1"), 0),
        (address("203.0.113.2"), 100),
        (address("2001:db8:f::1"), 4),
        (address("2001:db8:f::2"), u32::MAX),
        (address("203.0.113.3"), 7 * 86_400 + 1),
    ];
    let mut records =
        vec![alias("exact.example.", "hop.cdn.example."), alias("hop.cdn.example.", "edge.example.")];
    records.extend(given.iter().map(|(address, ttl)| record("edge.example.", *ttl, *address)));
    let mut reply = answer(&asked, records);
    // Neither of these sections answers anything.
    reply.add_authority(record("exact.example.", 60, address("203.0.113.66")));
    reply.add_additional(record("exact.example.", 60, address("203.0.113.67")));
    let epoch = lab.epoch();
    assert_eq!(exchange(&mut lab, &asked, &octets(&reply)), Some(DnsOutcome::Learned));
    assert_learned(&lab, &given, class);
    assert_eq!(lab.epoch(), epoch + 5);
    // The same once more, for a shorter time: nothing is new, nothing is shortened.
    let shorter = answer(&asked, vec![record("exact.example.", 50, given[1].0)]);
    assert_eq!(exchange(&mut lab, &asked, &octets(&shorter)), Some(DnsOutcome::Learned));
    assert_learned(&lab, &given, class);
    assert_eq!(lab.epoch(), epoch + 5);
    // An address of another name answers to both.
    let other = question(10, "a.wild.example.", RecordType::A);
    let reply = answer(&other, vec![record("a.wild.example.", 60, given[1].0)]);
    assert_eq!(exchange(&mut lab, &other, &octets(&reply)), Some(DnsOutcome::Learned));
    assert_eq!((learned(&lab)[&given[1].0].len(), lab.epoch()), (2, epoch + 6));
}

#[test]
fn answers_that_repeat_teach_what_the_first_did_and_what_is_gone_again() {
    let mut lab = lab();
    let asked = question(9, "exact.example.", RecordType::A);
    let class = names().automaton.class_of("exact.example");
    let given = |ttl: u32| [(address("203.0.113.1"), ttl), (address("2001:db8:f::1"), ttl)];
    let repeat = |lab: &mut Lab, ttl: u32| {
        let records = given(ttl).map(|(address, ttl)| record("exact.example.", ttl, address));
        let reply = octets(&answer(&asked, records.into()));
        workload_asks(lab, &octets(&asked));
        assert_eq!(lab.code(false, &plain(resolver(true), near(true), &udp(53, PORT, &reply))), OK);
        lab.told();
        let told = lab.answers.pop().expect("it is told");
        assert_eq!((told.outcome, told.learned), (DnsOutcome::Learned as u32, 2));
    };
    [60, 60, 60, 50, 100, 100].into_iter().for_each(|ttl| repeat(&mut lab, ttl));
    assert_learned(&lab, &given(100), class);
    // What userspace takes out is learned again at once.
    lab.forget();
    repeat(&mut lab, 100);
    repeat(&mut lab, 100);
    assert_learned(&lab, &given(100), class);
    lab.dataplane.unlearn(lab.endpoint().id, given(0)[0].0, class).expect("maps can be written");
    repeat(&mut lab, 100);
    assert_learned(&lab, &given(100), class);
    // What went unnoticed is, in the next second.
    clear(&lab.dataplane.maps.learned);
    let until = monotonic_ns() + 2 * NANOSECONDS;
    while learned(&lab).len() < 2 {
        assert!(monotonic_ns() < until, "never learned again");
        repeat(&mut lab, 100);
    }
    assert_learned(&lab, &given(100), class);
}

#[test]
fn what_was_not_asked_teaches_nothing() {
    let mut lab = lab();
    let asked = question(7, "exact.example.", RecordType::A);
    let reply =
        |asked: &Message| octets(&answer(asked, vec![record("exact.example.", 60, address("203.0.113.1"))]));
    let right = reply(&asked);
    // Before any flow to the resolver nothing is read at all.
    assert_eq!(tell(&mut lab, &right), None);
    lab.forget();
    workload_asks(&mut lab, &octets(&question(1, "other.example.", RecordType::A)));
    assert_eq!(tell(&mut lab, &right), Some(DnsOutcome::Unsolicited));
    workload_asks(&mut lab, &octets(&asked));
    for wrong in [
        question(8, "exact.example.", RecordType::A),
        question(7, "exact.example.", RecordType::AAAA),
        question(7, "exacu.example.", RecordType::A),
        question(7, "a.exact.example.", RecordType::A),
    ] {
        assert_eq!(tell(&mut lab, &reply(&wrong)), Some(DnsOutcome::Unsolicited));
    }
    // Another port of the workload, which asks the resolver something else.
    let elsewhere = udp(PORT + 1, 53, &octets(&question(7, "other.example.", RecordType::A)));
    assert_eq!(lab.code(true, &plain(near(true), resolver(true), &elsewhere)), OK);
    assert_eq!(tell_port(&mut lab, PORT + 1, &right), Some(DnsOutcome::Unsolicited));
    assert!(learned(&lab).is_empty());
    // All of this left the question open; it is answered once.
    assert_eq!(tell(&mut lab, &right), Some(DnsOutcome::Learned));
    lab.forget_learned();
    assert_eq!(tell(&mut lab, &right), Some(DnsOutcome::Unsolicited));
    assert!(learned(&lab).is_empty());
}

#[test]
fn an_answer_may_repeat_the_question_in_other_letters() {
    let mut lab = lab();
    let given = (address("203.0.113.1"), 60);
    // The last two do not fit the room for questions with what is behind them, and are not compared as they were asked.
    for length in [1, 7, 8, 9, 44, 45, 46, 47, 101, 236, 237, 238, 240] {
        let text: String = (1..=length).map(|at| if at % 50 == 0 { '.' } else { 'a' }).collect();
        let name = format!("{text}.wild.example.");
        let class = names().automaton.class_of(&name);
        let asked = question(7, &name, RecordType::A);
        for shown in [name.clone(), name.to_ascii_uppercase()] {
            let shown = question(7, &shown, RecordType::A);
            let reply = octets(&answer(&shown, vec![record(&name, given.1, given.0)]));
            assert_eq!(exchange(&mut lab, &asked, &reply), Some(DnsOutcome::Learned), "{length}");
            assert_learned(&lab, std::slice::from_ref(&given), class);
            lab.forget();
        }
    }
}

#[test]
fn an_answer_counts_under_the_names_in_force_when_it_comes() {
    let mut lab = lab();
    let asked = question(7, NAMED, RecordType::A);
    let given = (address("203.0.113.1"), 60);
    let reply = octets(&answer(&asked, vec![record(NAMED, given.1, given.0)]));
    // One automaton later, and two, which lies where the one lay that was asked under.
    for later in [&[&["*.example"][..]][..], &[&PATTERNS[..], &["exact.*"][..]][..]] {
        workload_asks(&mut lab, &octets(&asked));
        for patterns in later {
            lab.dataplane.apply(&with_names(compiled(patterns))).expect("the plan fits");
        }
        assert_eq!(tell(&mut lab, &reply), Some(DnsOutcome::Learned));
        let class = compiled(later[later.len() - 1]).automaton.class_of("exact.example");
        assert_learned(&lab, std::slice::from_ref(&given), class);
        lab.forget_learned();
    }
    // And under none.
    workload_asks(&mut lab, &octets(&asked));
    lab.dataplane.apply(&with_names(compiled(&["other.example"]))).expect("the plan fits");
    assert_eq!(tell(&mut lab, &reply), Some(DnsOutcome::Nothing));
    assert!(learned(&lab).is_empty());
}

#[test]
fn more_questions_than_there_are_near_places_are_answered_in_any_order() {
    let mut lab = lab();
    let asked: Vec<_> = (0..8 * NEAR as u16).map(|id| question(id, NAMED, RecordType::A)).collect();
    lab.counters_moved();
    for question in &asked {
        workload_asks(&mut lab, &octets(question));
    }
    assert_eq!(lab.counters_moved(), BTreeMap::new(), "none took the place of another");
    for question in asked.iter().rev() {
        let reply = octets(&answer(question, vec![record(NAMED, 60, address("203.0.113.1"))]));
        assert_eq!(tell(&mut lab, &reply), Some(DnsOutcome::Learned), "{}", question.metadata.id);
    }
    assert_eq!(lab.dataplane.unanswered(u64::MAX).expect("maps can be read"), []);
}

#[test]
fn an_answer_must_come_in_time() {
    let mut lab = lab();
    let asked = question(7, "exact.example.", RecordType::A);
    let reply = octets(&answer(&asked, vec![record("exact.example.", 60, address("203.0.113.1"))]));
    for (age, outcome) in
        [(ANSWER_SECONDS + 1, DnsOutcome::Unsolicited), (ANSWER_SECONDS - 1, DnsOutcome::Learned)]
    {
        workload_asks(&mut lab, &octets(&asked));
        let questions = &lab.dataplane.maps.questions;
        let pending = questions.asked_before(u64::MAX).expect("maps can be read");
        let [pending] = pending[..] else { panic!("{pending:?}") };
        let key = pending.question.key;
        assert_eq!((key.transaction.to_be(), key.local_port), (7, PORT));
        assert_eq!(questions.find(&key).expect("maps can be read"), Some(pending));
        let earlier = pending.asked - age * NANOSECONDS;
        assert!(questions.places.exchange(pending.index, pending.asked, earlier));
        assert_eq!(tell(&mut lab, &reply), Some(outcome));
        super::forget_questions(&lab);
    }
}

#[test]
fn a_question_that_nobody_answers_is_given_up_with_its_name() {
    let mut lab = lab();
    let before = monotonic_ns();
    workload_asks(&mut lab, &octets(&question(7, "a.wIld.example.", RecordType::AAAA)));
    let answered = question(8, NAMED, RecordType::A);
    let reply = octets(&answer(&answered, vec![record(NAMED, 60, address("203.0.113.1"))]));
    assert_eq!(exchange(&mut lab, &answered, &reply), Some(DnsOutcome::Learned));
    assert_eq!(lab.dataplane.unanswered(before - NANOSECONDS).expect("maps can be read"), []);
    let given_up = lab.dataplane.unanswered(u64::MAX).expect("maps can be read");
    let [one] = &given_up[..] else { panic!("{given_up:?}") };
    assert!((before - NANOSECONDS..=monotonic_ns()).contains(&one.asked_ns), "{one:?}");
    let expected = Unanswered {
        endpoint: lab.endpoint().id,
        resolver: resolver(true),
        local_port: PORT,
        transaction: 7,
        protocol: 17,
        asked_ns: one.asked_ns,
        kind: 28,
        name: b"\x01a\x04wIld\x07example".to_vec(),
    };
    assert_eq!(*one, expected);
    assert_eq!(lab.dataplane.unanswered(u64::MAX).expect("maps can be read"), []);
}

#[test]
fn answers_without_worth_are_told_apart() {
    let mut lab = lab();
    let asked = question(7, "exact.example.", RecordType::A);
    let good = answer(&asked, vec![record("exact.example.", 60, address("203.0.113.1"))]);
    let with = |change: &dyn Fn(&mut Message)| {
        let mut message = good.clone();
        change(&mut message);
        octets(&message)
    };
    let text = RData::TXT(TXT::new(vec!["text".to_owned()]));
    let text = vec![Record::from_rdata(messages::name("exact.example."), 60, text)];
    for (reply, outcome) in [
        (with(&|m| m.metadata.truncation = true), DnsOutcome::TooLong),
        (with(&|m| m.metadata.response_code = ResponseCode::NXDomain), DnsOutcome::ServerError),
        (with(&|m| m.metadata.response_code = ResponseCode::ServFail), DnsOutcome::ServerError),
        (with(&|m| m.answers.clear()), DnsOutcome::Nothing),
        (with(&|m| m.answers = text.clone()), DnsOutcome::Nothing),
    ] {
        assert_eq!(exchange(&mut lab, &asked, &reply), Some(outcome));
        // Whatever it was worth, it was the answer.
        assert_eq!(tell(&mut lab, &octets(&good)), Some(DnsOutcome::Unsolicited));
    }
    // What lies behind the sections does not matter.
    let mut long = octets(&good);
    long.resize(3000, 0);
    assert_eq!(exchange(&mut lab, &asked, &long), Some(DnsOutcome::Learned));
    assert_learned(&lab, &[(address("203.0.113.1"), 60)], names().automaton.class_of("exact.example"));
}

/// `exact.example` A, identifier 7, with `counts` of the four sections and these octets behind the header.
fn by_hand(flags: [u8; 2], counts: [u16; 4], behind: &[u8]) -> Vec<u8> {
    let counts: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
    [&[0, 7][..], &flags, &counts, behind].concat()
}

const ASKED: &[u8] = b"\x05exact\x07example\0\0\x01\0\x01";
const RECORD: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xcb\0\x71\x01";

#[test]
fn malformed_messages_teach_nothing() {
    let mut lab = lab();
    let asked = question(7, "exact.example.", RecordType::A);
    let behind = |record: &[u8]| [ASKED, record].concat();
    let good = by_hand([0x81, 0x80], [1, 1, 0, 0], &behind(RECORD));
    let owner = |owner: &[u8]| by_hand([0x81, 0x80], [1, 1, 0, 0], &behind(&[owner, &RECORD[2..]].concat()));
    let mut bad = vec![
        by_hand([0x01, 0x80], [1, 1, 0, 0], &behind(RECORD)),
        by_hand([0x89, 0x80], [1, 1, 0, 0], &behind(RECORD)),
        by_hand([0x81, 0x80], [0, 1, 0, 0], &behind(RECORD)),
        by_hand([0x81, 0x80], [2, 1, 0, 0], &behind(RECORD)),
        by_hand([0x81, 0x80], [1, 2, 0, 0], &behind(RECORD)),
        by_hand([0x81, 0x80], [1, 0xffff, 0, 0], &behind(&RECORD.repeat(100))),
        // Owners: pointers to themselves, forwards, into the header; labels of the reserved kinds.
        owner(&[0xc0, 31]),
        owner(&[0xc0, 40]),
        owner(&[0xc0, 11]),
        owner(&[0xff, 0xff]),
        owner(&[0x40, 0]),
        owner(&[0x80, 0]),
        owner(&[63]),
        // Dots and zeros inside labels, a pointer instead of the question's name, another class.
        by_hand([0x81, 0x80], [1, 1, 0, 0], &[&b"\x0dexact.example\0\0\x01\0\x01"[..], RECORD].concat()),
        by_hand([0x81, 0x80], [1, 1, 0, 0], &[&b"\x05ex\0ct\x07example\0\0\x01\0\x01"[..], RECORD].concat()),
        by_hand([0x81, 0x80], [1, 1, 0, 0], &[&b"\xc0\x0c\0\x01\0\x01"[..], RECORD].concat()),
        by_hand([0x81, 0x80], [1, 1, 0, 0], &[&b"\x05exact\x07example\0\0\x01\0\x03"[..], RECORD].concat()),
        by_hand(
            [0x81, 0x80],
            [1, 1, 0, 0],
            &[&[&[1, b'a'][..]; 128].concat()[..], &ASKED[14..], RECORD].concat(),
        ),
        // An address of three octets, of five, and of none.
        by_hand([0x81, 0x80], [1, 1, 0, 0], &behind(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x03\xcb\0\x71")),
        by_hand(
            [0x81, 0x80],
            [1, 1, 0, 0],
            &behind(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x05\xcb\0\x71\x01\x01"),
        ),
        by_hand([0x81, 0x80], [1, 1, 0, 0], &behind(b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x00")),
    ];
    // Cut anywhere.
    bad.extend((0..good.len()).map(|length| good[..length].to_vec()));
    for reply in bad {
        let outcome = exchange(&mut lab, &asked, &reply);
        assert_eq!(outcome, Some(DnsOutcome::Malformed), "{reply:02x?}");
        assert!(learned(&lab).is_empty(), "{reply:02x?}");
    }
    assert_eq!(exchange(&mut lab, &asked, &good), Some(DnsOutcome::Learned));
}

#[test]
fn only_the_one_who_asked_learns() {
    let mut lab = lab();
    run("ip link add name b up type veth peer name b-peer");
    let b = crate::link::by_name("b").expect("it was made").index;
    lab.dataplane.attach(&workload("b"), b).expect("b is attached");
    let mut plan = with_names(names());
    let mut endpoint = plan.endpoints[&workload("a")].clone();
    endpoint.addresses = vec![address("10.0.0.2")];
    plan.endpoints.insert(workload("b"), endpoint);
    lab.apply(&plan);
    let asked = question(7, "exact.example.", RecordType::A);
    let reply = octets(&answer(&asked, vec![record("exact.example.", 60, address("203.0.113.1"))]));
    workload_asks(&mut lab, &octets(&asked));
    // The other workload has a flow of the same port, and asked something else under the same number.
    let other = udp(PORT, 53, &octets(&question(7, "other.example.", RecordType::A)));
    let outwards = plain(address("10.0.0.2"), resolver(true), &other);
    let inwards = plain(resolver(true), address("10.0.0.2"), &udp(53, PORT, &reply));
    for (program, octets) in [(Program::FromWorkload, &outwards), (Program::ToWorkload, &inwards)] {
        let packet = TestPacket { octets, interface: b, repeat: 1 };
        assert_eq!(lab.dataplane.test_run(program, &packet).expect("it runs").code, OK);
    }
    lab.told();
    assert_eq!(lab.answers.pop().map(|told| told.outcome), Some(DnsOutcome::Unsolicited as u32));
    assert!(learned(&lab).is_empty());
    assert_eq!(tell(&mut lab, &reply), Some(DnsOutcome::Learned));
    assert_eq!(learned(&lab).len(), 1);
}

#[test]
fn trust_in_a_resolver_ends_at_once() {
    let mut lab = lab();
    let asked = question(7, "exact.example.", RecordType::A);
    let reply = octets(&answer(&asked, vec![record("exact.example.", 60, address("203.0.113.1"))]));
    assert_eq!(exchange(&mut lab, &asked, &reply), Some(DnsOutcome::Learned));
    lab.dataplane.set_resolvers(&[]).expect("they fit");
    lab.forget_learned();
    assert_eq!(exchange(&mut lab, &asked, &reply), Some(DnsOutcome::Unsolicited));
    assert!(learned(&lab).is_empty());
}
