//! Rules that are never reached: every flow they match is decided, or sent on, by rules before them. Owns the proof;
//! a rule of which that cannot be proved is taken to be reached.

use enforcer_common::decide::Direction;
use enforcer_common::policy::Action;

use super::cover::{peer_includes, subject_includes, subjects_apart};
use super::place::{DIRECTIONS, Placed, PlacedPolicy, PlacedRule, field};
use super::spans::{PortSet, Spans, addresses};
use super::{Code, Finding};
use crate::plan::{RuleInfo, RuleKind};
use crate::policy::{DefaultAction, Entity, Peer, Peers, Ports};
use crate::snapshot::Snapshot;

/// Rules before another among which those that are needed to cover it are looked for.
const MANY: usize = 64;
/// Rules that a message names.
const NAMED: usize = 3;

/// Something that decides before a rule is reached.
struct Cover<'a> {
    action: Action,
    peers: &'a Peers,
    ports: &'a PortSet,
    info: RuleInfo,
}

/// Every rule that is never reached.
pub(super) fn check(snapshot: &Snapshot, placed: &Placed<'_>) -> Vec<Finding> {
    let all = PortSet::of(&Ports::Any);
    let mut findings = Vec::new();
    for (index, policy) in placed.policies.iter().enumerate() {
        for direction in DIRECTIONS {
            let rules = policy.rules(direction).unwrap_or_default();
            if rules.is_empty() {
                continue;
            }
            let before = placed.before(index, direction);
            for (place, rule) in rules.iter().enumerate() {
                let target = Target { policy, direction, place, rule };
                let covers = target.covers(snapshot, placed, &before, &all);
                if let Some(covers) = covering(snapshot, rule, &covers) {
                    findings.push(finding(&target, &covers));
                } else if direction == Direction::Ingress && is_host(&rule.rule.peers) {
                    findings.push(host(&target));
                }
            }
        }
    }
    findings
}

/// The rule in question.
struct Target<'a> {
    policy: &'a PlacedPolicy<'a>,
    direction: Direction,
    place: usize,
    rule: &'a PlacedRule<'a>,
}

impl Target<'_> {
    /// What decides before it for every workload that its policy selects.
    fn covers<'a>(
        &self,
        snapshot: &Snapshot,
        placed: &'a Placed<'_>,
        before: &[&'a PlacedPolicy<'a>],
        all: &'a PortSet,
    ) -> Vec<Cover<'a>> {
        let mut covers = Vec::new();
        for tier in before.chunk_by(|a, b| a.tier == b.tier) {
            let is_own = tier[0].tier == self.policy.tier;
            let mut may_have_left = false;
            let mut selects = false;
            for policy in tier {
                let includes =
                    subject_includes(snapshot, &policy.policy.subject, &self.policy.policy.subject);
                selects |= includes && policy.rules(self.direction).is_some();
                for rule in self.earlier(policy) {
                    let leaves = rule.rule.action == Action::Pass && !is_own;
                    if leaves {
                        may_have_left |= !self.is_apart(policy, rule);
                    } else if includes && !may_have_left {
                        let (peers, ports) = (&rule.rule.peers, &rule.ports);
                        covers.push(Cover {
                            action: rule.rule.action,
                            peers,
                            ports,
                            info: rule.info.clone(),
                        });
                    }
                }
            }
            let ends = placed.tiers[tier[0].tier].default_action == DefaultAction::Deny;
            if !is_own && ends && selects && !may_have_left {
                let info = RuleInfo::tier_default(&placed.tiers[tier[0].tier].name, self.direction);
                covers.push(Cover { action: Action::Deny, peers: &Peers::Any, ports: all, info });
            }
        }
        covers
    }

    /// The rules of a policy that come before this one.
    fn earlier<'a>(&self, policy: &'a PlacedPolicy<'a>) -> &'a [PlacedRule<'a>] {
        let rules = policy.rules(self.direction).unwrap_or_default();
        if policy.policy.id == self.policy.policy.id { &rules[..self.place] } else { rules }
    }

    /// True when a rule surely matches none of the flows that this one matches.
    fn is_apart(&self, policy: &PlacedPolicy<'_>, rule: &PlacedRule<'_>) -> bool {
        let blocks = |peers: &Peers| match peers {
            Peers::Any => None,
            Peers::OneOf(peers) => peers.iter().map(addresses).collect::<Option<Vec<_>>>(),
        };
        let own = blocks(&self.rule.rule.peers);
        let addresses_apart = own
            .zip(blocks(&rule.rule.peers))
            .is_some_and(|(own, other)| !own.iter().any(|own| other.iter().any(|other| own.meets(other))));
        subjects_apart(&policy.policy.subject, &self.policy.policy.subject)
            || self.rule.ports.is_apart(&rule.ports)
            || addresses_apart
    }
}

/// The rules that leave nothing of this one: a single one where there is one.
fn covering(snapshot: &Snapshot, rule: &PlacedRule<'_>, covers: &[Cover<'_>]) -> Option<Vec<RuleInfo>> {
    if covers.is_empty() || !is_covered(snapshot, rule, covers) {
        return None;
    }
    let alone = covers.iter().find(|cover| is_covered(snapshot, rule, std::slice::from_ref(*cover)));
    if let Some(cover) = alone {
        return Some(vec![cover.info.clone()]);
    }
    if covers.len() > MANY {
        return Some(covers.iter().map(|cover| cover.info.clone()).collect());
    }
    // Taken away one by one from behind, as long as the rest is enough: what is left is needed.
    let mut needed: Vec<&Cover<'_>> = covers.iter().collect();
    for index in (0..covers.len()).rev() {
        let rest: Vec<Cover<'_>> =
            needed.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, cover)| cover.copy()).collect();
        if is_covered(snapshot, rule, &rest) {
            needed.remove(index);
        }
    }
    Some(needed.into_iter().map(|cover| cover.info.clone()).collect())
}

