//! The body of a log record: one line for a reader who sees nothing else of it. Owns its form; facts are in attributes.

use super::super::{Exported, policy_text};
use crate::export::protobuf::{head, octets_length};
use crate::protocol::Protocol;
use crate::record::Peer;
use crate::record::aggregate::{Aggregate, End};
use crate::record::text::direction_text;
use crate::write::{push_address, push_number};

/// Octets that most bodies fit into.
const USUAL: usize = 192;

/// Writes `LogRecord.body`.
pub(super) fn write(record: Exported<'_>, out: &mut Vec<u8>) {
    let mut line = Vec::with_capacity(USUAL);
    match record {
        Exported::Flow(record) => {
            word(record.verdict.text(), &mut line);
            word(record.event.text(), &mut line);
            word(direction_text(record.direction), &mut line);
            protocol(record.protocol, &mut line);
            peer(&record.source, &mut line);
            line.extend_from_slice(b" -> ");
            peer(&record.destination, &mut line);
            if let Some(rule) = &record.rule {
                line.extend_from_slice(b" by ");
                line.extend_from_slice(policy_text(rule).as_bytes());
            }
        }
        Exported::Dns(record) => {
            word(record.verdict.text(), &mut line);
            word("dns", &mut line);
            word(record.dns.outcome.text(), &mut line);
            peer(&record.source, &mut line);
            line.extend_from_slice(b" asks for ");
            line.extend_from_slice(record.dns.name.as_deref().unwrap_or("-").as_bytes());
        }
        Exported::Aggregate(one) => aggregate(one, &mut line),
    }
    head(5, octets_length(line.len()), out);
    head(1, line.len(), out);
    out.extend_from_slice(&line);
}

/// `DENIED 12 records TCP update/update -> world:443 by default`, as far as it is known.
fn aggregate(aggregate: &Aggregate, line: &mut Vec<u8>) {
    let group = &aggregate.group;
    if let Some(verdict) = group.verdict {
        word(verdict.text(), line);
    }
    push_number(aggregate.records, line);
    line.extend_from_slice(b" records ");
    if let Some(one) = group.protocol {
        protocol(one, line);
    }
    common(&group.source, line);
    line.extend_from_slice(b" -> ");
    common(&group.destination, line);
    if let Some(rule) = &group.rule {
        line.extend_from_slice(b" by ");
        line.extend_from_slice(policy_text(rule).as_bytes());
    }
}

/// What is known of one end, `*` for nothing; and the port.
fn common(end: &End, line: &mut Vec<u8>) {
    match (&end.namespace, end.workload.as_ref().or(end.controller.as_ref())) {
        (Some(namespace), name) => {
            line.extend_from_slice(namespace.as_bytes());
            line.push(b'/');
            line.extend_from_slice(name.map_or(b"*", |name| name.as_bytes()));
        }
        _ => match (end.names.first(), end.address, end.entity) {
            (Some(name), ..) => line.extend_from_slice(name.as_bytes()),
            (None, Some(address), _) => push_address(address, line),
            (None, None, Some(entity)) => line.extend_from_slice(entity.text().as_bytes()),
            (None, None, None) => line.push(b'*'),
        },
    }
    if let Some(port) = end.port {
        line.push(b':');
        push_number(port.into(), line);
    }
}

fn word(word: &str, line: &mut Vec<u8>) {
    line.extend_from_slice(word.as_bytes());
    line.push(b' ');
}

fn protocol(protocol: Protocol, line: &mut Vec<u8>) {
    match protocol {
        Protocol::TCP => word("TCP", line),
        Protocol::UDP => word("UDP", line),
        other => word(&other.to_string(), line),
    }
}

/// `namespace/workload`, a name or an address, and the port.
fn peer(peer: &Peer, line: &mut Vec<u8>) {
    match (&peer.namespace, &peer.workload, peer.names.first()) {
        (Some(namespace), Some(workload), _) => {
            line.extend_from_slice(namespace.as_bytes());
            line.push(b'/');
            line.extend_from_slice(workload.as_bytes());
        }
        (_, _, Some(name)) => line.extend_from_slice(name.as_bytes()),
        _ if peer.address.is_ipv6() && peer.port.is_some() => {
            line.push(b'[');
            push_address(peer.address, line);
            line.push(b']');
        }
        _ => push_address(peer.address, line),
    }
    if let Some(port) = peer.port {
        line.push(b':');
        push_number(port.into(), line);
    }
}
