//! What the status says of flow records: the ring, the flow log and how records are put together. Owns the form.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The ring of flow records and the flow log.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct FlowsStatus {
    /// Records since the agent began.
    pub seen: u64,
    /// Records that can be asked for.
    pub stored: u64,
    /// Most records that are kept.
    pub capacity: u64,
    /// Records that made room for others.
    pub overwritten: u64,
    /// Names known, as pairs of workload and address.
    pub names: u64,
    /// Where the flow log is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// How records are put together for the flow log and the exporters; absent where each is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<AggregationStatus>,
}

/// How flow records are put together for the flow log and the exporters. Of the flow records made, `records` were put
/// together and `single` told one by one; of the former, `waiting` are in the interval that goes on and all others in one of
/// the `aggregates`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct AggregationStatus {
    /// The fields.
    pub keys: Vec<String>,
    /// Seconds of an interval.
    pub seconds: u64,
    /// Verdicts of the flows it is done to; all when empty.
    pub verdicts: Vec<String>,
    /// Records that were put together.
    pub records: u64,
    /// Aggregated records made of them.
    pub aggregates: u64,
    /// Records of the interval that goes on.
    pub waiting: u64,
    /// Its groups.
    pub groups: u64,
    /// Records told one by one.
    pub single: u64,
}
