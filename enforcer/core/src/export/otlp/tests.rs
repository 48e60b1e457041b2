//! What is written, as a reader of OTLP sees it.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;

use super::*;
use crate::export::tests::{aggregate, dns, flow};
use crate::record::{Event, Record};

/// What a reader sees of one request.
fn read(requests: &mut Requests) -> ExportLogsServiceRequest {
    let mut octets = Vec::new();
    requests.finish(&mut octets);
    let request = ExportLogsServiceRequest::decode(&*octets).expect("a request");
    assert_eq!(request.encode_to_vec().len(), octets.len(), "nothing a reader does not know");
    request
}

fn read_one(record: Exported<'_>) -> LogRecord {
    let mut requests = Requests::new("node-1", "1.2.3");
    requests.push(record);
    let mut records = read(&mut requests).resource_logs.remove(0).scope_logs.remove(0).log_records;
    assert_eq!(records.len(), 1);
    records.remove(0)
}

fn text(value: &AnyValue) -> String {
    match value.value.as_ref().expect("a value") {
        Value::StringValue(text) => format!("{text:?}"),
        Value::IntValue(number) => number.to_string(),
        Value::ArrayValue(array) => {
            format!("[{}]", array.values.iter().map(text).collect::<Vec<_>>().join(","))
        }
        other => panic!("{other:?}"),
    }
}

fn attributes(all: &[KeyValue]) -> Vec<String> {
    all.iter().map(|one| format!("{}={}", one.key, text(one.value.as_ref().expect("a value")))).collect()
}

#[test]
fn a_refused_flow_says_who_whom_and_which_rule() {
    let record = read_one(Exported::Flow(&flow()));
    let time = 1_767_614_462_123_456_789;
    assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (time, time));
    assert_eq!((record.severity_number, record.severity_text.as_str()), (13, "WARN"));
    assert_eq!(record.event_name, "enforcer.flow.refused");
    assert_eq!(
        text(record.body.as_ref().expect("a body")),
        "\"DENIED refused EGRESS TCP update/update:40112 -> github.com:443 by default\""
    );
    let expected = [
        "enforcer.verdict=\"DENIED\"",
        "enforcer.reason=\"tier-default\"",
        "enforcer.direction=\"EGRESS\"",
        "source.address=\"10.0.0.3\"",
        "source.port=40112",
        "source.k8s.namespace.name=\"update\"",
        "source.k8s.pod.name=\"update\"",
        "enforcer.source.controller=\"Deployment/update\"",
        "enforcer.source.zone=\"dmz\"",
        "source.k8s.pod.label.app=\"update\"",
        "enforcer.source.identity=17",
        "destination.address=\"198.51.100.7\"",
        "destination.port=443",
        "enforcer.destination.entity=\"world\"",
        "enforcer.destination.identity=1",
        "enforcer.destination.names=[\"github.com\"]",
        "network.transport=\"tcp\"",
        "network.type=\"ipv4\"",
        "enforcer.tcp.flags=[\"SYN\"]",
        "enforcer.flow.forward.packets=1",
        "enforcer.flow.forward.bytes=74",
        "enforcer.flow.reply.packets=0",
        "enforcer.flow.reply.bytes=0",
        "enforcer.flow.start=1767614462123456789",
        "enforcer.flow.last=1767614462123456789",
        "enforcer.policy.tier=\"default\"",
        "enforcer.policy.kind=\"Tier\"",
        "enforcer.policy.name=\"default\"",
        "process.pid=4711",
        "thread.name=\"curl\"",
        "process.executable.path=\"/usr/bin/curl\"",
        "container.id=\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"",
        "enforcer.policy.revision=4",
    ];
    assert_eq!(attributes(&record.attributes), expected);
}

#[test]
fn a_query_says_what_was_asked_and_answered() {
    let record = read_one(Exported::Dns(&dns()));
    assert_eq!((record.severity_number, record.event_name.as_str()), (9, "enforcer.dns"));
    assert_eq!(
        text(record.body.as_ref().expect("a body")),
        "\"FORWARDED dns learned update/update:40112 asks for www.example\""
    );
    let all = attributes(&record.attributes);
    let own: Vec<_> = all.iter().filter(|one| one.contains("dns")).collect();
    let expected = [
        "destination.k8s.pod.name=\"coredns\"",
        "destination.k8s.pod.label.k8s-app=\"kube-dns\"",
        "network.protocol.name=\"dns\"",
        "dns.question.name=\"www.example\"",
        "enforcer.dns.question.type=\"A\"",
        "enforcer.dns.outcome=\"learned\"",
        "enforcer.dns.response_code=\"NOERROR\"",
        "dns.answers=[\"cdn.example\",\"192.0.2.7\"]",
        "enforcer.dns.latency=812345",
        "enforcer.dns.learned=1",
        "enforcer.dns.id=4660",
    ];
    assert_eq!(own, expected);
}

