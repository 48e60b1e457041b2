//! Objects of the cluster that policy refers to: Node, Service and EndpointSlice. Only what policy needs of them
//! is read; they are not ours to refuse for the rest.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Document;
use super::metadata::{Metadata, cluster_name, namespaced_name};
use super::report::Report;
use crate::fqdn::Pattern;
use crate::object::{EndpointSlice, Node, Service};

/// Label of an EndpointSlice that names its service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Status of a node.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
pub struct NodeStatus {
    /// Its addresses.
    #[serde(default)]
    pub addresses: Option<Vec<NodeAddress>>,
}

/// One address of a node.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, or a kind of name, which is not looked at.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address.
    pub address: String,
}

/// Spec of a service.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
pub struct ServiceSpec {
    /// `ExternalName` stands for another name; the others do not matter.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Which name that is.
    #[serde(default, rename = "externalName")]
    pub external_name: Option<String>,
    /// Labels of its pods; none when absent or empty.
    #[serde(default)]
    pub selector: Option<BTreeMap<String, String>>,
    /// Its first cluster address, `None` without one.
    #[serde(default, rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// All its cluster addresses.
    #[serde(default, rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
}

/// An EndpointSlice; it has no spec.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EndpointSliceDocument {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name, namespace, and the label that names the service.
    pub metadata: Metadata,
    /// `IPv4`, `IPv6`, or `FQDN`, whose endpoints are not looked at.
    pub address_type: String,
    /// The endpoints.
    #[serde(default)]
    pub endpoints: Option<Vec<EndpointSpec>>,
    #[serde(default, rename = "ports")]
    _ports: IgnoredAny,
}

/// An endpoint, ready or not.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct EndpointSpec {
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// The valid node of a document.
pub(super) fn node(document: &Document<IgnoredAny, NodeStatus>, report: &mut Report) -> Option<Node> {
    let name = cluster_name(&document.metadata, report)?;
    let is_address = |address: &NodeAddress| matches!(address.kind.as_str(), "InternalIP" | "ExternalIP");
    let written = document.status.addresses.iter().flatten().enumerate();
    let addresses = written.filter(|(_, address)| is_address(address)).filter_map(|(index, address)| {
        parse(&address.address, || format!("status.addresses[{index}].address"), report)
    });
    let addresses = addresses.collect();
    Some(Node { name, labels: document.metadata.labels.clone(), addresses, local: false })
}

/// The valid service of a document.
pub(super) fn service(document: &Document<ServiceSpec>, report: &mut Report) -> Option<Service> {
    let (namespace, name) = namespaced_name(&document.metadata, report)?;
    let spec = document.spec.clone().unwrap_or_default();
    if spec.kind.as_deref() == Some("ExternalName") {
        let external_name =
            Some(external_name(report.require("spec.externalName", &spec.external_name)?, report)?);
        let labels = document.metadata.labels.clone();
        let (selector, addresses) = (BTreeMap::new(), Vec::new());
        return Some(Service { namespace, name, labels, selector, addresses, external_name });
    }
    let written = match &spec.cluster_ips {
        Some(addresses) => addresses.iter().enumerate().map(|(i, a)| (format!("s[{i}]"), a)).collect(),
        None => spec.cluster_ip.iter().map(|address| (String::new(), address)).collect::<Vec<_>>(),
    };
    let given = written.into_iter().filter(|(_, address)| !matches!(address.as_str(), "" | "None"));
    let addresses = given
        .filter_map(|(place, address)| parse(address, || format!("spec.clusterIP{place}"), report))
        .collect();
    let selector = spec.selector.unwrap_or_default();
    let labels = document.metadata.labels.clone();
    Some(Service { namespace, name, labels, selector, addresses, external_name: None })
}

/// The name that a service stands for.
fn external_name(text: &str, report: &mut Report) -> Option<Pattern> {
    let name = text.parse::<Pattern>().ok().filter(|name| !name.as_str().contains('*'));
    if name.is_none() {
        report.refuse("spec.externalName", format!("{text:?} is no DNS name"));
    }
    name
}

/// The valid slice of a document.
pub(super) fn slice(document: &EndpointSliceDocument, report: &mut Report) -> Option<EndpointSlice> {
    let (namespace, name) = namespaced_name(&document.metadata, report)?;
    let mut addresses = Vec::new();
    if document.address_type != "FQDN" {
        for (index, endpoint) in document.endpoints.iter().flatten().enumerate() {
            for (place, address) in endpoint.addresses.iter().enumerate() {
                let path = || format!("endpoints[{index}].addresses[{place}]");
                addresses.extend(parse(address, path, report));
            }
        }
    }
    let service = document.metadata.labels.get(SERVICE_LABEL).cloned();
    Some(EndpointSlice { namespace, name, service, addresses })
}

fn parse(text: &str, path: impl FnOnce() -> String, report: &mut Report) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        report.refuse(path(), format!("{text:?} is no address"));
    }
    address
}
