//! What the socket says of DNS: the request for records, and the part of the status. Owns these messages; the record is
//! [`enforcer_core::record::dns`]'s.

use std::collections::BTreeMap;

use enforcer_core::filter::dns::DnsFilter;
use serde::{Deserialize, Serialize};

/// Which DNS records.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsRequest {
    /// Go on with records as they come, until the connection is closed.
    pub follow: bool,
    /// Only this many of the stored ones, the latest; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
    /// Which of them.
    pub filter: DnsFilter,
}

/// The ring of DNS records, and what was counted since the agent began.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsStatus {
    /// Records since the agent began.
    pub seen: u64,
    /// Records that can be asked for.
    pub stored: u64,
    /// Most records that are kept.
    pub capacity: u64,
    /// Records that made room for others.
    pub overwritten: u64,
    /// Queries, and answers that nobody asked for, by outcome; outcomes that did not occur are left out.
    pub outcomes: BTreeMap<String, u64>,
    /// Answers by the server's code; codes that did not occur are left out.
    pub rcodes: BTreeMap<String, u64>,
    /// Queries over TCP.
    pub over_tcp: u64,
    /// Packets of answers that the kernel could not read, and that were held until the agent had.
    pub held: u64,
    /// Addresses opened by answers.
    pub learned: u64,
    /// How long answers took.
    pub latency: Vec<LatencyBucket>,
    /// Sum of their latencies, nanoseconds.
    pub latency_sum_ns: u64,
    /// By workload, sorted.
    pub workloads: Vec<DnsWorkload>,
}

/// Addresses learned from DNS: how many there may be and are, and how many made room since the agent began.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct LearnedStatus {
    /// Live addresses that one workload may have.
    pub per_workload: u64,
    /// Live addresses that one name of a workload may have.
    pub per_name: u64,
    /// Addresses that were learned and not known before.
    pub entered: u64,
    /// Addresses that the learned map evicted, because it was full.
    pub evicted_by_node: u64,
    /// Addresses that made room for others of their workload.
    pub evicted_by_workload: u64,
    /// Addresses that made room for others of their name.
    pub evicted_by_name: u64,
    /// Live addresses by workload, as of the last look, at most half a minute ago.
    pub workloads: BTreeMap<String, u64>,
}

/// Answers that took no longer than the bound, and longer than that of the bucket before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LatencyBucket {
    /// The bound, nanoseconds; absent for the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_ns: Option<u64>,
    /// How many.
    pub count: u64,
}

/// Queries of one workload.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DnsWorkload {
    /// `namespace/name`.
    pub workload: String,
    /// Queries, however they ended.
    pub queries: u64,
    /// Those that policy refused.
    pub refused: u64,
    /// Those that nobody answered.
    pub timeouts: u64,
    /// Those for names that are not there.
    pub missing: u64,
    /// Different names within the last whole minute, estimated to about 7 %: many for a long time may be a tunnel.
    pub names_per_minute: u64,
    /// Mean entropy of the longest labels of that minute, thousandths of a bit per octet: words have about 3,000, encoded
    /// data 4,000 and more.
    pub label_millibits: u64,
}
