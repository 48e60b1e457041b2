//! What the socket says of a workload of this node. Owns this message; never finds or judges one.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A workload of this node.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// `namespace/name`.
    pub workload: String,
    /// Host-side interface, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Index of the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// How the programs are attached: `tcx` or `clsact`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Mode of its namespace, once policy is in force for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// True when policy is in force for it.
    pub enforced: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Why its connects are not judged at the socket, where they are not; they are at its interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unjudged_sockets: Option<String>,
    /// The ways that led to its interface when it was last looked for: `plugin`, `cni`, `cri`, `processes`, `route`; none for a
    /// workload of a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found_by: Vec<String>,
    /// What other ways said instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
}
