//! Policies in the order in which they are asked, with what the checks ask of their rules. Never judges.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_common::decide::Direction;
use enforcer_common::policy::Action;

use super::spans::PortSet;
use crate::plan::{self, RuleInfo};
use crate::policy::{NamespaceScope, Policy, Rule, Tier};
use crate::reference;
use crate::snapshot::Snapshot;

/// Both directions.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// A rule at its place.
pub(super) struct PlacedRule<'a> {
    /// The rule.
    pub(super) rule: &'a Rule,
    /// Its protocols and ports.
    pub(super) ports: PortSet,
    /// What it is called.
    pub(super) info: RuleInfo,
}

/// A policy at its place.
pub(super) struct PlacedPolicy<'a> {
    /// The policy.
    pub(super) policy: &'a Policy,
    /// Index of its tier.
    pub(super) tier: usize,
    rules: BTreeMap<Direction, Vec<PlacedRule<'a>>>,
}

/// All policies, first asked first.
pub(super) struct Placed<'a> {
    /// Tiers, first asked first.
    pub(super) tiers: Vec<Tier>,
    /// Policies of tiers that exist and take them.
    pub(super) policies: Vec<PlacedPolicy<'a>>,
    by_namespace: BTreeMap<&'a str, Vec<usize>>,
    of_many: Vec<usize>,
    leaving: BTreeMap<Direction, Vec<usize>>,
}

impl<'a> Placed<'a> {
    /// Puts the policies of a snapshot in order.
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let tiers = reference::tiers(snapshot);
        let place = |policy: &Policy| {
            tiers.iter().position(|tier| tier.name == policy.tier && policy.may_be_in(tier))
        };
        let mut found: Vec<(usize, &Policy)> =
            snapshot.policies.values().filter_map(|policy| Some((place(policy)?, &**policy))).collect();
        found.sort_by(|(a, first), (b, second)| a.cmp(b).then_with(|| reference::in_tier(first, second)));
        let policies: Vec<PlacedPolicy<'_>> =
            found.into_iter().map(|(tier, policy)| PlacedPolicy::of(tier, policy)).collect();
        let mut placed = Self {
            tiers,
            policies,
            by_namespace: BTreeMap::new(),
            of_many: Vec::new(),
            leaving: BTreeMap::new(),
        };
        for (index, policy) in placed.policies.iter().enumerate() {
            match &policy.policy.subject.namespaces {
                NamespaceScope::Named(name) => placed.by_namespace.entry(name).or_default().push(index),
                _ => placed.of_many.push(index),
            }
            for direction in DIRECTIONS.into_iter().filter(|direction| policy.can_be_left(*direction)) {
                placed.leaving.entry(direction).or_default().push(index);
            }
        }
        placed
    }

    /// The policies, up to and with the one of this index, that may have something to do with what it selects: all
    /// others select none of its workloads, or select some and end nothing for all.
    pub(super) fn before(&self, index: usize, direction: Direction) -> Vec<&PlacedPolicy<'a>> {
        let policy = &self.policies[index];
        let near: &[usize] = match &policy.policy.subject.namespaces {
            NamespaceScope::Named(name) => self.by_namespace.get(name.as_str()).map_or(&[], Vec::as_slice),
            _ => self.leaving.get(&direction).map_or(&[], Vec::as_slice),
        };
        let indices: BTreeSet<usize> = near.iter().chain(&self.of_many).copied().collect();
        indices.range(..=index).map(|index| &self.policies[*index]).collect()
    }
}

impl<'a> PlacedPolicy<'a> {
    fn of(tier: usize, policy: &'a Policy) -> Self {
        let lists = [(Direction::Egress, &policy.egress), (Direction::Ingress, &policy.ingress)];
        let rules = lists.into_iter().filter_map(|(direction, rules)| {
            let placed = |(index, rule)| PlacedRule {
                rule,
                ports: PortSet::of(&rule.ports),
                info: reference::info(policy, direction, index, rule),
            };
            Some((direction, rules.as_ref()?.iter().enumerate().map(placed).collect()))
        });
        Self { policy, tier, rules: rules.collect() }
    }

    /// Its rules of a direction; `None` when it says nothing about it.
    pub(super) fn rules(&self, direction: Direction) -> Option<&[PlacedRule<'a>]> {
        self.rules.get(&direction).map(Vec::as_slice)
    }

    fn can_be_left(&self, direction: Direction) -> bool {
        self.rules(direction).is_some_and(|rules| rules.iter().any(|rule| rule.rule.action == Action::Pass))
    }
}

/// Path of the entry of a rule's peers that holds the peer of this index.
pub(super) fn peer_field(direction: Direction, index: usize, rule: &Rule, peer: usize) -> String {
    let side = match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    };
    let entry = rule.entries.get(peer).copied().unwrap_or(peer);
    format!("{}.{side}[{entry}]", field(direction, index))
}

/// Path of a rule in its object.
pub(super) fn field(direction: Direction, index: usize) -> String {
    format!("spec.{}[{index}]", plan::text(direction))
}
