//! Whose DNS answers count. Owns what the defaults mean and where the node's own name servers are read; never asks a
//! resolver.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use enforcer_core::object::{Workload, WorkloadId};
use enforcer_core::snapshot::Snapshot;
use enforcer_k8s::served::RESOLVER_LABEL;

use super::follow::{Changed, Workloads};

/// Namespace of the cluster's resolvers, and the values of [`RESOLVER_LABEL`] that tell them.
const NAMESPACE: &str = "kube-system";
const CLUSTER: &str = "kube-dns";
const NODE_LOCAL: &str = "node-local-dns";
/// Where NodeLocal DNSCache listens on every node that has it.
const NODE_LOCAL_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));
/// The servers that systemd-resolved asks, where resolv.conf names but its stub.
const BEHIND_THE_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// Somebody whose DNS answers count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Trust {
    /// The cluster's DNS service: its addresses, its endpoints, and its pods.
    Cluster,
    /// The DNS cache of this node.
    NodeLocal,
    /// The name servers of this node.
    Node,
    /// An address.
    Address(IpAddr),
}

impl Trust {
    /// Who is trusted when nothing is said.
    pub const DEFAULT: [Self; 3] = [Self::Cluster, Self::NodeLocal, Self::Node];
}

impl FromStr for Trust {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cluster" => Ok(Self::Cluster),
            "node-local" => Ok(Self::NodeLocal),
            "node" => Ok(Self::Node),
            _ => text.parse().map(Self::Address).map_err(|_| {
                format!("{text:?} is no resolver: give an address, `cluster`, `node-local` or `node`")
            }),
        }
    }
}

