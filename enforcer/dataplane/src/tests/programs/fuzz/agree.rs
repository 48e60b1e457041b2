//! What the library makes of a message, and the places where the programs differ from it on purpose: [`Difference`].
//! Anything else that differs is a failure.

use super::messages::{self, Given, by_library};
use enforcer_common::event::DnsOutcome;
use hickory_proto::op::{Header, Message, MessageType, OpCode, Query};
use hickory_proto::rr::DNSClass;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// How the programs differ from the library on purpose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Difference {
    /// The programs take exactly one question: resolvers answer no others. The library takes any number.
    Questions,
    /// The programs take questions of class IN only.
    Class,
    /// The programs take no name that a pattern cannot be compared with: the root, and labels with a dot or a zero
    /// inside. The library escapes them.
    NoText,
    /// The programs take no pointer in a question's name, before which there is nothing but the header.
    Compressed,
    /// The programs take no owner that points into the header. The library reads the header's octets as labels.
    OwnerInHeader,
    /// The programs read neither names of owners nor data of records other than addresses of class IN, which may
    /// therefore be as wrong as they like. Told by [`messages::without_names`]: without them the library agrees.
    Unread,
}

/// What came of a message: an input with another one than all before is new.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Reading {
    /// What the programs made of it.
    outcome: &'static str,
    difference: Option<Difference>,
    /// Why the library does not read its answers, in its own words without their figures.
    complaint: String,
    /// Answers it claims to have, and octets, each by its order of magnitude.
    size: [u32; 2],
    /// Types of its records: addresses, aliases, others.
    kinds: [bool; 4],
}

impl Reading {
    /// True when both came to the same, whatever the sizes and types.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.outcome == other.outcome
            && self.difference == other.difference
            && self.complaint == other.complaint
    }
}

/// The only question, or why the programs take none; `None` where the library finds none either.
fn question(message: &[u8]) -> Option<Result<(Header, Query), Difference>> {
    let mut decoder = BinDecoder::new(message);
    let header = Header::read(&mut decoder).ok()?;
    let queries = Message::read_queries(&mut decoder, header.counts.queries.into()).ok()?;
    let [query] = &queries[..] else { return Some(Err(Difference::Questions)) };
    let labels: Vec<&[u8]> = query.name().iter().collect();
    let in_full: usize = labels.iter().map(|label| label.len() + 1).sum::<usize>() + 1;
    if decoder.index() != 12 + in_full + 4 {
        return Some(Err(Difference::Compressed));
    }
    if labels.is_empty() || labels.iter().any(|label| label.contains(&b'.') || label.contains(&0)) {
        return Some(Err(Difference::NoText));
    }
    if query.query_class() != DNSClass::IN {
        return Some(Err(Difference::Class));
    }
    Some(Ok((header, query.clone())))
}

/// Compares what the programs made of a query, whether they could read it, with the library's reading.
pub(super) fn on_query(message: &[u8], is_read: bool) -> Reading {
    let found = question(message);
    let is_query = |header: &Header| {
        header.metadata.message_type == MessageType::Query && header.metadata.op_code == OpCode::Query
    };
    let expected =
        found.as_ref().is_some_and(|found| found.as_ref().is_ok_and(|(header, _)| is_query(header)));
    assert_eq!(is_read, expected, "{found:?}");
    let difference = found.and_then(Result::err);
    reading(message, if is_read { "read" } else { "unread" }, difference)
}

/// Compares what the programs made of an answer to `asked` with the library's reading.
pub(super) fn on_answer(
    asked: &[u8],
    message: &[u8],
    (outcome, has_class, given): (DnsOutcome, bool, Vec<Given>),
) -> Reading {
    let (expected, mut difference) = expected(asked, message);
    match expected {
        Some(expected) => assert_eq!(outcome, expected, "{difference:?}"),
        None => difference = on_records(message, outcome, has_class, &given),
    }
    reading(message, outcome.text(), difference)
}

/// What an answer is worth by its header and question; `None` when its records decide.
fn expected(asked: &[u8], message: &[u8]) -> (Option<DnsOutcome>, Option<Difference>) {
    let (header, query) = match question(message) {
        Some(Ok(found)) => found,
        Some(Err(difference)) => return (Some(DnsOutcome::Malformed), Some(difference)),
        None => return (Some(DnsOutcome::Malformed), None),
    };
    let data = &header.metadata;
    let Some(Ok((asked, wanted))) = question(asked) else { panic!("it was asked") };
    let is_same = data.id == asked.metadata.id
        && query.query_type() == wanted.query_type()
        && query.name().to_lowercase() == wanted.name().to_lowercase();
    let decided = if data.message_type != MessageType::Response || data.op_code != OpCode::Query {
        Some(DnsOutcome::Malformed)
    } else if !is_same {
        Some(DnsOutcome::Unsolicited)
    } else if data.truncation {
        Some(DnsOutcome::TooLong)
    } else if data.response_code.low() != 0 {
        Some(DnsOutcome::ServerError)
    } else {
        None
    };
    (decided, None)
}

/// Compares the addresses; how the programs differ, where they do.
fn on_records(message: &[u8], outcome: DnsOutcome, has_class: bool, given: &[Given]) -> Option<Difference> {
    let found = by_library(message);
    if outcome == DnsOutcome::Malformed {
        let is_odd = found.is_none() || messages::has_owner_in_header(message);
        assert!(is_odd, "the library finds {found:?}");
        return found.map(|_| Difference::OwnerInHeader);
    }
    let plain = messages::without_names(message).expect("it was read");
    let found_plain = by_library(&plain).expect("the library reads it without its names");
    let expected = if has_class { given } else { &found_plain[..] };
    assert_eq!(found_plain, expected);
    assert_eq!(outcome == DnsOutcome::Learned, has_class && !found_plain.is_empty());
    match found {
        Some(found) => {
            assert_eq!(found, found_plain);
            None
        }
        None => Some(Difference::Unread),
    }
}

fn reading(message: &[u8], outcome: &'static str, difference: Option<Difference>) -> Reading {
    let complaint = match Message::from_vec(message) {
        Ok(_) => String::new(),
        Err(error) => error.to_string().chars().filter(|character| character.is_alphabetic()).collect(),
    };
    let answers = message.get(6..8).map_or(0, |count| u32::from(count[0]) << 8 | u32::from(count[1]));
    let magnitude = |number: u32| u32::BITS - number.leading_zeros();
    let size = [magnitude(answers), magnitude(message.len() as u32)];
    Reading { outcome, difference, complaint, size, kinds: messages::kinds(message) }
}
