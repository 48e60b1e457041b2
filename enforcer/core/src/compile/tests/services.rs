//! What becomes of packets whose destination is a service's.

use std::sync::Arc;

use enforcer_common::address::Address;
use enforcer_common::decide::{Attempt, Direction};
use enforcer_common::verdict::{Reason, Verdict};

use super::{compile, policy};
use crate::compile::{Compiler, Limits, Update};
use crate::fixture::{add, snapshot};
use crate::manifest::{Object, read_value};
use crate::object::WorkloadId;
use crate::plan::{HostTables, Plan};
use crate::protocol::Protocol;
use crate::refusal::ObjectRef;
use crate::snapshot::Snapshot;

const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: a}, spec: {
    clusterIPs: [10.96.0.1, 'fd96::1'], externalIPs: [192.0.2.80],
    ports: [{name: web, port: 80, targetPort: http, nodePort: 30080}, {name: dns, protocol: UDP, port: 53}]},
    status: {loadBalancer: {ingress: [{ip: 198.51.100.1}]}}}";
const NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: node},
    status: {addresses: [{type: InternalIP, address: 172.16.0.1}]}}";

/// A slice of the service with these endpoints; `web` is answered at 8080, `dns` at 5353.
fn slice(name: &str, kind: &str, endpoints: &str) -> String {
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: {kind},
           metadata: {{name: {name}, namespace: a, labels: {{kubernetes.io/service-name: s}}}},
           ports: [{{name: web, port: 8080}}, {{name: dns, protocol: UDP, port: 5353}}], endpoints: {endpoints}}}"
    )
}

/// Workloads `a/web` at 10.0.0.1, which policy is about, `a/one` at 10.0.0.2 and `a/two` at 10.0.0.3.
fn cluster(manifests: &[&str]) -> Snapshot {
    let mut snapshot = snapshot(manifests);
    for (name, addresses) in [("web", ["10.0.0.1", "fd00::1"]), ("one", ["10.0.0.2", "fd00::2"])] {
        add(&mut snapshot, "a", name, &addresses);
    }
    add(&mut snapshot, "a", "two", &["10.0.0.3"]);
    snapshot
}

const ONE: &str = "{pods: {podSelector: {matchLabels: {app: one}}}}";

/// What the tables of a plan say of a flow of `a/web`.
fn ask(plan: &Plan, remote: &str, protocol: Protocol, port: u16) -> (Verdict, Reason) {
    let remote = Address::from(remote.parse::<std::net::IpAddr>().expect("an address"));
    let (direction, protocol) = (Direction::Egress, protocol.0);
    let attempt = Attempt { direction, remote, protocol, port, admitted_as: 0, now: 1 };
    let decision = HostTables::new(plan).decide(&WorkloadId::new("a", "web"), &attempt).expect("it is there");
    (decision.verdict, decision.reason)
}

const ADMITTED: (Verdict, Reason) = (Verdict::Forwarded, Reason::Rule);
const REFUSED: (Verdict, Reason) = (Verdict::Denied, Reason::TierDefault);
const DIFFER: (Verdict, Reason) = (Verdict::Denied, Reason::BackendsDiffer);

#[test]
fn a_service_is_judged_by_its_backends_wherever_it_is_reached() {
    let allow = policy("p", &format!("egress: [{{action: Allow, to: [{ONE}], ports: [{{port: http}}]}}]"));
    let one = slice("s-1", "IPv4", "[{addresses: [10.0.0.2]}]");
    let plan = compile(&cluster(&[SERVICE, NODE, &one, &allow])).plan;
    let tcp = |remote, port| ask(&plan, remote, Protocol::TCP, port);
    for remote in ["10.96.0.1", "192.0.2.80", "198.51.100.1"] {
        assert_eq!(tcp(remote, 80), ADMITTED, "{remote}");
        assert_eq!(tcp(remote, 8080), REFUSED, "{remote}: it has no such port");
    }
    assert_eq!(tcp("172.16.0.1", 30080), ADMITTED);
    assert_eq!(tcp("172.16.0.1", 80), REFUSED);
    assert_eq!(tcp("10.0.0.2", 8080), ADMITTED, "the backend itself");
    assert_eq!(ask(&plan, "10.96.0.1", Protocol::UDP, 53), REFUSED, "the rule is not about that port");
    assert_eq!(tcp("fd96::1", 80), REFUSED, "nobody answers for it");

    let both = slice("s-2", "IPv6", "[{addresses: ['fd00::2']}]");
    let plan = compile(&cluster(&[SERVICE, &one, &both, &allow])).plan;
    assert_eq!(ask(&plan, "fd96::1", Protocol::TCP, 80), ADMITTED);
}