/// The addresses in force for those `chosen`, [`Trust::DEFAULT`] when none is; `servers` are the node's own. Sorted, each
/// once.
pub fn trusted(chosen: &[Trust], snapshot: &Snapshot, servers: &[IpAddr]) -> Vec<IpAddr> {
    let chosen = if chosen.is_empty() { &Trust::DEFAULT[..] } else { chosen };
    let mut addresses = Vec::new();
    for trust in chosen {
        match trust {
            Trust::Cluster => add_cluster(snapshot, &mut addresses),
            Trust::NodeLocal => add_node_local(snapshot, &mut addresses),
            Trust::Node => addresses.extend(servers),
            Trust::Address(address) => addresses.push(*address),
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// True when what changed may have to do with whose answers count.
pub fn concern(workloads: &Workloads, objects: &Changed) -> bool {
    let is_here = |namespace: &str| namespace == NAMESPACE;
    workloads.keys().any(|id| is_here(&id.namespace))
        || objects.keys().any(|key| key.namespace.as_deref().is_none_or(is_here))
}

fn add_cluster(snapshot: &Snapshot, addresses: &mut Vec<IpAddr>) {
    let of_cluster = snapshot.services.range((NAMESPACE.to_owned(), String::new())..);
    let of_cluster = of_cluster.take_while(|((namespace, _), _)| namespace == NAMESPACE);
    let is_resolver = |label: &String| label == CLUSTER;
    for (_, service) in of_cluster.filter(|(_, of)| of.labels.get(RESOLVER_LABEL).is_some_and(is_resolver)) {
        addresses.extend(service.addresses.iter().chain(service.endpoints()));
    }
    addresses.extend(labelled(snapshot, CLUSTER).flat_map(|workload| &workload.addresses));
}

fn add_node_local(snapshot: &Snapshot, addresses: &mut Vec<IpAddr>) {
    addresses.extend(snapshot.hosts().filter(|address| *address == NODE_LOCAL_ADDRESS));
    let here = labelled(snapshot, NODE_LOCAL).filter(|workload| workload.local);
    addresses.extend(here.flat_map(|workload| &workload.addresses));
}

/// The cluster's own workloads with this label.
fn labelled<'a>(snapshot: &'a Snapshot, value: &'a str) -> impl Iterator<Item = &'a Workload> {
    let of_cluster = snapshot.workloads.range(WorkloadId::new(NAMESPACE, "")..);
    of_cluster
        .map(|(_, workload)| &**workload)
        .take_while(|workload| workload.id.namespace == NAMESPACE)
        .filter(move |workload| workload.labels.get(RESOLVER_LABEL).is_some_and(|label| label == value))
}

/// The name servers of this node, by its resolv.conf. Those at the loopback are the node's alone: where there is no
/// other, those behind systemd-resolved's stub. None when there is no such file.
pub fn of_node(resolv_conf: &Path) -> Vec<IpAddr> {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let servers = |text: &str| text.lines().filter_map(name_server).collect::<Vec<_>>();
    let mut own = servers(&read(resolv_conf));
    if !own.is_empty() && own.iter().all(IpAddr::is_loopback) {
        own = servers(&read(Path::new(BEHIND_THE_STUB)));
    }
    own.retain(|address| !address.is_loopback());
    own
}

/// The directories in which a change of [`of_node`] is seen.
pub fn directories(resolv_conf: &Path) -> Vec<PathBuf> {
    let real = resolv_conf.canonicalize();
    let files = [Some(resolv_conf), real.as_deref().ok(), Some(Path::new(BEHIND_THE_STUB))];
    files.into_iter().flatten().filter_map(|file| file.parent().map(Path::to_owned)).collect()
}

/// The address of a `nameserver` line; a zone behind `%` is left out.
fn name_server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
    address.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::sync::Arc;

    use enforcer_common::policy::Mode;
    use enforcer_core::manifest::Object;
    use enforcer_core::object::{
        Endpoint, EndpointSlice, EndpointState, Node, Service, SlicePart, Workload, WorkloadId,
    };
    use enforcer_core::snapshot::Snapshot;

    use super::{Trust, of_node, trusted};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn labels(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("k8s-app".to_owned(), value.to_owned())])
    }

    fn add_workload(snapshot: &mut Snapshot, namespace: &str, label: &str, address: &str, local: bool) {
        let id = WorkloadId::new(namespace, address);
        let workload = Workload {
            id: id.clone(),
            labels: labels(label).into(),
            service_account: None,
            controller: None,
            addresses: vec![ip(address)],
            ports: Arc::default(),
            local,
        };
        snapshot.workloads.insert(id, workload.into());
    }

    fn add_service(snapshot: &mut Snapshot, namespace: &str, label: &str, [service, endpoint]: [&str; 2]) {
        let named = |name: &str| (namespace.to_owned(), name.to_owned());
        let (namespace, name) = named(label);
        let addresses = vec![ip(service)];
        let labels = labels(label);
        snapshot.apply(Object::Service(Service { namespace, name, labels, addresses, ..Service::default() }));
        let (namespace, service) = named(label);
        let name = format!("{label}-1");
        let endpoint = Endpoint { addresses: vec![ip(endpoint)], state: EndpointState::Ready };
        let part = SlicePart { endpoints: vec![endpoint], ports: Vec::new() };
        let service = Some(service);
        snapshot.apply(Object::EndpointSlice(EndpointSlice { namespace, name, service, part }));
    }

    fn node(address: &str, local: bool) -> Object {
        let (name, addresses) = (address.to_owned(), vec![ip(address)]);
        Object::Node(Node { name, labels: BTreeMap::new(), addresses, local })
    }

    #[test]
    fn the_cluster_its_cache_and_the_node_are_trusted_unless_somebody_says_otherwise() {
        let mut snapshot = Snapshot::new(Mode::Policy);
        add_workload(&mut snapshot, "kube-system", "kube-dns", "10.0.0.10", false);
        add_workload(&mut snapshot, "default", "kube-dns", "10.0.0.11", true);
        add_workload(&mut snapshot, "kube-system", "node-local-dns", "10.0.0.12", true);
        add_workload(&mut snapshot, "kube-system", "node-local-dns", "10.0.0.13", false);
        add_service(&mut snapshot, "kube-system", "kube-dns", ["10.96.0.10", "10.0.0.14"]);
        add_service(&mut snapshot, "kube-system", "metrics", ["10.96.0.11", "10.0.0.15"]);
        add_service(&mut snapshot, "default", "kube-dns", ["10.96.0.12", "10.0.0.16"]);
        let servers = [ip("192.0.2.1")];
        let told = |chosen: &[Trust], snapshot: &Snapshot| -> Vec<String> {
            trusted(chosen, snapshot, &servers).iter().map(ToString::to_string).collect()
        };
        let cluster = ["10.0.0.10", "10.0.0.14", "10.96.0.10"];
        assert_eq!(told(&[Trust::Cluster], &snapshot), cluster);
        assert_eq!(told(&[Trust::NodeLocal], &snapshot), ["10.0.0.12"]);
        snapshot.apply(node("169.254.20.10", false));
        assert_eq!(told(&[Trust::NodeLocal], &snapshot), ["10.0.0.12"], "another node's");
        snapshot.apply(node("169.254.20.10", true));
        assert_eq!(told(&[Trust::NodeLocal], &snapshot), ["10.0.0.12", "169.254.20.10"]);
        assert_eq!(told(&[Trust::Node], &snapshot), ["192.0.2.1"]);
        let all = ["10.0.0.10", "10.0.0.12", "10.0.0.14", "10.96.0.10", "169.254.20.10", "192.0.2.1"];
        assert_eq!(told(&[], &snapshot), all);
        let given = ["192.0.2.53", "node"].map(|text| text.parse().expect("a resolver"));
        assert_eq!(told(&given, &snapshot), ["192.0.2.1", "192.0.2.53"]);
        let error = "nobody".parse::<Trust>().expect_err("no resolver");
        assert_eq!(error, "\"nobody\" is no resolver: give an address, `cluster`, `node-local` or `node`");
    }

    #[test]
    fn the_nodes_servers_are_those_others_can_ask() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("resolv.conf");
        assert_eq!(of_node(&file), [] as [IpAddr; 0]);
        let text = "search a.example\n#nameserver 192.0.2.9\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n\
                    nameserver fe80::1%eth0\nnameserver ::1\n";
        std::fs::write(&file, text).expect("written");
        assert_eq!(of_node(&file), [ip("192.0.2.1"), ip("fe80::1")]);
    }
}
