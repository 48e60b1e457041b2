//! DNS messages: written by an independent library or by hand, and read once more as the programs should read them.
//!
//! [`read`] is stricter than the library where a name has no text form (a dot or zero inside a label, pointers into
//! the header) and reads no name that it need not: owners and the data of other records may say what they like.

use enforcer_common::event::DnsOutcome;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::IpAddr;

/// An address of an answer with its lifetime in seconds.
pub(super) type Given = (IpAddr, u32);

/// Labels and type of a question.
type Asked = (Vec<Vec<u8>>, u16);

/// A record as it lies in a message: type, class, lifetime, data.
struct Raw<'a> {
    kind: u16,
    class: u16,
    ttl: u32,
    data: &'a [u8],
}

/// A name in the case it is written.
pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

/// A question.
pub(super) fn question(id: u16, asked: &str, kind: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(asked), kind));
    message
}

/// The answer to a question, with these records.
pub(super) fn answer(question: &Message, records: Vec<Record>) -> Message {
    let mut message = question.clone();
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    message.add_answers(records);
    message
}

/// The octets of a message.
pub(super) fn octets(message: &Message) -> Vec<u8> {
    message.to_vec().expect("it can be written")
}

/// An A or AAAA record.
pub(super) fn record(owner: &str, ttl: u32, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(v4.into()),
        IpAddr::V6(v6) => RData::AAAA(v6.into()),
    };
    Record::from_rdata(name(owner), ttl, data)
}

/// A CNAME record.
pub(super) fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

/// Every address that the library finds in the answer section; `None` when it finds it invalid.
pub(super) fn by_library(message: &[u8]) -> Option<Vec<Given>> {
    use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
    let mut decoder = BinDecoder::new(message);
    let header = hickory_proto::op::Header::read(&mut decoder).ok()?;
    Message::read_queries(&mut decoder, header.counts.queries as usize).ok()?;
    let count = header.counts.answers as usize;
    let (answers, ..) = Message::read_records(&mut decoder, count, false, OpCode::Query).ok()?;
    let given = |record: &Record| {
        let address = match &record.data {
            RData::A(a) => IpAddr::V4(a.0),
            RData::AAAA(aaaa) => IpAddr::V6(aaaa.0),
            _ => return None,
        };
        (record.dns_class == DNSClass::IN).then_some((address, record.ttl))
    };
    Some(answers.iter().filter_map(given).collect())
}

/// What should become of `message` after `asked`, whose name matches a pattern; and the addresses it gives.
pub(super) fn read(asked: &[u8], message: &[u8]) -> (DnsOutcome, Vec<Given>) {
    let nothing = |outcome| (outcome, Vec::new());
    if message.len() < 17 || message[2] & 0xf8 != 0x80 {
        return nothing(DnsOutcome::Malformed);
    }
    let Some((question, after)) = read_question(message) else { return nothing(DnsOutcome::Malformed) };
    let expected = read_question(asked).map(|(question, _)| question);
    if message[..2] != asked[..2] || Some(question) != expected {
        return nothing(DnsOutcome::Unsolicited);
    }
    if message[2] & 2 != 0 {
        return nothing(DnsOutcome::TooLong);
    }
    if message[3] & 15 != 0 {
        return nothing(DnsOutcome::ServerError);
    }
    let Some(records) = read_records(message, after) else { return nothing(DnsOutcome::Malformed) };
    let given: Option<Vec<Option<Given>>> = records.iter().map(address_of).collect();
    match given.map(|given| given.into_iter().flatten().collect::<Vec<_>>()) {
        None => nothing(DnsOutcome::Malformed),
        Some(given) if given.is_empty() => nothing(DnsOutcome::Nothing),
        Some(given) => (DnsOutcome::Learned, given),
    }
}

/// The message with every name replaced by the question's and all data but addresses by nothing in particular: what is
/// left is what the programs look at.
pub(super) fn without_names(message: &[u8]) -> Option<Vec<u8>> {
    let (_, after) = read_question(message)?;
    let mut plain = message[..after].to_vec();
    for record in read_records(message, after)? {
        let is_address = record.class == 1 && (record.kind == 1 || record.kind == 28);
        let kind = if is_address { record.kind } else { 0xff00 };
        plain.extend([0xc0, 12]);
        plain.extend(kind.to_be_bytes());
        plain.extend(record.class.to_be_bytes());
        plain.extend(record.ttl.to_be_bytes());
        // The library takes no record without data.
        let data = if record.data.is_empty() && !is_address { &[0] } else { record.data };
        plain.extend((data.len() as u16).to_be_bytes());
        plain.extend(data);
    }
    Some(plain)
}

