//! The reference of the records, field by field, against the types: nothing is missing there, and nothing is there that is not.

use std::collections::BTreeSet;

use enforcer_common::verdict::{Reason, Verdict};
use serde_json::Value;

use super::aggregate::{Aggregate, Aggregator, Key, Keys};
use super::dns::{Answer, DnsRecord, Outcome};
use super::{Count, EndReason, Event, Icmp, Peer, Process, Record, RuleRef, Staged};
use crate::dns::numbers::RecordType;

const FLOWS: &str = include_str!("../../../../docs/reference/flow-record.md");
const DNS: &str = include_str!("../../../../docs/reference/dns-record.md");

/// What stands between two beginnings.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("no {begin}"));
    rest.split_once(end).map_or(rest, |(part, _)| part)
}

/// What is quoted in a text.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names in the first column of a table, its heading left out.
fn names(table: &str) -> BTreeSet<String> {
    let below = table.lines().skip(1).chain([""]);
    let rows = table.lines().zip(below).filter(|(_, below)| !below.starts_with("|---"));
    let cells = rows.filter_map(|(row, _)| row.strip_prefix("| ")?.split(" | ").next());
    cells.flat_map(quoted).collect()
}

/// What a table says of one name.
fn row<'a>(table: &'a str, name: &str) -> &'a str {
    let row = table.lines().find(|row| row.starts_with(&format!("| `{name}`")));
    row.unwrap_or_else(|| panic!("no {name}"))
}

fn keys(value: impl serde::Serialize) -> BTreeSet<String> {
    let Value::Object(fields) = serde_json::to_value(value).expect("it can be written") else {
        panic!("no object")
    };
    fields.into_iter().map(|(name, _)| name).collect()
}

/// The text of something that is one.
fn text(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).expect("it can be written").as_str().expect("a text").to_owned()
}

/// The example with a value in every field.
fn whole() -> Record {
    let mut record: Record = serde_json::from_str(include_str!("example.json")).expect("a record");
    record.icmp = Some(Icmp { kind: 8, code: 0 });
    record.end = Some(record.time);
    record.end_reason = Some(EndReason::Closed);
    record.server_name = Some("github.com".into());
    record.staged = Some(Staged { verdict: Verdict::Denied, reason: Reason::Rule, rule: None });
    record
}

fn peer() -> Peer {
    let Record { source, destination, .. } = whole();
    Peer { entity: destination.entity, names: destination.names, service: Some("a/b".into()), ..source }
}

fn rule() -> RuleRef {
    let name = || Some("x".to_owned());
    RuleRef {
        tier: String::new(),
        kind: String::new(),
        namespace: name(),
        name: String::new(),
        rule: name(),
        index: Some(0),
    }
}

/// The example in an interval, by no field.
fn aggregate() -> Aggregate {
    let mut aggregator = Aggregator::new(Keys::default(), "node-1".into(), 1, whole().time);
    aggregator.add(&whole());
    let mut made = None;
    aggregator.finish(whole().time, |one| made = Some(one));
    made.expect("one group")
}

#[test]
fn every_field_of_a_flow_record_is_in_the_reference() {
    let fields = between(FLOWS, "| field | type | meaning |", "**Events**");
    assert_eq!(names(fields), keys(whole()));
    assert_eq!(names(between(FLOWS, "**Peers**", "**Rules**")), keys(peer()));
    assert_eq!(names(between(FLOWS, "**Rules**", "**Reasons**")), keys(rule()));
    for (field, parts) in [
        ("icmp", keys(Icmp { kind: 8, code: 0 })),
        ("forward", keys(Count::default())),
        ("process", keys(Process::clone(whole().process.as_deref().expect("the example has one")))),
        ("staged", BTreeSet::from(["verdict", "reason", "rule"].map(str::to_owned))),
        ("verdict", Verdict::ALL.iter().map(|verdict| verdict.text().to_owned()).collect()),
        ("tcp_flags", ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"].map(str::to_owned).into()),
    ] {
        let said = quoted(row(fields, field));
        assert!(parts.is_subset(&said), "{field}: {:?} are missing", parts.difference(&said));
    }
    let ends = [EndReason::Closed, EndReason::Reset, EndReason::Idle, EndReason::Policy];
    for end in ends.into_iter().chain([EndReason::ServerName, EndReason::Gone]) {
        assert!(quoted(row(fields, "end_reason")).contains(&text(end)), "{end:?}");
    }
}

#[test]
fn every_event_and_reason_is_in_the_reference() {
    let events = [Event::Admitted, Event::Refused, Event::Ended, Event::Cut, Event::Dropped];
    assert_eq!(names(between(FLOWS, "**Events**", "**Peers**")), events.map(text).into());
    let said = quoted(between(FLOWS, "**Reasons**", "## Aggregated records"));
    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !said.contains(reason.text())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_example_is_the_reference_s() {
    let shown: Record = serde_json::from_str(between(FLOWS, "```json", "```")).expect("a record");
    assert_eq!(shown, serde_json::from_str(include_str!("example.json")).expect("a record"));
}

#[test]
fn every_field_of_an_aggregated_record_is_in_the_reference() {
    let section = between(FLOWS, "## Aggregated records", "**What may be missing.**");
    let (fields, chosen) = section.split_once("| `FIELDS`").expect("a table of the fields to choose");
    assert_eq!(names(fields), keys(aggregate()));
    let table = chosen.split_once("|\n|---").expect("a table").1;
    let mut said = BTreeSet::new();
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let cell = line.split(" | ").next().unwrap_or_default();
        let (sides, plain): (Vec<_>, Vec<_>) = quoted(cell).into_iter().partition(|name| name.ends_with('…'));
        match sides.is_empty() {
            true => said.extend(plain),
            // `source-…` and `destination-…` of each.
            false => said
                .extend(sides.iter().flat_map(|side| plain.iter().map(move |name| side.replace('…', name)))),
        }
    }
    assert_eq!(said, Key::ALL.iter().map(|(_, name)| (*name).to_owned()).collect());
}

#[test]
fn every_field_of_a_dns_record_is_in_the_reference() {
    let mut record: DnsRecord = serde_json::from_str(include_str!("dns-example.json")).expect("a record");
    record.rule = Some(rule().into());
    assert_eq!(names(between(DNS, "| field | type | meaning |", "**What was asked")), keys(&record));
    assert_eq!(names(between(DNS, "**What was asked and answered**", "**Answers**")), keys(&record.dns));
    let answer =
        Answer { name: Some("a".to_owned()), kind: RecordType(1), ttl: 1, data: Some("b".to_owned()) };
    assert_eq!(names(between(DNS, "**Answers**", "**Outcomes**")), keys(answer));
    let outcomes = names(between(DNS, "**Outcomes**", "**What may be missing.**"));
    assert_eq!(outcomes, Outcome::ALL.iter().map(ToString::to_string).collect());
}
