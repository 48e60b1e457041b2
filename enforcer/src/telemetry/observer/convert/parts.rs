//! Parts of a flow that more than one kind of record has. Owns how they are written; numbers of fields are those of
//! `proto/flow/flow.proto`. As the format has it, what is empty or zero is left out.

use std::net::IpAddr;

use enforcer_core::export::protobuf::{head, message, number, octets};
use enforcer_core::protocol::Protocol;
use enforcer_core::record::{Entity, Icmp, Peer, Record, RuleRef, TcpFlags};
use enforcer_core::write::{push_address, push_number};

use super::super::wire::flow::{FlowType, IpVersion, TrafficDirection, Verdict};
use super::{CLUSTER, IDENTITY_OFFSET};

/// `Flow.Summary`.
pub(super) const SUMMARY: u32 = 100_000;
/// Identity of the node itself.
const HOST: u64 = 1;
/// Identity of everything that is neither node nor workload.
const WORLD: u64 = 2;
/// Where a UUID has a hyphen.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// A number in the text form of RFC 9562.
pub(super) struct Uuid([u8; 36]);

impl Uuid {
    /// The number of these halves.
    pub(super) fn new(high: u64, low: u64) -> Self {
        let mut text = [b'-'; 36];
        let mut rest = u128::from(high) << 64 | u128::from(low);
        for (index, digit) in text.iter_mut().enumerate().rev() {
            if !HYPHENS.contains(&index) {
                *digit = b"0123456789abcdef"[(rest & 15) as usize];
                rest >>= 4;
            }
        }
        Self(text)
    }

    /// Its text.
    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }
}

/// A number, unless it is 0.
pub(super) fn filled(field: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        number(field, value, out);
    }
}

/// A text, unless it is empty.
pub(super) fn text(field: u32, value: &str, out: &mut Vec<u8>) {
    if !value.is_empty() {
        octets(field, value.as_bytes(), out);
    }
}

