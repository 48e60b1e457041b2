//! The policy model: the one form in which rules of every kind are held once they are valid.
//!
//! Absent, empty and "everything" are different values here; nothing is defaulted later. How a
//! manifest becomes one of these is not known here.

use std::collections::BTreeSet;
use std::fmt;

use enforcer_common::policy::Action;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plan::RuleKind;
use crate::protocol::Protocol;
use crate::refusal::ObjectRef;

pub use selector::{LabelSelector, Requirement, Selector, Tag, TagSelector, Test};

mod selector;

/// Name of a policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyId {
    /// Namespace, where its kind has one.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: PolicyKind,
}

/// Label of segment policies that names the controller which manages them: a tier may be reserved to one.
pub const MANAGED_BY_LABEL: &str = "enforcer.dev/managed-by";

impl Policy {
    /// True when a policy may be in a tier: one that is reserved takes those of its controller only.
    pub fn may_be_in(&self, tier: &Tier) -> bool {
        tier.managed_by.is_none() || tier.managed_by == self.managed_by
    }
}

impl PolicyId {
    /// The object of this name, for a refusal.
    pub fn object(&self) -> ObjectRef {
        ObjectRef {
            kind: RuleKind::from(self.kind).text().to_owned(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// Kinds of policy objects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    Network,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetwork,
    /// `enforcer.dev/v1alpha1` SegmentPolicy.
    Segment,
    /// `enforcer.dev/v1alpha1` ClusterSegmentPolicy.
    ClusterSegment,
}

impl From<PolicyKind> for RuleKind {
    fn from(kind: PolicyKind) -> Self {
        match kind {
            PolicyKind::Network => Self::NetworkPolicy,
            PolicyKind::ClusterNetwork => Self::ClusterNetworkPolicy,
            PolicyKind::Segment => Self::SegmentPolicy,
            PolicyKind::ClusterSegment => Self::ClusterSegmentPolicy,
        }
    }
}

/// A valid policy of any kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Its name.
    pub id: PolicyId,
    /// Name of its tier.
    pub tier: String,
    /// Place in the tier, lower first; ties go by namespace, name and kind.
    pub order: u32,
    /// Whether it is in force.
    pub mode: PolicyMode,
    /// The controller that manages it, where its label names one.
    pub managed_by: Option<String>,
    /// Whom it selects.
    pub subject: Subject,
    /// Rules for flows the subject begins; `None` when the policy says nothing about them, an empty list
    /// when it selects the subject and has no rule.
    pub egress: Option<Vec<Rule>>,
    /// Rules for flows others begin; as `egress`.
    pub ingress: Option<Vec<Rule>>,
}

/// Whether a policy is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PolicyMode {
    /// It is.
    Enforce,
    /// It is evaluated beside, and stands in for another one or for none.
    Stage(Option<Preview>),
}

/// What a staged policy does to another one of its kind and namespace in the evaluation beside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Preview {
    /// Stands in for the policy of this name.
    Replaces(String),
    /// Takes out the policy of this name; it has no rules of its own.
    Removes(String),
}

/// Whom a policy selects.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Subject {
    /// In which namespaces.
    pub namespaces: NamespaceScope,
    /// Which workloads of these.
    pub workloads: TagSelector,
}

/// Which namespaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NamespaceScope {
    /// This one.
    Named(String),
    /// This one and its descendants.
    Tree(String),
    /// Those whose labels match; an empty selector means every namespace.
    Matching(LabelSelector),
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Name the author gave it.
    pub name: Option<String>,
    /// What it does.
    pub action: Action,
    /// The other side.
    pub peers: Peers,
    /// By peer, the index of the entry that it was written in: one entry may hold several. For messages only.
    pub entries: Vec<usize>,
    /// Protocols and ports of the answering side.
    pub ports: Ports,
    /// Names that DNS queries it admits are limited to; `None` for any. Egress rules that allow only.
    pub queries: Option<Vec<crate::fqdn::Pattern>>,
    /// True when connections that it admits must begin with a TLS ClientHello and are judged again by its server name.
    /// Egress rules that allow names over TCP only.
    pub verifies_sni: bool,
}

