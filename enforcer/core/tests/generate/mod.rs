//! Random clusters, policies and flows over a universe so small that everything meets everything.

use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::decide::Direction;
use enforcer_common::policy::Mode;
use enforcer_core::manifest::Object;
use enforcer_core::policy::{DefaultAction, Tier};
use enforcer_core::protocol::Protocol;
use enforcer_core::snapshot::Snapshot;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

pub(crate) use cluster::{equipped_service, labels, namespaces, workload};

mod cluster;
mod policies;

/// Namespaces that exist; policies also speak of one that does not.
const NAMESPACES: [&str; 3] = ["a", "b", "c"];
/// Addresses that workloads, nodes, peers and flows are made of.
pub(crate) const ADDRESSES: [&str; 20] = [
    "10.0.0.0",
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.4",
    "10.0.0.5",
    "10.0.0.8",
    "10.0.0.15",
    "10.0.1.1",
    "11.0.0.1",
    "192.0.2.1",
    "200.0.0.1",
    "::",
    "::ffff:10.0.0.3",
    "fd00::1",
    "fd00::2",
    "fd00::3",
    "fd00::ff",
    "2001:db8::1",
    "ff00::1",
];
/// Names that workloads look up.
pub(crate) const NAMES: [&str; 9] = [
    "example.com",
    "a.example.com",
    "b.a.example.com",
    "api-1.example.com",
    "api-.example.com",
    "other.org",
    "x.other.org",
    "nobody.net",
    "s0.a.svc.cluster.local",
];
const PORTS: [u16; 14] = [0, 1, 22, 79, 80, 81, 443, 1023, 1024, 8079, 8080, 0x0800, 0x0801, 65535];
const PROTOCOLS: [Protocol; 8] = [
    Protocol::TCP,
    Protocol::TCP,
    Protocol::TCP,
    Protocol::UDP,
    Protocol::SCTP,
    Protocol::ICMP,
    Protocol::ICMPV6,
    Protocol(47),
];

/// A flow, by its place in a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// Which of the snapshot's local workloads is asked.
    pub(crate) workload: Index,
    /// Who begins it.
    pub(crate) direction: Direction,
    /// The other side.
    pub(crate) remote: IpAddr,
    /// What the workload knows it as.
    pub(crate) names: Vec<String>,
    /// Protocol.
    pub(crate) protocol: Protocol,
    /// Port.
    pub(crate) port: u16,
}

/// Any snapshot.
pub(crate) fn snapshots() -> impl Strategy<Value = Snapshot> {
    let networks = subsequence(&["10.0.0.0/29", "10.0.0.0/28", "fd00::/120", "192.0.2.0/24"][..], 0..3);
    (
        namespaces(),
        vec(workload(), 1..8),
        vec(tier(), 0..7),
        vec(policies::policy(), 1..20),
        objects(),
        networks,
        mode(),
    )
        .prop_map(|(namespaces, workloads, tiers, policies, objects, networks, mode)| {
            let mut snapshot = Snapshot::new(mode);
            snapshot.namespaces = namespaces;
            snapshot.workloads =
                workloads.into_iter().map(|workload| (workload.id.clone(), Arc::new(workload))).collect();
            if let Some(first) = snapshot.workloads.values_mut().next() {
                Arc::make_mut(first).local = true;
            }
            snapshot.cluster_networks = networks.iter().map(|net| net.parse().expect("a prefix")).collect();
            tiers.into_iter().map(Object::Tier).for_each(|tier| snapshot.apply(tier));
            policies
                .into_iter()
                .map(|policy| Object::Policy(policy.into()))
                .for_each(|policy| snapshot.apply(policy));
            objects.into_iter().for_each(|object| snapshot.apply(object));
            snapshot
        })
}

/// Nodes, services and external networks, which policies may or may not speak of.
fn objects() -> impl Strategy<Value = Vec<Object>> {
    (
        vec(cluster::node().prop_map(Object::Node), 0..4),
        vec(cluster::service().prop_map(Object::Service), 0..3),
        vec(cluster::slice().prop_map(Object::EndpointSlice), 0..3),
        vec(equipped_service(), 0..3).prop_map(|services| services.concat()),
        vec(cluster::external_network().prop_map(Object::ExternalNetwork), 0..5),
    )
        .prop_map(|(nodes, services, slices, equipped, networks)| {
            [nodes, services, slices, equipped, networks].concat()
        })
}

/// An object of any kind but workloads and namespaces.
pub(crate) fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        4 => policies::policy().prop_map(|policy| Object::Policy(policy.into())),
        1 => tier().prop_map(Object::Tier),
        1 => cluster::node().prop_map(Object::Node),
        1 => cluster::service().prop_map(Object::Service),
        1 => cluster::slice().prop_map(Object::EndpointSlice),
        1 => cluster::external_network().prop_map(Object::ExternalNetwork),
    ]
}

/// Any flow. It is known under at most two names, whose classes always fit the slots of an address.
pub(crate) fn flow() -> impl Strategy<Value = Flow> {
    let direction = select(&[Direction::Egress, Direction::Ingress][..]);
    let names = subsequence(&NAMES[..], 0..3);
    (any::<Index>(), direction, address(), names, select(&PROTOCOLS[..]), select(&PORTS[..])).prop_map(
        |(workload, direction, remote, names, protocol, port)| {
            let names = names.into_iter().map(str::to_owned).collect();
            Flow { workload, direction, remote, names, protocol, port }
        },
    )
}

/// A flow like this one to a place where a service of the snapshot is reached; the flow itself where none is.
pub(crate) fn to_service(snapshot: &Snapshot, flow: &Flow) -> Flow {
    let mut places = Vec::new();
    for service in snapshot.services.values() {
        for port in &service.ports {
            let own = service.addresses.iter().chain(&service.external_addresses);
            places.extend(own.map(|address| (*address, port.protocol, port.port)));
            let nodes = snapshot.nodes.values().flat_map(|node| &node.addresses);
            let at_nodes = nodes.filter_map(|address| Some((*address, port.protocol, port.node_port?)));
            places.extend(at_nodes);
        }
    }
    if places.is_empty() {
        return flow.clone();
    }
    let (remote, protocol, port) = places[(usize::from(flow.port) + flow.names.len()) % places.len()];
    Flow { direction: Direction::Egress, remote, protocol, port, ..flow.clone() }
}

fn address() -> impl Strategy<Value = IpAddr> {
    select(&ADDRESSES[..]).prop_map(|text| text.parse().expect("an address"))
}

fn mode() -> impl Strategy<Value = Mode> {
    select(&[Mode::Observe, Mode::Policy, Mode::Enforce][..])
}

fn tier() -> impl Strategy<Value = Tier> {
    let order = select(&[50, 100, 1_200_000, 3_000_000][..]);
    let default = select(&[DefaultAction::Deny, DefaultAction::Pass][..]);
    let managed_by = proptest::option::weighted(0.1, select(&policies::CONTROLLERS[..]));
    (select(&policies::TIERS[..3]), order, default, managed_by).prop_map(
        |(name, order, default_action, managed_by)| Tier {
            name: name.to_owned(),
            order,
            default_action,
            managed_by: managed_by.map(str::to_owned),
        },
    )
}
