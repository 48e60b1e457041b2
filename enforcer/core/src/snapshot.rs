//! Everything known at one moment: the compiler's and the reference evaluator's only input.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::policy::Mode;
use ipnet::IpNet;

use crate::hierarchy;
use crate::manifest::Object;
use crate::object::{
    EndpointSlice, ExternalNetwork, Namespace, Node, Service, ServiceEndpoints, Workload, WorkloadId,
};
use crate::policy::{Policy, PolicyId, PolicyKind, Tier};
use crate::refusal::ObjectRef;

/// Everything known at one moment. Policies in it are valid; only what depends on other objects (does the tier
/// exist?) is still to be checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// Workloads of the whole cluster.
    pub workloads: BTreeMap<WorkloadId, Arc<Workload>>,
    /// Namespaces by name; one that is missing has no labels but its name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Policies of every kind.
    pub policies: BTreeMap<PolicyId, Arc<Policy>>,
    /// Tiers beside the built-in ones, by name.
    pub tiers: BTreeMap<String, Tier>,
    /// Nodes by name, this one among them.
    pub nodes: BTreeMap<String, Node>,
    /// Services by namespace and name.
    pub services: BTreeMap<(String, String), ServiceEndpoints>,
    /// External networks by name.
    pub external_networks: BTreeMap<String, ExternalNetwork>,
    /// Networks of the cluster beside its workloads and nodes (services, pods to come): no Internet.
    pub cluster_networks: Vec<IpNet>,
    /// Mode of namespaces that do not choose one.
    pub default_mode: Mode,
    /// Domain of the cluster's services: `name.namespace.svc.` stands before it.
    pub cluster_domain: String,
}

impl Snapshot {
    /// Domain of services where nobody chose another one.
    pub const CLUSTER_DOMAIN: &'static str = "cluster.local";

    /// A snapshot that knows nothing.
    pub fn new(default_mode: Mode) -> Self {
        Self {
            workloads: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            policies: BTreeMap::new(),
            tiers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
            external_networks: BTreeMap::new(),
            cluster_networks: Vec::new(),
            default_mode,
            cluster_domain: Self::CLUSTER_DOMAIN.to_owned(),
        }
    }

    /// Adds a valid object, in place of one of the same kind and name.
    pub fn apply(&mut self, object: Object) {
        match object {
            Object::Namespace(namespace) => {
                self.namespaces.insert(namespace.name.clone(), namespace);
            }
            Object::Node(node) => {
                self.nodes.insert(node.name.clone(), node);
            }
            Object::Service(service) => {
                let key = (service.namespace.clone(), service.name.clone());
                self.services.entry(key).or_default().declare(service);
            }
            Object::EndpointSlice(slice) => self.apply_slice(slice),
            Object::ExternalNetwork(network) => {
                self.external_networks.insert(network.name.clone(), network);
            }
            Object::Policy(policy) => {
                self.policies.insert(policy.id.clone(), policy);
            }
            Object::Tier(tier) => {
                self.tiers.insert(tier.name.clone(), tier);
            }
        }
    }

    /// Takes an object away. One that is not there, or of a kind that is none of the snapshot's, is no matter.
    pub fn remove(&mut self, object: &ObjectRef) {
        let ObjectRef { kind, namespace, name } = object;
        let in_namespace = || (namespace.clone().unwrap_or_default(), name.clone());
        let policy = match kind.as_str() {
            "Namespace" => return drop(self.namespaces.remove(name)),
            "Node" => return drop(self.nodes.remove(name)),
            "ExternalNetwork" => return drop(self.external_networks.remove(name)),
            "Tier" => return drop(self.tiers.remove(name)),
            "Service" => {
                let (namespace, name) = in_namespace();
                return self.remove_service(&namespace, &name);
            }
            "EndpointSlice" => {
                let (namespace, name) = in_namespace();
                return self.remove_slice(&namespace, &name);
            }
            "NetworkPolicy" => PolicyKind::Network,
            "ClusterNetworkPolicy" => PolicyKind::ClusterNetwork,
            "SegmentPolicy" => PolicyKind::Segment,
            "ClusterSegmentPolicy" => PolicyKind::ClusterSegment,
            _ => return,
        };
        self.policies.remove(&PolicyId { namespace: namespace.clone(), name: name.clone(), kind: policy });
    }

    /// A slice is one service's at a time.
    fn apply_slice(&mut self, slice: EndpointSlice) {
        self.remove_slice(&slice.namespace, &slice.name);
        if let Some(service) = slice.service {
            let known = self.services.entry((slice.namespace, service)).or_default();
            known.slices.insert(slice.name, slice.part);
        }
    }

