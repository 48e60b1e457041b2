//! The reference evaluator: decides one flow by reading the policies in the order a person would. Slow, obvious,
//! and without a line in common with the compiler but selector matching. Never used for a packet.
//!
//! Source: `policy.md`, section 3, and the NetworkPolicy API.

use std::cmp::Ordering;
use std::net::IpAddr;

use enforcer_common::decide::Direction;
use enforcer_common::policy::{Action, Mode};
use enforcer_common::verdict::{Reason, Verdict};

use crate::object::{Workload, WorkloadId};
use crate::plan::RuleInfo;
use crate::policy::{
    DefaultAction, Entity, LabelSelector, NamespaceScope, Peer, Peers, Policy, PortMatch, Ports, Rule,
    Subject, TagSelector, Tier,
};
use crate::protocol::Protocol;
use crate::snapshot::Snapshot;

/// A flow that wants to begin.
#[derive(Clone, Debug)]
pub struct Question {
    /// The workload whose policy is asked.
    pub workload: WorkloadId,
    /// Who begins the flow, seen from the workload.
    pub direction: Direction,
    /// The other side's address.
    pub remote: IpAddr,
    /// Names under which the workload knows the other side's address at this moment.
    pub names: Vec<String>,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination port, or ICMP `type << 8 | code`; 0 where the protocol has none.
    pub port: u16,
}

/// What is decided, and how it came to that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The packet's fate.
    pub verdict: Verdict,
    /// The fact that made it.
    pub reason: Reason,
    /// The rule or tier default that decided, where one did.
    pub rule: Option<RuleInfo>,
    /// Each tier that was asked, in order.
    pub steps: Vec<Step>,
}

/// What one tier had to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The tier.
    pub tier: String,
    /// What it said.
    pub outcome: Outcome,
}

/// What a tier says of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// None of its policies selects the workload for the direction.
    NotSelected,
    /// A rule matched and did this.
    Rule(Action, RuleInfo),
    /// No rule of it matched, and it ends with this.
    Default(DefaultAction),
}

/// Decides a flow; `None` when the snapshot has no such workload.
pub fn evaluate(snapshot: &Snapshot, question: &Question) -> Option<Answer> {
    let workload = snapshot.workloads.get(&question.workload)?;
    let remote = question.remote.to_canonical();
    let from_host = question.direction == Direction::Ingress && is_host(snapshot, remote);
    if from_host {
        let (verdict, reason) = (Verdict::Forwarded, Reason::FromHost);
        return Some(Answer { verdict, reason, rule: None, steps: Vec::new() });
    }
    let mode = mode(snapshot, workload);
    let mut steps = Vec::new();
    for tier in tiers(snapshot) {
        let outcome = ask(snapshot, workload, question, &tier);
        steps.push(Step { tier: tier.name.clone(), outcome: outcome.clone() });
        match outcome {
            Outcome::Rule(Action::Pass, _) | Outcome::NotSelected | Outcome::Default(DefaultAction::Pass) => {
            }
            Outcome::Rule(action, rule) => {
                let verdict = verdict(mode, action);
                return Some(Answer { verdict, reason: Reason::Rule, rule: Some(rule), steps });
            }
            Outcome::Default(DefaultAction::Deny) => {
                let rule = Some(RuleInfo::tier_default(&tier.name, question.direction));
                let verdict = verdict(mode, Action::Deny);
                return Some(Answer { verdict, reason: Reason::TierDefault, rule, steps });
            }
        }
    }
    let verdict = if mode == Mode::Enforce { Verdict::Denied } else { Verdict::Forwarded };
    Some(Answer { verdict, reason: Reason::ModeDefault, rule: None, steps })
}

fn verdict(mode: Mode, action: Action) -> Verdict {
    match (action, mode) {
        (Action::Allow | Action::Pass, _) => Verdict::Forwarded,
        (Action::Deny | Action::Reject, Mode::Observe) => Verdict::WouldDeny,
        (Action::Deny, _) => Verdict::Denied,
        (Action::Reject, _) => Verdict::Rejected,
    }
}

