//! Random clusters, policies and flows over a universe so small that everything meets everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::decide::Direction;
use enforcer_common::policy::Mode;
use enforcer_core::object::{NamedPort, Namespace, Node, Workload, WorkloadId};
use enforcer_core::policy::{DefaultAction, Tier};
use enforcer_core::protocol::Protocol;
use enforcer_core::snapshot::Snapshot;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

mod policies;

/// Namespaces that exist; policies also speak of one that does not.
const NAMESPACES: [&str; 2] = ["a", "b"];
/// Addresses that workloads, nodes, peers and flows are made of.
const ADDRESSES: [&str; 20] = [
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
const NAMES: [&str; 8] = [
    "example.com",
    "a.example.com",
    "b.a.example.com",
    "api-1.example.com",
    "api-.example.com",
    "other.org",
    "x.other.org",
    "nobody.net",
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
        btree_map(select(&NAMESPACES[..]), labels(&["env", "team"], &["x", "y"]), 0..=2),
        vec(workload(), 1..8),
        vec(tier(), 0..7),
        vec(policies::policy(), 1..20),
        vec(node(), 0..4),
        networks,
        (
            mode(),
            btree_map(select(&NAMESPACES[..]), select(&["observe", "policy", "enforce", "x"][..]), 0..3),
        ),
    )
        .prop_map(|(namespaces, workloads, tiers, policies, nodes, networks, (mode, modes))| {
            let mut snapshot = Snapshot::new(mode);
            for (name, mut labels) in namespaces {
                let chosen =
                    modes.get(name).map(|mode| (Namespace::MODE_LABEL.to_owned(), (*mode).to_owned()));
                labels.extend(chosen);
                snapshot.namespaces.insert(name.to_owned(), Namespace { name: name.to_owned(), labels });
            }
            snapshot.workloads =
                workloads.into_iter().map(|workload| (workload.id.clone(), Arc::new(workload))).collect();
            if let Some(first) = snapshot.workloads.values_mut().next() {
                Arc::make_mut(first).local = true;
            }
            snapshot.tiers = tiers.into_iter().map(|tier| (tier.name.clone(), tier)).collect();
            snapshot.policies = policies.into_iter().map(|policy| (policy.id.clone(), policy)).collect();
            snapshot.nodes = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
            snapshot.cluster_networks = networks.iter().map(|net| net.parse().expect("a prefix")).collect();
            snapshot
        })
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

fn address() -> impl Strategy<Value = IpAddr> {
    select(&ADDRESSES[..]).prop_map(|text| text.parse().expect("an address"))
}

fn mode() -> impl Strategy<Value = Mode> {
    select(&[Mode::Observe, Mode::Policy, Mode::Enforce][..])
}

fn labels(
    keys: &'static [&'static str],
    values: &'static [&'static str],
) -> impl Strategy<Value = BTreeMap<String, String>> {
    let text = |texts: &'static [&'static str]| select(texts).prop_map(str::to_owned);
    btree_map(text(keys), text(values), 0..=keys.len())
}

fn workload() -> impl Strategy<Value = Workload> {
    let port = (
        select(&["http", "dns"][..]),
        select(&[Protocol::TCP, Protocol::UDP][..]),
        select(&[80, 443, 8080][..]),
    )
        .prop_map(|(name, protocol, port)| NamedPort { name: name.to_owned(), protocol, port });
    (
        (select(&NAMESPACES[..]), 0..4u8),
        labels(&["app", "tier"], &["x", "y"]),
        option::of(select(&["s", "t"][..])),
        option::of(select(&["Deployment/web", "Job/once"][..])),
        vec(address(), 0..4),
        vec(port, 0..3),
        prop::bool::weighted(0.7),
    )
        .prop_map(|((namespace, number), labels, account, controller, addresses, ports, local)| {
            Workload {
                id: WorkloadId::new(namespace, format!("w{number}")),
                labels: labels.into(),
                service_account: account.map(str::to_owned),
                controller: controller.map(str::to_owned),
                addresses: addresses.into_iter().collect::<BTreeSet<_>>().into_iter().collect(),
                ports,
                local,
            }
        })
}

fn node() -> impl Strategy<Value = Node> {
    let labels = labels(&["zone", "pool"], &["x", "y"]);
    (0..4u8, labels, vec(address(), 0..3), prop::bool::weighted(0.3)).prop_map(
        |(number, labels, addresses, local)| Node { name: format!("n{number}"), labels, addresses, local },
    )
}

fn tier() -> impl Strategy<Value = Tier> {
    let order = select(&[50, 100, 1_200_000, 3_000_000][..]);
    let default = select(&[DefaultAction::Deny, DefaultAction::Pass][..]);
    (select(&policies::TIERS[..3]), order, default).prop_map(|(name, order, default_action)| Tier {
        name: name.to_owned(),
        order,
        default_action,
    })
}
