//! DNS records as flows of layer 7: an answered query is the answer, on its way from the resolver; one that policy refused
//! or nobody answered is the query. Owns that choice.

use std::collections::BTreeSet;

use enforcer_core::dns::numbers::RecordType;
use enforcer_core::export::protobuf::{message, octets};
use enforcer_core::protocol::Protocol;
use enforcer_core::record::TcpFlags;
use enforcer_core::record::dns::{Dns, DnsRecord, Outcome};
use prost::Message as _;

use super::super::wire::flow::{self as wire, DropReason, layer7};
use super::parts::{self, Uuid, filled, text};
use super::{event, summary, time, verdict};

/// Where the message was read.
const SOURCE: &str = "enforcer";

/// Appends the flow of a DNS record.
pub(super) fn of_record(record: &DnsRecord, uuid: &Uuid, out: &mut Vec<u8>) {
    let is_answer = !matches!(record.dns.outcome, Outcome::Refused | Outcome::Timeout);
    let (from, to) = match is_answer {
        true => (&record.destination, &record.source),
        false => (&record.source, &record.destination),
    };
    let drop = match record.dns.outcome {
        Outcome::Refused => DropReason::PolicyDeny,
        _ => DropReason::Unknown,
    };
    let (verdict, direction) = (verdict(record.verdict), wire::TrafficDirection::Egress);
    let layer7 = layer7(&record.dns, is_answer);
    time(1, record.time, out);
    filled(2, verdict as u64, out);
    filled(3, drop as u64, out);
    parts::addresses(from, to, out);
    let transport = if record.protocol == Protocol::TCP { 1 } else { 2 };
    parts::layer(transport, [from.port, to.port], TcpFlags::default(), out);
    parts::ends((from, to), wire::FlowType::L7, &record.node, out);
    octets(15, &layer7.encode_to_vec(), out);
    message(19, out, |out| filled(1, event::L7.cast_unsigned().into(), out));
    filled(22, direction as u64, out);
    filled(25, drop as u64, out);
    parts::is_reply(is_answer, out);
    octets(34, uuid.text(), out);
    if let Some(rule) = &record.rule {
        parts::decided_by((direction, verdict), rule, 0, out);
    }
    let Some(layer7::Record::Dns(dns)) = &layer7.record else { return };
    text(parts::SUMMARY, &summary::of_dns(record, &dns.ips), out);
}

fn layer7(dns: &Dns, is_answer: bool) -> wire::Layer7 {
    wire::Layer7 {
        r#type: if is_answer { wire::L7FlowType::Response } else { wire::L7FlowType::Request }.into(),
        latency_ns: dns.latency_ns.unwrap_or(0),
        record: Some(layer7::Record::Dns(content(dns))),
    }
}

fn content(dns: &Dns) -> wire::Dns {
    let data_of = |wanted: &[RecordType]| {
        let found = dns.answers.iter().filter(|answer| wanted.contains(&answer.kind));
        found.filter_map(|answer| answer.data.clone()).collect()
    };
    let of_addresses = |kind: RecordType| kind == RecordType::A || kind == RecordType::AAAA;
    let lifetimes = dns.answers.iter().filter(|answer| of_addresses(answer.kind)).map(|answer| answer.ttl);
    let types: BTreeSet<String> = dns.answers.iter().map(|answer| answer.kind.to_string()).collect();
    wire::Dns {
        query: dns.name.as_ref().map_or_else(String::new, |name| format!("{name}.")),
        ips: data_of(&[RecordType::A, RecordType::AAAA]),
        ttl: lifetimes.min().unwrap_or(0),
        cnames: data_of(&[RecordType::CNAME]),
        observation_source: SOURCE.to_owned(),
        rcode: dns.rcode.map_or(0, |code| code.0.into()),
        qtypes: dns.kind.iter().map(ToString::to_string).collect(),
        rrtypes: types.into_iter().collect(),
    }
}
