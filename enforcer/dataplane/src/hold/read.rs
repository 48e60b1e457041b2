//! Reads a held answer by the rules of the kernel programs: whether it was asked, what class its name has, which addresses
//! it teaches. Owns nothing; never learns from an answer that the programs would not have learned from.

use super::Whole;
use super::names::Names;
use crate::clock::monotonic_ns;
use crate::events::Event;
use crate::learn::Lesson;
use crate::maps::HoldMaps;
use enforcer_common::abi::{ANSWER_SECONDS, MAX_TTL, Settings};
use enforcer_common::address::Address;
use enforcer_common::event::{DnsEvent, DnsOutcome, Kind};
use enforcer_common::policy::Endpoint;
use enforcer_common::question::QuestionKey;
use enforcer_core::dns::message::Message;
use std::io;
use std::net::IpAddr;

const NANOSECONDS: u64 = 1_000_000_000;
/// Octets of a DNS header.
const HEADER: usize = 12;
/// Class IN.
const IN: [u8; 2] = [0, 1];

/// Learns what an answer teaches; returns what became of it, and its event.
pub(super) fn answer(
    maps: &HoldMaps,
    names: &mut Names,
    endpoint: &Endpoint,
    whole: Whole,
) -> (DnsOutcome, Event<'static>) {
    let mut header = DnsEvent {
        kind: Kind::DnsAnswer as u32,
        length: whole.octets.len() as u32,
        time: monotonic_ns(),
        outcome: 0,
        endpoint: endpoint.id,
        name_class: 0,
        learned: 0,
        latency: 0,
        resolver: Address::from(whole.resolver),
        local_port: whole.local_port,
        protocol: whole.protocol,
        padding: [0; 5],
    };
    // Maps that cannot be read teach nothing.
    let outcome = judge(maps, names, endpoint, &whole.octets, &mut header).unwrap_or(DnsOutcome::Malformed);
    header.outcome = outcome as u32;
    (outcome, Event::Dns { header, message: whole.octets.into() })
}

/// What an answer is worth.
fn judge(
    maps: &HoldMaps,
    names: &mut Names,
    endpoint: &Endpoint,
    octets: &[u8],
    header: &mut DnsEvent,
) -> io::Result<DnsOutcome> {
    let Some(question) = question(octets) else { return Ok(DnsOutcome::Malformed) };
    let key = QuestionKey {
        resolver: header.resolver,
        endpoint: header.endpoint,
        local_port: header.local_port,
        transaction: question.message.id().to_be(),
    };
    let Some(pending) = maps.questions.find(&key)? else { return Ok(DnsOutcome::Unsolicited) };
    let (asked, since) = (&pending.question, header.time.saturating_sub(pending.asked));
    let name = &asked.name[..usize::from(asked.length).min(asked.name.len())];
    let is_same = asked.kind == question.message.kind.0
        && name.eq_ignore_ascii_case(question.message.wire_name())
        && since <= ANSWER_SECONDS * NANOSECONDS;
    if !is_same || !maps.questions.take(&pending) {
        return Ok(DnsOutcome::Unsolicited);
    }
    header.latency = since;
    if asked.is_refused != 0 {
        return Ok(DnsOutcome::Refused);
    }
    if octets[2] & 0x02 != 0 {
        return Ok(DnsOutcome::TooLong);
    }
    if question.message.code().0 != 0 {
        return Ok(DnsOutcome::ServerError);
    }
    let settings = maps.settings.get(0).unwrap_or(Settings::DEFAULT);
    header.name_class = if asked.name_swaps == settings.name_swaps {
        asked.name_class
    } else {
        names.class_of(maps, &settings, &question.text)?
    };
    let Some(found) = addresses(&question.message) else { return Ok(DnsOutcome::Malformed) };
    if header.name_class == 0 || found.is_empty() {
        return Ok(DnsOutcome::Nothing);
    }
    let (now, class) = ((header.time / NANOSECONDS) as u32, header.name_class);
    let lesson = |(address, ttl): (IpAddr, u32)| {
        let lifetime = ttl.min(MAX_TTL).max(settings.min_ttl).saturating_add(settings.grace);
        Lesson { address: Address::from(address), class, expiry: now.saturating_add(lifetime) }
    };
    let lessons: Vec<Lesson> = found.into_iter().map(lesson).collect();
    maps.teacher().teach(endpoint, &lessons, now)?;
    header.learned = lessons.len() as u32;
    Ok(DnsOutcome::Learned)
}

/// The one question of an answer.
struct Question<'a> {
    message: Message<'a>,
    /// Its name as the automaton reads it: lower case, backwards, without the trailing dot.
    text: Vec<u8>,
}

/// The question; `None` where the message is no answer, or is not well formed.
fn question(octets: &[u8]) -> Option<Question<'_>> {
    let message = Message::read(octets).ok()?;
    let class_at = HEADER + message.wire_name().len() + 1 + 2;
    if octets[2] & 0xf8 != 0x80 || octets.get(class_at..class_at + 2)? != IN {
        return None;
    }
    let mut text = Vec::with_capacity(message.wire_name().len());
    let mut rest = message.wire_name();
    while let Some((length, behind)) = rest.split_first() {
        let (label, next) = behind.split_at_checked(usize::from(*length))?;
        // A dot or zero inside a label would pass for a boundary.
        if label.iter().any(|octet| matches!(octet, 0 | b'.')) {
            return None;
        }
        if !text.is_empty() {
            text.push(b'.');
        }
        text.extend(label.iter().map(u8::to_ascii_lowercase));
        rest = next;
    }
    text.reverse();
    (!text.is_empty()).then_some(Question { message, text })
}

/// The addresses of the answer section with their lifetimes, seconds; `None` when a record is not well formed.
fn addresses(message: &Message<'_>) -> Option<Vec<(IpAddr, u32)>> {
    let mut found = Vec::new();
    let mut owner = String::new();
    for record in message.answers() {
        let record = record.ok()?;
        owner.clear();
        record.write_owner(&mut owner).ok()?;
        let is_address = record.class == 1 && matches!(record.kind.0, 1 | 28);
        match record.address() {
            Some(address) => found.push((address, record.ttl)),
            None if is_address => return None,
            None => {}
        }
    }
    Some(found)
}
