//! The reader beside an independent library, on messages that are whole and on damaged ones.

use hickory_proto::op::{Message as Library, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{CNAME, MX, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType as Kind};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// The answer `WWW.example A` through an alias.
const ALIASED: &[u8] = b"\x12\x34\x81\x80\0\x01\0\x02\0\0\0\0\x03WWW\x07example\0\0\x01\0\x01\
    \xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x03cdn\xc0\x10\
    \xc0\x29\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x07";

/// What both readers say of a message: identifier, code, name, type and every answer.
type Said = (u16, u8, String, u16, Vec<(String, u16, u32, Option<IpAddr>)>);

fn name_of(message: &Message<'_>) -> String {
    let mut text = String::new();
    message.write_name(&mut text);
    text
}

fn said(octets: &[u8]) -> Result<Said, Malformed> {
    let message = Message::read(octets)?;
    let answers = message.answers().map(|answer| {
        let answer = answer?;
        let mut owner = String::new();
        answer.write_owner(&mut owner)?;
        Ok((owner, answer.kind.0, answer.ttl, answer.address()))
    });
    let answers = answers.collect::<Result<_, _>>()?;
    Ok((message.id(), message.code().0, name_of(&message), message.kind.0, answers))
}

/// A name of the library as text of ours.
fn text(name: &Name) -> String {
    let mut text = String::new();
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        write_label(label, &mut text);
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

fn library(octets: &[u8]) -> Option<Said> {
    let message = Library::from_vec(octets).ok()?;
    let [query] = message.queries.as_slice() else { return None };
    let answers = message.answers.iter().map(|record| {
        let address = record.data.ip_addr().filter(|_| u16::from(record.dns_class) == 1);
        (text(&record.name), record.record_type().into(), record.ttl, address)
    });
    Some((
        message.metadata.id,
        message.metadata.response_code.low(),
        text(query.name()),
        query.query_type().into(),
        answers.collect(),
    ))
}

fn any_record() -> impl Strategy<Value = Record> {
    let names = &["www.example.", "a.b.cdn.example.", "API.Example.", ".", "x-1.edge.example."][..];
    let data = prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| RData::A(Ipv4Addr::from(octets).into())),
        any::<[u8; 16]>().prop_map(|octets| RData::AAAA(Ipv6Addr::from(octets).into())),
        select(names).prop_map(|name| RData::CNAME(CNAME(Name::from_ascii(name).expect("a name")))),
        select(names).prop_map(|name| RData::MX(MX::new(10, Name::from_ascii(name).expect("a name")))),
        "[a-z ]{0,40}".prop_map(|text| RData::TXT(TXT::new(vec![text]))),
    ];
    (select(names), any::<u32>(), data).prop_map(|(owner, ttl, data)| {
        Record::from_rdata(Name::from_ascii(owner).expect("a name"), ttl, data)
    })
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let asked = select(&["www.example.", "WwW.Example.", "a-very-long-label-of-some-use.x.y.z.example."][..]);
    let kind = select(&[Kind::A, Kind::AAAA, Kind::HTTPS, Kind::ANY][..]);
    (any::<u16>(), 0..11_u16, asked, kind, proptest::collection::vec(any_record(), 0..20)).prop_map(
        |(id, code, asked, kind, records)| {
            let mut message = Library::new(id, MessageType::Response, OpCode::Query);
            message.metadata.response_code = code.into();
            message.add_query(Query::query(Name::from_ascii(asked).expect("a name"), kind));
            message.add_answers(records);
            message.to_vec().expect("it can be written")
        },
    )
}

#[test]
fn an_answer_is_read_through_its_aliases() {
    let message = Message::read(ALIASED).expect("well formed");
    assert_eq!((message.id(), message.code(), message.kind), (0x1234, ResponseCode::NOERROR, RecordType::A));
    assert_eq!((name_of(&message).as_str(), message.wire_name()), ("www.example", &ALIASED[12..24]));
    let answers: Vec<_> = message.answers().map(|answer| answer.expect("well formed")).collect();
    let mut target = String::new();
    answers[0].write_target(0, &mut target).expect("a name");
    assert_eq!((target.as_str(), answers[0].ttl, answers[0].kind), ("cdn.example", 60, RecordType::CNAME));
    assert_eq!(answers[1].address(), Some("192.0.2.7".parse().expect("an address")));
}

#[test]
fn a_question_that_was_made_reads_back() {
    let octets = question(7, &ALIASED[12..24], RecordType::AAAA);
    let message = Message::read(&octets).expect("well formed");
    assert_eq!((message.id(), name_of(&message), message.kind), (7, "www.example".into(), RecordType::AAAA));
    assert_eq!(message.answers().count(), 0);
}

#[test]
fn names_that_lead_nowhere_are_refused_and_odd_octets_are_spelled_out() {
    // The first record's owner points to itself, forwards, and beyond the end.
    for owner in [[0xc0, 29], [0xc0, 41], [0xff, 0xff]] {
        let mut octets = ALIASED.to_vec();
        octets[29..31].copy_from_slice(&owner);
        let message = Message::read(&octets).expect("the question is whole");
        let first = message.answers().next().expect("one").expect("skipped");
        assert_eq!(first.write_owner(&mut String::new()), Err(Malformed::Name), "{owner:?}");
    }
    let mut octets = ALIASED.to_vec();
    octets[13..16].copy_from_slice(b".\\\xff");
    assert_eq!(name_of(&Message::read(&octets).expect("well formed")), "\\046\\092\\255.example");
    for length in 0..ALIASED.len() {
        assert!(said(&ALIASED[..length]).is_err(), "cut at {length}");
    }
}

proptest! {
    #[test]
    fn the_library_reads_the_same(octets in any_message()) {
        prop_assert_eq!(said(&octets).ok(), library(&octets));
    }

    /// Damaged messages never harm the reader, and where the library reads one it reads the same. The library reads
    /// more than is read here (other sections, data), so it may refuse what is read here.
    #[test]
    fn damage_is_read_alike(
        octets in any_message(),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..5),
        cut in proptest::option::weighted(0.3, any::<Index>()),
    ) {
        let mut octets = octets;
        for (at, octet) in changes {
            let place = at.index(octets.len());
            octets[place] = octet;
        }
        if let Some(at) = cut {
            octets.truncate(at.index(octets.len()));
        }
        let own = said(&octets).ok();
        let is_update = octets.get(2).is_some_and(|flags| flags & 0x78 != 0);
        if let Some(theirs) = library(&octets).filter(|_| !is_update) {
            prop_assert_eq!(own, Some(theirs));
        }
    }
}
