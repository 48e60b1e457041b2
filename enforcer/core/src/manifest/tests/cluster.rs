//! Objects that policy refers to, as a cluster has them.

use std::collections::{BTreeMap, BTreeSet};

use super::read;
use crate::manifest::Object;
use crate::object::{ExternalNetwork, Node};

pub(super) fn labels(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

pub(super) fn addresses(texts: &[&str]) -> Vec<std::net::IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

#[test]
fn a_node_has_labels_and_addresses() {
    let text = "
apiVersion: v1
kind: Node
metadata: {name: one, labels: {pool: x}}
spec: {podCIDR: 10.0.0.0/24, taints: []}
status:
  addresses: [{type: InternalIP, address: 192.0.2.1}, {type: Hostname, address: one}, {type: ExternalIP, address: '2001:db8::1'}]
  nodeInfo: {kernelVersion: '6.1'}
";
    let node = Node {
        name: "one".to_owned(),
        labels: labels("pool", "x"),
        addresses: addresses(&["192.0.2.1", "2001:db8::1"]),
        local: false,
    };
    assert_eq!(read(text), Ok(Object::Node(node)));
}

#[test]
fn an_external_network_has_addresses_names_and_labels() {
    let text = "{apiVersion: enforcer.dev/v1alpha1, kind: ExternalNetwork, metadata: {name: e, labels: {kind: saas}},
                 spec: {cidrs: [192.0.2.0/24, '2001:db8::/32'], fqdns: ['*.Example.com.']}}";
    let network = ExternalNetwork {
        name: "e".to_owned(),
        labels: labels("kind", "saas"),
        cidrs: ["192.0.2.0/24", "2001:db8::/32"].map(|text| text.parse().expect("a prefix")).into(),
        fqdns: BTreeSet::from(["*.example.com".parse().expect("a pattern")]),
    };
    assert_eq!(read(text), Ok(Object::ExternalNetwork(network)));
}
