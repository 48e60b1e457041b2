//! What the agent's status says of exporters. Owns the form; the exporters count.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One exporter.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ExportStatus {
    /// `otlp` or `syslog`.
    pub name: String,
    /// Where its records go.
    pub target: String,
    /// Since when nothing could be delivered; absent while it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away: Option<Timestamp>,
    /// The latest failure, also when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What became of records since the agent began, by place; places without any are left out.
    pub records: BTreeMap<String, u64>,
    /// Records that wait to be delivered.
    pub waiting: u64,
    /// Octets on disk; absent without a spool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spooled_octets: Option<u64>,
    /// Attempts that failed and were repeated.
    pub retries: u64,
}
