//! What `enforcer top` counts of flow records. Owns the tables and their bounds; never prints.
//!
//! A record is the word of one workload about a flow: it counts for that workload. Flows count when they begin or are
//! refused, octets when they end.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

use enforcer_common::decide::Direction;
use enforcer_common::verdict::Verdict;
use enforcer_core::record::{Entity, Event, Peer, Record, RuleRef, text};
use jiff::Timestamp;
use serde::Serialize;

use crate::api::Response;
use crate::cli::print;

/// Rows kept of each table; those seen longest ago make room, a quarter at once.
const ROWS: usize = 4_096;

/// Everything counted so far.
#[derive(Default, Debug)]
pub struct Sums {
    records: u64,
    lost: u64,
    talkers: HashMap<String, Count>,
    refused: HashMap<Refusal, Count>,
    names: HashMap<Named, Count>,
}

/// What is counted of a row.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Count {
    /// Flows that began or were refused.
    pub flows: u64,
    /// Those that were refused, or cut later.
    pub denied: u64,
    /// Those that passed and would have been refused.
    pub would_deny: u64,
    /// Packets of both directions of flows that ended.
    pub packets: u64,
    /// Their octets.
    pub bytes: u64,
    /// The latest record.
    pub last: Timestamp,
}

/// Flows that are refused alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Refusal {
    /// Who begins them.
    pub source: String,
    /// Whom they are meant for.
    pub destination: String,
    /// Destination port, or ICMP type and code, with the protocol.
    pub service: String,
    /// Whose policy refuses them.
    pub direction: String,
    /// Why.
    pub reason: String,
    /// The rule, where one decided.
    pub rule: Option<String>,
}

/// A name that a workload uses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The workload.
    pub workload: String,
}

/// A row of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row<K> {
    /// What it is about.
    #[serde(flatten)]
    pub key: K,
    /// What was counted.
    #[serde(flatten)]
    pub count: Count,
}

/// A workload.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Talker {
    /// `namespace/name`.
    pub workload: String,
}

/// How rows are ordered.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Order {
    /// Most first: octets of workloads, flows of refusals and names.
    #[default]
    Most,
    /// Those seen latest first.
    Latest,
}

/// The tables.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Report {
    /// Records counted.
    pub records: u64,
    /// Records that are missing.
    pub lost: u64,
    /// Workloads by octets.
    pub talkers: Vec<Row<Talker>>,
    /// Refusals by flows.
    pub denied: Vec<Row<Refusal>>,
    /// Names by flows.
    pub names: Vec<Row<Named>>,
}

