//! What would become of a flow if every staged policy were enforced.

use super::select::selects;
use super::{Answer, Question, evaluate, has_place};
use std::sync::Arc;

use crate::object::Workload;
use crate::policy::{PolicyId, PolicyMode, Preview};
use crate::snapshot::Snapshot;

/// Decides a flow as if every staged policy were enforced; `None` when that changes nothing about which policies
/// select the workload, or the snapshot has no such workload.
pub fn evaluate_staged(snapshot: &Snapshot, question: &Question) -> Option<Answer> {
    let workload = snapshot.workloads.get(&question.workload)?;
    if snapshot.policies.values().all(|policy| policy.mode == PolicyMode::Enforce) {
        return None;
    }
    let previewed = preview(snapshot);
    let is_same = in_force(snapshot, workload) == in_force(&previewed, workload);
    if is_same { None } else { evaluate(&previewed, question) }
}

/// The snapshot as it would be: what is replaced or removed is gone, and what was staged is enforced.
pub(crate) fn preview(snapshot: &Snapshot) -> Snapshot {
    let mut preview = snapshot.clone();
    for policy in snapshot.policies.values().filter(|policy| has_place(snapshot, policy)) {
        if let PolicyMode::Stage(Some(Preview::Replaces(name) | Preview::Removes(name))) = &policy.mode {
            preview.policies.remove(&PolicyId { name: name.clone(), ..policy.id.clone() });
        }
    }
    preview.policies.retain(|_, policy| !matches!(policy.mode, PolicyMode::Stage(Some(Preview::Removes(_)))));
    preview.policies.values_mut().for_each(|policy| Arc::make_mut(policy).mode = PolicyMode::Enforce);
    preview
}

/// The enforced policies that select a workload.
fn in_force<'a>(snapshot: &'a Snapshot, workload: &Workload) -> Vec<&'a PolicyId> {
    let policies = snapshot.policies.values();
    policies
        .filter(|policy| policy.mode == PolicyMode::Enforce && has_place(snapshot, policy))
        .filter(|policy| selects(snapshot, &policy.subject, workload))
        .map(|policy| &policy.id)
        .collect()
}
