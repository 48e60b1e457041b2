//! The DNS record: one query of a workload with what became of it, in the family of the flow record (fields of one name
//! mean the same). Owns the type, its JSON form (field by field in `docs/reference/dns-record.md`) and how it is read
//! from a message. Never keeps a message: whoever does makes the record when somebody wants it.

mod line;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use enforcer_common::event::DnsOutcome;
use enforcer_common::verdict::Verdict;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::assemble::{Directory, peer_at};
use super::text::UnknownText;
use super::{Peer, RuleRef, SCHEMA, text};
use crate::dns::message::{Answer as Read, Message, id};
use crate::dns::numbers::{RecordType, ResponseCode};
use crate::protocol::Protocol;
use line::Fixed;
pub use line::Lines;

/// Marks a line as a DNS record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A query of a workload and what became of it.
    Dns,
}

/// What became of a query, or of an answer that nobody asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// Answered; its addresses are open for the rules whose patterns match.
    Learned,
    /// Answered; no pattern matches the name, or there is no address in it.
    Nothing,
    /// An answer without an open question: late, repeated or forged.
    Unsolicited,
    /// An answer that is not well formed.
    Malformed,
    /// An answer that is cut short, or longer than is read.
    TooLong,
    /// An error code of the server.
    ServerError,
    /// Policy lets the workload not ask for the name; it was answered REFUSED.
    Refused,
    /// No answer came in time.
    Timeout,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Learned,
        Self::Nothing,
        Self::Unsolicited,
        Self::Malformed,
        Self::TooLong,
        Self::ServerError,
        Self::Refused,
        Self::Timeout,
    ];

    /// The text of the JSON form.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Nothing => "nothing",
            Self::Unsolicited => "unsolicited",
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
            Self::ServerError => "server-error",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
        }
    }

    /// What became of the query's message, or the answer's.
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Refused => Verdict::Rejected,
            _ => Verdict::Forwarded,
        }
    }
}

impl From<DnsOutcome> for Outcome {
    fn from(outcome: DnsOutcome) -> Self {
        // One text for one thing, in the kernel's counters and in records.
        match outcome {
            DnsOutcome::Learned => Self::Learned,
            DnsOutcome::Nothing => Self::Nothing,
            DnsOutcome::Unsolicited => Self::Unsolicited,
            DnsOutcome::Malformed => Self::Malformed,
            DnsOutcome::TooLong => Self::TooLong,
            DnsOutcome::ServerError => Self::ServerError,
            DnsOutcome::Refused => Self::Refused,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Outcome {
    type Err = UnknownText;

    fn from_str(text: &str) -> Result<Self, UnknownText> {
        let found = Self::ALL.into_iter().find(|outcome| outcome.text().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownText {
            text: text.to_owned(),
            what: "outcome",
            expected: Self::ALL.map(Self::text).join(", "),
        })
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One record of an answer section.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Its owner, where that is not the name that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: RecordType,
    /// Its time to live, seconds.
    pub ttl: u32,
    /// An address, or the name it leads to; absent for types whose data is neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// What was asked and answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Dns {
    /// Transaction identifier.
    pub id: u16,
    /// Name asked for: lower case, without the trailing dot; absent when the message has none that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Type asked for; absent as the name is.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<RecordType>,
    /// What became of it.
    pub outcome: Outcome,
    /// The server's response code; absent where no answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcode: Option<ResponseCode>,
    /// The answer section, as far as it can be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// Nanoseconds from question to answer, or until it was given up; absent where no question is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ns: Option<u64>,
    /// Addresses opened by the answer before it was delivered.
    pub learned: u32,
}

/// One query of a workload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DnsRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When the answer passed, the query was refused, or it was given up.
    pub time: Timestamp,
    /// Node that saw it.
    pub node: Arc<str>,
    /// Always `dns`.
    pub event: Event,
    /// What became of the message.
    #[serde(with = "text::verdict")]
    pub verdict: Verdict,
    /// Who asked.
    pub source: Peer,
    /// The resolver.
    pub destination: Peer,
    /// UDP or TCP.
    pub protocol: Protocol,
    /// The rule that refused the query; absent where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<RuleRef>>,
    /// What was asked and answered.
    pub dns: Dns,
}

/// True when a line of a flow log is a DNS record: whoever reads flows leaves it out.
pub fn is_line(line: &str) -> bool {
    #[derive(Deserialize)]
    struct Line {
        #[serde(rename = "event")]
        _event: Event,
    }
    serde_json::from_str::<Line>(line).is_ok()
}

/// What is known of a query besides its message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// When it happened.
    pub time: Timestamp,
    /// Who asked whom.
    pub parties: Arc<Parties>,
    /// The workload's port.
    pub local_port: u16,
    /// UDP or TCP.
    pub protocol: Protocol,
    /// What became of it.
    pub outcome: Outcome,
    /// Nanoseconds from question to answer, or until it was given up.
    pub latency_ns: Option<u64>,
    /// Addresses opened.
    pub learned: u32,
    /// The rule that refused it.
    pub rule: Option<Arc<RuleRef>>,
}

/// A workload and a resolver, the same for all queries between them: the source without its port, and the destination;
/// made by [`Parties::between`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parties {
    /// Node that sees them.
    pub node: Arc<str>,
    /// Who asks.
    pub source: Peer,
    /// Who is asked.
    pub destination: Peer,
    fixed: Fixed,
}

impl Parties {
    /// Joins what is known of both ends.
    pub fn new(node: &Arc<str>, local: IpAddr, resolver: IpAddr, directory: &impl Directory) -> Self {
        let mut source = peer_at(local, None, directory);
        source.entity = None;
        Self::between(Arc::clone(node), source, peer_at(resolver, Some(53), directory))
    }