/// The name that a message asks for, lower case with its trailing dot; `None` when it has not exactly one question that
/// the programs take.
pub(super) fn name_of(message: &[u8]) -> Option<String> {
    let ((labels, _), _) = read_question(message).filter(|_| message.len() >= 17)?;
    Some(
        labels
            .iter()
            .map(|label| format!("{}.", label.iter().map(|o| char::from(*o)).collect::<String>()))
            .collect(),
    )
}

/// The query that a message answers by its own words.
pub(super) fn question_of(message: &[u8]) -> Option<Vec<u8>> {
    let (_, after) = read_question(message).filter(|_| message.len() >= 17)?;
    Some([&message[..2], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &message[12..after]].concat())
}

/// True when the owner of a record in the answer section points into the header; what is behind it is not looked at.
pub(super) fn has_owner_in_header(message: &[u8]) -> bool {
    let Some((_, mut at)) = read_question(message) else { return false };
    for _ in 0..number(message, 6).unwrap_or(0) {
        let Some(after) = skip_name(message, at) else {
            return pointer_of(message, at).is_some_and(|target| target < 12);
        };
        at = after + 10 + usize::from(number(message, after + 8).unwrap_or(0));
    }
    false
}

/// Where the pointer leads that a name ends with.
fn pointer_of(message: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    while let length @ 1..=63 = *message.get(at)? {
        at += 1 + usize::from(length);
    }
    (*message.get(at)? >= 0xc0).then_some(usize::from(number(message, at)? & 0x3fff))
}

/// Whether the answer section has A, AAAA, CNAME and other records.
pub(super) fn kinds(message: &[u8]) -> [bool; 4] {
    let records = read_question(message).and_then(|(_, after)| read_records(message, after));
    let mut kinds = [false; 4];
    for record in records.into_iter().flatten() {
        let place = [1, 28, 5].iter().position(|kind| *kind == record.kind).unwrap_or(3);
        kinds[place] = true;
    }
    kinds
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

/// Lower-case labels and type of the only question, and the offset behind it.
fn read_question(message: &[u8]) -> Option<(Asked, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*message.get(at)?);
        if length == 0 {
            break;
        }
        let label = message.get(at + 1..at + 1 + length)?;
        if length > 63 || label.contains(&b'.') || label.contains(&0) {
            return None;
        }
        labels.push(label.to_ascii_lowercase());
        at += 1 + length;
    }
    let is_name = !labels.is_empty() && at + 1 - 12 <= 255;
    let is_one = number(message, 4)? == 1 && number(message, at + 3)? == 1;
    (is_name && is_one).then_some(((labels, number(message, at + 1)?), at + 5))
}

fn read_records(message: &[u8], start: usize) -> Option<Vec<Raw<'_>>> {
    let (mut records, mut at) = (Vec::new(), start);
    for _ in 0..number(message, 6)? {
        at = skip_name(message, at)?;
        let head = message.get(at..at + 10)?;
        let ttl = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let length = usize::from(number(head, 8)?);
        let data = message.get(at + 10..at + 10 + length)?;
        records.push(Raw { kind: number(head, 0)?, class: number(head, 2)?, ttl, data });
        at += 10 + length;
    }
    Some(records)
}

/// The offset behind a name.
fn skip_name(message: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => {
                let target = usize::from(number(message, at)? & 0x3fff);
                return (12..at).contains(&target).then_some(at + 2);
            }
            _ => return None,
        }
    }
}

/// The address of a record; `None` inside where it has none, outside where its data is not one.
fn address_of(record: &Raw<'_>) -> Option<Option<Given>> {
    let address = match (record.class, record.kind) {
        (1, 1) => IpAddr::from(<[u8; 4]>::try_from(record.data).ok()?),
        (1, 28) => IpAddr::from(<[u8; 16]>::try_from(record.data).ok()?),
        _ => return Some(None),
    };
    Some(Some((address, record.ttl)))
}
