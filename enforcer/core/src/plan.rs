//! What the compiler makes and the data plane writes: immutable, numbered, without choices.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use enforcer_common::decide::Direction;
use enforcer_common::name;
use enforcer_common::policy::{HOST_BIT, LISTED, Mode, Rule, RuleKey, Stages, peer_kind};
use ipnet::IpNet;
use serde::Serialize;

use crate::object::WorkloadId;

pub use host::HostTables;

mod host;

/// Everything one node enforces.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Local workloads only.
    pub endpoints: BTreeMap<WorkloadId, EndpointPlan>,
    /// Distinct tables; endpoints share them by index.
    pub tables: Vec<Table>,
    /// Prefixes and their identity: from [`enforcer_common::policy::FIRST_IDENTITY`], with
    /// [`enforcer_common::policy::HOST_BIT`] for this node's addresses, [`enforcer_common::policy::WORLD`] for the
    /// rest of the world inside another prefix.
    pub identities: BTreeMap<IpNet, u32>,
    /// Name automaton.
    pub names: Automaton,
    /// What each rule number stands for.
    pub rules: BTreeMap<u32, RuleInfo>,
    /// Name class to the sorted patterns it stands for.
    pub patterns: BTreeMap<u32, Vec<String>>,
}

impl Plan {
    /// True when a workload is told the same of an address whichever of two identities it has.
    pub fn judges_alike(&self, endpoint: &EndpointPlan, one: u32, other: u32) -> bool {
        let same_rows = |table: usize| {
            let stages = &self.tables[table].stages;
            stages.iter().all(|rows| same_rules(rows_of(rows, one), rows_of(rows, other)))
        };
        (one ^ other) & HOST_BIT == 0 && endpoint.tables().all(same_rows)
    }
}

/// The rows of one peer among sorted ones.
fn rows_of(rows: &[Row], peer: u32) -> &[Row] {
    let first = rows.partition_point(|row| row.peer < peer);
    let length = rows[first..].partition_point(|row| row.peer == peer);
    &rows[first..first + length]
}

fn same_rules(one: &[Row], other: &[Row]) -> bool {
    let same = |(a, b): (&Row, &Row)| Row { peer: b.peer, ..*a } == *b;
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// What is enforced for one workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointPlan {
    /// What is done with undecided flows.
    pub mode: Mode,
    /// Its own addresses, at most [`enforcer_common::policy::MAX_ADDRESSES`].
    pub addresses: Vec<IpAddr>,
    /// Index of the table for flows it begins; `None` when no policy selects it for them.
    pub egress: Option<usize>,
    /// Index of the table for flows others begin; `None` when no policy selects it for them.
    pub ingress: Option<usize>,
    /// What is evaluated beside; `None` when no staged policy concerns the workload.
    pub staged: Option<StagedPlan>,
}

impl EndpointPlan {
    /// Indices of every table it points to.
    pub fn tables(&self) -> impl Iterator<Item = usize> {
        let staged = self.staged.as_ref().map_or([None; 2], |staged| [staged.egress, staged.ingress]);
        [self.egress, self.ingress].into_iter().chain(staged).flatten()
    }
}

/// What would be enforced for a workload if every staged policy were: what they replace and remove is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StagedPlan {
    /// As [`EndpointPlan::egress`].
    pub egress: Option<usize>,
    /// As [`EndpointPlan::ingress`].
    pub ingress: Option<usize>,
}

/// The rows of one workload class and direction, in 1 to [`enforcer_common::policy::MAX_STAGES`] stages.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Table {
    /// Sorted rows by stage.
    pub stages: Vec<Vec<Row>>,
}

impl Table {
    /// How its stages are named to the kernel when the first of them has this number.
    pub fn stages_from(&self, first: u32) -> Stages {
        // What is listed for DNS queries is asked for otherwise.
        let rows = self.stages.iter().flatten().filter(|row| row.rule.action != LISTED);
        let peers = rows.fold(0, |peers, row| peers | peer_kind(row.peer));
        Stages { first, count: self.stages.len() as u16, peers }
    }
}

