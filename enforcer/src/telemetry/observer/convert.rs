//! From a record to a flow of the observer API, field by field as `docs/reference/observer.md` says. Owns the mapping;
//! never filters and never reads a clock.

mod dns;
mod summary;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::decide::Direction;
use enforcer_common::verdict::{Reason, Verdict};
use enforcer_core::protocol::Protocol;
use enforcer_core::record::{Entity, Event, Icmp, Peer, Record, RuleRef, TcpFlags};
use jiff::Timestamp;

use super::wire::flow::{self as wire, DropReason, Flow, TrafficDirection, layer4};
use crate::telemetry::records::Item;

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
const MATCH_L3_L4: u32 = 2;
/// Identity of the node itself.
const HOST: u32 = 1;
/// Identity of everything that is neither node nor workload.
const WORLD: u32 = 2;

/// What is the same for all flows of an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The node's name.
    pub node: Arc<str>,
    /// Tells this agent's flows from another's, or an earlier one's: when it began, nanoseconds since 1970.
    pub began: u64,
}

impl Origin {
    /// The flow of a record, by its number among those of its kind.
    pub fn flow(&self, item: &Item, number: u64) -> Flow {
        match item {
            Item::Flow(record) => of_record(record, self.uuid(false, number)),
            Item::Dns(query) => dns::of_record(&query.record(), self.uuid(true, number)),
        }
    }

    /// Version 8 of RFC 9562: numbers of this agent, unique among its flows and, by the agent's beginning, among agents.
    fn uuid(&self, is_dns: bool, number: u64) -> String {
        let [high, low] = [(self.began >> 16) as u32, (self.began & 0xffff) as u32];
        let [kind, upper] = [0x8000 | u32::from(is_dns), 0x8000 | (number >> 48) as u32 & 0x3fff];
        format!("{high:08x}-{low:04x}-{kind:04x}-{upper:04x}-{:012x}", number & 0xffff_ffff_ffff)
    }
}

/// A time on the wire.
pub fn time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
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

fn of_record(record: &Record, uuid: String) -> Flow {
    let drop = drop_of(record.verdict, record.reason);
    let mut flow = Flow {
        time: Some(time(record.time)),
        verdict: verdict(record.verdict).into(),
        drop_reason: drop as u32,
        drop_reason_desc: drop.into(),
        ip: Some(addresses(&record.source, &record.destination)),
        l4: transport(record),
        source: Some(endpoint(&record.source)),
        destination: Some(endpoint(&record.destination)),
        r#type: wire::FlowType::L3L4.into(),
        node_name: record.node.to_string(),
        source_names: names(&record.source),
        destination_names: names(&record.destination),
        event_type: Some(event_type(record, drop)),
        source_service: service(&record.source),
        destination_service: service(&record.destination),
        traffic_direction: direction(record.direction).into(),
        policy_match_type: if record.rule.is_some() { MATCH_L3_L4 } else { 0 },
        is_reply: Some(false),
        uuid,
        summary: summary::of_record(record),
        ..Flow::default()
    };
    if let Some(rule) = &record.rule {
        decided_by(&mut flow, rule, record.revision);
    }
    flow
}

/// Enters the rule that decided, where clients look for it.
fn decided_by(flow: &mut Flow, rule: &RuleRef, revision: u32) {
    let passes = flow.verdict == i32::from(wire::Verdict::Forwarded);
    let is_egress = flow.traffic_direction == i32::from(TrafficDirection::Egress);
    let list = match (is_egress, passes) {
        (true, true) => &mut flow.egress_allowed_by,
        (true, false) => &mut flow.egress_denied_by,
        (false, true) => &mut flow.ingress_allowed_by,
        (false, false) => &mut flow.ingress_denied_by,
    };
    let mut labels = vec![format!("enforcer:tier={}", rule.tier)];
    labels.extend(rule.rule.as_ref().map(|name| format!("enforcer:rule={name}")));
    labels.extend(rule.index.map(|index| format!("enforcer:index={index}")));
    list.push(wire::Policy {
        name: rule.name.clone(),
        namespace: rule.namespace.clone().unwrap_or_default(),
        labels,
        revision: revision.into(),
        kind: rule.kind.clone(),
    });
}

fn drop_of(verdict: Verdict, reason: Reason) -> DropReason {
    if verdict == Verdict::Forwarded { DropReason::Unknown } else { drop_reason(reason) }
}

