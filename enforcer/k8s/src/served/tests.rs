//! What becomes of nodes, services and slices as an API server serves them.

use enforcer_core::manifest::{Object, read_value};
use enforcer_core::object;
use enforcer_core::protocol::Protocol;

use super::*;

fn metadata(name: &str, namespace: &str, labels: &[(&str, &str)]) -> Option<Metadata> {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let (name, namespace) = (name.to_owned(), namespace.to_owned());
    Some(Metadata { name, namespace, resource_version: "7".to_owned(), labels })
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// What is understood of an object once it was sent.
fn understood<M: Message + Default + Served>(sent: &M) -> Result<Object, String> {
    let received = M::decode(&sent.encode_to_vec()[..]).expect("it is of the form");
    read_value(&received.written()).map_err(|refusals| refusals[0].to_string())
}

fn service(spec: ServiceSpec, ingress: Vec<Ingress>) -> Service {
    let metadata = metadata("web", "shop", &[("app", "web"), (RESOLVER_LABEL, "kube-dns")]);
    let load_balancer = Some(LoadBalancer { ingress });
    Service { metadata, spec: Some(spec), status: Some(ServiceStatus { load_balancer }) }
}

#[test]
fn a_node_has_its_labels_and_addresses() {
    let address =
        |kind: &str, address: &str| NodeAddress { kind: kind.to_owned(), address: address.to_owned() };
    let addresses = vec![address("InternalIP", "10.0.0.1"), address("Hostname", "a")];
    let sent = Node { metadata: metadata("a", "", &[("zone", "1")]), status: Some(NodeStatus { addresses }) };
    let expected = object::Node {
        name: "a".to_owned(),
        labels: BTreeMap::from([("zone".to_owned(), "1".to_owned())]),
        addresses: vec!["10.0.0.1".parse().expect("an address")],
        local: false,
    };
    assert_eq!(understood(&sent), Ok(Object::Node(expected)));
}

#[test]
fn a_service_has_all_that_says_where_it_is_reached() {
    let port = |name: &str, protocol: &str, port, node_port| {
        let (name, protocol) = (name.to_owned(), protocol.to_owned());
        ServicePort { name, protocol, port, node_port }
    };
    let spec = ServiceSpec {
        ports: vec![port("http", "TCP", 80, 30_080), port("", "", 53, 0)],
        selector: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        cluster_ip: "10.96.0.9".to_owned(),
        kind: "LoadBalancer".to_owned(),
        external_ips: texts(&["192.0.2.9"]),
        external_name: String::new(),
        external_traffic_policy: "Local".to_owned(),
        cluster_ips: texts(&["10.96.0.9", "fd00::9"]),
        internal_traffic_policy: "Cluster".to_owned(),
    };
    let at = |ip: &str, mode: &str| Ingress { ip: ip.to_owned(), ip_mode: mode.to_owned() };
    let sent = service(spec, vec![at("203.0.113.1", "VIP"), at("203.0.113.2", "Proxy"), at("", "")]);
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
    let tcp = |name: &str, port, node_port| object::ServicePort {
        name: name.to_owned(),
        protocol: Protocol::TCP,
        port,
        node_port,
    };
    let expected = object::Service {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        labels: BTreeMap::from([(RESOLVER_LABEL.to_owned(), "kube-dns".to_owned())]),
        selector: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        addresses: parse(&["10.96.0.9", "fd00::9"]),
        external_addresses: parse(&["192.0.2.9", "203.0.113.1"]),
        ports: vec![tcp("http", 80, Some(30_080)), tcp("", 53, None)],
        is_local: true,
        external_name: None,
    };
    assert_eq!(understood(&sent), Ok(Object::Service(expected)));
}

#[test]
fn what_the_binary_form_writes_empty_is_absent() {
    let spec = ServiceSpec { cluster_ip: "10.96.0.9".to_owned(), ..ServiceSpec::default() };
    let Ok(Object::Service(old)) = understood(&service(spec, Vec::new())) else { panic!("it is a service") };
    assert_eq!(old.addresses.len(), 1, "a server that knows but one address says no list of them");
    let spec = ServiceSpec { kind: "ExternalName".to_owned(), ..ServiceSpec::default() };
    let refused = understood(&service(spec, Vec::new())).expect_err("it has no name");
    assert!(refused.contains("spec.externalName"), "{refused}");
    let port = ServicePort { port: 70_000, ..ServicePort::default() };
    let spec = ServiceSpec { ports: vec![port], ..ServiceSpec::default() };
    let refused = understood(&service(spec, Vec::new())).expect_err("there is no such port");
    assert!(refused.contains("spec.ports[0].port"), "{refused}");
}

#[test]
fn a_slice_has_its_endpoints_and_what_is_known_of_each() {
    let endpoint = |address: &str, ready, serving, terminating| Endpoint {
        addresses: texts(&[address]),
        conditions: Some(Conditions { ready, serving, terminating }),
    };
    let sent = EndpointSlice {
        metadata: metadata("web-1", "shop", &[("kubernetes.io/service-name", "web")]),
        endpoints: vec![
            endpoint("10.0.0.1", Some(true), None, None),
            endpoint("10.0.0.2", Some(false), Some(true), Some(true)),
            endpoint("10.0.0.3", Some(false), Some(false), None),
            Endpoint { addresses: texts(&["10.0.0.4"]), conditions: None },
        ],
        ports: vec![
            EndpointPort { name: Some("http".to_owned()), protocol: "TCP".to_owned(), port: Some(8080) },
            EndpointPort { name: None, protocol: "UDP".to_owned(), port: None },
        ],
        address_type: "IPv4".to_owned(),
    };
    let known = |address: &str, state| object::Endpoint {
        addresses: vec![address.parse().expect("an address")],
        state,
    };
    let expected = object::EndpointSlice {
        namespace: "shop".to_owned(),
        name: "web-1".to_owned(),
        service: Some("web".to_owned()),
        part: object::SlicePart {
            endpoints: vec![
                known("10.0.0.1", object::EndpointState::Ready),
                known("10.0.0.2", object::EndpointState::Ending),
                known("10.0.0.3", object::EndpointState::Away),
                known("10.0.0.4", object::EndpointState::Ready),
            ],
            ports: vec![object::EndpointPort {
                name: "http".to_owned(),
                protocol: Protocol::TCP,
                port: 8080,
            }],
        },
    };
    assert_eq!(understood(&sent), Ok(Object::EndpointSlice(expected)));
}