/// A text in parts, as one of several.
fn joined<const N: usize>(field: u32, parts: [&str; N], out: &mut Vec<u8>) {
    head(field, parts.iter().map(|part| part.len()).sum(), out);
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// Both addresses.
pub(super) fn addresses(source: &Peer, destination: &Peer, out: &mut Vec<u8>) {
    let version = match destination.address {
        IpAddr::V4(_) => IpVersion::IPv4,
        IpAddr::V6(_) => IpVersion::IPv6,
    };
    message(5, out, |out| {
        message(1, out, |out| push_address(source.address, out));
        message(2, out, |out| push_address(destination.address, out));
        number(3, version as u64, out);
    });
}

/// The transport of a flow; none for protocols that clients do not know.
pub(super) fn transport(record: &Record, out: &mut Vec<u8>) {
    let ports = [record.source.port, record.destination.port];
    let Icmp { kind, code } = record.icmp.unwrap_or(Icmp { kind: 0, code: 0 });
    let types = [kind, code].map(|number| Some(number.into()));
    match record.protocol {
        Protocol::TCP => layer(1, ports, record.tcp_flags, out),
        Protocol::UDP => layer(2, ports, TcpFlags::default(), out),
        Protocol::ICMP => layer(3, types, TcpFlags::default(), out),
        Protocol::ICMPV6 => layer(4, types, TcpFlags::default(), out),
        Protocol::SCTP => layer(5, ports, TcpFlags::default(), out),
        _ => {}
    }
}

/// One of the protocols of `Layer4`: two numbers, and TCP's flags that are known to have been seen.
pub(super) fn layer(protocol: u32, numbers: [Option<u16>; 2], seen: TcpFlags, out: &mut Vec<u8>) {
    message(6, out, |out| {
        message(protocol, out, |out| {
            let [first, second] = numbers.map(|number| number.unwrap_or(0).into());
            filled(1, first, out);
            filled(2, second, out);
            if !seen.is_empty() {
                message(3, out, |out| {
                    (0..8).for_each(|bit| filled(bit + 1, (seen.0 >> bit & 1).into(), out));
                });
            }
        });
    });
}

/// Whoever is at both ends and the names of each; between them, in the order of their numbers, what kind of flow it is and
/// which node tells it.
pub(super) fn ends((source, destination): (&Peer, &Peer), kind: FlowType, node: &str, out: &mut Vec<u8>) {
    endpoint(8, source, out);
    endpoint(9, destination, out);
    filled(10, kind as u64, out);
    text(11, node, out);
    names(13, source, out);
    names(14, destination, out);
}

/// Whoever is at one end.
fn endpoint(field: u32, peer: &Peer, out: &mut Vec<u8>) {
    message(field, out, |out| match (&peer.namespace, &peer.workload, peer.entity) {
        (Some(namespace), Some(name), _) => workload(peer, namespace, name, out),
        (.., Some(Entity::Host)) => reserved(HOST, b"reserved:host", out),
        (.., Some(Entity::World)) => reserved(WORLD, b"reserved:world", out),
        _ => {}
    });
}

fn reserved(identity: u64, label: &[u8], out: &mut Vec<u8>) {
    number(2, identity, out);
    octets(4, label, out);
}

fn workload(peer: &Peer, namespace: &str, name: &str, out: &mut Vec<u8>) {
    filled(2, peer.identity.map_or(0, |identity| identity.saturating_add(IDENTITY_OFFSET)).into(), out);
    text(3, namespace, out);
    joined(4, ["k8s:io.kubernetes.pod.namespace=", namespace], out);
    for (key, value) in peer.labels.iter().flat_map(|labels| labels.iter()) {
        joined(4, ["k8s:", key, "=", value], out);
    }
    text(5, name, out);
    // What a pod runs for: its controller, or itself.
    let controller = peer.controller.as_deref().and_then(|controller| controller.split_once('/'));
    let (kind, name) = controller.unwrap_or(("Pod", name));
    message(6, out, |out| {
        text(1, name, out);
        text(2, kind, out);
    });
    text(7, CLUSTER, out);
}

/// The names of one end.
fn names(field: u32, peer: &Peer, out: &mut Vec<u8>) {
    peer.names.iter().for_each(|name| octets(field, name.as_bytes(), out));
}

/// The service that an address is a cluster address of.
pub(super) fn service(field: u32, peer: &Peer, out: &mut Vec<u8>) {
    let parts = peer.service.as_ref().and_then(|service| service.split_once('/'));
    if let Some((namespace, name)) = parts {
        message(field, out, |out| {
            text(1, name, out);
            text(2, namespace, out);
        });
    }
}

/// True for an answer: a message, so that false is told too.
pub(super) fn is_reply(is_reply: bool, out: &mut Vec<u8>) {
    message(26, out, |out| filled(1, is_reply.into(), out));
}

/// The rule that decided, where clients look for it.
pub(super) fn decided_by(
    (direction, verdict): (TrafficDirection, Verdict),
    rule: &RuleRef,
    revision: u32,
    out: &mut Vec<u8>,
) {
    let list = match (direction == TrafficDirection::Egress, verdict == Verdict::Forwarded) {
        (true, true) => 21_001,
        (false, true) => 21_002,
        (true, false) => 21_004,
        (false, false) => 21_005,
    };
    message(list, out, |out| {
        text(1, &rule.name, out);
        text(2, rule.namespace.as_deref().unwrap_or_default(), out);
        joined(3, ["enforcer:tier=", &rule.tier], out);
        if let Some(name) = &rule.rule {
            joined(3, ["enforcer:rule=", name], out);
        }
        if let Some(index) = rule.index {
            message(3, out, |out| {
                out.extend_from_slice(b"enforcer:index=");
                push_number(index.into(), out);
            });
        }
        filled(4, revision.into(), out);
        text(5, &rule.kind, out);
    });
}