fn mode(snapshot: &Snapshot, workload: &Workload) -> Mode {
    match snapshot.namespace_label(&workload.id.namespace, "enforcer.dev/mode") {
        Some("observe") => Mode::Observe,
        Some("policy") => Mode::Policy,
        Some("enforce") => Mode::Enforce,
        _ => snapshot.default_mode,
    }
}

/// All tiers in the order they are asked.
fn tiers(snapshot: &Snapshot) -> Vec<Tier> {
    let mut tiers = Tier::built_in().to_vec();
    for tier in snapshot.tiers.values() {
        if !tiers.iter().any(|known| known.name == tier.name) {
            tiers.push(tier.clone());
        }
    }
    tiers.sort_by(|a, b| a.order.cmp(&b.order).then(a.name.cmp(&b.name)));
    tiers
}

/// What one tier says.
fn ask(snapshot: &Snapshot, workload: &Workload, question: &Question, tier: &Tier) -> Outcome {
    let mut policies: Vec<&Policy> = snapshot
        .policies
        .values()
        .filter(|policy| policy.tier == tier.name)
        .filter(|policy| rules(policy, question.direction).is_some())
        .filter(|policy| selects(snapshot, &policy.subject, workload))
        .collect();
    if policies.is_empty() {
        return Outcome::NotSelected;
    }
    policies.sort_by(|a, b| in_tier(a, b));
    for policy in policies {
        for (index, rule) in rules(policy, question.direction).into_iter().flatten().enumerate() {
            if matches(snapshot, workload, question, rule) {
                return Outcome::Rule(rule.action, info(policy, question.direction, index, rule));
            }
        }
    }
    Outcome::Default(tier.default_action)
}

/// The order of policies inside a tier.
fn in_tier(a: &Policy, b: &Policy) -> Ordering {
    let by_order = a.order.cmp(&b.order);
    let by_namespace = a.id.namespace.cmp(&b.id.namespace);
    by_order.then(by_namespace).then(a.id.name.cmp(&b.id.name)).then(a.id.kind.cmp(&b.id.kind))
}

fn rules(policy: &Policy, direction: Direction) -> Option<&Vec<Rule>> {
    match direction {
        Direction::Egress => policy.egress.as_ref(),
        Direction::Ingress => policy.ingress.as_ref(),
    }
}

fn info(policy: &Policy, direction: Direction, index: usize, rule: &Rule) -> RuleInfo {
    RuleInfo {
        tier: policy.tier.clone(),
        kind: policy.id.kind.into(),
        namespace: policy.id.namespace.clone(),
        name: policy.id.name.clone(),
        direction,
        index: Some(index),
        rule_name: rule.name.clone(),
    }
}

fn selects(snapshot: &Snapshot, subject: &Subject, workload: &Workload) -> bool {
    in_scope(snapshot, &subject.namespaces, &workload.id.namespace)
        && has_tags(snapshot, &subject.workloads, workload)
}

fn in_scope(snapshot: &Snapshot, scope: &NamespaceScope, namespace: &str) -> bool {
    match scope {
        NamespaceScope::Named(name) => name == namespace,
        NamespaceScope::Matching(selector) => has_labels(snapshot, selector, namespace),
    }
}

fn has_labels(snapshot: &Snapshot, selector: &LabelSelector, namespace: &str) -> bool {
    selector.matches(|key| snapshot.namespace_label(namespace, key))
}

fn has_tags(snapshot: &Snapshot, selector: &TagSelector, workload: &Workload) -> bool {
    selector.matches(|tag| tag.value(snapshot, workload))
}

/// True when some peer of the rule means the other side, and some port of the rule the flow's.
fn matches(snapshot: &Snapshot, workload: &Workload, question: &Question, rule: &Rule) -> bool {
    match &rule.peers {
        Peers::Any => has_port(snapshot, workload, question, &rule.ports, false),
        Peers::OneOf(peers) => peers.iter().any(|peer| {
            let by_name = matches!(peer, Peer::Name(_));
            means(snapshot, question, peer) && has_port(snapshot, workload, question, &rule.ports, by_name)
        }),
    }
}

