//! Small clusters for unit tests, written as manifests.

use std::collections::BTreeMap;

use enforcer_common::policy::Mode;

use crate::manifest::read_value;
use crate::object::{NamedPort, Workload, WorkloadId};
use crate::protocol::Protocol;
use crate::snapshot::Snapshot;

/// The egress story: three workloads, two of them with a policy, every namespace in mode `enforce`.
pub(crate) const EGRESS: &[&str] = &[
    "{apiVersion: v1, kind: Namespace, metadata: {name: payment, labels: {enforcer.dev/mode: enforce}}}",
    "{apiVersion: v1, kind: Namespace, metadata: {name: update, labels: {enforcer.dev/mode: enforce}}}",
    "{apiVersion: v1, kind: Namespace, metadata: {name: alerts, labels: {enforcer.dev/mode: enforce}}}",
    "{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {name: git, namespace: update},
      spec: {subject: {matchLabels: {app: update}}, egress: [
        {name: ssh, action: Allow, to: [{fqdns: [github.com]}], ports: [{protocol: TCP, port: 22}]}]}}",
    "{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {name: pages, namespace: alerts},
      spec: {subject: {}, egress: [
        {action: Allow, to: [{fqdns: [pagerduty.com, '*.pagerduty.com']}], ports: [{port: 443}]}]}}",
];

/// A snapshot of these manifests in mode `policy`, without workloads.
pub(crate) fn snapshot(manifests: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot::new(Mode::Policy);
    for text in manifests {
        let value = serde_saphyr::from_str(text).expect("the test writes YAML");
        snapshot.apply(read_value(&value).unwrap_or_else(|refusals| panic!("{text}: {refusals:?}")));
    }
    snapshot
}

/// Adds the local workload `namespace/name`, labelled `app: name`, with a port `http` at 8080.
pub(crate) fn add(snapshot: &mut Snapshot, namespace: &str, name: &str, addresses: &[&str]) {
    let id = WorkloadId::new(namespace, name);
    let workload = Workload {
        id: id.clone(),
        labels: BTreeMap::from([("app".to_owned(), name.to_owned())]).into(),
        service_account: None,
        controller: None,
        addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
        ports: [NamedPort { name: "http".to_owned(), protocol: Protocol::TCP, port: 8080 }].into(),
        local: true,
    };
    snapshot.workloads.insert(id, workload.into());
}

/// The egress story with its workloads.
pub(crate) fn egress() -> Snapshot {
    let mut snapshot = snapshot(EGRESS);
    add(&mut snapshot, "payment", "payment", &["10.0.0.2", "fd00::2"]);
    add(&mut snapshot, "update", "update", &["10.0.0.3", "fd00::3"]);
    add(&mut snapshot, "alerts", "alerts", &["10.0.0.4", "fd00::4"]);
    snapshot
}