impl Sums {
    /// Counts what the agent said.
    pub fn take(&mut self, response: &Response) {
        match response {
            Response::Flow(record) => self.record(record),
            Response::Lost(lost) => self.lost += lost.records,
            _ => {}
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The tables, with at most `rows` rows each.
    pub fn report(&self, rows: usize, order: Order) -> Report {
        let talkers = self.talkers.iter().map(|(workload, count)| {
            let key = Talker { workload: workload.clone() };
            Row { key, count: *count }
        });
        Report {
            records: self.records,
            lost: self.lost,
            talkers: sorted(talkers, rows, order, |count| (count.bytes, count.flows)),
            denied: sorted(owned(&self.refused), rows, order, |count| (count.flows, count.packets)),
            names: sorted(owned(&self.names), rows, order, |count| (count.flows, count.bytes)),
        }
    }

    fn record(&mut self, record: &Record) {
        self.records += 1;
        let (own, other) = match record.direction {
            Direction::Egress => (&record.source, &record.destination),
            Direction::Ingress => (&record.destination, &record.source),
        };
        let workload = label(own);
        count(&mut self.talkers, workload.clone(), record);
        if !record.verdict.passes() {
            count(&mut self.refused, refusal(record), record);
        }
        for name in &other.names {
            let named = Named { name: name.to_string(), workload: workload.clone() };
            count(&mut self.names, named, record);
        }
    }
}

/// Enters a record into a row.
fn count<K: Hash + Eq + Clone>(rows: &mut HashMap<K, Count>, key: K, record: &Record) {
    if rows.len() >= ROWS && !rows.contains_key(&key) {
        make_room(rows);
    }
    let count = rows.entry(key).or_default();
    count.last = count.last.max(record.time);
    match record.event {
        Event::Admitted => {
            count.flows += 1;
            count.would_deny += u64::from(record.verdict == Verdict::WouldDeny);
        }
        Event::Refused | Event::Dropped => {
            count.flows += 1;
            count.denied += 1;
        }
        Event::Cut => count.denied += 1,
        Event::Ended => {}
    }
    if matches!(record.event, Event::Ended | Event::Cut) {
        count.packets += record.forward.packets + record.reply.packets;
        count.bytes += record.forward.bytes + record.reply.bytes;
    }
}

fn make_room<K: Hash + Eq + Clone>(rows: &mut HashMap<K, Count>) {
    let mut times: Vec<Timestamp> = rows.values().map(|count| count.last).collect();
    let (_, limit, _) = times.select_nth_unstable(ROWS / 4);
    let limit = *limit;
    let before = rows.len();
    rows.retain(|_, count| count.last > limit);
    if rows.len() == before {
        rows.clear();
    }
}

fn refusal(record: &Record) -> Refusal {
    Refusal {
        source: label(&record.source),
        destination: label(&record.destination),
        service: print::service(record),
        direction: text::direction_text(record.direction).to_owned(),
        reason: record.reason.text().to_owned(),
        rule: record.rule.as_deref().map(rule),
    }
}

fn rule(rule: &RuleRef) -> String {
    print::rule_text(rule)
}

/// An end in one word: a workload, a name, an address or this node.
fn label(peer: &Peer) -> String {
    match (&peer.namespace, &peer.workload, peer.names.first()) {
        (Some(namespace), Some(workload), _) => format!("{namespace}/{workload}"),
        (_, _, Some(name)) => name.to_string(),
        _ if peer.entity == Some(Entity::Host) => format!("{} (host)", peer.address),
        _ => peer.address.to_string(),
    }
}

fn owned<K: Clone>(rows: &HashMap<K, Count>) -> impl Iterator<Item = Row<K>> {
    rows.iter().map(|(key, count)| Row { key: key.clone(), count: *count })
}

/// The first rows; of those that are equal, in the order of their keys.
fn sorted<K: Ord>(
    rows: impl Iterator<Item = Row<K>>,
    limit: usize,
    order: Order,
    most: impl Fn(&Count) -> (u64, u64),
) -> Vec<Row<K>> {
    let place = |count: &Count| match order {
        Order::Most => (most(count), Timestamp::MIN),
        Order::Latest => ((0, 0), count.last),
    };
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by(|a, b| (Reverse(place(&a.count)), &a.key).cmp(&(Reverse(place(&b.count)), &b.key)));
    rows.truncate(limit);
    rows
}

#[cfg(test)]
pub(super) mod tests {
    use enforcer_core::record::Count as Counted;

    use super::*;
    use crate::api::{Lost, LostBy};
    use crate::testing::record;

    fn flow(change: impl FnOnce(&mut Record)) -> Response {
        Response::Flow(Box::new(record(change)))
    }

    /// A connection that passes and ends, two attempts that are refused, and three records that are missing.
    pub(in super::super) fn example() -> Sums {
        let mut sums = Sums::default();
        let passes = |r: &mut Record| {
            (r.verdict, r.destination.port) = (Verdict::Forwarded, Some(22));
        };
        sums.take(&flow(|r| {
            passes(r);
            r.event = Event::Admitted;
        }));
        sums.take(&flow(|r| {
            passes(r);
            r.event = Event::Ended;
            (r.forward, r.reply) =
                (Counted { packets: 10, bytes: 2_000 }, Counted { packets: 8, bytes: 900_000 });
        }));
        sums.take(&flow(|_| ()));
        sums.take(&flow(|r| r.source.port = Some(1)));
        sums.take(&Response::Lost(Lost { records: 3, by: LostBy::Reader }));
        sums
    }

    #[test]
    fn flows_count_when_they_begin_and_octets_when_they_end() {
        let report = example().report(10, Order::Most);
        let last = record(|_| ()).time;
        let passed = Count { flows: 1, denied: 0, would_deny: 0, packets: 18, bytes: 902_000, last };
        let all = Count { flows: 3, denied: 2, ..passed };
        let refused = Count { flows: 2, denied: 2, packets: 0, bytes: 0, ..all };
        let refusal = Refusal {
            source: "update/update".to_owned(),
            destination: "github.com".to_owned(),
            service: "tcp/443".to_owned(),
            direction: "EGRESS".to_owned(),
            reason: "tier-default".to_owned(),
            rule: Some("default/Tier default".to_owned()),
        };
        let named = Named { name: "github.com".to_owned(), workload: "update/update".to_owned() };
        let talker = Talker { workload: "update/update".to_owned() };
        let expected = Report {
            records: 4,
            lost: 3,
            talkers: vec![Row { key: talker, count: all }],
            denied: vec![Row { key: refusal, count: refused }],
            names: vec![Row { key: named, count: all }],
        };
        assert_eq!(report, expected);
    }

    #[test]
    fn an_ingress_record_is_the_word_of_the_destination() {
        let mut sums = Sums::default();
        sums.take(&flow(|r| {
            r.direction = Direction::Ingress;
            std::mem::swap(&mut r.source, &mut r.destination);
        }));
        let report = sums.report(1, Order::Most);
        assert_eq!(report.talkers[0].key.workload, "update/update");
        assert_eq!(report.denied[0].key.source, "github.com");
        assert_eq!(report.names[0].key.workload, "update/update");
    }

    #[test]
    fn the_rows_seen_longest_ago_make_room() {
        let mut sums = Sums::default();
        let base = record(|_| ()).time;
        for number in 0..=ROWS {
            sums.take(&flow(|r| {
                r.time = base + jiff::SignedDuration::from_millis(i64::try_from(number).expect("small"));
                r.source.workload = Some(number.to_string().into());
            }));
        }
        assert_eq!(sums.talkers.len(), ROWS - ROWS / 4);
        assert!(!sums.talkers.contains_key("update/0"));
        assert!(sums.talkers.contains_key(&format!("update/{ROWS}")));
    }

    #[test]
    fn a_report_has_as_many_rows_as_are_wanted_most_first() {
        let mut sums = Sums::default();
        for (name, times) in [("a", 1), ("b", 3), ("c", 3)] {
            for _ in 0..times {
                sums.take(&flow(|r| r.source.workload = Some(name.into())));
            }
        }
        sums.take(&flow(|r| {
            r.time += jiff::SignedDuration::from_secs(1);
            r.source.workload = Some("d".into());
        }));
        let names = |order| -> Vec<_> {
            sums.report(2, order).talkers.into_iter().map(|row| row.key.workload).collect()
        };
        assert_eq!(names(Order::Most), ["update/b", "update/c"]);
        assert_eq!(names(Order::Latest), ["update/d", "update/a"]);
    }
}
