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
    pub service_account: Option<String>,
    /// What controls it, as `Kind/name` (`Deployment/web`).
    pub controller: Option<String>,
    /// Its addresses; those shared with a node are the node's.
    pub addresses: Vec<IpAddr>,
    /// Its named ports.
    pub ports: Vec<NamedPort>,
    /// True on the node that enforces for it.
    pub local: bool,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Namespace it lives in.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
    /// Labels of its pods; none are meant when empty.
    pub selector: BTreeMap<String, String>,
    /// Its cluster addresses.
    pub addresses: Vec<IpAddr>,
    /// The name it is another one for (`ExternalName`); then nothing of the rest means anything.
    pub external_name: Option<Pattern>,
}

/// A part of the endpoints of a service.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct EndpointSlice {
    /// Namespace of the slice and its service.
    pub namespace: String,
    /// Its name in the namespace.
    pub name: String,
    /// Name of the service; without one the slice is nobody's.
    pub service: Option<String>,
    /// Addresses of the endpoints, ready or not.
    pub addresses: Vec<IpAddr>,
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
    /// As [`Service::external_name`].
    pub external_name: Option<Pattern>,
    /// Addresses of the endpoints by name of the slice they are in.
    pub slices: BTreeMap<String, Vec<IpAddr>>,
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