fn event_type(record: &Record, drop: DropReason) -> wire::CiliumEventType {
    let (kind, sub) = match record.event {
        Event::Admitted | Event::Refused | Event::Cut => (event::POLICY_VERDICT, 0),
        Event::Ended if record.verdict.passes() => match record.direction {
            Direction::Egress => (event::TRACE, event::FROM_ENDPOINT),
            Direction::Ingress => (event::TRACE, event::TO_ENDPOINT),
        },
        Event::Ended | Event::Dropped => (event::DROP, drop.into()),
    };
    wire::CiliumEventType { r#type: kind, sub_type: sub }
}

fn direction(direction: Direction) -> TrafficDirection {
    match direction {
        Direction::Egress => TrafficDirection::Egress,
        Direction::Ingress => TrafficDirection::Ingress,
    }
}

fn addresses(source: &Peer, destination: &Peer) -> wire::Ip {
    let version = match destination.address {
        IpAddr::V4(_) => wire::IpVersion::IPv4,
        IpAddr::V6(_) => wire::IpVersion::IPv6,
    };
    wire::Ip {
        source: source.address.to_string(),
        destination: destination.address.to_string(),
        ip_version: version.into(),
    }
}

fn transport(record: &Record) -> Option<wire::Layer4> {
    let port = |peer: &Peer| u32::from(peer.port.unwrap_or(0));
    let (source_port, destination_port) = (port(&record.source), port(&record.destination));
    let Icmp { kind, code } = record.icmp.unwrap_or(Icmp { kind: 0, code: 0 });
    let icmp = wire::Icmp { r#type: kind.into(), code: code.into() };
    let protocol = match record.protocol {
        Protocol::TCP => {
            layer4::Protocol::Tcp(wire::Tcp { source_port, destination_port, flags: flags(record.tcp_flags) })
        }
        Protocol::UDP => layer4::Protocol::Udp(wire::Udp { source_port, destination_port }),
        Protocol::SCTP => layer4::Protocol::Sctp(wire::Sctp { source_port, destination_port }),
        Protocol::ICMP => layer4::Protocol::IcmPv4(icmp),
        Protocol::ICMPV6 => layer4::Protocol::IcmPv6(icmp),
        _ => return None,
    };
    Some(wire::Layer4 { protocol: Some(protocol) })
}

/// The flags that are known to have been seen.
fn flags(TcpFlags(seen): TcpFlags) -> Option<wire::TcpFlags> {
    let [fin, syn, rst, psh, ack, urg, ece, cwr] = std::array::from_fn(|bit| seen >> bit & 1 != 0);
    (seen != 0).then_some(wire::TcpFlags {
        fin,
        syn,
        rst,
        psh,
        ack,
        urg,
        ece,
        cwr,
        ..wire::TcpFlags::default()
    })
}

/// What a pod runs for: its controller, or itself.
fn workload(peer: &Peer, name: &str) -> wire::Workload {
    let controller = peer.controller.as_deref().and_then(|controller| controller.split_once('/'));
    let (kind, name) = controller.unwrap_or(("Pod", name));
    wire::Workload { name: name.to_owned(), kind: kind.to_owned() }
}

fn names(peer: &Peer) -> Vec<String> {
    peer.names.iter().map(|name| name.to_string()).collect()
}

/// The service that an address is a cluster address of.
fn service(peer: &Peer) -> Option<wire::Service> {
    let (namespace, name) = peer.service.as_ref()?.split_once('/')?;
    Some(wire::Service { name: name.to_owned(), namespace: namespace.to_owned() })
}

fn endpoint(peer: &Peer) -> wire::Endpoint {
    let reserved = |identity, label: &str| wire::Endpoint {
        identity,
        labels: vec![label.to_owned()],
        ..wire::Endpoint::default()
    };
    let (Some(namespace), Some(name)) = (&peer.namespace, &peer.workload) else {
        return match peer.entity {
            Some(Entity::Host) => reserved(HOST, "reserved:host"),
            Some(Entity::World) => reserved(WORLD, "reserved:world"),
            None => wire::Endpoint::default(),
        };
    };
    let mut labels = vec![format!("k8s:io.kubernetes.pod.namespace={namespace}")];
    let own = peer.labels.iter().flat_map(|labels| labels.iter());
    labels.extend(own.map(|(key, value)| format!("k8s:{key}={value}")));
    wire::Endpoint {
        identity: peer.identity.map_or(0, |identity| identity.saturating_add(IDENTITY_OFFSET)),
        namespace: namespace.to_string(),
        labels,
        pod_name: name.to_string(),
        workloads: vec![workload(peer, name)],
        cluster_name: CLUSTER.to_owned(),
    }
}
