//! Objects that policy refers to, as a cluster has them.

use std::collections::{BTreeMap, BTreeSet};

use super::read;
use crate::manifest::Object;
use crate::object::{EndpointSlice, ExternalNetwork, Node, Service};

fn labels(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

fn addresses(texts: &[&str]) -> Vec<std::net::IpAddr> {
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
fn a_service_has_a_selector_and_cluster_addresses() {
    let service = |spec: &str| {
        read(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: a, labels: {{k8s-app: dns}}}}, spec: {spec}, status: {{loadBalancer: {{}}}}}}"
        ))
    };
    let expected = |selector, texts| {
        let (namespace, name) = ("a".to_owned(), "s".to_owned());
        let (labels, addresses) = (labels("k8s-app", "dns"), addresses(texts));
        let external_name = None;
        Ok(Object::Service(Service { namespace, name, labels, selector, addresses, external_name }))
    };
    let both = "{type: ClusterIP, clusterIP: 10.1.0.1, clusterIPs: [10.1.0.1, 'fd01::1'], selector: {app: x}, ports: [{port: 80}]}";
    assert_eq!(service(both), expected(labels("app", "x"), &["10.1.0.1", "fd01::1"]));
    assert_eq!(service("{clusterIP: 10.1.0.1}"), expected(BTreeMap::new(), &["10.1.0.1"]));
    assert_eq!(
        service("{clusterIP: None, clusterIPs: [None], selector: {app: x}}"),
        expected(labels("app", "x"), &[])
    );
}

#[test]
fn a_service_may_stand_for_another_name() {
    let service = |spec: &str| {
        read(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: a}}, spec: {{type: ExternalName{spec}}}}}"
        ))
    };
    let expected = Service {
        namespace: "a".to_owned(),
        name: "s".to_owned(),
        labels: BTreeMap::new(),
        selector: BTreeMap::new(),
        addresses: Vec::new(),
        external_name: Some("db.example.com".parse().expect("a name")),
    };
    let spec = ", externalName: DB.example.com., selector: {app: x}, clusterIP: 10.1.0.1";
    assert_eq!(service(spec), Ok(Object::Service(expected)));
    for wrong in ["", ", externalName: ''", ", externalName: '*.example.com'"] {
        let refusals = service(wrong).expect_err("it is refused");
        assert!(refusals[0].contains("spec.externalName"), "{wrong}: {refusals:?}");
    }
}

#[test]
fn a_slice_lists_endpoints_of_its_service_ready_or_not() {
    let slice = |metadata: &str, kind: &str| {
        read(&format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: s-1, namespace: a{metadata}}},
              addressType: {kind}, ports: [{{port: 80}}],
              endpoints: [{{addresses: ['10.0.0.1'], conditions: {{ready: false}}, nodeName: n}}, {{addresses: ['fd00::1']}}]}}"
        ))
    };
    let expected = |service: Option<&str>, texts| {
        let (namespace, name) = ("a".to_owned(), "s-1".to_owned());
        let service = service.map(str::to_owned);
        Ok(Object::EndpointSlice(EndpointSlice { namespace, name, service, addresses: addresses(texts) }))
    };
    let of_s = ", labels: {kubernetes.io/service-name: s}";
    assert_eq!(slice(of_s, "IPv4"), expected(Some("s"), &["10.0.0.1", "fd00::1"]));
    assert_eq!(slice(of_s, "FQDN"), expected(Some("s"), &[]));
    assert_eq!(slice("", "IPv4"), expected(None, &["10.0.0.1", "fd00::1"]));
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
