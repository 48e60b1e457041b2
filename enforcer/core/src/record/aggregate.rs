//! Many flow records as one: those that agree in the fields that were chosen, within an interval. Owns the keys, the groups
//! and their sums (field by field in `docs/reference/flow-record.md`); never reads a clock and never loses a record: a
//! table of groups that is full ends its interval early.

mod key;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::decide::Direction;
use enforcer_common::verdict::{Reason, Verdict};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use super::text::direction_text;
use super::{Count, Entity, Event, Peer, Record, RuleRef, SCHEMA};
use crate::protocol::Protocol;
pub use key::{Key, Keys, Side};

/// Groups of one interval; another one ends it.
pub const GROUPS: usize = 8_192;

/// What the records of a group have in common: the chosen fields, where they have a value.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct Group {
    /// Their fate.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "verdict_text")]
    pub verdict: Option<Verdict>,
    /// The fact that made it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "reason_text")]
    pub reason: Option<Reason>,
    /// Who began them.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "direction_of")]
    pub direction: Option<Direction>,
    /// Who began them.
    #[serde(skip_serializing_if = "End::is_empty")]
    pub source: End,
    /// Whom they were meant for.
    #[serde(skip_serializing_if = "End::is_empty")]
    pub destination: End,
    /// Their protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<RuleRef>>,
    /// What staged policy would have made of them.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "verdict_text")]
    pub staged_verdict: Option<Verdict>,
}

/// What the records of a group have in common at one end.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub struct End {
    /// Namespace of the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Arc<str>>,
    /// The workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Arc<str>>,
    /// What controls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<Arc<str>>,
    /// Its zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
    /// The service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
    /// What it is when it is no workload; wherever the workload, its namespace or its controller is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<Entity>,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Arc<str>>,
}

/// Records of a group by their events.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Events {
    /// Flows that began.
    pub admitted: u64,
    /// Refusals that were told.
    pub refused: u64,
    /// Flows that ended, and told so.
    pub ended: u64,
    /// Flows that were cut.
    pub cut: u64,
    /// Packets of no flow that were dropped.
    pub dropped: u64,
}

impl Events {
    /// Records of all events together.
    pub const fn sum(&self) -> u64 {
        self.admitted + self.refused + self.ended + self.cut + self.dropped
    }

    fn add(&mut self, event: Event) {
        let count = match event {
            Event::Admitted => &mut self.admitted,
            Event::Refused => &mut self.refused,
            Event::Ended => &mut self.ended,
            Event::Cut => &mut self.cut,
            Event::Dropped => &mut self.dropped,
        };
        *count += 1;
    }
}

/// The sums of one group and interval.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Sums {
    events: Events,
    flows: u64,
    forward: Count,
    reply: Count,
}

/// Many records as one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Aggregate {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When its interval ended.
    pub time: Timestamp,
    /// Node that saw the flows.
    pub node: Arc<str>,
    /// Always [`Aggregate::EVENT`].
    pub event: &'static str,
    /// When its interval began.
    pub start: Timestamp,
    /// What its records have in common.
    #[serde(flatten)]
    pub group: Group,
    /// Records that it stands for.
    pub records: u64,
    /// The same by event.
    pub events: Events,
    /// Flows that were over; refused ones that nobody tries any more too, told one by one or not.
    pub flows: u64,
    /// What the sources of those flows, and packets of no flow, sent in all.
    pub forward: Count,
    /// What their destinations sent in all.
    pub reply: Count,
}

impl Aggregate {
    /// What tells it from records of flows and of DNS.
    pub const EVENT: &str = "aggregate";

    /// The worst that became of its flows as far as it is known: the verdict, where it is a key.
    pub fn verdict(&self) -> Verdict {
        self.group.verdict.unwrap_or(Verdict::Forwarded)
    }
}

