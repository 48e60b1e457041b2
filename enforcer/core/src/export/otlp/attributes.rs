//! Attributes of log records: which there are for a flow and for a query, and how they are written. Never their
//! meaning: that is the record's.

pub(super) mod aggregate;

use std::net::IpAddr;

use jiff::Timestamp;

use super::nanoseconds;
use crate::export::protobuf::{head, number, octets, octets_length, varint_length};
use crate::protocol::Protocol;
use crate::record::dns::DnsRecord;
use crate::record::text::direction_text;
use crate::record::{Count, Peer, Process, Record, RuleRef, Staged};
use crate::write::push_address;

/// `LogRecord.attributes`.
const ATTRIBUTES: u32 = 6;

/// Octets that every address fits into.
const ADDRESS: usize = 48;

/// Names of the attributes of one end.
struct EndNames {
    address: &'static str,
    port: &'static str,
    namespace: &'static str,
    pod: &'static str,
    controller: &'static str,
    zone: &'static str,
    service: &'static str,
    /// What stands before the key of a label.
    label: &'static str,
    entity: &'static str,
    identity: &'static str,
    names: &'static str,
}

const SOURCE: EndNames = EndNames {
    address: "source.address",
    port: "source.port",
    namespace: "source.k8s.namespace.name",
    pod: "source.k8s.pod.name",
    controller: "enforcer.source.controller",
    zone: "enforcer.source.zone",
    service: "enforcer.source.service",
    label: "source.k8s.pod.label.",
    entity: "enforcer.source.entity",
    identity: "enforcer.source.identity",
    names: "enforcer.source.names",
};

const DESTINATION: EndNames = EndNames {
    address: "destination.address",
    port: "destination.port",
    namespace: "destination.k8s.namespace.name",
    pod: "destination.k8s.pod.name",
    controller: "enforcer.destination.controller",
    zone: "enforcer.destination.zone",
    service: "enforcer.destination.service",
    label: "destination.k8s.pod.label.",
    entity: "enforcer.destination.entity",
    identity: "enforcer.destination.identity",
    names: "enforcer.destination.names",
};

/// Names of the attributes of a rule.
struct RuleNames {
    tier: &'static str,
    kind: &'static str,
    namespace: &'static str,
    name: &'static str,
    rule: &'static str,
    index: &'static str,
}

const RULE: RuleNames = RuleNames {
    tier: "enforcer.policy.tier",
    kind: "enforcer.policy.kind",
    namespace: "enforcer.policy.namespace",
    name: "enforcer.policy.name",
    rule: "enforcer.policy.rule.name",
    index: "enforcer.policy.rule.index",
};

const STAGED_RULE: RuleNames = RuleNames {
    tier: "enforcer.staged.policy.tier",
    kind: "enforcer.staged.policy.kind",
    namespace: "enforcer.staged.policy.namespace",
    name: "enforcer.staged.policy.name",
    rule: "enforcer.staged.policy.rule.name",
    index: "enforcer.staged.policy.rule.index",
};

/// Those of a flow record.
pub(super) fn flow(record: &Record, out: &mut Vec<u8>) {
    text("enforcer.verdict", record.verdict.text(), out);
    text("enforcer.reason", record.reason.text(), out);
    text("enforcer.direction", direction_text(record.direction), out);
    end(&SOURCE, &record.source, out);
    end(&DESTINATION, &record.destination, out);
    layers(record.protocol, record.source.address, out);
    if let Some(icmp) = record.icmp {
        integer("enforcer.icmp.type", icmp.kind.into(), out);
        integer("enforcer.icmp.code", icmp.code.into(), out);
    }
    texts("enforcer.tcp.flags", record.tcp_flags.names(), out);
    counts(["enforcer.flow.forward.packets", "enforcer.flow.forward.bytes"], record.forward, out);
    counts(["enforcer.flow.reply.packets", "enforcer.flow.reply.bytes"], record.reply, out);
    time("enforcer.flow.start", record.start, out);
    time("enforcer.flow.last", record.last, out);
    if let Some(end) = record.end {
        time("enforcer.flow.end", end, out);
    }
    if let Some(reason) = record.end_reason {
        text("enforcer.flow.end_reason", reason.text(), out);
    }
    if let Some(name) = &record.server_name {
        text("server.address", &**name, out);
    }
    if let Some(one) = &record.rule {
        rule(&RULE, one, out);
    }
    if let Some(staged) = &record.staged {
        preview(staged, out);
    }
    if let Some(process) = &record.process {
        behind(process, out);
    }
    integer("enforcer.policy.revision", record.revision.into(), out);
}

/// Those of a DNS record.
pub(super) fn dns(record: &DnsRecord, out: &mut Vec<u8>) {
    let dns = &record.dns;
    text("enforcer.verdict", record.verdict.text(), out);
    end(&SOURCE, &record.source, out);
    end(&DESTINATION, &record.destination, out);
    layers(record.protocol, record.destination.address, out);
    text("network.protocol.name", "dns", out);
    if let Some(one) = &record.rule {
        rule(&RULE, one, out);
    }
    if let Some(name) = &dns.name {
        text("dns.question.name", name, out);
    }
    if let Some(kind) = dns.kind {
        text("enforcer.dns.question.type", kind.to_string(), out);
    }
    text("enforcer.dns.outcome", dns.outcome.text(), out);
    if let Some(code) = dns.rcode {
        text("enforcer.dns.response_code", code.to_string(), out);
    }
    let addresses = dns.answers.iter().filter_map(|answer| answer.data.as_deref());
    texts("dns.answers", addresses, out);
    if let Some(latency) = dns.latency_ns {
        integer("enforcer.dns.latency", latency, out);
    }
    integer("enforcer.dns.learned", dns.learned.into(), out);
    integer("enforcer.dns.id", dns.id.into(), out);
}

