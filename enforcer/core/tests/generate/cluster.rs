//! Random objects that policy refers to: namespaces in a tree, workloads, nodes, services, external networks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use enforcer_core::hierarchy::PARENT_LABEL;
use enforcer_core::manifest::Object;
use enforcer_core::object::{
    Endpoint, EndpointPort, EndpointSlice, EndpointState, ExternalNetwork, MODE_LABEL, NamedPort, Namespace,
    Node, Service, ServicePort, SlicePart, Workload, WorkloadId, ZONE_LABEL,
};
use enforcer_core::protocol::Protocol;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::policies::{PATTERNS, PREFIXES};
use super::{NAMESPACES, address};

/// Names of external networks; policies also speak of one that never exists.
pub(super) const NETWORKS: [&str; 4] = ["e0", "e1", "e2", "missing"];
/// Names of services; as above. The API server's is one of them.
pub(super) const SERVICES: [(&str, &str); 4] =
    [("a", "s0"), ("b", "s0"), ("default", "kubernetes"), ("a", "missing")];
/// Zones that workloads and namespaces are in.
pub(super) const ZONES: [&str; 2] = ["x", "y"];

/// Some of the labels.
pub(crate) fn labels(
    keys: &'static [&'static str],
    values: &'static [&'static str],
) -> impl Strategy<Value = BTreeMap<String, String>> {
    let text = |texts: &'static [&'static str]| select(texts).prop_map(str::to_owned);
    btree_map(text(keys), text(values), 0..=keys.len())
}

/// Some of the namespaces. Their parents may be missing, in a circle, or written in two ways.
pub(crate) fn namespaces() -> impl Strategy<Value = BTreeMap<String, Namespace>> {
    let parent = || select(&["a", "a", "b", "b", "c", "gone"][..]);
    let special = || {
        prop_oneof![
            3 => parent().prop_map(|name| (PARENT_LABEL.to_owned(), name.to_owned())),
            1 => (parent(), select(&["0", "1", "1", "2"][..]))
                .prop_map(|(name, depth)| (format!("{name}.tree.hnc.x-k8s.io/depth"), depth.to_owned())),
            1 => select(&ZONES[..]).prop_map(|zone| (ZONE_LABEL.to_owned(), zone.to_owned())),
            2 => select(&["observe", "policy", "enforce", "x"][..])
                .prop_map(|mode| (MODE_LABEL.to_owned(), mode.to_owned())),
        ]
    };
    let namespace = move || (labels(&["env", "team"], &["x", "y"]), vec(special(), 0..4));
    btree_map(select(&NAMESPACES[..]).prop_map(str::to_owned), namespace(), 2..=NAMESPACES.len()).prop_map(
        |namespaces| {
            let named = namespaces.into_iter().map(|(name, (mut labels, special))| {
                labels.extend(special);
                (name.clone(), Namespace { name, labels })
            });
            named.collect()
        },
    )
}

/// Any workload; two of the same name are often drawn.
pub(crate) fn workload() -> impl Strategy<Value = Workload> {
    let port = (
        select(&["http", "dns"][..]),
        select(&[Protocol::TCP, Protocol::UDP][..]),
        select(&[80, 443, 8080][..]),
    )
        .prop_map(|(name, protocol, port)| NamedPort { name: name.to_owned(), protocol, port });
    (
        (select(&NAMESPACES[..]), 0..4u8),
        labels(&["app", "tier"], &["x", "y"]),
        (
            option::weighted(0.2, select(&ZONES[..])),
            option::weighted(0.2, select(&["observe", "policy", "enforce", "x"][..])),
        ),
        option::of(select(&["s", "t"][..])),
        option::of(select(&["Deployment/web", "Job/once"][..])),
        vec(address(), 0..4),
        vec(port, 0..3),
        prop::bool::weighted(0.7),
    )
        .prop_map(
            |(
                (namespace, number),
                mut labels,
                (zone, mode),
                account,
                controller,
                addresses,
                ports,
                local,
            )| {
                labels.extend(zone.map(|zone| (ZONE_LABEL.to_owned(), zone.to_owned())));
                labels.extend(mode.map(|mode| (MODE_LABEL.to_owned(), mode.to_owned())));
                Workload {
                    id: WorkloadId::new(namespace, format!("w{number}")),
                    labels: Arc::new(labels),
                    service_account: account.map(Into::into),
                    controller: controller.map(Into::into),
                    addresses: addresses.into_iter().collect::<BTreeSet<_>>().into_iter().collect(),
                    ports: ports.into(),
                    local,
                }
            },
        )
}

