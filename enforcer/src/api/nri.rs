//! What the agent's status says of the container runtime that asks it before pods start. Owns the form; the conversation
//! is [`crate::agent::nri`]'s.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The runtime's Node Resource Interface.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct NriStatus {
    /// Where it is.
    pub socket: PathBuf,
    /// True while the runtime asks about every pod.
    pub connected: bool,
    /// Since when it does, or does not.
    pub since: Timestamp,
    /// The runtime and its version; absent before the first connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The latest failure, also when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Connections since the agent began.
    pub connections: u64,
    /// Pods it has asked about.
    pub pods: NriPods,
}

/// What became of pods that the runtime asked about, since the agent began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct NriPods {
    /// Their policy was in force before their containers started.
    pub enforced: u64,
    /// It was not in time, and they did not start; the kubelet tries again.
    pub refused: u64,
    /// It was not in time, and they started, as the failure policy says.
    pub open: u64,
}
