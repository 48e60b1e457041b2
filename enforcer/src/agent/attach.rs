//! Which programs go where when the workload list or the links change. Owns the order: what must go goes first.

use std::collections::BTreeMap;

use enforcer_core::object::WorkloadId;

use super::kernel::{Kernel, Links};
use super::resolve::Resolved;
use enforcer_core::causes::chain;

/// What was done.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Attached {
    /// Workloads that have programs now and had none.
    pub new: Vec<WorkloadId>,
    /// What failed.
    pub problems: Vec<(WorkloadId, String)>,
}

/// Attaches every workload that was found and detaches those that are gone.
///
/// A workload that cannot be found now, but whose interface is still there, stays attached: not finding it is no
/// reason to stop enforcing.
pub fn attach(kernel: &mut impl Kernel, links: &impl Links, resolved: &[Resolved]) -> Attached {
    let wanted: BTreeMap<&WorkloadId, &Resolved> =
        resolved.iter().filter(|r| r.workload.local).map(|r| (&r.workload.id, r)).collect();
    let (mut new, mut problems) = (Vec::new(), Vec::new());
    for attachment in kernel.attached() {
        let stays = wanted.get(&attachment.workload).is_some_and(|resolved| match &resolved.interface {
            Some((index, _)) => *index == attachment.interface,
            None => !matches!(links.by_index(attachment.interface), Ok(None)),
        });
        if !stays {
            match kernel.detach(&attachment.workload) {
                Ok(()) => {
                    tracing::info!(workload = %attachment.workload, interface = attachment.name, "detached")
                }
                Err(error) => problems.push((attachment.workload, chain(&error))),
            }
        }
    }
    let attached: BTreeMap<WorkloadId, u32> =
        kernel.attached().into_iter().map(|attachment| (attachment.workload, attachment.interface)).collect();
    for (id, resolved) in wanted {
        let Some((index, name)) = &resolved.interface else { continue };
        if attached.get(id) == Some(index) {
            continue;
        }
        match kernel.attach(id, *index) {
            Ok(()) => {
                tracing::info!(workload = %id, interface = name, index, "attached");
                new.push(id.clone());
            }
            Err(error) => {
                let problem = chain(&error);
                tracing::error!(workload = %id, interface = name, error = problem, "not enforced");
                problems.push((id.clone(), problem));
            }
        }
    }
    Attached { new, problems }
}
