//! DNS records as flows of layer 7: an answered query is the answer, on its way from the resolver; one that policy refused
//! or nobody answered is the query. Owns that choice.

use std::collections::BTreeSet;

use enforcer_core::dns::numbers::RecordType;
use enforcer_core::protocol::Protocol;
use enforcer_core::record::dns::{Dns, DnsRecord, Outcome};

use super::super::wire::flow::{self as wire, DropReason, Flow, layer4, layer7};
use super::{addresses, decided_by, endpoint, event, names, summary, time, verdict};

/// Where the message was read.
const SOURCE: &str = "enforcer";

/// The flow of a DNS record.
pub(super) fn of_record(record: &DnsRecord, uuid: String) -> Flow {
    let is_answer = !matches!(record.dns.outcome, Outcome::Refused | Outcome::Timeout);
    let (from, to) = match is_answer {
        true => (&record.destination, &record.source),
        false => (&record.source, &record.destination),
    };
    let message = message(&record.dns);
    let drop = match record.dns.outcome {
        Outcome::Refused => DropReason::PolicyDeny,
        _ => DropReason::Unknown,
    };
    let mut flow = Flow {
        time: Some(time(record.time)),
        verdict: verdict(record.verdict).into(),
        drop_reason: drop as u32,
        drop_reason_desc: drop.into(),
        ip: Some(addresses(from, to)),
        l4: Some(transport(record.protocol, from.port, to.port)),
        source: Some(endpoint(from)),
        destination: Some(endpoint(to)),
        r#type: wire::FlowType::L7.into(),
        node_name: record.node.to_string(),
        source_names: names(from),
        destination_names: names(to),
        event_type: Some(wire::CiliumEventType { r#type: event::L7, sub_type: 0 }),
        traffic_direction: wire::TrafficDirection::Egress.into(),
        is_reply: Some(is_answer),
        uuid,
        summary: summary::of_dns(record, &message.ips),
        l7: Some(wire::Layer7 {
            r#type: if is_answer { wire::L7FlowType::Response } else { wire::L7FlowType::Request }.into(),
            latency_ns: record.dns.latency_ns.unwrap_or(0),
            record: Some(layer7::Record::Dns(message)),
        }),
        ..Flow::default()
    };
    if let Some(rule) = &record.rule {
        decided_by(&mut flow, rule, 0);
    }
    flow
}

fn message(dns: &Dns) -> wire::Dns {
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

fn transport(protocol: Protocol, source: Option<u16>, destination: Option<u16>) -> wire::Layer4 {
    let [source_port, destination_port] = [source, destination].map(|port| u32::from(port.unwrap_or(0)));
    let protocol = match protocol {
        Protocol::TCP => layer4::Protocol::Tcp(wire::Tcp { source_port, destination_port, flags: None }),
        _ => layer4::Protocol::Udp(wire::Udp { source_port, destination_port }),
    };
    wire::Layer4 { protocol: Some(protocol) }
}