    /// The service whose slice this is.
    pub(crate) fn service_of_slice(&self, namespace: &str, name: &str) -> Option<&(String, String)> {
        let of_namespace = self.services.range((namespace.to_owned(), String::new())..);
        let mut of_namespace = of_namespace.take_while(|((of, _), _)| *of == namespace);
        of_namespace.find(|(_, service)| service.slices.contains_key(name)).map(|(key, _)| key)
    }

    /// Takes a slice out.
    pub(crate) fn remove_slice(&mut self, namespace: &str, name: &str) {
        let of_namespace = self.services.range_mut((namespace.to_owned(), String::new())..);
        let of_namespace = of_namespace.take_while(|((of, _), _)| *of == namespace);
        of_namespace.for_each(|(_, known)| drop(known.slices.remove(name)));
    }

    /// Takes out what is declared of a service; its slices stay until they go themselves.
    pub(crate) fn remove_service(&mut self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(known) = self.services.get_mut(&key) {
            known.declare(Service::default());
            if known.slices.is_empty() {
                self.services.remove(&key);
            }
        }
    }

    /// Addresses of this node: the entity `Host`.
    pub fn hosts(&self) -> impl Iterator<Item = IpAddr> {
        self.nodes.values().filter(|node| node.local).flat_map(|node| &node.addresses).copied()
    }

    /// Addresses of the other nodes: the entity `RemoteNode`, but for those that this node has too.
    pub fn remote_nodes(&self) -> impl Iterator<Item = IpAddr> {
        self.nodes.values().filter(|node| !node.local).flat_map(|node| &node.addresses).copied()
    }

    /// Value of a label of a namespace, the implied name label included.
    pub fn namespace_label<'a>(&'a self, namespace: &'a str, key: &str) -> Option<&'a str> {
        match self.namespaces.get(namespace) {
            Some(known) => known.label(key),
            None if key == Namespace::NAME_LABEL => Some(namespace),
            None => None,
        }
    }

    /// Value of a label of a namespace, or of its nearest ancestor that has the label.
    pub fn inherited_label<'a>(&'a self, namespace: &'a str, key: &str) -> Option<&'a str> {
        self.and_ancestors(namespace).find_map(|name| self.namespace_label(name, key))
    }

    /// A namespace, its parent, and so on.
    pub fn and_ancestors<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a str> {
        std::iter::once(namespace).chain(hierarchy::ancestors(self, namespace))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use enforcer_common::policy::Mode;

    use super::Snapshot;
    use crate::manifest::Object;
    use crate::object::{Endpoint, EndpointSlice, EndpointState, Service, ServiceEndpoints, SlicePart};

    #[test]
    fn a_service_and_its_slices_come_in_any_order_and_are_replaced_one_by_one() {
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let part = |last| {
            let endpoint = Endpoint { addresses: vec![address(last)], state: EndpointState::Ready };
            SlicePart { endpoints: vec![endpoint], ports: Vec::new() }
        };
        let slice = |name: &str, service: Option<&str>, last| {
            Object::EndpointSlice(EndpointSlice {
                namespace: "a".to_owned(),
                name: name.to_owned(),
                service: service.map(str::to_owned),
                part: part(last),
            })
        };
        let selector = BTreeMap::from([("app".to_owned(), "x".to_owned())]);
        let labels = BTreeMap::from([("k8s-app".to_owned(), "y".to_owned())]);
        let mut snapshot = Snapshot::new(Mode::Policy);
        let service = Service {
            namespace: "a".to_owned(),
            name: "s".to_owned(),
            labels: labels.clone(),
            selector: selector.clone(),
            addresses: vec![address(9)],
            ..Service::default()
        };
        for object in [
            slice("one", Some("s"), 1),
            Object::Service(service),
            slice("two", Some("s"), 2),
            slice("one", Some("s"), 3),
            slice("two", Some("other"), 4),
            slice("nobodys", None, 5),
        ] {
            snapshot.apply(object);
        }
        let s = ServiceEndpoints {
            labels,
            selector,
            addresses: vec![address(9)],
            slices: BTreeMap::from([("one".to_owned(), part(3))]),
            ..ServiceEndpoints::default()
        };
        let slices = BTreeMap::from([("two".to_owned(), part(4))]);
        let other = ServiceEndpoints { slices, ..ServiceEndpoints::default() };
        let key = |name: &str| ("a".to_owned(), name.to_owned());
        assert_eq!(snapshot.services, BTreeMap::from([(key("s"), s), (key("other"), other)]));

        snapshot.remove_service("a", "s");
        snapshot.remove_slice("a", "two");
        let slices = BTreeMap::from([("one".to_owned(), part(3))]);
        let parts = ServiceEndpoints { slices, ..ServiceEndpoints::default() };
        assert_eq!(
            snapshot.services,
            BTreeMap::from([(key("s"), parts), (key("other"), ServiceEndpoints::default())])
        );
    }
}
