//! What the socket says of the rules of a workload and of what they decided about. Owns these messages; never counts.

use enforcer_core::record::{Count, RuleRef};
use serde::{Deserialize, Serialize};

/// The rules that hold for a workload, and what was counted since the agent began. Counts are there where the workload
/// is enforced on this node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EffectiveRules {
    /// `namespace/name` of the workload.
    pub workload: String,
    /// Its mode, when the workload is on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Rules for flows it begins, first asked first, each tier with its end.
    pub egress: Vec<RuleLine>,
    /// Rules for flows others begin.
    pub ingress: Vec<RuleLine>,
    /// What no tier decides.
    pub undecided: Undecided,
    /// What this node itself sent it, which is always admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_host: Option<Total>,
    /// What rules decided that no longer hold for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Total>,
}

/// A rule, or the end of a tier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleLine {
    /// What it is called; kind `Tier` for the end of a tier.
    pub rule: RuleRef,
    /// `Allow`, `Deny`, `Reject` or `Pass`.
    pub action: String,
    /// The other side, in words; empty for the end of a tier.
    pub peers: String,
    /// Protocols and ports, in words; empty for the end of a tier.
    pub ports: String,
    /// True when it is only staged: it decides nothing.
    #[serde(default)]
    pub staged: bool,
    /// What it decided about; absent for what is staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<Total>,
    /// What it would have decided about, were all staged policy enforced; absent where none concerns the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Total>,
}

/// What is done with flows that no tier decides.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Undecided {
    /// `Allow` or `Deny`, by the mode, when the workload is on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Flows it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Total>,
    /// Flows others began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Total>,
}

/// Flows, and what was counted of them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Total {
    /// Flows.
    pub flows: u64,
    /// What the workload sent, or tried to send.
    pub sent: Count,
    /// What the workload was sent, whether it got it or not.
    pub received: Count,
}
