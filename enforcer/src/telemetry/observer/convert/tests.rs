//! Records and the flows they become, whole.

use std::collections::BTreeSet;

use enforcer_core::record::dns::Facts;
use enforcer_core::record::{EndReason, TcpFlags};

use super::super::wire::flow::layer4;
use super::*;
use crate::telemetry::query::Query;
use crate::testing::{query, record};

/// The answer `www.example A` through an alias.
const ALIASED: &[u8] = b"\x12\x34\x81\x80\0\x01\0\x02\0\0\0\0\x03WWW\x07example\0\0\x01\0\x01\
    \xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x03cdn\xc0\x10\
    \xc0\x29\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x07";

fn origin() -> Origin {
    Origin { node: "node-1".into(), began: 0x0123_4567_89ab_cdef }
}

fn flow_of(change: impl FnOnce(&mut Record)) -> Flow {
    origin().flow(&Item::Flow(Arc::new(record(change))), 7)
}

fn dns_of(change: impl FnOnce(&mut Query)) -> Flow {
    let query = query(|query| {
        query.message = ALIASED.to_vec();
        change(query);
    });
    origin().flow(&Item::Dns(Arc::new(query)), 7)
}

fn world() -> wire::Endpoint {
    wire::Endpoint { identity: 2, labels: vec!["reserved:world".to_owned()], ..wire::Endpoint::default() }
}

#[test]
fn a_refused_flow_is_a_policy_verdict_with_the_rule_that_denied_it() {
    let client = wire::Endpoint {
        identity: 17 + IDENTITY_OFFSET,
        namespace: "update".to_owned(),
        labels: ["k8s:io.kubernetes.pod.namespace=update", "k8s:app=update"].map(String::from).to_vec(),
        pod_name: "update".to_owned(),
        workloads: vec![wire::Workload { name: "update".to_owned(), kind: "Deployment".to_owned() }],
        cluster_name: "default".to_owned(),
    };
    let syn = wire::TcpFlags { syn: true, ..wire::TcpFlags::default() };
    let tcp = wire::Tcp { source_port: 40_112, destination_port: 443, flags: Some(syn) };
    let tier = wire::Policy {
        name: "default".to_owned(),
        labels: vec!["enforcer:tier=default".to_owned()],
        revision: 4,
        kind: "Tier".to_owned(),
        ..wire::Policy::default()
    };
    let expected = Flow {
        time: Some(prost_types::Timestamp { seconds: 1_767_614_462, nanos: 123_456_789 }),
        verdict: wire::Verdict::Dropped.into(),
        drop_reason: 133,
        drop_reason_desc: DropReason::PolicyDenied.into(),
        ip: Some(wire::Ip {
            source: "10.0.0.3".to_owned(),
            destination: "198.51.100.7".to_owned(),
            ip_version: wire::IpVersion::IPv4.into(),
        }),
        l4: Some(wire::Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) }),
        source: Some(client),
        destination: Some(world()),
        r#type: wire::FlowType::L3L4.into(),
        node_name: "node-1".to_owned(),
        destination_names: vec!["github.com".to_owned()],
        event_type: Some(wire::CiliumEventType { r#type: 5, sub_type: 0 }),
        traffic_direction: TrafficDirection::Egress.into(),
        policy_match_type: 2,
        is_reply: Some(false),
        uuid: "456789ab-cdef-8002-8000-000000000007".to_owned(),
        egress_denied_by: vec![tier],
        summary: "TCP refused: tier-default".to_owned(),
        ..Flow::default()
    };
    assert_eq!(flow_of(|_| ()), expected);
}

