//! Services and their endpoints, as a cluster has them.

use super::cluster::{addresses, labels};
use super::read;
use crate::manifest::Object;
use crate::object::{Endpoint, EndpointPort, EndpointSlice, EndpointState, Service, ServicePort, SlicePart};
use crate::protocol::Protocol;

/// Reads a service with this spec and status.
fn service(spec: &str, status: &str) -> Result<Object, Vec<String>> {
    read(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: a, labels: {{k8s-app: dns}}}},
          spec: {spec}, status: {status}}}"
    ))
}

fn port(name: &str, protocol: Protocol, port: u16, node_port: Option<u16>) -> ServicePort {
    ServicePort { name: name.to_owned(), protocol, port, node_port }
}

fn plain() -> Service {
    Service {
        namespace: "a".to_owned(),
        name: "s".to_owned(),
        labels: labels("k8s-app", "dns"),
        ..Service::default()
    }
}

#[test]
fn a_service_has_a_selector_cluster_addresses_and_ports() {
    let both = "{type: ClusterIP, clusterIP: 10.1.0.1, clusterIPs: [10.1.0.1, 'fd01::1'], selector: {app: x},
                 sessionAffinity: ClientIP, ports: [{port: 80, targetPort: http}]}";
    let expected = Service {
        selector: labels("app", "x"),
        addresses: addresses(&["10.1.0.1", "fd01::1"]),
        ports: vec![port("", Protocol::TCP, 80, None)],
        ..plain()
    };
    assert_eq!(service(both, "{loadBalancer: {}}"), Ok(Object::Service(expected)));
    let one = Service { addresses: addresses(&["10.1.0.1"]), ..plain() };
    assert_eq!(service("{clusterIP: 10.1.0.1}", "{}"), Ok(Object::Service(one)));
    let headless = Service { selector: labels("app", "x"), ..plain() };
    let spec = "{clusterIP: None, clusterIPs: [None], selector: {app: x}}";
    assert_eq!(service(spec, "{}"), Ok(Object::Service(headless)));
}

#[test]
fn a_service_is_reached_at_nodes_external_addresses_and_its_load_balancer() {
    let spec =
        "{type: LoadBalancer, clusterIP: 10.1.0.1, externalIPs: [192.0.2.7], externalTrafficPolicy: Local,
                 ports: [{name: web, port: 80, targetPort: 8080, nodePort: 30080},
                         {name: dns, protocol: UDP, port: 53, nodePort: 0}]}";
    let status = "{loadBalancer: {ingress: [{ip: 198.51.100.1}, {hostname: lb.example.com},
                   {ip: 198.51.100.2, ipMode: Proxy}, {ip: 198.51.100.3, ipMode: VIP}]}}";
    let expected = Service {
        addresses: addresses(&["10.1.0.1"]),
        external_addresses: addresses(&["192.0.2.7", "198.51.100.1", "198.51.100.3"]),
        ports: vec![port("web", Protocol::TCP, 80, Some(30080)), port("dns", Protocol::UDP, 53, None)],
        is_local: true,
        ..plain()
    };
    assert_eq!(service(spec, status), Ok(Object::Service(expected)));
}

#[test]
fn what_is_wrong_with_a_service_is_told_by_field() {
    let spec = "{clusterIP: x, externalIPs: [w], ports: [{protocol: ICMP, port: 1}]}";
    let refusals = service(spec, "{loadBalancer: {ingress: [{ip: z}]}}").expect_err("it is refused");
    let fields = [
        "spec.clusterIP",
        "spec.externalIPs[0]",
        "status.loadBalancer.ingress[0].ip",
        "spec.ports[0].protocol",
    ];
    assert_eq!(refusals.len(), fields.len(), "{refusals:?}");
    for (refusal, field) in refusals.iter().zip(fields) {
        assert!(refusal.contains(field), "{field}: {refusal}");
    }
    let refusals = service("{clusterIP: 10.1.0.1, ports: [{port: 0}]}", "{}").expect_err("it is refused");
    assert!(refusals[0].contains("spec.ports[0].port"), "{refusals:?}");
}

