//! The one order of all policies: tiers by order and name, policies by order, namespace, name and kind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use enforcer_common::decide::Direction;

use crate::policy::{MANAGED_BY_LABEL, Policy, Rule, Tier};
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;

/// Policies in the order they are asked in.
#[derive(Debug)]
pub(super) struct Order {
    /// Tiers, first asked first.
    pub(super) tiers: Vec<Tier>,
    /// Policies, first asked first.
    pub(super) policies: Vec<Placed>,
}

/// A policy and the index of its tier.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) policy: Arc<Policy>,
    pub(super) tier: usize,
}

impl Order {
    /// The rules of a policy for a direction; `None` when it says nothing about it.
    pub(super) fn rules(&self, policy: usize, direction: Direction) -> Option<&[Rule]> {
        let policy = &self.policies[policy].policy;
        match direction {
            Direction::Egress => policy.egress.as_deref(),
            Direction::Ingress => policy.ingress.as_deref(),
        }
    }
}

/// Puts the lowered policies of a snapshot in order; those of a tier that does not exist, or is reserved to a controller
/// that is not theirs, are refused.
pub(super) fn order(snapshot: &Snapshot, lowered: Vec<Arc<Policy>>, refused: &mut Vec<Refusal>) -> Order {
    let mut by_name: BTreeMap<String, Tier> = snapshot.tiers.clone();
    by_name.extend(Tier::built_in().map(|tier| (tier.name.clone(), tier)));
    let mut tiers: Vec<Tier> = by_name.into_values().collect();
    tiers.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
    let places: HashMap<&str, usize> =
        tiers.iter().enumerate().map(|(i, tier)| (tier.name.as_str(), i)).collect();
    let mut policies = Vec::new();
    for policy in lowered {
        match places.get(policy.tier.as_str()) {
            Some(tier) if policy.may_be_in(&tiers[*tier]) => policies.push(Placed { policy, tier: *tier }),
            Some(tier) => refused.push(reserved(&policy, &tiers[*tier])),
            None => refused.push(Refusal {
                object: policy.id.object(),
                field: "spec.tier".to_owned(),
                reason: format!("there is no tier {:?}; the policy is not in force", policy.tier),
            }),
        }
    }
    let place = |placed: &Placed| (placed.tier, placed.policy.order);
    policies.sort_by(|a, b| (place(a), &a.policy.id).cmp(&(place(b), &b.policy.id)));
    Order { tiers, policies }
}

/// The refusal of a policy whose tier is reserved to another controller.
fn reserved(policy: &Policy, tier: &Tier) -> Refusal {
    let controller = tier.managed_by.as_deref().unwrap_or_default();
    Refusal {
        object: policy.id.object(),
        field: format!("metadata.labels[{MANAGED_BY_LABEL}]"),
        reason: format!(
            "tier {:?} is reserved to policies of the controller {controller:?}; the policy is not in force",
            tier.name
        ),
    }
}
