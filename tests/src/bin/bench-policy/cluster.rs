//! Clusters as they are found, from a seed: namespaces of teams, deployments whose pods share their labels, pods spread
//! over nodes, policies of the usual shapes. The same seed is the same cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use enforcer_common::policy::Mode;
use enforcer_core::manifest::{self, Object};
use enforcer_core::object::{NamedPort, Workload, WorkloadId};
use enforcer_core::policy::{Policy, PolicyId, PortMatch, Ports};
use enforcer_core::protocol::Protocol;
use enforcer_core::refusal::ObjectRef;
use enforcer_core::snapshot::Snapshot;
use serde_json::{Value, json};

/// Pods of one node.
pub(crate) const LOCAL: usize = 110;
/// Pods of one deployment.
const REPLICAS: usize = 10;
/// Namespaces a cluster has for each team.
const TEAM: usize = 8;

/// Random numbers, by the SplitMix64 generator (Steele, Lea, Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// How large a cluster is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) pods: usize,
    pub(crate) policies: usize,
}

impl Size {
    fn namespaces(self) -> usize {
        (self.policies / 10).max(1)
    }

    fn deployments(self) -> usize {
        self.pods / REPLICAS
    }
}

/// A cluster, but for its pods: those are made one by one.
pub(crate) fn without_pods(size: Size) -> Result<Snapshot> {
    let mut snapshot = Snapshot::new(Mode::Policy);
    snapshot.cluster_networks = vec!["10.0.0.0/8".parse()?];
    for number in 0..size.namespaces() {
        let team = format!("team-{}", number / TEAM);
        let environment = if number % 4 == 0 { "staging" } else { "production" };
        apply(
            &mut snapshot,
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata":
            {"name": namespace(number), "labels": {"team": team, "environment": environment}}}),
        )?;
    }
    for node in 0..size.pods.div_ceil(LOCAL) {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + node as u32);
        let node = enforcer_core::object::Node {
            name: format!("node-{node}"),
            labels: BTreeMap::new(),
            addresses: vec![address.into()],
            local: node == 0,
        };
        snapshot.nodes.insert(node.name.clone(), node);
    }
    let mut random = Random::new(1);
    for number in 0..size.policies {
        apply(&mut snapshot, &policy(size, number, &mut random))?;
    }
    Ok(snapshot)
}

/// The pods of a cluster; those of the first node are local.
pub(crate) fn pods(size: Size) -> impl Iterator<Item = Workload> {
    let mut order: Vec<usize> = (0..size.pods).collect();
    let mut random = Random::new(2);
    for index in (1..order.len()).rev() {
        order.swap(index, random.below(index + 1));
    }
    order.into_iter().enumerate().map(move |(place, number)| pod(size, number, place))
}

/// Pod `number` of a cluster at a place: 110 of these are one node.
pub(crate) fn pod(size: Size, number: usize, place: usize) -> Workload {
    let deployment = number % size.deployments();
    let group = deployment % size.namespaces();
    let app = app(deployment / size.namespaces());
    let labels = [
        ("app.kubernetes.io/name", app.clone()),
        ("app.kubernetes.io/instance", format!("{app}-{group}")),
        ("app", app.clone()),
        ("tier", ["frontend", "backend", "data"][deployment % 3].to_owned()),
        ("pod-template-hash", format!("{:010x}", deployment * 7919)),
    ];
    let labels: BTreeMap<String, String> =
        labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let port = |name: &str, port| NamedPort { name: name.to_owned(), protocol: Protocol::TCP, port };
    Workload {
        id: WorkloadId::new(namespace(group), format!("{app}-{:010x}-{number:05}", deployment * 7919)),
        labels: Arc::new(labels),
        service_account: Some(app.as_str().into()),
        controller: Some(format!("Deployment/{app}").into()),
        addresses: vec![address(place)],
        ports: [port("http", 8080), port("metrics", 9090)].into(),
        local: place < LOCAL,
    }
}

/// The address of a place: 110 in each /24.
pub(crate) fn address(place: usize) -> IpAddr {
    let offset = (place / LOCAL) << 8 | (place % LOCAL + 2);
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + offset as u32).into()
}