/// The other side of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peers {
    /// Everybody.
    Any,
    /// Whoever one of these means.
    OneOf(Vec<Peer>),
}

/// One way to name the other side.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peer {
    /// Workloads by tags.
    Workloads {
        /// In which namespaces.
        namespaces: NamespaceScope,
        /// Which of these.
        workloads: TagSelector,
    },
    /// Workloads by service account.
    ServiceAccount {
        /// Namespace of the account.
        namespace: String,
        /// Name of the account.
        name: String,
    },
    /// Addresses.
    Block {
        /// In this prefix.
        cidr: IpNet,
        /// But in none of these.
        except: BTreeSet<IpNet>,
    },
    /// Nodes by their labels.
    Nodes(LabelSelector),
    /// Endpoints and cluster addresses of a service.
    Service {
        /// Namespace of the service.
        namespace: String,
        /// Name of the service.
        name: String,
    },
    /// Addresses of external networks, and for egress rules their names.
    ExternalNetworks(ExternalNetworks),
    /// Addresses learned for a name.
    Name(crate::fqdn::Pattern),
    /// A kind of address.
    Entity(Entity),
}

/// One way to name external networks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ExternalNetworks {
    /// Those of these names.
    Named(BTreeSet<String>),
    /// Those whose labels match.
    Matching(LabelSelector),
}

/// Kinds of addresses. `Internet` and `Cluster` divide all addresses between them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Deserialize, JsonSchema)]
pub enum Entity {
    /// Whatever is not `Cluster`.
    Internet,
    /// Workloads, nodes, and the cluster's networks.
    Cluster,
    /// This node.
    Host,
    /// Other nodes.
    RemoteNode,
    /// Endpoints and cluster addresses of the service `default/kubernetes`.
    KubeApiServer,
    /// Every address.
    All,
}

/// Protocols and ports of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ports {
    /// All of them.
    Any,
    /// What one of these means.
    OneOf(Vec<PortMatch>),
}

/// One way to name protocols and ports.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PortMatch {
    /// A whole protocol.
    Protocol(Protocol),
    /// Ports of a protocol that has ports.
    Range {
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// First port, 1 and up.
        first: u16,
        /// Last port, included.
        last: u16,
    },
    /// The port of this name on the answering workload.
    Named {
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// Its name.
        name: String,
    },
    /// ICMP messages.
    Icmp {
        /// ICMP or ICMPv6.
        protocol: Protocol,
        /// Message type.
        kind: u8,
        /// Message code; `None` for all.
        code: Option<u8>,
    },
}

/// What a tier does with a flow that none of its rules matches although one of its policies selects the workload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DefaultAction {
    /// Drop it.
    Deny,
    /// Leave it to later tiers.
    Pass,
}

/// A step in the order of decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Its place, lower first; ties go by name.
    pub order: u32,
    /// What becomes of flows that no rule of it matches.
    pub default_action: DefaultAction,
    /// The controller it is reserved to; nobody's when `None`.
    pub managed_by: Option<String>,
}

impl Tier {
    /// Tier of policies that name none.
    pub const DEFAULT: &'static str = "default";
    /// Tier of ClusterNetworkPolicy objects that nobody overrides.
    pub const ADMIN: &'static str = "admin";
    /// Tier of ClusterNetworkPolicy objects that anybody overrides.
    pub const BASELINE: &'static str = "baseline";
    /// Tier of every NetworkPolicy and of nothing else.
    pub const KUBERNETES: &'static str = "kubernetes";

    /// The tiers that exist without an object.
    pub fn built_in() -> [Self; 4] {
        let tier = |name: &str, order, default_action| Self {
            name: name.to_owned(),
            order,
            default_action,
            managed_by: None,
        };
        [
            tier(Self::ADMIN, 100, DefaultAction::Pass),
            tier(Self::KUBERNETES, 1_000_000, DefaultAction::Deny),
            tier(Self::DEFAULT, 1_500_000, DefaultAction::Deny),
            tier(Self::BASELINE, 2_000_000, DefaultAction::Pass),
        ]
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
