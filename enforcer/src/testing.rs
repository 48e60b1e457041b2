//! What the tests of several modules need. Never part of the product.

use std::sync::Arc;

use enforcer_common::decide::Direction;
use enforcer_common::flow::{Count, Flow, FlowKey, tcp};
use enforcer_common::packet;
use enforcer_common::policy::WORLD;
use enforcer_common::verdict::{Reason, Verdict};
use enforcer_core::record::Record;
use enforcer_core::record::dns::{DnsRecord, Facts, Parties};

use crate::telemetry::query::Query;

/// The reference's example record, changed.
pub(crate) fn record(change: impl FnOnce(&mut Record)) -> Record {
    let mut record = serde_json::from_str(include_str!("../core/src/record/example.json")).expect("a record");
    change(&mut record);
    record
}

/// A flow that endpoint 100 begins, to port 22 of 198.51.100.7, with two packets of together 120 octets; changed.
pub(crate) fn flow(change: impl FnOnce(&mut Flow)) -> (FlowKey, Flow) {
    let ip = |text: &str| text.parse::<std::net::IpAddr>().expect("an address").into();
    let key = FlowKey {
        remote: ip("198.51.100.7"),
        local: ip("10.0.0.3"),
        remote_port: 22,
        local_port: 40000,
        interface: 5,
        protocol: packet::TCP,
        padding: [0; 3],
    };
    let mut flow = Flow {
        revision: 1,
        slot: 0,
        endpoint: 100,
        rule: 0,
        identity: WORLD,
        name_class: 0,
        port: 22,
        idle_seconds: 10,
        verdict: Verdict::Forwarded as u8,
        reason: Reason::Rule as u8,
        direction: Direction::Egress as u8,
        tcp: tcp::SAW_SYN,
        flags: 0,
        tcp_flags: tcp::SYN,
        padding: 0,
        epoch: 0,
        staged_rule: 0,
        staged_verdict: 0,
        staged_reason: 0,
        list: 0,
        started: 1_002_000_000_000,
        last_seen: 1_002_000_000_000,
        sent: Count { packets: 2, bytes: 120 },
        received: Count::default(),
        cookie: 0,
    };
    change(&mut flow);
    (key, flow)
}

/// The reference's example DNS record, changed.
pub(crate) fn dns_record(change: impl FnOnce(&mut DnsRecord)) -> DnsRecord {
    let text = include_str!("../core/src/record/dns-example.json");
    let mut record = serde_json::from_str(text).expect("a record");
    change(&mut record);
    record
}

/// A query between the ends of [`dns_record`], without a message, changed.
pub(crate) fn query(change: impl FnOnce(&mut Query)) -> Query {
    let DnsRecord { time, node, source, destination, protocol, dns, .. } = dns_record(|_| ());
    let parties = Arc::new(Parties::between(node, source, destination));
    let (outcome, latency_ns, learned) = (dns.outcome, dns.latency_ns, dns.learned);
    let facts =
        Facts { time, parties, local_port: 40_112, protocol, outcome, latency_ns, learned, rule: None };
    let mut query = Query { facts, message: Vec::new() };
    change(&mut query);
    query
}