/// True when a line of a flow log stands for many records.
pub fn is_line(line: &str) -> bool {
    #[derive(Deserialize)]
    struct Line<'a> {
        event: &'a str,
    }
    serde_json::from_str::<Line<'_>>(line).is_ok_and(|line| line.event == Aggregate::EVENT)
}

/// Groups and sums of one interval.
#[derive(Debug)]
pub struct Aggregator {
    keys: Keys,
    node: Arc<str>,
    groups: HashMap<Group, Sums, foldhash::fast::RandomState>,
    most: usize,
    since: Timestamp,
}

impl Aggregator {
    /// Nothing yet, of at most `most` groups; the first interval begins at `now`.
    pub fn new(keys: Keys, node: Arc<str>, most: usize, now: Timestamp) -> Self {
        Self { keys, node, groups: HashMap::default(), most, since: now }
    }

    /// Adds a record. What it carried counts where it is final: at the end of its flow.
    pub fn add(&mut self, record: &Record) {
        let is_final = matches!(record.event, Event::Ended | Event::Cut);
        let sums = self.sums(record);
        sums.events.add(record.event);
        sums.flows += u64::from(is_final);
        if is_final || record.event == Event::Dropped {
            sums.carry(record);
        }
    }

    /// Adds what a flow carried that is over and of whose end no record is made.
    pub fn add_untold(&mut self, record: &Record) {
        let sums = self.sums(record);
        sums.flows += 1;
        sums.carry(record);
    }

    /// Groups so far.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// True when nothing was added since the interval began.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// True when the interval is to end at once: the next record may find no room.
    pub fn is_full(&self) -> bool {
        self.groups.len() >= self.most
    }

    /// Ends the interval: hands over what was summed, in no order, and begins the next.
    pub fn finish(&mut self, now: Timestamp, mut take: impl FnMut(Aggregate)) {
        let start = std::mem::replace(&mut self.since, now);
        for (group, Sums { events, flows, forward, reply }) in self.groups.drain() {
            take(Aggregate {
                schema: SCHEMA,
                time: now,
                node: Arc::clone(&self.node),
                event: Aggregate::EVENT,
                start,
                group,
                records: events.sum(),
                events,
                flows,
                forward,
                reply,
            });
        }
    }

    fn sums(&mut self, record: &Record) -> &mut Sums {
        self.groups.entry(self.keys.group(record)).or_default()
    }
}

impl Sums {
    fn carry(&mut self, record: &Record) {
        for (sum, more) in [(&mut self.forward, record.forward), (&mut self.reply, record.reply)] {
            sum.packets += more.packets;
            sum.bytes += more.bytes;
        }
    }
}

impl End {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The fields of a peer that `is_key` wants.
    fn of(peer: &Peer, is_key: impl Fn(Side) -> bool) -> Self {
        let shared = |side, value: &Option<Arc<str>>| value.as_ref().filter(|_| is_key(side)).cloned();
        let by_workload = is_key(Side::Workload);
        let by_name = by_workload || is_key(Side::Namespace) || is_key(Side::Controller);
        Self {
            namespace: peer.namespace.as_ref().filter(|_| by_name).cloned(),
            workload: shared(Side::Workload, &peer.workload),
            controller: shared(Side::Controller, &peer.controller),
            zone: shared(Side::Zone, &peer.zone),
            service: shared(Side::Service, &peer.service),
            entity: peer.entity.filter(|_| by_name),
            address: is_key(Side::Address).then_some(peer.address),
            port: None,
            names: if is_key(Side::Names) { peer.names.clone() } else { Vec::new() },
        }
    }
}

fn verdict_text<S: Serializer>(value: &Option<Verdict>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(Verdict::text).serialize(serializer)
}

fn reason_text<S: Serializer>(value: &Option<Reason>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(Reason::text).serialize(serializer)
}

fn direction_of<S: Serializer>(value: &Option<Direction>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(direction_text).serialize(serializer)
}

#[cfg(test)]
mod tests;
