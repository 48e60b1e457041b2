//! Everything known at one moment: the compiler's and the reference evaluator's only input.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::policy::Mode;
use ipnet::IpNet;

use crate::hierarchy;
use crate::manifest::Object;
use crate::object::{ExternalNetwork, Namespace, Node, ServiceEndpoints, Workload, WorkloadId};
use crate::policy::{Policy, PolicyId, Tier};

/// Everything known at one moment. Policies in it are valid; only what depends on other objects (does the tier
/// exist?) is still to be checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// Workloads of the whole cluster.
    pub workloads: BTreeMap<WorkloadId, Arc<Workload>>,
    /// Namespaces by name; one that is missing has no labels but its name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Policies of every kind.
    pub policies: BTreeMap<PolicyId, Policy>,
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
}

impl Snapshot {
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
                let known = self.services.entry((service.namespace, service.name)).or_default();
                known.selector = service.selector;
                known.addresses = service.addresses;
            }
            Object::EndpointSlice(slice) => {
                if let Some(service) = slice.service {
                    let known = self.services.entry((slice.namespace, service)).or_default();
                    known.slices.insert(slice.name, slice.addresses);
                }
            }
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
