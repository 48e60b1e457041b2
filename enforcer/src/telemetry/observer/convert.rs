//! From a record to a flow of the observer API, field by field as `docs/reference/observer.md` says. Owns the mapping;
//! never filters and never reads a clock. Flows are written without the messages in between, by the numbers of `proto/`:
//! every record of a node may be followed. Whoever has to look at one reads it back.

mod dns;
mod parts;
mod summary;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use enforcer_common::decide::Direction;
use enforcer_common::verdict::{Reason, Verdict};
use enforcer_core::export::protobuf::{message, octets};
use enforcer_core::record::{Event, Record};
use jiff::Timestamp;
use prost::Message as _;

use super::wire::flow::{self as wire, DropReason, Flow, TrafficDirection};
use crate::telemetry::records::Item;
use parts::{Uuid, filled};

/// Cluster of a node that was not told of one, as clients write it.
pub const CLUSTER: &str = "default";
/// Added to identities of workloads: clients have names of their own for small numbers.
pub const IDENTITY_OFFSET: u32 = 65_536;

/// Kinds of events, by the numbers that clients know.
pub mod event {
    /// A packet was dropped.
    pub const DROP: i32 = 1;
    /// Something was seen.
    pub const TRACE: i32 = 4;
    /// Policy decided.
    pub const POLICY_VERDICT: i32 = 5;
    /// A message of an application's protocol.
    pub const L7: i32 = 129;
    /// Of [`TRACE`]: it was seen on its way from a workload.
    pub const FROM_ENDPOINT: i32 = 5;
    /// Of [`TRACE`]: it was seen on its way to a workload.
    pub const TO_ENDPOINT: i32 = 0;
}

/// Match by addresses and ports, as clients number it; 0 where no rule decided.
const MATCH_L3_L4: u64 = 2;

/// What is the same for all flows of an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The node's name.
    pub node: Arc<str>,
    /// Tells this agent's flows from another's, or an earlier one's: when it began, nanoseconds since 1970.
    pub began: u64,
}

impl Origin {
    /// Appends the flow of a record, by its number among those of its kind, passed or not.
    pub fn write(&self, item: &Item, number: u64, out: &mut Vec<u8>) {
        match item {
            Item::Flow(record) => of_record(record, &self.uuid(item, number), out),
            Item::Dns(query) => dns::of_record(&query.record(), &self.uuid(item, number), out),
        }
    }

    /// The flow that [`Self::write`] writes.
    pub fn flow(&self, item: &Item, number: u64) -> Flow {
        let mut octets = Vec::new();
        self.write(item, number, &mut octets);
        Flow::decode(&*octets).expect("what is written is a flow")
    }

    /// Version 8 of RFC 9562: numbers of this agent, unique among its flows and, by the agent's beginning, among agents.
    fn uuid(&self, item: &Item, number: u64) -> Uuid {
        let is_dns = matches!(item, Item::Dns(_));
        let kind = 0x8000 | u64::from(!item.has_passed()) << 1 | u64::from(is_dns);
        let high = (self.began & 0xffff_ffff_ffff) << 16 | kind;
        Uuid::new(high, 0x8000 << 48 | (number & 0x3fff_ffff_ffff_ffff))
    }
}

/// Appends a field that is a time.
pub fn time(field: u32, time: Timestamp, out: &mut Vec<u8>) {
    message(field, out, |out| {
        filled(1, time.as_second().cast_unsigned(), out);
        filled(2, i64::from(time.subsec_nanosecond()).cast_unsigned(), out);
    });
}

/// What became of a flow.
pub fn verdict(verdict: Verdict) -> wire::Verdict {
    match verdict {
        Verdict::Forwarded => wire::Verdict::Forwarded,
        Verdict::Denied | Verdict::Rejected => wire::Verdict::Dropped,
        Verdict::WouldDeny => wire::Verdict::Audit,
        Verdict::Error => wire::Verdict::Error,
    }
}

/// Why a packet was dropped, or would have been.
pub fn drop_reason(reason: Reason) -> DropReason {
    match reason {
        Reason::Rule | Reason::SniMismatch | Reason::SniAbsent | Reason::NotTls => DropReason::PolicyDeny,
        Reason::TierDefault
        | Reason::ModeDefault
        | Reason::BackendsDiffer
        | Reason::DnsUnreadQuery
        | Reason::TlsUnread => DropReason::PolicyDenied,
        Reason::FromHost => DropReason::Unknown,
        Reason::Truncated
        | Reason::BadIpHeader
        | Reason::TinyFragment
        | Reason::DnsOutOfOrder
        | Reason::TlsOutOfOrder => DropReason::InvalidPacketDropped,
        Reason::BadTransportHeader => DropReason::CtTruncatedOrInvalidHeader,
        Reason::UnknownEtherType => DropReason::UnsupportedL3Protocol,
        Reason::TooManyHeaders | Reason::RoutingHeader => DropReason::InvalidIpv6ExtensionHeader,
        Reason::OrphanFragment => DropReason::FirstLogicalDatagramFragmentNotFound,
        Reason::SpoofedSource => DropReason::InvalidSourceIp,
        Reason::UnrelatedError => DropReason::UnknownConnectionTrackingState,
        Reason::FlowTableFull => DropReason::CtMapInsertionFailed,
        Reason::EndpointNotReady => DropReason::DropEpNotReady,
        Reason::RogueRouter => DropReason::ForbiddenIcmpv6Message,
    }
}

fn of_record(record: &Record, uuid: &Uuid, out: &mut Vec<u8>) {
    let drop = drop_of(record.verdict, record.reason);
    let (source, destination) = (&record.source, &record.destination);
    let verdict = verdict(record.verdict);
    time(1, record.time, out);
    filled(2, verdict as u64, out);
    filled(3, drop as u64, out);
    parts::addresses(source, destination, out);
    parts::transport(record, out);
    parts::ends((source, destination), wire::FlowType::L3L4, &record.node, out);
    let (kind, sub_kind) = event_type(record, drop);
    message(19, out, |out| {
        filled(1, kind.cast_unsigned().into(), out);
        filled(2, sub_kind.cast_unsigned().into(), out);
    });
    parts::service(20, source, out);
    parts::service(21, destination, out);
    let direction = direction(record.direction);
    filled(22, direction as u64, out);
    filled(23, u64::from(record.rule.is_some()) * MATCH_L3_L4, out);
    filled(25, drop as u64, out);
    parts::is_reply(false, out);
    octets(34, uuid.text(), out);
    if let Some(rule) = &record.rule {
        parts::decided_by((direction, verdict), rule, record.revision, out);
    }
    message(parts::SUMMARY, out, |out| summary::of_record(record, out));
}

fn drop_of(verdict: Verdict, reason: Reason) -> DropReason {
    if verdict == Verdict::Forwarded { DropReason::Unknown } else { drop_reason(reason) }
}

/// The kind of event, and what it is within it.
fn event_type(record: &Record, drop: DropReason) -> (i32, i32) {
    match record.event {
        Event::Admitted | Event::Refused | Event::Cut => (event::POLICY_VERDICT, 0),
        Event::Ended if record.verdict.passes() => match record.direction {
            Direction::Egress => (event::TRACE, event::FROM_ENDPOINT),
            Direction::Ingress => (event::TRACE, event::TO_ENDPOINT),
        },
        Event::Ended | Event::Dropped => (event::DROP, drop.into()),
    }
}

fn direction(direction: Direction) -> TrafficDirection {
    match direction {
        Direction::Egress => TrafficDirection::Egress,
        Direction::Ingress => TrafficDirection::Ingress,
    }
}