    /// These two ends.
    pub fn between(node: Arc<str>, source: Peer, destination: Peer) -> Self {
        let fixed = Fixed::new(&node, &source, &destination);
        Self { node, source, destination, fixed }
    }
}

impl DnsRecord {
    /// The record of a query: of its answer, or, where none came, of the query itself.
    pub fn new(facts: &Facts, message: &[u8]) -> Self {
        let Parties { node, source, destination, .. } = &*facts.parties;
        let source = Peer { port: Some(facts.local_port), ..source.clone() };
        Self {
            schema: SCHEMA,
            time: facts.time,
            node: Arc::clone(node),
            event: Event::Dns,
            verdict: facts.outcome.verdict(),
            source,
            destination: destination.clone(),
            protocol: facts.protocol,
            rule: facts.rule.clone(),
            dns: dns(facts, message),
        }
    }
}

fn dns(facts: &Facts, octets: &[u8]) -> Dns {
    let mut dns = Dns {
        id: id(octets),
        name: None,
        kind: None,
        outcome: facts.outcome,
        rcode: None,
        answers: Vec::new(),
        latency_ns: facts.latency_ns,
        learned: facts.learned,
    };
    if facts.outcome == Outcome::Refused {
        dns.rcode = Some(ResponseCode::REFUSED);
    }
    let Ok(message) = Message::read(octets) else { return dns };
    let mut name = String::new();
    message.write_name(&mut name);
    if !matches!(facts.outcome, Outcome::Refused | Outcome::Timeout) {
        dns.rcode = Some(message.code());
        dns.answers = message.answers().map_while(Result::ok).map(|read| answer(&read, &name)).collect();
    }
    (dns.name, dns.kind) = (Some(name), Some(message.kind));
    dns
}

fn answer(read: &Read<'_>, asked: &str) -> Answer {
    let mut owner = String::new();
    let is_named = read.write_owner(&mut owner).is_ok();
    let name = (is_named && owner != asked).then_some(owner);
    Answer { name, kind: read.kind, ttl: read.ttl, data: data(read) }
}

/// The data of a record as text, where it is an address or leads to a name.
fn data(read: &Read<'_>) -> Option<String> {
    if let Some(address) = read.address() {
        return Some(address.to_string());
    }
    let skipped = match read.kind {
        RecordType::CNAME | RecordType::NS | RecordType::PTR | RecordType::DNAME => 0,
        RecordType::MX => 2,
        RecordType::SRV => 6,
        _ => return None,
    };
    let mut target = String::new();
    read.write_target(skipped, &mut target).is_ok().then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("dns-example.json");
    /// The answer `www.example A` through an alias.
    pub(super) const ALIASED: &[u8] = b"\x12\x34\x81\x80\0\x01\0\x02\0\0\0\0\x03WWW\x07example\0\0\x01\0\x01\
        \xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x03cdn\xc0\x10\
        \xc0\x29\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x07";

    pub(super) fn facts(outcome: Outcome) -> Facts {
        let DnsRecord { time, node, mut source, destination, protocol, .. } = example();
        source.port = None;
        let latency_ns = Some(812_345);
        let parties = Arc::new(Parties::between(node, source, destination));
        Facts { time, parties, local_port: 40_112, protocol, outcome, latency_ns, learned: 1, rule: None }
    }

    fn example() -> DnsRecord {
        serde_json::from_str(EXAMPLE).expect("the example is a record")
    }

    #[test]
    fn a_record_reads_as_the_reference_shows_it() {
        let record = DnsRecord::new(&facts(Outcome::Learned), ALIASED);
        assert_eq!(record, example());
        let value: serde_json::Value = serde_json::from_str(EXAMPLE).expect("the example is JSON");
        assert_eq!(serde_json::to_value(&record).expect("a record serialises"), value);
        assert!(is_line(EXAMPLE) && !is_line(include_str!("example.json")));
        let reference = include_str!("../../../../docs/reference/dns-record.md");
        let shown: String = reference.split("```").nth(1).expect("an example").lines().skip(1).collect();
        assert_eq!(serde_json::from_str::<DnsRecord>(&shown).expect("the reference shows a record"), record);
    }

    #[test]
    fn a_query_without_an_answer_has_no_code() {
        let query = crate::dns::message::question(7, b"\x03www\x07example", RecordType::AAAA);
        let record = DnsRecord::new(&facts(Outcome::Timeout), &query);
        assert_eq!((record.verdict, record.dns.rcode), (Verdict::Forwarded, None));
        assert_eq!(
            (record.dns.name.as_deref(), record.dns.kind),
            (Some("www.example"), Some(RecordType::AAAA))
        );
        let refused = DnsRecord::new(&facts(Outcome::Refused), &query);
        assert_eq!((refused.verdict, refused.dns.rcode), (Verdict::Rejected, Some(ResponseCode::REFUSED)));
    }

    #[test]
    fn every_outcome_of_the_kernel_is_one_of_a_record() {
        for outcome in DnsOutcome::ALL {
            assert_eq!(Outcome::from(*outcome).text(), outcome.text());
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let record = DnsRecord::new(&facts(Outcome::Malformed), &ALIASED[..20]);
        assert_eq!((record.dns.id, record.dns.name, record.dns.kind), (0x1234, None, None));
        let record = DnsRecord::new(&facts(Outcome::Malformed), &ALIASED[..50]);
        assert_eq!((record.dns.name.as_deref(), record.dns.answers.len()), (Some("www.example"), 1));
    }
}
