//! Pods as the API serves them in its binary form (Protocol Buffers), as far as policy needs them: what is not named here is
//! skipped while it is read. Owns which pods are workloads; never where their interfaces are.
//!
//! Numbers of fields: `k8s.io/api/core/v1/generated.proto` and `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use enforcer_core::object::{NamedPort, Workload, WorkloadId};
use enforcer_core::protocol::Protocol;
use prost::Message;

use crate::history::Record;
use crate::shared::Shared;

/// Label that the Deployment controller gives the pods and the ReplicaSet of one template.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Capabilities, as Kubernetes names them, whose holder may change a network namespace: `SYS_ADMIN` and `SYS_MODULE`
/// give the others.
const ADMINISTERS: [&str; 4] = ["ALL", "NET_ADMIN", "SYS_ADMIN", "SYS_MODULE"];

/// A pod without all that policy does not need.
#[derive(Clone, PartialEq, Message)]
pub struct Pod {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<PodSpec>,
    #[prost(message, optional, tag = "3")]
    status: Option<PodStatus>,
}

/// Who in a pod may change its network: interfaces, routes and packet filter of its network namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Administrator {
    /// Nobody, or nobody any more.
    None,
    /// Containers that prepare the others and have not all ended.
    Preparation,
    /// A container that goes on.
    Container,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "5")]
    uid: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "13")]
    owner_references: Vec<OwnerReference>,
}

#[derive(Clone, PartialEq, Message)]
struct OwnerReference {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(bool, tag = "6")]
    controller: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PodSpec {
    #[prost(message, repeated, tag = "2")]
    containers: Vec<Container>,
    #[prost(string, tag = "8")]
    service_account_name: String,
    #[prost(string, tag = "10")]
    node_name: String,
    #[prost(bool, tag = "11")]
    host_network: bool,
    #[prost(message, repeated, tag = "20")]
    init_containers: Vec<Container>,
    #[prost(message, repeated, tag = "34")]
    ephemeral_containers: Vec<EphemeralContainer>,
}

#[derive(Clone, PartialEq, Message)]
struct EphemeralContainer {
    /// Its fields have the numbers of a container's.
    #[prost(message, optional, tag = "1")]
    common: Option<Container>,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(message, repeated, tag = "6")]
    ports: Vec<ContainerPort>,
    #[prost(message, optional, tag = "15")]
    security_context: Option<SecurityContext>,
    #[prost(string, tag = "24")]
    restart_policy: String,
}