#[test]
fn every_verdict_and_event_has_its_place() {
    use enforcer_core::record::Event::{Admitted, Cut, Dropped, Ended, Refused};
    let (egress, ingress) = (Direction::Egress, Direction::Ingress);
    for (event, verdict, direction, expected) in [
        (Admitted, Verdict::Forwarded, egress, (wire::Verdict::Forwarded, 5, 0, [1, 0, 0, 0])),
        (Admitted, Verdict::WouldDeny, ingress, (wire::Verdict::Audit, 5, 0, [0, 0, 0, 1])),
        (Refused, Verdict::Rejected, egress, (wire::Verdict::Dropped, 5, 0, [0, 1, 0, 0])),
        (Cut, Verdict::Denied, ingress, (wire::Verdict::Dropped, 5, 0, [0, 0, 0, 1])),
        (Ended, Verdict::Forwarded, egress, (wire::Verdict::Forwarded, 4, 5, [1, 0, 0, 0])),
        (Ended, Verdict::Forwarded, ingress, (wire::Verdict::Forwarded, 4, 0, [0, 0, 1, 0])),
        (Ended, Verdict::Denied, egress, (wire::Verdict::Dropped, 1, 181, [0, 1, 0, 0])),
        (Dropped, Verdict::Denied, egress, (wire::Verdict::Dropped, 1, 181, [0, 1, 0, 0])),
    ] {
        let flow = flow_of(|r| {
            (r.event, r.verdict, r.direction, r.reason) = (event, verdict, direction, Reason::Rule);
        });
        let kind = flow.event_type.expect("an event type");
        let lists = [
            &flow.egress_allowed_by,
            &flow.egress_denied_by,
            &flow.ingress_allowed_by,
            &flow.ingress_denied_by,
        ]
        .map(Vec::len);
        assert_eq!((flow.verdict(), kind.r#type, kind.sub_type, lists), expected, "{event:?} {verdict:?}");
        let is_dropped = verdict != Verdict::Forwarded;
        assert_eq!(flow.drop_reason_desc() == DropReason::PolicyDeny, is_dropped, "{event:?} {verdict:?}");
    }
}

#[test]
fn every_reason_that_drops_has_a_name_that_clients_know() {
    let unknown: Vec<_> =
        Reason::ALL.iter().filter(|reason| drop_reason(**reason) == DropReason::Unknown).collect();
    assert_eq!(unknown, [&Reason::FromHost], "it never drops");
}

#[test]
fn the_end_of_a_connection_says_how_and_how_much() {
    let flow = flow_of(|r| {
        (r.event, r.verdict, r.reason) = (Event::Ended, Verdict::Forwarded, Reason::Rule);
        (r.end_reason, r.server_name) = (Some(EndReason::Closed), Some("github.com".into()));
        r.tcp_flags = TcpFlags(0x13);
    });
    assert_eq!(
        flow.summary,
        "TCP ended: closed, sent 1 packets 74 B, received 0 packets 0 B, server name github.com"
    );
    let Some(layer4::Protocol::Tcp(tcp)) = flow.l4.and_then(|l4| l4.protocol) else { panic!("TCP") };
    let seen = wire::TcpFlags { fin: true, syn: true, ack: true, ..wire::TcpFlags::default() };
    assert_eq!(tcp.flags, Some(seen));
}

#[test]
fn an_answer_is_a_flow_from_the_resolver() {
    let flow = dns_of(|_| ());
    let expected = wire::Dns {
        query: "www.example.".to_owned(),
        ips: vec!["192.0.2.7".to_owned()],
        ttl: 30,
        cnames: vec!["cdn.example".to_owned()],
        observation_source: "enforcer".to_owned(),
        rcode: 0,
        qtypes: vec!["A".to_owned()],
        rrtypes: vec!["A".to_owned(), "CNAME".to_owned()],
    };
    let l7 = flow.l7.clone().expect("layer 7");
    assert_eq!((l7.r#type(), l7.latency_ns), (wire::L7FlowType::Response, 812_345));
    assert_eq!(l7.record, Some(wire::layer7::Record::Dns(expected)));
    let ends = [&flow.source, &flow.destination].map(|end| end.as_ref().map(|end| end.pod_name.as_str()));
    assert_eq!(ends, [Some("coredns"), Some("update")]);
    let udp = wire::Udp { source_port: 53, destination_port: 40_112 };
    assert_eq!(flow.l4, Some(wire::Layer4 { protocol: Some(layer4::Protocol::Udp(udp)) }));
    assert_eq!((flow.is_reply, flow.r#type()), (Some(true), wire::FlowType::L7));
    assert_eq!(flow.summary, "DNS answer 192.0.2.7 for www.example A");
}

#[test]
fn a_refused_query_is_a_flow_to_the_resolver() {
    let flow = dns_of(|q| {
        q.facts = Facts { outcome: enforcer_core::record::dns::Outcome::Refused, ..q.facts.clone() }
    });
    let ends = [&flow.source, &flow.destination].map(|end| end.as_ref().map(|end| end.pod_name.as_str()));
    assert_eq!(ends, [Some("update"), Some("coredns")]);
    assert_eq!((flow.verdict(), flow.drop_reason_desc()), (wire::Verdict::Dropped, DropReason::PolicyDeny));
    assert_eq!(
        (flow.is_reply, flow.summary.as_str()),
        (Some(false), "DNS query www.example A: refused by policy")
    );
}

#[test]
fn no_two_flows_have_one_number() {
    let later = Origin { began: origin().began + (1 << 16), ..origin() };
    let mut seen = BTreeSet::new();
    let [refused, passed] = [Verdict::Denied, Verdict::Forwarded]
        .map(|verdict| Item::Flow(Arc::new(record(|r| r.verdict = verdict))));
    let dns = Item::Dns(Arc::new(query(|_| ())));
    for (origin, item, number) in [
        (&origin(), &refused, 7),
        (&origin(), &passed, 7),
        (&origin(), &dns, 7),
        (&origin(), &refused, 8),
        (&later, &refused, 7),
    ] {
        assert!(seen.insert(origin.uuid(item, number).text().to_vec()));
    }
    assert!(seen.iter().all(|uuid| uuid.len() == 36 && uuid[14] == b'8'), "{seen:?}");
}

#[test]
fn a_service_is_told_by_its_name_and_namespace() {
    let flow = flow_of(|r| r.destination.service = Some("web/front".into()));
    let service = wire::Service { name: "front".to_owned(), namespace: "web".to_owned() };
    assert_eq!((flow.source_service, flow.destination_service), (None, Some(service)));
}

#[test]
fn what_could_not_be_decided_is_an_error() {
    let flow = flow_of(|r| {
        (r.event, r.verdict, r.reason) = (Event::Dropped, Verdict::Error, Reason::BadIpHeader);
    });
    assert_eq!(
        (flow.verdict(), flow.drop_reason_desc()),
        (wire::Verdict::Error, DropReason::InvalidPacketDropped)
    );
    assert_eq!(flow.event_type.expect("a type").r#type, event::DROP);
}
