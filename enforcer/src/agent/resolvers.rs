//! Whose DNS answers count when nobody said so. Owns the default; never asks a resolver.

use std::net::IpAddr;

use enforcer_core::snapshot::Snapshot;

/// Namespace and label of the cluster's resolvers.
const CLUSTER: (&str, &str, &str) = ("kube-system", "k8s-app", "kube-dns");

/// The addresses in force: those `given`, else the cluster's resolvers and the name servers of `configuration`, the
/// text of a resolv.conf. Sorted, each once.
pub fn trusted(given: &[IpAddr], snapshot: &Snapshot, configuration: &str) -> Vec<IpAddr> {
    let mut addresses = given.to_vec();
    if given.is_empty() {
        let (namespace, key, value) = CLUSTER;
        let is_resolver = |labels: &std::collections::BTreeMap<String, String>| {
            labels.get(key).is_some_and(|label| label == value)
        };
        let workloads = snapshot.workloads.values();
        let cluster =
            workloads.filter(|workload| workload.id.namespace == namespace && is_resolver(&workload.labels));
        addresses.extend(cluster.flat_map(|workload| workload.addresses.iter().copied()));
        addresses.extend(configuration.lines().filter_map(name_server));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The address of a `nameserver` line; a zone behind `%` is left out.
fn name_server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
    address.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::trusted;
    use enforcer_common::policy::Mode;
    use enforcer_core::object::{Workload, WorkloadId};
    use enforcer_core::snapshot::Snapshot;
    use std::collections::BTreeMap;

    #[test]
    fn the_cluster_and_the_node_are_trusted_unless_somebody_says_otherwise() {
        let mut snapshot = Snapshot::new(Mode::Policy);
        for (namespace, address) in [("kube-system", "10.0.0.10"), ("default", "10.0.0.11")] {
            let id = WorkloadId::new(namespace, "dns");
            let workload = Workload {
                id: id.clone(),
                labels: BTreeMap::from([("k8s-app".into(), "kube-dns".into())]).into(),
                service_account: None,
                controller: None,
                addresses: vec![address.parse().expect("an address")],
                ports: Vec::new(),
                local: true,
            };
            snapshot.workloads.insert(id, workload.into());
        }
        let configuration =
            "search a.example\n#nameserver 192.0.2.9\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n";
        let texts = |given: &[std::net::IpAddr]| {
            trusted(given, &snapshot, configuration).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts(&[]), ["10.0.0.10", "192.0.2.1", "fe80::1"]);
        assert_eq!(texts(&["192.0.2.53".parse().expect("an address")]), ["192.0.2.53"]);
    }
}
