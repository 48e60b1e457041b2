//! What is compiled of objects that change one by one, and what of those that are refused.

use enforcer_core::manifest;
use enforcer_core::policy::PolicyKind;
use serde_json::{Value, json};

use super::*;

fn here() -> Here {
    Here { node: "here".to_owned(), hosts: vec![address("192.0.2.1")] }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn object(value: &Value) -> (ObjectRef, Option<Arc<Object>>) {
    let header: manifest::Header = serde_json::from_value(value.clone()).expect("a header");
    (header.object(), Some(manifest::read_value(value).expect("valid").into()))
}

fn policy(tier: &str, port: u16) -> Value {
    json!({
        "apiVersion": "enforcer.dev/v1alpha1", "kind": "SegmentPolicy",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"tier": tier, "subject": {}, "ingress": [{"action": "Allow", "ports": [{"protocol": "TCP", "port": port}]}]},
    })
}

fn tier(name: &str) -> Value {
    let metadata = json!({"name": name});
    json!({"apiVersion": "enforcer.dev/v1alpha1", "kind": "Tier", "metadata": metadata, "spec": {"order": 7, "defaultAction": "Deny"}})
}

fn workload(name: &str, last: u8) -> (WorkloadId, Option<Arc<Workload>>) {
    let id = WorkloadId::new("n", name);
    let workload = Workload {
        id: id.clone(),
        labels: Arc::default(),
        service_account: None,
        controller: None,
        addresses: vec![IpAddr::from([10, 0, 0, last])],
        ports: Arc::default(),
        local: true,
    };
    (id, Some(workload.into()))
}

fn ports(follower: &Follower) -> Vec<String> {
    let policies = follower.snapshot().policies.values();
    let segment = policies.filter(|policy| policy.id.kind == PolicyKind::Segment);
    segment
        .flat_map(|policy| policy.ingress.iter().flatten())
        .map(|rule| format!("{:?}", rule.ports))
        .collect()
}

#[test]
fn changes_one_by_one_give_the_plan_of_all_at_once() {
    let mut follower = Follower::new(Mode::Policy, "cluster.local");
    follower.follow(Workloads::from([workload("a", 2)]), Changed::new(), &here());
    follower.follow(Workloads::new(), Changed::from([object(&policy("default", 80))]), &here());
    follower.follow(Workloads::from([workload("b", 3)]), Changed::new(), &here());
    let (a, _) = workload("a", 2);
    follower.follow(Workloads::from([(a, None)]), Changed::new(), &here());
    let mut at_once = Follower::new(Mode::Policy, "cluster.local");
    at_once.follow(
        Workloads::from([workload("b", 3)]),
        Changed::from([object(&policy("default", 80))]),
        &here(),
    );
    assert_eq!(follower.snapshot(), at_once.snapshot());
    assert_eq!(
        follower.plan().endpoints.keys().collect::<Vec<_>>(),
        at_once.plan().endpoints.keys().collect::<Vec<_>>()
    );
    assert_eq!(follower.snapshot().nodes["here"].addresses, here().hosts);
}

#[test]
fn what_is_refused_stands_in_its_last_accepted_version_until_it_is_accepted() {
    let mut follower = Follower::new(Mode::Policy, "cluster.local");
    let accepted =
        follower.follow(Workloads::new(), Changed::from([object(&policy("default", 80))]), &here());
    assert_eq!(accepted.refused, []);
    let before = ports(&follower);
    let refused = follower.follow(Workloads::new(), Changed::from([object(&policy("missing", 81))]), &here());
    assert_eq!(refused.refused.len(), 1, "{:?}", refused.refused);
    assert_eq!(refused.refused[0].object.to_string(), "SegmentPolicy n/p");
    assert_eq!(ports(&follower), before);
    let still = follower.follow(Workloads::from([workload("a", 2)]), Changed::new(), &here());
    assert_eq!(still.refused, refused.refused);
    let mended = follower.follow(Workloads::new(), Changed::from([object(&tier("missing"))]), &here());
    assert_eq!(mended.refused, []);
    assert_ne!(ports(&follower), before);
}

#[test]
fn what_went_is_gone_and_the_node_keeps_the_addresses_of_both() {
    let mut follower = Follower::new(Mode::Policy, "cluster.local");
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "here", "labels": {"pool": "x"}},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.9"}]},
    });
    let (key, policy) = object(&policy("default", 80));
    follower.follow(Workloads::new(), Changed::from([object(&node), (key.clone(), policy)]), &here());
    let this = || follower.snapshot().nodes["here"].clone();
    assert_eq!(this().addresses, [address("192.0.2.9"), address("192.0.2.1")]);
    assert_eq!((this().label("pool"), this().local), (Some("x"), true));
    let moved = Here { hosts: vec![address("192.0.2.2")], ..here() };
    follower.follow(Workloads::new(), Changed::from([(key, None)]), &moved);
    assert_eq!(follower.snapshot().nodes["here"].addresses, [address("192.0.2.9"), address("192.0.2.2")]);
    assert!(follower.snapshot().policies.is_empty());
}
