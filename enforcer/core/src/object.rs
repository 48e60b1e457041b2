//! What the sources feed in: workloads and what is around them as plain values. Never where they came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::fqdn::Pattern;
use crate::protocol::Protocol;

/// Name of a workload: a pod, or a named network namespace outside Kubernetes. Displayed as `namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WorkloadId {
    /// Namespace it lives in.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
}

impl WorkloadId {
    /// The workload `name` of `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Label of workloads and namespaces that says which zone they are in.
pub const ZONE_LABEL: &str = "enforcer.dev/zone";
/// Label of workloads and namespaces that chooses the mode: `observe`, `policy` or `enforce`.
pub const MODE_LABEL: &str = "enforcer.dev/mode";

/// A port that a workload gives a name to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NamedPort {
    /// The name rules use.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Port number, 1 to 65535.
    pub port: u16,
}

/// A pod, or what stands for one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    /// Its name.
    pub id: WorkloadId,
    /// Its own labels; workloads with the same ones may share them.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Service account, where there is one.
    pub service_account: Option<Arc<str>>,
    /// What controls it, as `Kind/name` (`Deployment/web`).
    pub controller: Option<Arc<str>>,
    /// Its addresses; those shared with a node are the node's.
    pub addresses: Vec<IpAddr>,
    /// Its named ports; workloads of one template may share them.
    pub ports: Arc<[NamedPort]>,
    /// True on the node that enforces for it.
    pub local: bool,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// True for the node that enforces: the entity `Host`; the others are `RemoteNode`.
    pub local: bool,
}

impl Node {
    /// Value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// A service as it is declared.
#[derive(Clone, PartialEq, Eq, Default, Hash, Debug)]
pub struct Service {
    /// Namespace it lives in.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
    /// Labels of its pods; none are meant when empty.
    pub selector: BTreeMap<String, String>,
    /// Its cluster addresses; a service without one is headless and nothing is translated for it.
    pub addresses: Vec<IpAddr>,
    /// Other addresses at which it is reached: external ones, and those of its load balancer.
    pub external_addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// True when some traffic goes to endpoints of the node it arrives at only.
    pub is_local: bool,
    /// The name it is another one for (`ExternalName`); then nothing of the rest means anything.
    pub external_name: Option<Pattern>,
}

/// A port of a service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServicePort {
    /// Its name; empty when it has none.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port at the service's own addresses, 1 to 65535.
    pub port: u16,
    /// The port at every address of every node, where there is one.
    pub node_port: Option<u16>,
}

/// A part of the endpoints of a service.
#[derive(Clone, PartialEq, Eq, Default, Hash, Debug)]
pub struct EndpointSlice {
    /// Namespace of the slice and its service.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
    /// Name of the service; without one the slice is nobody's.
    pub service: Option<String>,
    /// What is in it.
    pub part: SlicePart,
}

/// What is in a slice: every endpoint has every port.
#[derive(Clone, PartialEq, Eq, Default, Hash, Debug)]
pub struct SlicePart {
    /// Its endpoints, ready or not.
    pub endpoints: Vec<Endpoint>,
    /// The ports they answer at.
    pub ports: Vec<EndpointPort>,
}

/// An endpoint of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it is sent anything.
    pub state: EndpointState,
}

/// Whether an endpoint is sent anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EndpointState {
    /// It is.
    Ready,
    /// It ends and still answers: it is sent what there is while no other is ready.
    Ending,
    /// It is not.
    Away,
}

/// A port of the endpoints of a slice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointPort {
    /// Name of the service's port; empty when it has none.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The port at the endpoints, 1 to 65535.
    pub port: u16,
}

/// Everything known of a service.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ServiceEndpoints {
    /// As [`Service::labels`].
    pub labels: BTreeMap<String, String>,
    /// As [`Service::selector`].
    pub selector: BTreeMap<String, String>,
    /// As [`Service::addresses`].
    pub addresses: Vec<IpAddr>,
    /// As [`Service::external_addresses`].
    pub external_addresses: Vec<IpAddr>,
    /// As [`Service::ports`].
    pub ports: Vec<ServicePort>,
    /// As [`Service::is_local`].
    pub is_local: bool,
    /// As [`Service::external_name`].
    pub external_name: Option<Pattern>,
    /// What is in its slices, by their names.
    pub slices: BTreeMap<String, SlicePart>,
}

impl ServiceEndpoints {
    /// Puts what is declared in place of what was; slices stay.
    pub fn declare(&mut self, service: Service) {
        *self = Self {
            labels: service.labels,
            selector: service.selector,
            addresses: service.addresses,
            external_addresses: service.external_addresses,
            ports: service.ports,
            is_local: service.is_local,
            external_name: service.external_name,
            slices: std::mem::take(&mut self.slices),
        };
    }

    /// Addresses of all its endpoints, ready or not.
    pub fn endpoints(&self) -> impl Iterator<Item = &IpAddr> {
        let all = self.slices.values().flat_map(|part| &part.endpoints);
        all.flat_map(|endpoint| &endpoint.addresses)
    }
}

/// A named set of addresses and names outside the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExternalNetwork {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its addresses.
    pub cidrs: BTreeSet<IpNet>,
    /// Its names.
    pub fqdns: BTreeSet<Pattern>,
}

impl ExternalNetwork {
    /// Value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// A namespace: its labels choose the mode and are what namespace selectors match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Namespace {
    /// Label that holds the namespace's own name; implied where a source leaves it out.
    pub const NAME_LABEL: &'static str = "kubernetes.io/metadata.name";

    /// Value of a label, the implied one included.
    pub fn label(&self, key: &str) -> Option<&str> {
        match self.labels.get(key) {
            Some(value) => Some(value),
            None if key == Self::NAME_LABEL => Some(&self.name),
            None => None,
        }
    }
}