#[test]
fn everything_optional_is_written_too() {
    let rule = r#"{"tier":"t","kind":"SegmentPolicy","namespace":"n","name":"p","rule":"r","index":3}"#;
    let mut record: Record = flow();
    record.event = Event::Ended;
    record.icmp = Some(crate::record::Icmp { kind: 8, code: 0 });
    record.protocol = crate::protocol::Protocol::ICMPV6;
    record.source.address = "2001:db8::1".parse().expect("an address");
    (record.end, record.end_reason) = (Some(record.last), Some(crate::record::EndReason::Idle));
    record.server_name = Some("a.example".into());
    record.destination.service = Some("web/front".into());
    record.rule = Some(serde_json::from_str(rule).expect("a rule"));
    record.staged = Some(crate::record::Staged {
        verdict: Verdict::Forwarded,
        reason: enforcer_common::verdict::Reason::Rule,
        rule: record.rule.clone(),
    });
    let read = read_one(Exported::Flow(&record));
    let all: BTreeMap<String, String> = read
        .attributes
        .iter()
        .map(|one| (one.key.clone(), text(one.value.as_ref().expect("a value"))))
        .collect();
    assert_eq!(all.len(), read.attributes.len(), "no attribute twice");
    for (name, value) in [
        ("source.address", "\"2001:db8::1\""),
        ("network.transport", "\"icmpv6\""),
        ("network.type", "\"ipv6\""),
        ("enforcer.destination.service", "\"web/front\""),
        ("enforcer.icmp.type", "8"),
        ("enforcer.icmp.code", "0"),
        ("enforcer.flow.end", "1767614462123456789"),
        ("enforcer.flow.end_reason", "\"idle\""),
        ("server.address", "\"a.example\""),
        ("enforcer.policy.namespace", "\"n\""),
        ("enforcer.policy.rule.name", "\"r\""),
        ("enforcer.policy.rule.index", "3"),
        ("enforcer.staged.verdict", "\"FORWARDED\""),
        ("enforcer.staged.policy.rule.index", "3"),
    ] {
        assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[test]
fn a_request_tells_its_node_and_holds_what_was_pushed() {
    let mut requests = Requests::new("node-1", "1.2.3");
    let long = flow_named(&"x".repeat(300));
    for _ in 0..200 {
        requests.push(Exported::Flow(&long));
    }
    requests.push(Exported::Dns(&dns()));
    let request = read(&mut requests);
    let [logs] = request.resource_logs.as_slice() else { panic!("one resource") };
    let resource = logs.resource.as_ref().expect("a resource");
    assert_eq!(
        attributes(&resource.attributes),
        ["service.name=\"enforcer\"", "service.version=\"1.2.3\"", "k8s.node.name=\"node-1\""]
    );
    let [scope] = logs.scope_logs.as_slice() else { panic!("one scope") };
    let named = scope.scope.as_ref().expect("a scope");
    assert_eq!((named.name.as_str(), named.version.as_str()), ("enforcer", "1.2.3"));
    assert_eq!((logs.schema_url.as_str(), scope.schema_url.as_str()), (SCHEMA_URL, SCHEMA_URL));
    assert_eq!(scope.log_records.len(), 201);
    requests.push(Exported::Flow(&flow()));
    assert_eq!(read(&mut requests).resource_logs[0].scope_logs[0].log_records.len(), 1, "and begins anew");
}

/// A flow of a workload of this name.
fn flow_named(name: &str) -> Record {
    let mut record = flow();
    record.source.workload = Some(name.into());
    record
}

#[test]
fn an_aggregate_has_the_chosen_fields_and_its_sums() {
    let keys = ["verdict", "source-workload", "destination-names", "port", "protocol", "rule"];
    let record = read_one(Exported::Aggregate(&aggregate(&keys)));
    assert_eq!((record.severity_number, record.event_name.as_str()), (13, "enforcer.flow.aggregate"));
    assert_eq!(record.time_unix_nano, 1_767_614_462_123_456_789);
    assert_eq!(
        text(record.body.as_ref().expect("a body")),
        "\"DENIED 1 records TCP update/update -> github.com:443 by default\""
    );
    let expected = [
        "enforcer.verdict=\"DENIED\"",
        "source.k8s.namespace.name=\"update\"",
        "source.k8s.pod.name=\"update\"",
        "destination.port=443",
        "enforcer.destination.names=[\"github.com\"]",
        "network.transport=\"tcp\"",
        "enforcer.policy.tier=\"default\"",
        "enforcer.policy.kind=\"Tier\"",
        "enforcer.policy.name=\"default\"",
        "enforcer.aggregate.start=0",
        "enforcer.aggregate.end=1767614462123456789",
        "enforcer.aggregate.records=1",
        "enforcer.aggregate.admitted=0",
        "enforcer.aggregate.refused=1",
        "enforcer.aggregate.ended=0",
        "enforcer.aggregate.cut=0",
        "enforcer.aggregate.dropped=0",
        "enforcer.aggregate.flows=1",
        "enforcer.flow.forward.packets=1",
        "enforcer.flow.forward.bytes=74",
        "enforcer.flow.reply.packets=0",
        "enforcer.flow.reply.bytes=0",
    ];
    assert_eq!(attributes(&record.attributes), expected);
    let bare = read_one(Exported::Aggregate(&aggregate(&[])));
    assert_eq!(text(bare.body.as_ref().expect("a body")), "\"1 records * -> *\"");
}
