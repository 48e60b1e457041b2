//! Pods as the API serves them, as far as policy needs them. Owns which pods are workloads; never where their
//! interfaces are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_core::object::{NamedPort, Workload, WorkloadId};
use enforcer_core::protocol::Protocol;
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer};

/// Label that the Deployment controller gives the pods and the ReplicaSet of one template.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// A pod without all that policy does not need; the rest is dropped while it is read.
#[derive(Clone, Default, Debug, Deserialize)]
pub struct Pod {
    #[serde(default, deserialize_with = "trimmed")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    node_name: Option<String>,
    #[serde(default)]
    host_network: bool,
    #[serde(default)]
    service_account_name: Option<String>,
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    init_containers: Vec<Container>,
}

#[derive(Clone, Default, Debug, Deserialize)]
struct Container {
    #[serde(default)]
    ports: Vec<ContainerPort>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    #[serde(default)]
    name: Option<String>,
    container_port: u16,
    #[serde(default)]
    protocol: Option<Protocol>,
}

#[derive(Clone, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    #[serde(default)]
    phase: Option<String>,
    #[serde(default, rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodIp {
    #[serde(default)]
    ip: String,
}

impl Resource for Pod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Metadata without annotations and the record of who manages which field: they are most of it.
fn trimmed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Trimmed {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        owner_references: Option<Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>>,
    }
    let Trimmed { name, namespace, uid, resource_version, labels, owner_references } =
        Trimmed::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        labels,
        owner_references,
        ..ObjectMeta::default()
    })
}

impl Pod {
    /// Its namespace and name.
    pub fn id(&self) -> WorkloadId {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        WorkloadId::new(text(&self.metadata.namespace), text(&self.metadata.name))
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// What policy knows it as on `node`; `None` for pods that have no network of their own: those of the host's
    /// network are the node, and one that has ended has given its addresses back.
    pub fn workload(&self, node: &str) -> Option<Workload> {
        let is_over = matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if self.spec.host_network || is_over {
            return None;
        }
        let labels = self.metadata.labels.clone().unwrap_or_default();
        Some(Workload {
            id: self.id(),
            controller: self.controller(&labels),
            labels: Arc::new(labels),
            service_account: self.spec.service_account_name.clone(),
            addresses: self.addresses(),
            ports: self.ports(),
            local: self.spec.node_name.as_deref() == Some(node),
        })
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let all = self.status.pod_ips.iter().map(|address| address.ip.as_str());
        let mut addresses: Vec<IpAddr> = all.filter_map(|address| address.parse().ok()).collect();
        let first = self.status.pod_ip.as_deref().and_then(|address| address.parse().ok());
        if let Some(first) = first.filter(|first| !addresses.contains(first)) {
            addresses.insert(0, first);
        }
        addresses
    }

    /// Named ports of all containers, those of init containers behind: a sidecar is one.
    fn ports(&self) -> Vec<NamedPort> {
        let containers = self.spec.containers.iter().chain(&self.spec.init_containers);
        let ports = containers.flat_map(|container| &container.ports);
        let named = ports.filter_map(|port| {
            let protocol = port.protocol.unwrap_or(Protocol::TCP);
            Some(NamedPort { name: port.name.clone()?, protocol, port: port.container_port })
        });
        named.filter(|port| port.port != 0 && port.protocol.has_ports()).collect()
    }

    /// What controls it. A ReplicaSet that a Deployment made is the Deployment's: its name is the Deployment's and the hash
    /// of the template, which the pod is labelled with.
    fn controller(&self, labels: &BTreeMap<String, String>) -> Option<String> {
        let owners = self.metadata.owner_references.iter().flatten();
        let owner = owners.into_iter().find(|owner| owner.controller == Some(true))?;
        let deployment = labels.get(TEMPLATE_HASH).and_then(|hash| {
            let name = owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?;
            (owner.kind == "ReplicaSet" && !name.is_empty()).then_some(name)
        });
        Some(match deployment {
            Some(name) => format!("Deployment/{name}"),
            None => format!("{}/{}", owner.kind, owner.name),
        })
    }
}

#[cfg(test)]
mod tests;