/// One row of a stage: a longest-prefix-match entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Row {
    /// Identity, name class or [`enforcer_common::policy::ANY_PEER`].
    pub peer: u32,
    /// IP protocol number; `None` for all, then `port` and `port_bits` are 0.
    pub protocol: Option<u8>,
    /// Port, or ICMP `type << 8 | code`; bits beyond `port_bits` are 0.
    pub port: u16,
    /// How many leading bits of `port` count, 0 to 16.
    pub port_bits: u8,
    /// The row's value.
    pub rule: Rule,
}

impl Row {
    /// Key and prefix length in bits, in the table of this number.
    pub fn key(&self, table: u32) -> (RuleKey, u32) {
        let key = RuleKey::new(table, self.peer, self.protocol.unwrap_or(0), self.port);
        let bits = match self.protocol {
            None => RuleKey::PEER_BITS,
            Some(_) => RuleKey::PEER_BITS + 8 + u32::from(self.port_bits),
        };
        (key, bits)
    }
}

/// The name automaton as it lies in the maps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Automaton {
    /// Symbol of every octet.
    pub symbols: name::Symbols,
    /// States: `rows[0]` is [`name::DEAD`], `rows[1]` is [`name::START`].
    pub rows: Vec<name::Row>,
    /// Name class of every state, 0 for none.
    pub classes: Vec<u32>,
}

impl Automaton {
    /// Name class of a name, 0 for none; a trailing dot does not count. This is the walk the kernel does.
    pub fn class_of(&self, name: &str) -> u32 {
        let name = name.strip_suffix('.').unwrap_or(name);
        let step = |state: u16, octet: u8| {
            self.rows[usize::from(state)][usize::from(self.symbols[usize::from(octet)])]
        };
        let state = name.bytes().rev().fold(name::START, step);
        self.classes[usize::from(state)]
    }
}

/// Kind of the object a rule belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum RuleKind {
    /// A rule of a `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// A rule of a `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// A rule of an `enforcer.dev/v1alpha1` SegmentPolicy.
    SegmentPolicy,
    /// A rule of an `enforcer.dev/v1alpha1` ClusterSegmentPolicy.
    ClusterSegmentPolicy,
    /// The default action of a tier.
    Tier,
    /// The refusal of everything that stands in for policy beyond the compiler's limits.
    Limit,
}

impl RuleKind {
    /// The kind as written in manifests.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::SegmentPolicy => "SegmentPolicy",
            Self::ClusterSegmentPolicy => "ClusterSegmentPolicy",
            Self::Tier => "Tier",
            Self::Limit => "Limit",
        }
    }
}

/// What a rule number stands for. Displayed as `SegmentPolicy alerts/alerts-egress egress[0] (pagerduty)`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct RuleInfo {
    /// Tier it is evaluated in.
    pub tier: String,
    /// Kind of its object.
    pub kind: RuleKind,
    /// Namespace of its object, where that has one.
    pub namespace: Option<String>,
    /// Name of its object.
    pub name: String,
    /// Direction it rules, seen from the workload.
    #[serde(serialize_with = "direction_text")]
    pub direction: Direction,
    /// Place in its policy's list of that direction, from 0; `None` for the default of a tier.
    pub index: Option<usize>,
    /// Name the author gave to the rule.
    pub rule_name: Option<String>,
}

impl RuleInfo {
    /// The default of a tier.
    pub fn tier_default(tier: &str, direction: Direction) -> Self {
        Self {
            tier: tier.to_owned(),
            kind: RuleKind::Tier,
            namespace: None,
            name: tier.to_owned(),
            direction,
            index: None,
            rule_name: None,
        }
    }
}

impl fmt::Display for RuleInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind.text())?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{} {}", self.name, text(self.direction))?;
        match (self.index, &self.rule_name) {
            (Some(index), Some(name)) => write!(f, "[{index}] ({name})"),
            (Some(index), None) => write!(f, "[{index}]"),
            (None, _) => f.write_str(" default"),
        }
    }
}

/// `egress` or `ingress`.
pub const fn text(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

fn direction_text<S: serde::Serializer>(direction: &Direction, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text(*direction))
}
