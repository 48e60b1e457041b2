//! The `WorkloadList` file: what stands for pods on a host without Kubernetes. Owns its form; never
//! looks at an interface or a network namespace.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use enforcer_core::object::{NamedPort, WorkloadId};
use enforcer_core::protocol::Protocol;
use serde::Deserialize;

/// Interface that is looked up inside a network namespace when none is named.
pub const DEFAULT_INTERFACE: &str = "eth0";

/// One entry of the list, valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkloadEntry {
    /// Its name.
    pub id: WorkloadId,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Service account, where there is one.
    pub service_account: Option<String>,
    /// What controls it, as `Kind/name`.
    pub controller: Option<String>,
    /// Where it is attached.
    pub place: Place,
    /// Its addresses; `None` to read them from its network namespace.
    pub addresses: Option<Vec<IpAddr>>,
    /// Its named ports.
    pub ports: Vec<NamedPort>,
}

/// Where a workload is attached to this node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// At a host-side interface of this name.
    Interface(String),
    /// In a network namespace: the host side of `interface` in it.
    NetworkNamespace {
        /// Path of the namespace.
        path: PathBuf,
        /// Interface inside it.
        interface: String,
    },
    /// Elsewhere: known by its addresses only, and not enforced here.
    Elsewhere,
}

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    name: String,
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    service_account: Option<String>,
    controller: Option<String>,
    interface: Option<String>,
    network_namespace: Option<PathBuf>,
    addresses: Option<Vec<IpAddr>>,
    #[serde(default)]
    ports: Vec<WrittenPort>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenPort {
    name: String,
    #[serde(default = "tcp")]
    protocol: Protocol,
    container_port: u16,
}

fn tcp() -> Protocol {
    Protocol::TCP
}

/// What is wrong with an entry.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Invalid {
    /// Path of the field inside the entry.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Name of an entry, as far as it can be read: for the report about one that is invalid.
pub fn name_of(entry: &serde_json::Value) -> Option<WorkloadId> {
    Some(WorkloadId::new(entry.get("namespace")?.as_str()?, entry.get("name")?.as_str()?))
}

/// Reads one entry.
///
/// # Errors
/// When a field is unknown, missing or of another type, or the entry contradicts itself.
pub fn parse(entry: &serde_json::Value) -> Result<WorkloadEntry, Invalid> {
    let written: Written = serde_path_to_error::deserialize(entry).map_err(|error| Invalid {
        field: error.path().to_string().trim_matches('.').to_owned(),
        reason: error.into_inner().to_string(),
        remedy: "see docs/reference/workloads.md for the fields of a workload",
    })?;
    let invalid =
        |field: &str, reason: &str, remedy| Invalid { field: field.into(), reason: reason.into(), remedy };
    if written.name.is_empty() || written.namespace.is_empty() {
        return Err(invalid("name", "name or namespace is empty", "give the workload both"));
    }
    if let Some(port) =
        written.ports.iter().position(|port| port.container_port == 0 || !port.protocol.has_ports())
    {
        let remedy = "use TCP, UDP or SCTP and a port from 1 to 65535";
        return Err(invalid(&format!("ports[{port}]"), "it is no port of a protocol that has ports", remedy));
    }
    let place = place(&written, invalid)?;
    Ok(WorkloadEntry {
        id: WorkloadId::new(written.namespace, written.name),
        labels: written.labels.into(),
        service_account: written.service_account,
        controller: written.controller,
        place,
        addresses: written.addresses,
        ports: written.ports.into_iter().map(named_port).collect(),
    })
}

fn place(written: &Written, invalid: impl Fn(&str, &str, &'static str) -> Invalid) -> Result<Place, Invalid> {
    match (&written.interface, &written.network_namespace) {
        (interface, Some(path)) => Ok(Place::NetworkNamespace {
            path: path.clone(),
            interface: interface.clone().unwrap_or_else(|| DEFAULT_INTERFACE.to_owned()),
        }),
        (Some(_), None) if written.addresses.as_ref().is_none_or(Vec::is_empty) => Err(invalid(
            "addresses",
            "a workload given by its host-side interface has no addresses",
            "list its addresses, or give its networkNamespace so that they can be read",
        )),
        (Some(interface), None) => Ok(Place::Interface(interface.clone())),
        (None, None) if written.addresses.is_some() => Ok(Place::Elsewhere),
        (None, None) => Err(invalid(
            "networkNamespace",
            "nothing says where the workload is",
            "give its networkNamespace, its host-side interface, or addresses if it runs elsewhere",
        )),
    }
}

fn named_port(port: WrittenPort) -> NamedPort {
    NamedPort { name: port.name, protocol: port.protocol, port: port.container_port }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_says_where_the_workload_is() {
        let entry = parse(&json!({
            "name": "payment", "namespace": "payment", "labels": {"app": "payment"},
            "networkNamespace": "/run/netns/payment",
            "ports": [{"name": "http", "containerPort": 8080}],
        }));
        let expected = WorkloadEntry {
            id: WorkloadId::new("payment", "payment"),
            labels: BTreeMap::from([("app".into(), "payment".into())]).into(),
            service_account: None,
            controller: None,
            place: Place::NetworkNamespace { path: "/run/netns/payment".into(), interface: "eth0".into() },
            addresses: None,
            ports: vec![NamedPort { name: "http".into(), protocol: Protocol::TCP, port: 8080 }],
        };
        assert_eq!(entry, Ok(expected));
        let entry =
            parse(&json!({"name": "a", "namespace": "b", "interface": "v", "addresses": ["10.0.0.2"]}));
        assert_eq!(entry.expect("valid").place, Place::Interface("v".into()));
    }

    #[test]
    fn a_wrong_entry_names_the_field() {
        for (entry, field) in [
            (json!({"name": "a", "namespace": "b", "interfaces": "v"}), "interfaces"),
            (json!({"name": "a", "namespace": "b", "addresses": ["10.0.0.256"]}), "addresses[0]"),
            (json!({"name": "a", "namespace": "b"}), "networkNamespace"),
            (json!({"name": "a", "namespace": "b", "interface": "v"}), "addresses"),
            (
                json!({"name": "a", "namespace": "b", "addresses": [], "ports": [{"name": "x", "containerPort": 0}]}),
                "ports[0]",
            ),
        ] {
            assert_eq!(parse(&entry).expect_err("invalid").field, field, "{entry}");
        }
    }
}