pub(super) fn node() -> impl Strategy<Value = Node> {
    let labels = labels(&["zone", "pool"], &["x", "y"]);
    (0..4u8, labels, vec(address(), 0..3), prop::bool::weighted(0.3)).prop_map(
        |(number, labels, addresses, local)| Node { name: format!("n{number}"), labels, addresses, local },
    )
}

/// A service that may or may not select pods; all but the one that never exists.
pub(super) fn service() -> impl Strategy<Value = Service> {
    let other = option::weighted(0.3, select(&["a.example.com", "nobody.net"][..]));
    let addresses = (vec(address(), 0..3), vec(address(), 0..2));
    let selector = labels(&["app"], &["x", "y"]);
    (select(&SERVICES[..3]), selector, addresses, vec(service_port(), 0..4), prop::bool::weighted(0.2), other)
        .prop_map(|((namespace, name), selector, (addresses, external_addresses), ports, is_local, other)| {
            Service {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                labels: BTreeMap::new(),
                selector,
                addresses,
                external_addresses,
                ports,
                is_local,
                external_name: other.map(|name| name.parse().expect("a name")),
            }
        })
}

/// A service that is reached somewhere, and endpoints that answer at each of its ports.
pub(crate) fn equipped_service() -> impl Strategy<Value = Vec<Object>> {
    let declared = (
        service(),
        vec(address(), 1..3),
        vec(service_port(), 1..3),
        option::weighted(0.3, labels(&["app"], &["x"])),
    );
    let declared = declared.prop_map(|(service, addresses, ports, selector)| Service {
        addresses,
        ports,
        selector: selector.unwrap_or_default(),
        external_name: None,
        ..service
    });
    let part = (vec(endpoint(1..2), 1..4), vec(select(&[80, 443, 8080][..]), 3));
    (declared, vec(part, 1..3)).prop_map(|(service, parts)| {
        let mut objects = Vec::new();
        for (number, (endpoints, targets)) in parts.into_iter().enumerate() {
            let ports = service.ports.iter().zip(targets).map(|(port, target)| EndpointPort {
                name: port.name.clone(),
                protocol: port.protocol,
                port: target,
            });
            objects.push(Object::EndpointSlice(EndpointSlice {
                namespace: service.namespace.clone(),
                name: format!("{}-{number}", service.name),
                service: Some(service.name.clone()),
                part: SlicePart { endpoints, ports: ports.collect() },
            }));
        }
        objects.push(Object::Service(service));
        objects
    })
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    let node_port = option::weighted(0.3, select(&[1024, 8079][..]));
    (port_name(), carrier(), select(&[80, 443, 8080][..]), node_port).prop_map(
        |(name, protocol, port, node_port)| ServicePort { name: name.to_owned(), protocol, port, node_port },
    )
}

/// Names of ports, of services and of parts of their endpoints.
fn port_name() -> impl Strategy<Value = &'static str> {
    select(&["", "", "web"][..])
}

fn carrier() -> impl Strategy<Value = Protocol> {
    select(&[Protocol::TCP, Protocol::TCP, Protocol::UDP][..])
}

/// A slice of a service, whether that is declared or not.
pub(super) fn slice() -> impl Strategy<Value = EndpointSlice> {
    let port = (port_name(), carrier(), select(&[80, 443, 8080][..]))
        .prop_map(|(name, protocol, port)| EndpointPort { name: name.to_owned(), protocol, port });
    (select(&SERVICES[..3]), 0..2u8, vec(endpoint(0..3), 0..4), vec(port, 0..4)).prop_map(
        |((namespace, service), number, endpoints, ports)| EndpointSlice {
            namespace: namespace.to_owned(),
            name: format!("slice{number}"),
            service: Some(service.to_owned()),
            part: SlicePart { endpoints, ports },
        },
    )
}

fn endpoint(count: Range<usize>) -> impl Strategy<Value = Endpoint> {
    let state = prop_oneof![
        5 => Just(EndpointState::Ready),
        1 => Just(EndpointState::Ending),
        1 => Just(EndpointState::Away),
    ];
    (vec(address(), count), state).prop_map(|(addresses, state)| Endpoint { addresses, state })
}

/// An external network; mostly with addresses and names.
pub(super) fn external_network() -> impl Strategy<Value = ExternalNetwork> {
    let cidrs = subsequence(&PREFIXES[..], 0..3);
    let fqdns = btree_set(select(&PATTERNS[..]), 0..3);
    (select(&NETWORKS[..3]), labels(&["kind"], &["x", "y"]), cidrs, fqdns).prop_map(
        |(name, labels, cidrs, fqdns)| ExternalNetwork {
            name: name.to_owned(),
            labels,
            cidrs: cidrs.iter().map(|text| text.parse().expect("a prefix")).collect(),
            fqdns: fqdns.iter().map(|text| text.parse().expect("a pattern")).collect(),
        },
    )
}
