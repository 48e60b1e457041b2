//! Node, as far as policy refers to it. Only what policy needs is read; it is not ours to refuse for the rest.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Document;
use super::metadata::cluster_name;
use super::report::Report;
use crate::object::Node;

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

/// The address that a field holds.
pub(super) fn parse(text: &str, path: impl FnOnce() -> String, report: &mut Report) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        report.refuse(path(), format!("{text:?} is no address"));
    }
    address
}
