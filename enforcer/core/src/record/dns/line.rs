//! The DNS record as a line of JSON, written from the message without the record in between: every query of a node may be
//! logged. Owns nothing of the form: the line is, octet by octet, what serialising the record gives, and tests hold it to
//! that.

use super::{Facts, Outcome, Parties, data};
use crate::dns::message::{Answer, Message, id};
use crate::dns::numbers::{RecordType, ResponseCode};
use crate::record::json::{Times, json, push_json, push_text};
use crate::record::{Peer, SCHEMA};
use crate::write::{push_address, push_number, push_protocol};

/// The parts of a line that are the same for all queries between two ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fixed {
    /// From behind the time to the verdict.
    node: String,
    /// From behind the verdict to the source's port.
    source: String,
    /// From behind the source's port to the protocol.
    destination: String,
}

impl Fixed {
    /// The parts for these ends.
    pub(super) fn new(node: &str, source: &Peer, destination: &Peer) -> Self {
        let nameless = Peer { port: None, names: Vec::new(), ..source.clone() };
        let mut head = json(&nameless);
        // The end of the object comes behind the port, and behind names.
        head.pop();
        let names = if source.names.is_empty() {
            String::new()
        } else {
            format!(",\"names\":{}", json(&source.names))
        };
        Self {
            node: format!("\",\"node\":{},\"event\":\"dns\",\"verdict\":\"", json(&node)),
            source: format!("\",\"source\":{head},\"port\":"),
            destination: format!("{names}}},\"destination\":{},\"protocol\":\"", json(destination)),
        }
    }
}

/// Writes lines. What it keeps from one to the next saves time only.
#[derive(Clone, Default, Debug)]
pub struct Lines {
    times: Times,
    /// Room for one name.
    owner: String,
}

impl Lines {
    /// Appends the line of a query, without its end. `name` is the question's as
    /// [`Message::write_name`] writes it, where the message can be read.
    pub fn write(&mut self, facts: &Facts, message: &[u8], name: &str, line: &mut Vec<u8>) {
        let Parties { fixed, .. } = &*facts.parties;
        line.extend_from_slice(b"{\"schema\":");
        push_number(SCHEMA.into(), line);
        line.extend_from_slice(b",\"time\":\"");
        self.times.push(facts.time, line);
        line.extend_from_slice(fixed.node.as_bytes());
        line.extend_from_slice(facts.outcome.verdict().text().as_bytes());
        line.extend_from_slice(fixed.source.as_bytes());
        push_number(facts.local_port.into(), line);
        line.extend_from_slice(fixed.destination.as_bytes());
        push_protocol(facts.protocol, line);
        line.push(b'"');
        if let Some(rule) = &facts.rule {
            line.extend_from_slice(b",\"rule\":");
            push_json(&**rule, line);
        }
        line.extend_from_slice(b",\"dns\":{\"id\":");
        push_number(id(message).into(), line);
        self.push_message(facts, message, name, line);
        if let Some(latency) = facts.latency_ns {
            line.extend_from_slice(b",\"latency_ns\":");
            push_number(latency, line);
        }
        line.extend_from_slice(b",\"learned\":");
        push_number(facts.learned.into(), line);
        line.extend_from_slice(b"}}");
    }

    /// From the name to the answers.
    fn push_message(&mut self, facts: &Facts, octets: &[u8], name: &str, line: &mut Vec<u8>) {
        let message = Message::read(octets).ok();
        if let Some(message) = &message {
            line.extend_from_slice(b",\"name\":");
            push_text(name, line);
            line.extend_from_slice(b",\"type\":");
            push_type(message.kind, line);
        }
        line.extend_from_slice(b",\"outcome\":\"");
        line.extend_from_slice(facts.outcome.text().as_bytes());
        line.push(b'"');
        let is_answered = !matches!(facts.outcome, Outcome::Refused | Outcome::Timeout);
        let code = match &message {
            _ if facts.outcome == Outcome::Refused => Some(ResponseCode::REFUSED),
            Some(message) if is_answered => Some(message.code()),
            _ => None,
        };
        if let Some(code) = code {
            line.extend_from_slice(b",\"rcode\":");
            push_code(code, line);
        }
        if let Some(message) = message.filter(|_| is_answered) {
            self.push_answers(&message, name, line);
        }
    }

    fn push_answers(&mut self, message: &Message<'_>, name: &str, line: &mut Vec<u8>) {
        let mut before: &[u8] = b",\"answers\":[{";
        for answer in message.answers().map_while(Result::ok) {
            line.extend_from_slice(before);
            self.push_answer(&answer, name, line);
            before = b"},{";
        }
        if before == b"},{" {
            line.extend_from_slice(b"}]");
        }
    }