impl<'a> Cover<'a> {
    fn copy(&self) -> Self {
        Self { action: self.action, peers: self.peers, ports: self.ports, info: self.info.clone() }
    }

    /// The addresses of which it decides everything whatever they are.
    fn addresses(&self) -> Spans {
        match self.peers {
            Peers::Any => Spans::everything(),
            Peers::OneOf(peers) => peers.iter().fold(Spans::default(), |spans, peer| match peer {
                Peer::Entity(Entity::All) => Spans::everything(),
                peer => addresses(peer).map_or_else(|| spans.clone(), |own| spans.and(&own)),
            }),
        }
    }

    fn includes(&self, snapshot: &Snapshot, peer: &Peer) -> bool {
        match self.peers {
            Peers::Any => true,
            // The names that a peer stands for count in every rule but those that pass.
            Peers::OneOf(_) if self.action == Action::Pass && may_be_a_name(peer) => false,
            Peers::OneOf(peers) => peers.iter().any(|own| peer_includes(snapshot, own, peer)),
        }
    }
}

/// True for peers that may mean addresses and names as well.
fn may_be_a_name(peer: &Peer) -> bool {
    matches!(peer, Peer::ExternalNetworks(_) | Peer::Service { .. } | Peer::Entity(Entity::KubeApiServer))
}

fn is_covered(snapshot: &Snapshot, rule: &PlacedRule<'_>, covers: &[Cover<'_>]) -> bool {
    const ANYBODY: Peer = Peer::Entity(Entity::All);
    match &rule.rule.peers {
        Peers::Any => is_peer_covered(snapshot, &ANYBODY, &rule.ports, covers),
        Peers::OneOf(peers) => peers.iter().all(|peer| is_peer_covered(snapshot, peer, &rule.ports, covers)),
    }
}

fn is_peer_covered(snapshot: &Snapshot, peer: &Peer, ports: &PortSet, covers: &[Cover<'_>]) -> bool {
    let direct = covers.iter().filter(|cover| cover.includes(snapshot, peer)).map(|cover| cover.ports);
    let by = |peer| is_peer_covered(snapshot, peer, ports, covers);
    let halves = [Peer::Entity(Entity::Internet), Peer::Entity(Entity::Cluster)];
    union(direct).includes(ports)
        || are_addresses_covered(&addresses(peer).unwrap_or_else(Spans::everything), ports, covers)
        || (*peer == Peer::Entity(Entity::All) && halves.iter().all(by))
}

/// True when each of the addresses has all its ports decided by rules that name addresses, or everybody.
fn are_addresses_covered(addresses: &Spans, ports: &PortSet, covers: &[Cover<'_>]) -> bool {
    let shapes: Vec<(Spans, &PortSet)> =
        covers.iter().map(|cover| (cover.addresses(), cover.ports)).collect();
    let pieces = addresses.pieces(shapes.iter().map(|(spans, _)| spans));
    !pieces.is_empty()
        && pieces.iter().all(|piece| {
            let over = shapes.iter().filter(|(spans, _)| spans.includes(piece)).map(|(_, ports)| *ports);
            union(over).includes(ports)
        })
}

fn union<'a>(sets: impl Iterator<Item = &'a PortSet>) -> PortSet {
    sets.fold(PortSet::default(), |mut all, set| {
        all.join(set);
        all
    })
}

/// True when the rule is about this node only.
fn is_host(peers: &Peers) -> bool {
    matches!(peers, Peers::OneOf(peers) if peers.iter().all(|peer| *peer == Peer::Entity(Entity::Host)))
}

fn finding(target: &Target<'_>, covers: &[RuleInfo]) -> Finding {
    let policy = target.policy.policy;
    let object = policy.id.object();
    let is_other = |info: &RuleInfo| (&info.namespace, &info.name) != (&object.namespace, &object.name);
    let is_repeated = covers.iter().all(|info| info.kind == RuleKind::NetworkPolicy && is_other(info));
    let code = if is_repeated { Code::RedundantRule } else { Code::ShadowedRule };
    let mut by: Vec<String> = covers.iter().take(NAMED).map(ToString::to_string).collect();
    if covers.len() > NAMED {
        by.push(format!("{} other rules", covers.len() - NAMED));
    }
    let by = by.join(" and ");
    let message = match code {
        Code::RedundantRule => format!("everything it allows is allowed by {by}"),
        _ => format!("it is never reached: everything it matches is decided by {by}"),
    };
    let remedy = match code {
        Code::RedundantRule => "take it out, or keep it if the policies belong to different people",
        _ => "take it out, move it before them, or narrow them",
    };
    Finding {
        rule: Some(target.rule.info.clone()),
        because: covers.to_vec(),
        ..Finding::new(code, policy, field(target.direction, target.place), message, remedy)
    }
}

fn host(target: &Target<'_>) -> Finding {
    let message = "it is never reached: the node's own traffic to its workloads is always admitted";
    let remedy = "take it out";
    Finding {
        rule: Some(target.rule.info.clone()),
        ..Finding::new(
            Code::AlwaysAdmitted,
            target.policy.policy,
            field(target.direction, target.place),
            message.to_owned(),
            remedy,
        )
    }
}