/// A policy in every namespace with other single ports, and nothing else.
pub(crate) fn edited(snapshot: &Snapshot) -> Vec<(ObjectRef, Option<Arc<Object>>)> {
    let of_shape = |id: &PolicyId| id.name == "policy-7";
    let policies = snapshot.policies.iter().filter(|(id, _)| of_shape(id));
    let edited = policies.map(|(id, policy)| {
        let mut policy = Policy::clone(policy);
        for rule in policy.ingress.iter_mut().flatten() {
            let Ports::OneOf(ports) = &mut rule.ports else { continue };
            for port in ports {
                if let PortMatch::Range { first, last, .. } = port {
                    (*first, *last) = (*first ^ 1, *last ^ 1);
                }
            }
        }
        (id.object(), Some(Object::Policy(policy.into()).into()))
    });
    edited.collect()
}

fn namespace(number: usize) -> String {
    format!("service-{number}")
}

fn app(number: usize) -> String {
    format!("app-{number}")
}

fn apply(snapshot: &mut Snapshot, document: &Value) -> Result<()> {
    let object = manifest::read_value(document).map_err(|refusals| anyhow!("{refusals:?}: {document}"))?;
    snapshot.apply(object);
    Ok(())
}

/// Policy `number`: every namespace has one of each shape.
fn policy(size: Size, number: usize, random: &mut Random) -> Value {
    let (group, shape) = (number % size.namespaces(), number / size.namespaces());
    let apps = (size.deployments() / size.namespaces()).max(1);
    let mut any_app = || app(random.below(apps));
    let (subject, peer) = (any_app(), any_app());
    let other = namespace(random.below(size.namespaces()));
    let select = |name: &str| json!({"matchLabels": {"app": name}});
    let of_namespace = |name: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let spec = match shape {
        0 => json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        1 => json!({"podSelector": {}, "egress": [{"to": [{"namespaceSelector": of_namespace("service-0"),
            "podSelector": select("app-0")}], "ports": [{"protocol": "UDP", "port": 53}, {"port": 53}]}]}),
        2 => {
            json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}], "egress": [{"to": [{"podSelector": {}}]}]})
        }
        3 => {
            json!({"podSelector": select(&subject), "ingress": [{"from": [{"namespaceSelector": of_namespace(&other),
            "podSelector": select(&peer)}], "ports": [{"port": "http"}]}]})
        }
        4 => {
            json!({"podSelector": select(&subject), "egress": [{"to": [{"namespaceSelector": of_namespace(&other),
            "podSelector": select(&peer)}], "ports": [{"port": "http"}, {"port": 8443}]}]})
        }
        5 => json!({"podSelector": select(&subject), "egress": [{"to": [{"ipBlock": {"cidr": "198.18.0.0/15",
            "except": [format!("198.18.{}.0/24", group % 256)]}}], "ports": [{"port": 8000, "endPort": 8999}]}]}),
        6 => json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels":
            {"team": format!("team-{}", group / TEAM)}}}], "ports": [{"port": "metrics"}]}]}),
        7 => {
            json!({"podSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["data"]}]},
            "ingress": [{"from": [{"podSelector": {"matchExpressions": [{"key": "tier", "operator": "NotIn",
                "values": ["frontend"]}]}}], "ports": [{"port": 5432}, {"port": 6379}, {"port": 6380}]}]})
        }
        8 => {
            return json!({"apiVersion": "enforcer.dev/v1alpha1", "kind": "SegmentPolicy",
            "metadata": {"name": "names", "namespace": namespace(group)}, "spec": {"subject": select(&subject), "egress":
                [{"action": "Allow", "to": [{"fqdns": [format!("api-{}.example.com", group % 50),
                    format!("*.{}.example.org", group % 20)]}], "ports": [{"protocol": "TCP", "port": 443}]}]}});
        }
        _ => json!({"podSelector": select(&subject), "ingress": [{"from": [{"ipBlock":
            {"cidr": format!("203.0.{}.0/24", random.below(256))}}, {"ipBlock": {"cidr": "192.0.2.0/25"}}],
            "ports": [{"port": 443}, {"port": 80}]}]}),
    };
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("policy-{shape}"), "namespace": namespace(group)}, "spec": spec})
}
