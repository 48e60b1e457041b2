//! The flow record: the one versioned schema of what the enforcer tells about a flow. Owns the types
//! and their JSON form (field by field in `docs/reference/flow-record.md`) and how a kernel event
//! becomes a record ([`assemble`]). Never reads a clock, a map or a socket.

pub mod aggregate;
pub mod assemble;
pub mod dns;
pub mod flags;
mod json;
pub mod line;
pub mod process;
#[cfg(test)]
mod reference;
pub mod text;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::decide::Direction;
use enforcer_common::verdict::{Reason, Verdict};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use flags::TcpFlags;
pub use process::Process;

use crate::plan::RuleInfo;
use crate::protocol::Protocol;

/// Version of the schema. Readers refuse larger ones; fields may be added under the same number.
pub const SCHEMA: u32 = 1;

/// What happened to the flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// Its first packet passed.
    Admitted,
    /// Its first packet was dropped by policy.
    Refused,
    /// It is over; counts are final. For a refused flow: no further attempt came.
    Ended,
    /// It was admitted, and a change of policy refused it; counts are final.
    Cut,
    /// A packet that belongs to no flow was dropped.
    Dropped,
}

/// Why a flow is over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndReason {
    /// Both sides said FIN.
    Closed,
    /// One side sent RST.
    Reset,
    /// No packet for the idle time of its protocol and state.
    Idle,
    /// Policy changed.
    Policy,
    /// Its TLS ClientHello shows no server name that policy allows, or could not be read.
    #[serde(rename = "server-name")]
    ServerName,
    /// The workload is no longer enforced on this node.
    Gone,
}

/// What stands at an address that is no workload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entity {
    /// This node itself.
    Host,
    /// Everything else.
    World,
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Count {
    /// Socket buffers seen; a segmentation-offload super-packet counts once.
    pub packets: u64,
    /// Their lengths with the Ethernet header, in bytes.
    pub bytes: u64,
}

/// Type and code of an ICMP flow's first packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Icmp {
    /// ICMP or ICMPv6 type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Its code.
    pub code: u8,
}

/// One end of a flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Namespace of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Arc<str>>,
    /// Name of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Arc<str>>,
    /// What controls the workload, as `Kind/name` (`Deployment/web`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<Arc<str>>,
    /// Zone of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
    /// The service that the address is a cluster address of, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
    /// Labels of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Arc<BTreeMap<String, String>>>,
    /// What it is when it is no workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<Entity>,
    /// Identity under the record's policy revision, as this node numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<u32>,
    /// Its address.
    pub address: IpAddr,
    /// Its port; absent where the protocol has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// DNS names this node's workload looked up and got this address for, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Arc<str>>,
}

/// The rule, or the default of a tier, that decided.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RuleRef {
    /// Tier.
    pub tier: String,
    /// Kind of the policy object.
    pub kind: String,
    /// Namespace of the policy object; absent for cluster-wide kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the policy object.
    pub name: String,
    /// Name of the rule, where its author gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Index of the rule in its list, from 0; absent for the default of a tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
}

/// What staged policy would have done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Staged {
    /// The flow's fate were every staged policy enforced.
    #[serde(with = "text::verdict")]
    pub verdict: Verdict,
    /// The fact that would make it.
    #[serde(with = "text::reason")]
    pub reason: Reason,
    /// The rule that would decide; absent where none would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<RuleRef>>,
}

impl From<&RuleInfo> for RuleRef {
    fn from(info: &RuleInfo) -> Self {
        Self {
            tier: info.tier.clone(),
            kind: info.kind.text().to_owned(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            rule: info.rule_name.clone(),
            index: info.index.and_then(|index| u32::try_from(index).ok()),
        }
    }
}

/// One flow record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When the event happened.
    pub time: Timestamp,
    /// Node that saw it.
    pub node: Arc<str>,
    /// What happened.
    pub event: Event,
    /// The flow's fate.
    #[serde(with = "text::verdict")]
    pub verdict: Verdict,
    /// The fact that made the verdict.
    #[serde(with = "text::reason")]
    pub reason: Reason,
    /// Who began it, seen from the workload whose policy decided.
    #[serde(with = "text::direction")]
    pub direction: Direction,
    /// Who began it.
    pub source: Peer,
    /// Whom it was meant for.
    pub destination: Peer,
    /// IP protocol.
    pub protocol: Protocol,
    /// ICMP type and code of the first packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Icmp>,
    /// TCP flags of the first packet and of every packet with SYN, FIN or RST; none for other protocols.
    #[serde(default, skip_serializing_if = "TcpFlags::is_empty")]
    pub tcp_flags: TcpFlags,
    /// What the source sent.
    pub forward: Count,
    /// What the destination sent.
    pub reply: Count,
    /// First packet.
    pub start: Timestamp,
    /// Latest packet.
    pub last: Timestamp,
    /// When it was found to be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    /// Why it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// The server name that its TLS ClientHello shows; only where policy verifies it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<Arc<str>>,
    /// The rule that decided; absent where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<RuleRef>>,
    /// What staged policy would have done; absent where none concerns the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    /// The process whose socket sent the first packet, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Arc<Process>>,
    /// Policy revision it was judged under.
    pub revision: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_the_reference_shows_it() {
        let text = include_str!("record/example.json");
        let record: Record = serde_json::from_str(text).expect("the example is a record");
        assert_eq!(record.schema, SCHEMA);
        assert_eq!(record.verdict, Verdict::Denied);
        assert_eq!(record.reason, Reason::TierDefault);
        let value: serde_json::Value = serde_json::from_str(text).expect("the example is JSON");
        assert_eq!(serde_json::to_value(&record).expect("a record serialises"), value);
    }

    #[test]
    fn unknown_verdicts_are_refused() {
        let text = include_str!("record/example.json").replace("DENIED", "MAYBE");
        let error = serde_json::from_str::<Record>(&text).expect_err("no such verdict").to_string();
        assert!(error.contains("MAYBE") && error.contains("WOULD_DENY"), "{error}");
    }
}
