//! Generated answers, whole and damaged: the programs learn what an independent library reads, and never more than
//! the message says.

use super::dns::{MOST, assert_learned, exchange, lab, names};
use super::messages::{self, Given, alias, answer, by_library, octets, question, record};
use super::{Lab, runner};
use enforcer_common::event::DnsOutcome;
use hickory_proto::op::Message;
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use proptest::test_runner::TestCaseError;
use std::cell::RefCell;
use std::net::IpAddr;

fn given() -> impl Strategy<Value = Given> {
    let v4 = (0_u8..6).prop_map(|last| IpAddr::from([203, 0, 113, last]));
    let v6 = (0_u16..6).prop_map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]));
    let ttl = prop_oneof![Just(0), 0..700_u32, Just(MOST), Just(u32::MAX), any::<u32>()];
    (prop_oneof![v4, v6], ttl)
}

/// A record of an answer: mostly an address.
fn any_record() -> impl Strategy<Value = Record> {
    let owner = select(&["exact.example.", "a.wild.example.", "edge.cdn.example.", "."][..]);
    let other = (0_u8..3, select(&["hop.example.", "x.edge.cdn.example."][..]));
    (owner, given(), proptest::option::weighted(0.3, other)).prop_map(|(owner, given, other)| match other {
        None => record(owner, given.1, given.0),
        Some((0, target)) => alias(owner, target),
        Some((1, target)) => {
            let text = RData::TXT(TXT::new(vec![target.to_owned()]));
            Record::from_rdata(messages::name(owner), given.1, text)
        }
        Some(_) => {
            let mut record = record(owner, given.1, given.0);
            record.dns_class = DNSClass::CH;
            record
        }
    })
}

/// A question for a name that has a class, and an answer whose sections hold whatever they may.
fn conversation() -> impl Strategy<Value = (Message, Message)> {
    let asked = select(&["exact.example.", "ExacT.Example.", "a.wild.example.", "api-7.glob.example."][..]);
    let section = |most| proptest::collection::vec(any_record(), 0..most);
    let kind = select(&[RecordType::A, RecordType::AAAA, RecordType::HTTPS][..]);
    let id = (any::<u16>(), any::<bool>());
    (id, asked, kind, section(24), section(3), section(3)).prop_map(
        |((id, is_lowered), asked, kind, answers, authorities, additionals)| {
            // Some resolvers give the name back in lower case.
            let echoed = if is_lowered { asked.to_ascii_lowercase() } else { asked.to_owned() };
            let mut reply = answer(&question(id, &echoed, kind), answers);
            let asked = question(id, asked, kind);
            reply.add_authorities(authorities);
            reply.add_additionals(additionals);
            (asked, reply)
        },
    )
}

/// Puts an exchange through the programs and compares what became of it and what was learned.
fn compare(
    lab: &mut Lab,
    asked: &Message,
    reply: &[u8],
    (outcome, given): (DnsOutcome, Vec<Given>),
) -> Result<(), TestCaseError> {
    lab.forget_learned();
    super::forget_questions(lab);
    let became = exchange(lab, asked, reply);
    proptest::prop_assert_eq!(became, Some(outcome));
    let name = asked.queries[0].name.to_ascii().to_ascii_lowercase();
    assert_learned(lab, &given, names().automaton.class_of(&name));
    Ok(())
}

#[test]
fn the_library_reads_the_same_addresses() {
    let lab = RefCell::new(lab());
    let run = |(asked, reply): (Message, Message)| {
        let reply = octets(&reply);
        let given = by_library(&reply).expect("it was written by the library");
        let outcome = if given.is_empty() { DnsOutcome::Nothing } else { DnsOutcome::Learned };
        compare(&mut lab.borrow_mut(), &asked, &reply, (outcome, given))
    };
    runner(400).run(&conversation(), run).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Some octets changed, a cut, octets behind the end.
#[derive(Clone, Debug)]
struct Damage {
    changes: Vec<(Index, u8)>,
    cut: Option<Index>,
    behind: Vec<u8>,
}

impl Damage {
    fn done_to(&self, mut message: Vec<u8>) -> Vec<u8> {
        for (at, octet) in &self.changes {
            let place = at.index(message.len());
            message[place] = *octet;
        }
        if let Some(at) = self.cut {
            message.truncate(at.index(message.len()));
        }
        message.extend(&self.behind);
        message
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let octet = prop_oneof![any::<u8>(), select(&[0_u8, 1, 4, 16, 28, 63, 64, 0xc0, 0xff][..])];
    let changes = proptest::collection::vec((any::<Index>(), octet), 0..4);
    let cut = proptest::option::weighted(0.2, any::<Index>());
    let behind = proptest::collection::vec(any::<u8>(), 0..4);
    (changes, cut, behind).prop_map(|(changes, cut, behind)| Damage { changes, cut, behind })
}

#[test]
fn damaged_messages_teach_no_more_than_they_say() {
    let lab = RefCell::new(lab());
    let run = |((asked, reply), damage): ((Message, Message), Damage)| {
        let reply = damage.done_to(octets(&reply));
        let (outcome, given) = messages::read(&octets(&asked), &reply);
        if outcome == DnsOutcome::Learned || outcome == DnsOutcome::Nothing {
            // Where the library finds the answer section in order, it finds the same addresses in it.
            if let Some(found) = by_library(&reply) {
                proptest::prop_assert_eq!(&found, &given);
            }
            // Where it does not, that is for the sake of names that nobody needs.
            let plain = messages::without_names(&reply).expect("it was read");
            proptest::prop_assert_eq!(by_library(&plain), Some(given.clone()));
        }
        compare(&mut lab.borrow_mut(), &asked, &reply, (outcome, given))
    };
    runner(1_200).run(&(conversation(), damage()), run).unwrap_or_else(|failure| panic!("{failure}"));
}
