//! Which policies are in force and which would be, were every staged one enforced.

use std::collections::BTreeSet;

use super::order::Order;
use crate::manifest::{REMOVES, REPLACES, annotation};
use crate::policy::{PolicyId, PolicyMode, Preview};
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;

/// The policies of an order by what becomes of them, were the staged ones enforced.
#[derive(Debug)]
pub(super) struct Staging {
    staged: BTreeSet<usize>,
    gone: BTreeSet<usize>,
}

impl Staging {
    /// Divides the policies; a staged one that stands in for what is not there is refused.
    pub(super) fn of(snapshot: &Snapshot, order: &Order, refused: &mut Vec<Refusal>) -> Self {
        let mut staging = Self { staged: BTreeSet::new(), gone: BTreeSet::new() };
        let mut out: BTreeSet<PolicyId> = BTreeSet::new();
        for (index, placed) in order.policies.iter().enumerate() {
            let id = &placed.policy.id;
            let PolicyMode::Stage(preview) = &placed.policy.mode else { continue };
            staging.staged.insert(index);
            let (key, name) = match preview {
                None => continue,
                Some(Preview::Replaces(name)) => (REPLACES, name),
                Some(Preview::Removes(name)) => {
                    staging.gone.insert(index);
                    (REMOVES, name)
                }
            };
            let target = PolicyId { name: name.clone(), ..id.clone() };
            if !snapshot.policies.contains_key(&target) {
                refused.push(Refusal {
                    object: id.object(),
                    field: annotation(key),
                    reason: format!("there is no {}; it stands in for nothing", target.object()),
                });
            }
            out.insert(target);
        }
        let is_out = |index: &usize| out.contains(&order.policies[*index].policy.id);
        staging.gone.extend((0..order.policies.len()).filter(is_out));
        staging
    }

    /// Those of these policies that are in force.
    pub(super) fn enforced(&self, policies: &[usize]) -> Vec<usize> {
        policies.iter().copied().filter(|policy| !self.staged.contains(policy)).collect()
    }

    /// Those of these policies that would be in force; `None` when they are the same that are.
    pub(super) fn previewed(&self, policies: &[usize]) -> Option<Vec<usize>> {
        let previewed: Vec<usize> =
            policies.iter().copied().filter(|policy| !self.gone.contains(policy)).collect();
        (previewed != self.enforced(policies)).then_some(previewed)
    }
}