/// True when a peer means the other side.
fn means(snapshot: &Snapshot, question: &Question, peer: &Peer) -> bool {
    let remote = question.remote.to_canonical();
    match peer {
        Peer::Workloads { namespaces, workloads } => owner(snapshot, remote).is_some_and(|other| {
            in_scope(snapshot, namespaces, &other.id.namespace) && has_tags(snapshot, workloads, other)
        }),
        Peer::ServiceAccount { namespace, name } => owner(snapshot, remote).is_some_and(|other| {
            other.id.namespace == *namespace && other.service_account.as_ref() == Some(name)
        }),
        Peer::Block { cidr, except } => {
            cidr.contains(&remote) && !except.iter().any(|exception| exception.contains(&remote))
        }
        Peer::Nodes(selector) => snapshot.nodes.values().any(|node| {
            selector.matches(|key| node.label(key))
                && node.addresses.iter().any(|address| address.to_canonical() == remote)
        }),
        Peer::Name(pattern) => {
            question.direction == Direction::Egress && question.names.iter().any(|name| pattern.matches(name))
        }
        Peer::Entity(Entity::All) => true,
        Peer::Entity(Entity::Cluster) => in_cluster(snapshot, remote),
        Peer::Entity(Entity::Internet) => !in_cluster(snapshot, remote),
        Peer::Entity(Entity::Host) => is_host(snapshot, remote),
        Peer::Entity(Entity::RemoteNode) => is_remote_node(snapshot, remote),
    }
}

/// True when the ports of a rule include the flow's. A port by name is one of the workload that answers; an
/// address that is only known by name (`by_name`) has none.
fn has_port(
    snapshot: &Snapshot,
    workload: &Workload,
    question: &Question,
    ports: &Ports,
    by_name: bool,
) -> bool {
    let Ports::OneOf(ports) = ports else { return true };
    let answering = match question.direction {
        Direction::Ingress => Some(workload),
        Direction::Egress if by_name => None,
        Direction::Egress => owner(snapshot, question.remote.to_canonical()),
    };
    ports.iter().any(|port| match port {
        PortMatch::Protocol(protocol) => *protocol == question.protocol,
        PortMatch::Range { protocol, first, last } => {
            *protocol == question.protocol && *first <= question.port && question.port <= *last
        }
        PortMatch::Named { protocol, name } => {
            let mut named = answering.iter().flat_map(|workload| &workload.ports);
            *protocol == question.protocol
                && named.any(|p| p.protocol == *protocol && p.name == *name && p.port == question.port)
        }
        PortMatch::Icmp { protocol, kind, code } => {
            let [asked_kind, asked_code] = question.port.to_be_bytes();
            *protocol == question.protocol
                && asked_kind == *kind
                && code.is_none_or(|code| code == asked_code)
        }
    })
}

fn is_host(snapshot: &Snapshot, address: IpAddr) -> bool {
    snapshot.hosts().any(|host| host.to_canonical() == address)
}

fn is_remote_node(snapshot: &Snapshot, address: IpAddr) -> bool {
    !is_host(snapshot, address) && snapshot.remote_nodes().any(|node| node.to_canonical() == address)
}

/// The workload that has an address: no node's; a local one before others, then by name.
pub(crate) fn owner(snapshot: &Snapshot, address: IpAddr) -> Option<&Workload> {
    if is_host(snapshot, address) || is_remote_node(snapshot, address) {
        return None;
    }
    let has = |workload: &&Workload| workload.addresses.iter().any(|own| own.to_canonical() == address);
    let holders = || snapshot.workloads.values().map(|workload| &**workload).filter(has);
    holders().find(|workload| workload.local).or_else(|| holders().next())
}

fn in_cluster(snapshot: &Snapshot, address: IpAddr) -> bool {
    is_host(snapshot, address)
        || is_remote_node(snapshot, address)
        || owner(snapshot, address).is_some()
        || snapshot.cluster_networks.iter().any(|network| network.contains(&address))
}