#[test]
fn backends_that_differ_are_refused_for_that() {
    let allow = policy("p", &format!("egress: [{{action: Allow, to: [{ONE}]}}]"));
    let both = slice("s-1", "IPv4", "[{addresses: [10.0.0.2]}, {addresses: [10.0.0.3]}]");
    let plan = compile(&cluster(&[SERVICE, &both, &allow])).plan;
    assert_eq!(ask(&plan, "10.96.0.1", Protocol::TCP, 80), DIFFER);
    let by_address = policy(
        "p",
        &format!("egress: [{{action: Allow, to: [{ONE}]}}, {{action: Allow, to: [{{cidr: 10.96.0.0/16}}]}}]"),
    );
    let plan = compile(&cluster(&[SERVICE, &both, &by_address])).plan;
    assert_eq!(ask(&plan, "10.96.0.1", Protocol::TCP, 80), ADMITTED, "the service itself is allowed");
}

#[test]
fn who_ends_answers_only_while_nobody_else_does_and_who_is_gone_never() {
    let allow = policy("p", &format!("egress: [{{action: Allow, to: [{ONE}]}}]"));
    let said = |service: &str, endpoints: &str| {
        let plan = compile(&cluster(&[service, &slice("s-1", "IPv4", endpoints), &allow])).plan;
        ask(&plan, "10.96.0.1", Protocol::TCP, 80)
    };
    let ending = "{addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}";
    let away = "{addresses: [10.0.0.3], conditions: {ready: false}}";
    let gone = "{addresses: [10.0.0.9]}";
    let one = "{addresses: [10.0.0.2]}";
    assert_eq!(said(SERVICE, &format!("[{one}, {ending}, {away}]")), ADMITTED);
    assert_eq!(said(SERVICE, &format!("[{ending}]")), REFUSED);
    assert_eq!(said(SERVICE, &format!("[{away}]")), REFUSED);
    let local = SERVICE.replace("spec: {", "spec: {internalTrafficPolicy: Local,");
    assert_eq!(said(&local, &format!("[{one}, {ending}]")), DIFFER);
    assert_eq!(said(SERVICE, &format!("[{one}, {gone}]")), DIFFER, "somebody without a selector");
    let selected = SERVICE.replace("spec: {", "spec: {selector: {app: x},");
    assert_eq!(said(&selected, &format!("[{one}, {gone}]")), ADMITTED);
    let headless = SERVICE.replace("clusterIPs: [10.96.0.1, 'fd96::1']", "clusterIP: None");
    assert_eq!(said(&headless, &format!("[{one}]")), REFUSED);
}

fn object(text: &str) -> Object {
    let value = serde_saphyr::from_str(text).expect("the test writes YAML");
    read_value(&value).expect("it is valid")
}

/// A change of a service or slice of namespace `a`.
fn change(kind: &str, name: &str, text: Option<&str>) -> (ObjectRef, Option<Arc<Object>>) {
    let key = ObjectRef { kind: kind.to_owned(), namespace: Some("a".to_owned()), name: name.to_owned() };
    (key, text.map(|text| object(text).into()))
}

#[test]
fn a_slice_that_changes_moves_the_addresses_of_its_service_and_nothing_else() {
    let allow = policy("p", &format!("egress: [{{action: Allow, to: [{ONE}]}}]"));
    let mut compiler = Compiler::new(cluster(&[SERVICE, &allow]), Limits::default());
    let said = |compiler: &Compiler| ask(compiler.plan(), "10.96.0.1", Protocol::TCP, 80);
    let prefixes = |update: Update| match update {
        Update::Delta(delta) => delta.prefixes.keys().map(ToString::to_string).collect::<Vec<_>>(),
        Update::Whole => panic!("it was compiled from nothing"),
    };
    assert_eq!(said(&compiler), REFUSED);
    let one = slice("s-1", "IPv4", "[{addresses: [10.0.0.2]}]");
    let reached = ["10.96.0.1/32", "192.0.2.80/32", "198.51.100.1/32"];
    assert_eq!(prefixes(compiler.change_all([change("EndpointSlice", "s-1", Some(&one))], [])), reached);
    assert_eq!(said(&compiler), ADMITTED);
    let twice = slice("s-2", "IPv4", "[{addresses: [10.0.0.2]}]");
    assert_eq!(
        prefixes(compiler.change_all([change("EndpointSlice", "s-2", Some(&twice))], [])),
        Vec::<String>::new()
    );
    let two = slice("s-2", "IPv4", "[{addresses: [10.0.0.3]}]");
    assert_eq!(prefixes(compiler.change_all([change("EndpointSlice", "s-2", Some(&two))], [])), reached);
    assert_eq!(said(&compiler), DIFFER);
    assert_eq!(prefixes(compiler.change_all([change("EndpointSlice", "s-2", None)], [])), reached);
    assert_eq!(said(&compiler), ADMITTED);
    assert_eq!(prefixes(compiler.change_all([change("Service", "s", None)], [])), reached);
    assert_eq!(said(&compiler), REFUSED);
}

#[test]
fn services_that_policy_does_not_concern_are_not_told_apart() {
    let allow =
        policy("p", "egress: [{action: Allow, to: [{pods: {podSelector: {matchLabels: {app: x}}}}]}]");
    let both = slice("s-1", "IPv4", "[{addresses: [10.0.0.2]}, {addresses: [10.0.0.3]}]");
    let without = compile(&cluster(&[&allow])).plan;
    assert_eq!(compile(&cluster(&[SERVICE, NODE, &both, &allow])).plan, without);
}