#[derive(Clone, PartialEq, Message)]
struct SecurityContext {
    #[prost(message, optional, tag = "1")]
    capabilities: Option<Capabilities>,
    #[prost(bool, tag = "2")]
    privileged: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Capabilities {
    #[prost(string, repeated, tag = "1")]
    add: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerPort {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    container_port: i32,
    #[prost(string, tag = "4")]
    protocol: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodStatus {
    #[prost(string, tag = "1")]
    phase: String,
    #[prost(message, repeated, tag = "2")]
    conditions: Vec<PodCondition>,
    #[prost(string, tag = "6")]
    pod_ip: String,
    #[prost(message, repeated, tag = "12")]
    pod_ips: Vec<PodIp>,
}

#[derive(Clone, PartialEq, Message)]
struct PodCondition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    status: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodIp {
    #[prost(string, tag = "1")]
    ip: String,
}

impl Record for Pod {
    fn resource_version(&self) -> &str {
        self.metadata.as_ref().map_or("", |metadata| &metadata.resource_version)
    }
}

impl Pod {
    /// Its namespace and name.
    pub fn id(&self) -> WorkloadId {
        let metadata = self.metadata.as_ref();
        let (namespace, name) = metadata.map_or(("", ""), |of| (&of.namespace, &of.name));
        WorkloadId::new(namespace, name)
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        self.metadata.as_ref().map_or("", |metadata| &metadata.uid)
    }

    /// What policy knows it as on `node`; `None` for pods that have no network of their own: those of the host's
    /// network are the node, and one that has ended has given its addresses back.
    pub fn workload(&self, node: &str, shared: &mut Shared) -> Option<Workload> {
        let (spec, status) = (self.spec.as_ref()?, self.status.as_ref());
        let is_over = status.is_some_and(|status| matches!(status.phase.as_str(), "Succeeded" | "Failed"));
        if spec.host_network || is_over {
            return None;
        }
        let account = spec.service_account_name.as_str();
        Some(Workload {
            id: self.id(),
            controller: self.controller().map(|controller| shared.text(&controller)),
            labels: shared.labels(self.labels()),
            service_account: (!account.is_empty()).then(|| shared.text(account)),
            addresses: status.map_or_else(Vec::new, addresses),
            ports: shared.ports(ports(spec)),
            local: spec.node_name == node,
        })
    }

    /// Who in it may change its network.
    pub fn administrator(&self) -> Administrator {
        let Some(spec) = &self.spec else { return Administrator::None };
        // A first container that is restarted is a sidecar.
        let (sidecars, first): (Vec<&Container>, Vec<&Container>) =
            spec.init_containers.iter().partition(|container| container.restart_policy == "Always");
        let added = spec.ephemeral_containers.iter().filter_map(|container| container.common.as_ref());
        if spec.containers.iter().chain(sidecars).chain(added).any(Container::may_administer) {
            return Administrator::Container;
        }
        let conditions = self.status.iter().flat_map(|status| &status.conditions);
        let is_prepared = conditions.into_iter().any(|one| one.kind == "Initialized" && one.status == "True");
        match !is_prepared && first.into_iter().any(Container::may_administer) {
            true => Administrator::Preparation,
            false => Administrator::None,
        }
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.metadata.as_ref().map_or(&NONE, |metadata| &metadata.labels)
    }

    /// What controls it. A ReplicaSet that a Deployment made is the Deployment's: its name is the Deployment's and the hash
    /// of the template, which the pod is labelled with.
    fn controller(&self) -> Option<String> {
        let owner = self.metadata.as_ref()?.owner_references.iter().find(|owner| owner.controller)?;
        let deployment = self.labels().get(TEMPLATE_HASH).and_then(|hash| {
            let name = owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?;
            (owner.kind == "ReplicaSet" && !name.is_empty()).then_some(name)
        });
        Some(match deployment {
            Some(name) => format!("Deployment/{name}"),
            None => format!("{}/{}", owner.kind, owner.name),
        })
    }
}

impl Container {
    /// True when it has a capability that lets it change the network namespace it runs in.
    fn may_administer(&self) -> bool {
        let Some(context) = &self.security_context else { return false };
        let mut added = context.capabilities.iter().flat_map(|capabilities| &capabilities.add);
        let is_one = |name: &String| ADMINISTERS.contains(&name.strip_prefix("CAP_").unwrap_or(name));
        context.privileged || added.any(is_one)
    }
}

fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().map(|address| address.ip.as_str());
    let mut addresses: Vec<IpAddr> = all.filter_map(|address| address.parse().ok()).collect();
    let first = status.pod_ip.parse().ok();
    if let Some(first) = first.filter(|first| !addresses.contains(first)) {
        addresses.insert(0, first);
    }
    addresses.shrink_to_fit();
    addresses
}

/// Named ports of all containers, those of init containers behind: a sidecar is one.
fn ports(spec: &PodSpec) -> Vec<NamedPort> {
    let containers = spec.containers.iter().chain(&spec.init_containers);
    let ports = containers.flat_map(|container| &container.ports).filter(|port| !port.name.is_empty());
    let named = ports.filter_map(|port| {
        let protocol = if port.protocol.is_empty() { Protocol::TCP } else { port.protocol.parse().ok()? };
        Some(NamedPort { name: port.name.clone(), protocol, port: u16::try_from(port.container_port).ok()? })
    });
    named.filter(|port| port.port != 0 && port.protocol.has_ports()).collect()
}

#[cfg(test)]
pub(crate) mod tests;