fn end(names: &EndNames, peer: &Peer, out: &mut Vec<u8>) {
    let mut address = Vec::with_capacity(ADDRESS);
    push_address(peer.address, &mut address);
    text(names.address, address, out);
    if let Some(port) = peer.port {
        integer(names.port, port.into(), out);
    }
    if let Some(namespace) = &peer.namespace {
        text(names.namespace, &**namespace, out);
    }
    if let Some(workload) = &peer.workload {
        text(names.pod, &**workload, out);
    }
    for (name, value) in
        [(names.controller, &peer.controller), (names.zone, &peer.zone), (names.service, &peer.service)]
    {
        if let Some(value) = value {
            text(name, &**value, out);
        }
    }
    for (key, value) in peer.labels.iter().flat_map(|labels| labels.iter()) {
        labelled(names.label, key, value, out);
    }
    if let Some(entity) = peer.entity {
        text(names.entity, entity.text(), out);
    }
    if let Some(identity) = peer.identity {
        integer(names.identity, identity.into(), out);
    }
    texts(names.names, peer.names.iter().map(AsRef::as_ref), out);
}

fn behind(process: &Process, out: &mut Vec<u8>) {
    integer("process.pid", process.pid.into(), out);
    text("thread.name", &process.command, out);
    if let Some(executable) = &process.executable {
        text("process.executable.path", executable, out);
    }
    if let Some(container) = &process.container {
        text("container.id", container, out);
    }
}

fn layers(protocol: Protocol, address: IpAddr, out: &mut Vec<u8>) {
    transport(protocol, out);
    version(address, out);
}

fn transport(protocol: Protocol, out: &mut Vec<u8>) {
    match protocol {
        Protocol::TCP => text("network.transport", "tcp", out),
        Protocol::UDP => text("network.transport", "udp", out),
        other => text("network.transport", other.to_string().to_lowercase(), out),
    }
}

fn version(address: IpAddr, out: &mut Vec<u8>) {
    text("network.type", if address.is_ipv4() { "ipv4" } else { "ipv6" }, out);
}

fn counts(names: [&str; 2], count: Count, out: &mut Vec<u8>) {
    integer(names[0], count.packets, out);
    integer(names[1], count.bytes, out);
}

fn rule(names: &RuleNames, rule: &RuleRef, out: &mut Vec<u8>) {
    text(names.tier, &rule.tier, out);
    text(names.kind, &rule.kind, out);
    if let Some(namespace) = &rule.namespace {
        text(names.namespace, namespace, out);
    }
    text(names.name, &rule.name, out);
    if let Some(name) = &rule.rule {
        text(names.rule, name, out);
    }
    if let Some(index) = rule.index {
        integer(names.index, index.into(), out);
    }
}

fn preview(staged: &Staged, out: &mut Vec<u8>) {
    text("enforcer.staged.verdict", staged.verdict.text(), out);
    text("enforcer.staged.reason", staged.reason.text(), out);
    if let Some(one) = &staged.rule {
        rule(&STAGED_RULE, one, out);
    }
}

/// A time, in nanoseconds since 1970.
fn time(name: &str, time: Timestamp, out: &mut Vec<u8>) {
    integer(name, nanoseconds(time), out);
}

fn text(name: &str, value: impl AsRef<[u8]>, out: &mut Vec<u8>) {
    text_in(ATTRIBUTES, name, value.as_ref(), out);
}

/// A text as an attribute in field `field` (`KeyValue` with `AnyValue.string_value`).
pub(super) fn text_in(field: u32, name: &str, value: &[u8], out: &mut Vec<u8>) {
    let any = octets_length(value.len());
    head(field, octets_length(name.len()) + octets_length(any), out);
    octets(1, name.as_bytes(), out);
    head(2, any, out);
    octets(1, value, out);
}

/// A label's text: the name of its attribute is in two parts.
fn labelled(prefix: &str, key: &str, value: &str, out: &mut Vec<u8>) {
    let (name, any) = (prefix.len() + key.len(), octets_length(value.len()));
    head(ATTRIBUTES, octets_length(name) + octets_length(any), out);
    head(1, name, out);
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(key.as_bytes());
    head(2, any, out);
    octets(1, value.as_bytes(), out);
}

/// A number as an attribute (`AnyValue.int_value`).
fn integer(name: &str, value: u64, out: &mut Vec<u8>) {
    let any = 1 + varint_length(value);
    head(ATTRIBUTES, octets_length(name.len()) + octets_length(any), out);
    octets(1, name.as_bytes(), out);
    head(2, any, out);
    number(3, value, out);
}

/// Texts as an attribute (`AnyValue.array_value`); none, no attribute.
fn texts<'a>(name: &str, values: impl Iterator<Item = &'a str> + Clone, out: &mut Vec<u8>) {
    let array: usize = values.clone().map(|value| octets_length(octets_length(value.len()))).sum();
    if array == 0 {
        return;
    }
    let any = octets_length(array);
    head(ATTRIBUTES, octets_length(name.len()) + octets_length(any), out);
    octets(1, name.as_bytes(), out);
    head(2, any, out);
    head(5, array, out);
    for value in values {
        head(1, octets_length(value.len()), out);
        octets(1, value.as_bytes(), out);
    }
}