#[test]
fn a_service_may_stand_for_another_name() {
    let read = |spec: &str| service(&format!("{{type: ExternalName{spec}}}"), "{}");
    let name = Some("db.example.com".parse().expect("a name"));
    let expected = Service { external_name: name, ..plain() };
    let spec = ", externalName: DB.example.com., selector: {app: x}, clusterIP: 10.1.0.1";
    assert_eq!(read(spec), Ok(Object::Service(expected)));
    for wrong in ["", ", externalName: ''", ", externalName: '*.example.com'"] {
        let refusals = read(wrong).expect_err("it is refused");
        assert!(refusals[0].contains("spec.externalName"), "{wrong}: {refusals:?}");
    }
}

/// Reads a slice of service `s`.
fn slice(kind: &str, endpoints: &str, ports: &str) -> Result<Object, Vec<String>> {
    read(&format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice,
          metadata: {{name: s-1, namespace: a, labels: {{kubernetes.io/service-name: s}}}},
          addressType: {kind}, endpoints: {endpoints}, ports: {ports}}}"
    ))
}

fn expected(
    endpoints: &[(&[&str], EndpointState)],
    ports: &[(&str, Protocol, u16)],
) -> Result<Object, Vec<String>> {
    let endpoint =
        |(texts, state): &(&[&str], EndpointState)| Endpoint { addresses: addresses(texts), state: *state };
    let port = |(name, protocol, port): &(&str, Protocol, u16)| EndpointPort {
        name: (*name).to_owned(),
        protocol: *protocol,
        port: *port,
    };
    let part = SlicePart {
        endpoints: endpoints.iter().map(endpoint).collect(),
        ports: ports.iter().map(port).collect(),
    };
    let (namespace, name) = ("a".to_owned(), "s-1".to_owned());
    Ok(Object::EndpointSlice(EndpointSlice { namespace, name, service: Some("s".to_owned()), part }))
}

#[test]
fn a_slice_lists_endpoints_and_the_ports_they_answer_at() {
    let endpoints = "[{addresses: ['10.0.0.1', '10.0.0.2'], nodeName: n}, {addresses: ['fd00::1']}]";
    let ports = "[{port: 80}, {name: dns, protocol: UDP, port: 53, appProtocol: dns}, {name: any}]";
    let ready = EndpointState::Ready;
    assert_eq!(
        slice("IPv4", endpoints, ports),
        expected(
            &[(&["10.0.0.1", "10.0.0.2"], ready), (&["fd00::1"], ready)],
            &[("", Protocol::TCP, 80), ("dns", Protocol::UDP, 53)]
        )
    );
    assert_eq!(slice("FQDN", endpoints, ports), expected(&[], &[]));
    let nobodys = read(
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s-1, namespace: a}, addressType: IPv4}",
    );
    let (namespace, name) = ("a".to_owned(), "s-1".to_owned());
    let part = SlicePart::default();
    assert_eq!(nobodys, Ok(Object::EndpointSlice(EndpointSlice { namespace, name, service: None, part })));
    let refusals =
        slice("IPv4", "[{addresses: [x]}]", "[{protocol: ICMP, port: 1}]").expect_err("it is refused");
    assert!(refusals[0].contains("endpoints[0].addresses[0]"), "{refusals:?}");
    assert!(refusals[1].contains("ports[0].protocol"), "{refusals:?}");
}

#[test]
fn conditions_say_whether_an_endpoint_is_sent_anything() {
    use EndpointState::{Away, Ending, Ready};
    for (conditions, state) in [
        ("{}", Ready),
        ("{ready: true, serving: true, terminating: false}", Ready),
        ("{ready: false}", Away),
        ("{ready: false, serving: true, terminating: true}", Ending),
        ("{ready: false, serving: false, terminating: true}", Away),
        ("{ready: false, terminating: true}", Ending),
        ("{ready: true, terminating: true}", Ready),
    ] {
        let endpoints = format!("[{{addresses: ['10.0.0.1'], conditions: {conditions}}}]");
        assert_eq!(slice("IPv4", &endpoints, "[]"), expected(&[(&["10.0.0.1"], state)], &[]), "{conditions}");
    }
}