    fn push_answer(&mut self, answer: &Answer<'_>, asked: &str, line: &mut Vec<u8>) {
        if !answer.is_owned_by_question() {
            self.owner.clear();
            if answer.write_owner(&mut self.owner).is_ok() && self.owner != asked {
                line.extend_from_slice(b"\"name\":");
                push_text(&self.owner, line);
                line.push(b',');
            }
        }
        line.extend_from_slice(b"\"type\":");
        push_type(answer.kind, line);
        line.extend_from_slice(b",\"ttl\":");
        push_number(answer.ttl.into(), line);
        match answer.address() {
            Some(address) => {
                line.extend_from_slice(b",\"data\":\"");
                push_address(address, line);
                line.push(b'"');
            }
            None => {
                if let Some(text) = data(answer) {
                    line.extend_from_slice(b",\"data\":");
                    push_text(&text, line);
                }
            }
        }
    }
}

fn push_code(code: ResponseCode, line: &mut Vec<u8>) {
    match code {
        ResponseCode::NOERROR => line.extend_from_slice(b"\"NOERROR\""),
        ResponseCode::NXDOMAIN => line.extend_from_slice(b"\"NXDOMAIN\""),
        other => push_json(&other, line),
    }
}

fn push_type(kind: RecordType, line: &mut Vec<u8>) {
    match kind {
        RecordType::A => line.extend_from_slice(b"\"A\""),
        RecordType::AAAA => line.extend_from_slice(b"\"AAAA\""),
        other => push_json(&other, line),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::tests::{ALIASED, facts};
    use super::super::{DnsRecord, Facts, Outcome, Parties};
    use super::Lines;
    use crate::dns::message::Message;
    use crate::protocol::Protocol;
    use crate::record::{Peer, RuleRef};

    /// The line, and what serialising the record gives.
    fn both(lines: &mut Lines, facts: &Facts, message: &[u8]) -> [String; 2] {
        let (mut name, mut line) = (String::new(), Vec::new());
        if let Ok(message) = Message::read(message) {
            message.write_name(&mut name);
        }
        lines.write(facts, message, &name, &mut line);
        let record = serde_json::to_string(&DnsRecord::new(facts, message)).expect("a record serialises");
        [String::from_utf8(line).expect("text"), record]
    }

    fn any_facts() -> impl Strategy<Value = Facts> {
        let numbers = (any::<u16>(), proptest::option::of(any::<u64>()), any::<u32>(), any::<u8>());
        let outcome = proptest::sample::select(&Outcome::ALL[..]);
        let time = (0..4_000_000_000_i64, prop_oneof![Just(0), Just(120_000), 0..1_000_000_000_i32]);
        (numbers, outcome, time, any::<bool>(), any::<bool>()).prop_map(
            |((local_port, latency_ns, learned, protocol), outcome, time, is_ruled, is_named)| {
                let known = facts(outcome);
                let names = if is_named { vec!["a\"b.example".into()] } else { Vec::new() };
                let source = Peer { names, ..known.parties.source.clone() };
                let rule = RuleRef {
                    tier: "t".into(),
                    kind: "SegmentPolicy".into(),
                    namespace: Some("n".into()),
                    name: "p".into(),
                    rule: None,
                    index: Some(3),
                };
                let parties = Parties::between(
                    Arc::clone(&known.parties.node),
                    source,
                    known.parties.destination.clone(),
                );
                Facts {
                    time: jiff::Timestamp::new(time.0, time.1).expect("a time"),
                    parties: Arc::new(parties),
                    local_port,
                    protocol: Protocol(if protocol < 128 { 17 } else { protocol }),
                    outcome,
                    latency_ns,
                    learned,
                    rule: is_ruled.then(|| Arc::new(rule)),
                }
            },
        )
    }

    /// A message with some octets changed, and cut.
    fn any_message() -> impl Strategy<Value = Vec<u8>> {
        let other: &[u8] = b"\x12\x34\x81\x83\0\x01\0\x04\0\0\0\0\x03w\"\\\x07example\0\0\x41\0\x01\
            \xc0\x0c\0\x0f\0\x01\0\0\0\x3c\0\x06\0\x0a\x01m\xc0\x0c\xc0\x0c\0\x10\0\x01\0\0\0\x3c\0\x02\x01t\
            \x01x\xc0\x10\0\x1c\0\x01\0\x01\xe2\x40\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\
            \xc0\x0c\0\x21\0\x01\0\0\0\x01\0\x09\0\x01\0\x02\0\x35\x01s\0";
        let change = (any::<prop::sample::Index>(), any::<u8>());
        let cut = proptest::option::weighted(0.2, any::<prop::sample::Index>());
        let base = proptest::sample::select(vec![ALIASED, other]);
        (base, proptest::collection::vec(change, 0..4), cut).prop_map(|(base, changes, cut)| {
            let mut message = base.to_vec();
            for (at, octet) in changes {
                let at = at.index(message.len());
                message[at] = octet;
            }
            message.truncate(cut.map_or(usize::MAX, |cut| cut.index(message.len())));
            message
        })
    }

    proptest! {
        #[test]
        fn a_line_is_the_record_octet_by_octet(
            queries in proptest::collection::vec((any_facts(), any_message()), 1..4)
        ) {
            let mut lines = Lines::default();
            for (facts, message) in &queries {
                let [line, record] = both(&mut lines, facts, message);
                prop_assert_eq!(line, record);
            }
        }
    }
}
